// Quantized products of 1 to kFewTokens tokens: codes are used as they are unpacked.
#include "matmul_simd.inl"
#include "row_codes.inl"

namespace pintpot::lanes {
namespace {

// Sums of code * q (scaled where the block has scales) of kLanes rows, one row a lane: all rows at once.
template <class Fmt, int T>
PP_INLINE void sum_side_by_side(const Rows& rows, int64_t at, const HeaderOf<Fmt>& h, const ActOf<Fmt>* const (&x)[T],
                                VInt (&sum)[T]) {
  VInt group[T];
  for (int t = 0; t < T; ++t) sum[t] = zero();
  Fmt::codes(rows, at, [&](auto step, VInt codes) PP_INLINE_LAMBDA {
    unroll<T>([&](auto t) PP_INLINE_LAMBDA {
      const VInt q = broadcast4(x[t]->q + step * 4);
      if constexpr (step % Fmt::kGroup == 0) group[t] = dot4<Fmt::kSigned>(codes, q);
      else group[t] = dot4_add<Fmt::kSigned>(group[t], codes, q);
      if constexpr (step % Fmt::kGroup == Fmt::kGroup - 1) sum[t] = close_group<Fmt, step>(h, sum[t], group[t]);
    });
  });
}

// What a block adds to the sums, given those of code * q, with the codes' offset in them or without.
template <class Fmt, bool HasOffset = true>
PP_INLINE VFloat add_block(const HeaderOf<Fmt>& h, VInt sum, const ActOf<Fmt>& x, VFloat acc) {
  constexpr bool kTakeOut = Fmt::kOffset != 0 && HasOffset;
  VInt min_sum = zero();
  if constexpr ((Fmt::kHasMin || kTakeOut) && kIsSuper<Fmt>) {
    unroll<128 / Fmt::kSub>([&](auto p) PP_INLINE_LAMBDA {
      min_sum = add_pairs(min_sum, h.template min_pair<p>(), act_sum_pair<Fmt>(x, p));
    });
  } else if constexpr (Fmt::kHasMin || kTakeOut) {
    min_sum = broadcast4(&x.sum);
  }
  if constexpr (kTakeOut) sum = without_offset<Fmt>(sum, min_sum);
  return finish_block<Fmt>(h.d, min_scale<Fmt>(h), sum, min_sum, x.d, acc);
}

// kLanes rows, side by side.
template <class Fmt, int T>
PP_INLINE void dot_side_by_side(const TileArgs& a, int64_t first_row, const ActOf<Fmt>* const (&x)[T],
                                VFloat (&acc)[T]) {
  constexpr auto kBytes = static_cast<int64_t>(sizeof(typename Fmt::Block));
  const Rows rows = rows_at(a, first_row);
  Ahead ahead(a, first_row + kLanes);
  for (int64_t b = 0; b < a.cols / Fmt::kValues; ++b) {
    ahead.fetch(kLanes * kBytes);
    const ActOf<Fmt>* block[T];
    for (int t = 0; t < T; ++t) block[t] = x[t] + b;
    const HeaderOf<Fmt> h = Fmt::header(rows, b * kBytes);
    VInt sum[T];
    sum_side_by_side<Fmt, T>(rows, b * kBytes, h, block, sum);
    for (int t = 0; t < T; ++t) acc[t] = add_block<Fmt>(h, sum[t], *block[t], acc[t]);
  }
}

template <int T>
struct CodeSums {
  VCodes of[T];
};

inline constexpr int kVectorValues = kHalves * 32;

// Whether the offset of codes is taken out of the sums of four products. Otherwise it is taken out of a block's.
template <class Fmt>
inline constexpr bool kPairOffsets = kHasPairOffsets && Fmt::kOffset != 0;

// Whether activations are put in the order of the codes, or may be taken as they are.
template <class Fmt>
inline constexpr bool kIsArranged =
    kPairOffsets<Fmt> || (kHalves > 1 && RowCodes<Fmt>::template Places<0>::kHalfStep != 32);

template <class Fmt>
PP_INLINE void arrange(const int8_t* q, int8_t* out) {
  unroll<256 / kVectorValues>([&](auto i) PP_INLINE_LAMBDA {
    using Places = typename RowCodes<Fmt>::template Places<i>;
    for (int half = 0; half < kHalves; ++half)
      std::memcpy(out + i * kVectorValues + half * 32, q + Places::quarter(2 * half), 32);
  });
}

// One block's activations, in the order of a format's code vectors, and what the offset of codes adds to each pair.
template <int T>
struct BlockActs {
  const int8_t* q[T];
  const VCodes* offsets[T];  // only where kPairOffsets
};

// The sums of code * scale * q over one block of one row, in any lanes.
template <class Fmt, int T>
PP_INLINE CodeSums<T> sum_codes(const std::byte* block, const BlockActs<T>& x) {
  constexpr bool kSignedScales = Fmt::kOffset != 0;
  CodeSums<T> sums, even;
  for (int t = 0; t < T; ++t) sums.of[t] = no_codes();
  const VCodes scales = widen_scales<kSignedScales>(RowCodes<Fmt>::scales(block));
  RowCodes<Fmt>::each(block, [&](auto i, VCodes codes) PP_INLINE_LAMBDA {
    constexpr int at = kIsArranged<Fmt> ? i * kVectorValues : RowCodes<Fmt>::template Places<i>::kFirst;
    const auto product = [&](auto t) PP_INLINE_LAMBDA {
      return multiply<Fmt::kSigned>(codes, load_codes(x.q[t] + at));
    };
    if constexpr (i % 2 == 0) {
      unroll<T>([&](auto t) PP_INLINE_LAMBDA { even.of[t] = product(t); });
    } else {
      using Codes = RowCodes<Fmt>;
      const PairScales<typename Codes::template Places<i - 1>, typename Codes::template Places<i>, Fmt::kSub,
                       kSignedScales>
          pair(scales);
      unroll<T>([&](auto t) PP_INLINE_LAMBDA {
        if constexpr (kPairOffsets<Fmt>)
          sums.of[t] = pair.add_to(sums.of[t], even.of[t], product(t), x.offsets[t][i / 2]);
        else sums.of[t] = pair.add_to(sums.of[t], even.of[t], product(t));
      });
    }
  });
  return sums;
}

// The sums of the next Count calls of next(), folded together.
template <int T, int Count, class F>
PP_INLINE CodeSums<T> fold_next(F&& next) {
  if constexpr (Count == 1) {
    return next();
  } else {
    const CodeSums<T> a = fold_next<T, Count / 2>(next), b = fold_next<T, Count / 2>(next);
    CodeSums<T> both;
    for (int t = 0; t < T; ++t) both.of[t] = Count == 2 ? fold_2(a.of[t], b.of[t]) : fold_4(a.of[t], b.of[t]);
    return both;
  }
}

inline constexpr int64_t kChunkBlocks = 64;  // blocks of a row that are summed at a time
static_assert(kLanes == 8);

// The activations of a chunk of blocks.
template <class Fmt, int T>
class ChunkActs {
 public:
  PP_INLINE void set(const ActSuper* const (&x)[T], int64_t first, int64_t) {
    for (int t = 0; t < T; ++t) x_[t] = x[t] + first;
  }
  PP_INLINE BlockActs<T> block(int64_t b) const {
    BlockActs<T> acts;
    for (int t = 0; t < T; ++t) acts.q[t] = x_[t][b].q;
    return acts;
  }

 private:
  const ActSuper* x_[T];
};

template <class Fmt, int T>
  requires kIsArranged<Fmt>
class ChunkActs<Fmt, T> {
 public:
  PP_INLINE void set(const ActSuper* const (&x)[T], int64_t first, int64_t n) {
    if (first == first_) return;
    first_ = first;
    for (int t = 0; t < T; ++t)
      for (int64_t b = 0; b < n; ++b) {
        arrange<Fmt>(x[t][first + b].q, q_[t][b]);
        if constexpr (kPairOffsets<Fmt>)
          for (int p = 0; p < kPairs; ++p) {
            const int8_t* q = q_[t][b] + 2 * p * kVectorValues;
            offsets_[t][b][p] = pair_offsets(Fmt::kOffset, load_codes(q), load_codes(q + kVectorValues));
          }
      }
  }
  PP_INLINE BlockActs<T> block(int64_t b) const {
    BlockActs<T> acts;
    for (int t = 0; t < T; ++t) {
      acts.q[t] = q_[t][b];
      if constexpr (kPairOffsets<Fmt>) acts.offsets[t] = offsets_[t][b];
    }
    return acts;
  }

 private:
  static constexpr int kPairs = 256 / (2 * kVectorValues);
  alignas(64) int8_t q_[T][kChunkBlocks][256];
  VCodes offsets_[kPairOffsets<Fmt> ? T : 1][kPairOffsets<Fmt> ? kChunkBlocks : 1][kPairs];
  int64_t first_ = -1;
};

// Blocks [first, first + n) of kLanes rows, one row after the other: sums[t][row * n + block].
template <class Fmt, int T>
PP_INLINE void sum_rows(const Rows& rows, int64_t first, int64_t n, const ChunkActs<Fmt, T>& x, const FarAhead& ahead,
                        int32_t (&sums)[T][kLanes * kChunkBlocks]) {
  constexpr auto kBytes = static_cast<int64_t>(sizeof(typename Fmt::Block));
  int64_t row = 0, b = 0;
  const auto next = [&]() PP_INLINE_LAMBDA {
    const std::byte* at = rows.p[row] + (first + b) * kBytes;
    ahead.fetch(at, kBytes);
    const CodeSums<T> block = sum_codes<Fmt, T>(at, x.block(b));
    if (++b == n) {
      b = 0;
      ++row;
    }
    return block;
  };
  for (int64_t i = 0; i < kLanes * n; i += 8) {
    const CodeSums<T> low = fold_next<T, 4>(next), high = fold_next<T, 4>(next);
    for (int t = 0; t < T; ++t) store_ints(sums[t] + i, fold_8(low.of[t], high.of[t]));
  }
}

// Rows one after the other: memory is read front to back, which hardware prefetches best. What is summed in floats
// still has a row in every lane.
template <class Fmt, int T>
PP_INLINE void dot_row_by_row(const TileArgs& a, int64_t first_row, const ActSuper* const (&x)[T],
                              ChunkActs<Fmt, T>& acts, VFloat (&acc)[T]) {
  constexpr auto kBytes = static_cast<int64_t>(sizeof(typename Fmt::Block));
  alignas(64) int32_t sums[T][kLanes * kChunkBlocks];
  const Rows rows = rows_at(a, first_row);
  const FarAhead ahead(a);
  const int64_t n_blocks = a.cols / Fmt::kValues;
  for (int64_t first = 0; first < n_blocks; first += kChunkBlocks) {
    const int64_t n = n_blocks - first < kChunkBlocks ? n_blocks - first : kChunkBlocks;
    acts.set(x, first, n);
    sum_rows<Fmt, T>(rows, first, n, acts, ahead, sums);
    Rows sums_of[T];
    for (int t = 0; t < T; ++t)
      for (int r = 0; r < kLanes; ++r) sums_of[t].p[r] = reinterpret_cast<const std::byte*>(sums[t] + r * n);
    for (int64_t b = 0; b < n; ++b) {
      const HeaderOf<Fmt> h = Fmt::header(rows, (first + b) * kBytes);
      for (int t = 0; t < T; ++t) acc[t] = add_block<Fmt, !kPairOffsets<Fmt>>(h, load4(sums_of[t], b * 4), x[t][first + b], acc[t]);
    }
  }
}

// Rows one by one or kLanes side by side, whichever is faster.
template <class Fmt, int T>
void dot_tile(const TileArgs& a) {
  const ActOf<Fmt>* x[T];
  for (int t = 0; t < T; ++t) x[t] = reinterpret_cast<const ActOf<Fmt>*>(act_row(a, t));
  const auto each_rows = [&](auto&& dot) PP_INLINE_LAMBDA {
    for (int64_t r = 0; r < a.n_rows; r += kLanes) {
      VFloat acc[T];
      for (int t = 0; t < T; ++t) acc[t] = zero_float();
      dot(r, acc);
      for (int t = 0; t < T; ++t) write_rows(a, t, r, &acc[t], 1);
    }
  };
  if constexpr (T <= kRowByRowTokens<Fmt>) {
    ChunkActs<Fmt, T> acts;
    each_rows([&](int64_t r, VFloat(&acc)[T]) PP_INLINE_LAMBDA { dot_row_by_row<Fmt, T>(a, r, x, acts, acc); });
  } else {
    each_rows([&](int64_t r, VFloat(&acc)[T]) PP_INLINE_LAMBDA { dot_side_by_side<Fmt, T>(a, r, x, acc); });
  }
}

template <class Fmt, int T = kFewTokens>
void tile_few(const TileArgs& a) {
  if (a.n == T) return dot_tile<Fmt, T>(a);
  if constexpr (T > 1) tile_few<Fmt, T - 1>(a);
}

inline TileFn few_fn(TensorType type) {
  return with_format(type, [](auto format) -> TileFn { return tile_few<decltype(format)>; });
}

}  // namespace
}  // namespace pintpot::lanes

// Quantized products of many tokens: 16 rows of 256 values are unpacked into a panel, and tokens pass over it.
#include <type_traits>

#include "matmul_simd.inl"

namespace pintpot::lanes {
namespace {

inline constexpr int kPanelRows = kPanelVecs * kLanes;
inline constexpr int kChunkTokens = 128;  // tokens whose sums are kept while a panel goes by
static_assert(kPanelRows == 16);

// Whether panels of a 256-block format hold pairs of mins (or scales, by which the offset of codes is taken out).
template <class Fmt>
inline constexpr bool kPanelMins = Fmt::kHasMin || (Fmt::kOffset != 0 && !kSumsInInts);

// 16 rows x one 256-block.
template <class Fmt>
struct alignas(64) SuperPanel {
  static constexpr int kSubs = 256 / Fmt::kSub;
  VInt codes[64][kPanelVecs];
  VInt scales[Folded<Fmt>::kIs ? 1 : kSubs][kPanelVecs];
  VInt mins[kPanelMins<Fmt> ? kSubs / 2 : 1][kPanelVecs];
  VFloat d[kPanelVecs], dmin[kPanelVecs];
};

// 16 rows x up to eight 32-blocks.
template <class Fmt>
struct alignas(64) BlockPanel {
  VInt codes[64][kPanelVecs];
  VFloat d[8][kPanelVecs], m[8][kPanelVecs];
};

inline constexpr int kPanelValues = 256;

template <class Fmt, bool = kIsSuper<Fmt>> struct PickPanel { using Type = SuperPanel<Fmt>; };
template <class Fmt> struct PickPanel<Fmt, false> { using Type = BlockPanel<Fmt>; };
template <class Fmt>
using PanelOf = typename PickPanel<Fmt>::Type;

// Unpacks one row vector of a panel from block `block` on.
template <class Fmt>
PP_INLINE void fill_panel(SuperPanel<Fmt>& p, int v, const Rows& rows, int64_t block, int) {
  const int64_t at = block * static_cast<int64_t>(sizeof(typename Fmt::Block));
  const HeaderOf<Fmt> h = Fmt::header(rows, at);
  p.d[v] = h.d;
  p.dmin[v] = min_scale<Fmt>(h);
  if constexpr (kPanelMins<Fmt>)
    unroll<128 / Fmt::kSub>([&](auto j) PP_INLINE_LAMBDA { p.mins[j][v] = h.template min_pair<j>(); });
  if constexpr (Folded<Fmt>::kIs) {
    const Folded<Fmt> fold(h);
    Fmt::codes(rows, at, [&](auto step, VInt codes) PP_INLINE_LAMBDA {
      p.codes[step][v] = fold.template at<step>(codes);
    });
  } else {
    unroll<256 / Fmt::kSub>([&](auto j) PP_INLINE_LAMBDA { p.scales[j][v] = h.template scale<j>(); });
    Fmt::codes(rows, at, [&](auto step, VInt codes) PP_INLINE_LAMBDA { p.codes[step][v] = codes; });
  }
}

template <class Fmt>
PP_INLINE void fill_panel(BlockPanel<Fmt>& p, int v, const Rows& rows, int64_t block, int n_blocks) {
  for (int b = 0; b < n_blocks; ++b) {
    const int64_t at = (block + b) * static_cast<int64_t>(sizeof(typename Fmt::Block));
    const HeaderOf<Fmt> h = Fmt::header(rows, at);
    p.d[b][v] = h.d;
    p.m[b][v] = min_scale<Fmt>(h);
    Fmt::codes(rows, at, [&](auto step, VInt codes) PP_INLINE_LAMBDA { p.codes[b * 8 + step][v] = codes; });
  }
}

// Sums of kPanelRows rows and T tokens, and f(v, t) for each of their vectors.
template <int T>
struct PanelSums {
  VInt of[kPanelVecs][T];
};

template <int T, class F>
PP_INLINE void each_sum(F&& f) {
  unroll<kPanelVecs * T>([&](auto i) PP_INLINE_LAMBDA { f(Index<i / T>{}, Index<i % T>{}); });
}

// sums += codes * q over `Steps` code vectors, q from value `at` on.
template <bool Signed, int Steps, int T>
PP_INLINE void add_products(const VInt (*codes)[kPanelVecs], const int8_t* const (&q)[T], int64_t at,
                            PanelSums<T>& sums) {
  unroll<Steps>([&](auto s) PP_INLINE_LAMBDA {
    unroll<T>([&](auto t) PP_INLINE_LAMBDA {
      const VInt x = broadcast4(q[t] + at + s * 4);
      unroll<kPanelVecs>([&](auto v) PP_INLINE_LAMBDA {
        sums.of[v][t] = dot4_add<Signed>(sums.of[v][t], codes[s][v], x);
      });
    });
  });
}

// What each sub-block's sum begins with, so that the offset of the codes is out of it in the end.
template <class Fmt, int T>
class Starts {
 public:
  PP_INLINE explicit Starts(const ActSuper* const (&x)[T]) {
    for (int t = 0; t < T; ++t) {
      const VInt sums = load_shorts(Fmt::kSub == 16 ? x[t]->sum16 : x[t]->sum32);
      store_ints(of_[t], sub(zero(), shift_left(sums, log2_of(Fmt::kOffset))));
    }
  }
  PP_INLINE VInt at(int t, int64_t sub_block) const { return broadcast4(&of_[t][sub_block]); }

 private:
  alignas(64) int32_t of_[T][16];
};

struct ZeroStarts {
  template <int T>
  PP_INLINE explicit ZeroStarts(const ActSuper* const (&)[T]) {}
  PP_INLINE VInt at(int, int64_t) const { return zero(); }
};

template <class Fmt, int T>
PP_INLINE void sum_panel(const SuperPanel<Fmt>& p, const ActSuper* const (&x)[T], const int8_t* const (&q)[T],
                         PanelSums<T>& sums) {
  constexpr int kSteps = group_steps(Fmt::kMaxCode, Fmt::kSub / 4);
  if constexpr (Folded<Fmt>::kIs) {
    each_sum<T>([&](auto v, auto t) PP_INLINE_LAMBDA { sums.of[v][t] = ints(-Folded<Fmt>::kOffset * x[t]->sum); });
    for (int s = 0; s < 64; s += kSteps) add_products<Fmt::kSigned, kSteps>(p.codes + s, q, s * 4, sums);
  } else {
    constexpr bool kStarts = Fmt::kOffset != 0 && kSumsInInts;
    const std::conditional_t<kStarts, Starts<Fmt, T>, ZeroStarts> starts(x);
    each_sum<T>([&](auto v, auto t) PP_INLINE_LAMBDA { sums.of[v][t] = zero(); });
#pragma GCC unroll 2  // a tenth faster for groups of eight on Zen 4, and no further by 4 or 8
    for (int s = 0; s < 64; s += kSteps) {
      const int64_t sub_block = s * 4 / Fmt::kSub;
      PanelSums<T> group;
      each_sum<T>([&](auto v, auto t) PP_INLINE_LAMBDA { group.of[v][t] = starts.at(t, sub_block); });
      add_products<Fmt::kSigned, kSteps>(p.codes + s, q, s * 4, group);
      each_sum<T>([&](auto v, auto t) PP_INLINE_LAMBDA {
        sums.of[v][t] = add_group_scaled(sums.of[v][t], group.of[v][t], p.scales[sub_block][v]);
      });
    }
  }
}

template <int T, class Fmt>
void multiply_panel(const SuperPanel<Fmt>& p, const ActSuper* const (&x)[T], int, float* acc) {
  const int8_t* q[T];
  for (int t = 0; t < T; ++t) q[t] = x[t]->q;
  PanelSums<T> sums, min_sums;
  sum_panel<Fmt, T>(p, x, q, sums);
  each_sum<T>([&](auto v, auto t) PP_INLINE_LAMBDA { min_sums.of[v][t] = zero(); });
  if constexpr (kPanelMins<Fmt>)
    unroll<128 / Fmt::kSub>([&](auto j) PP_INLINE_LAMBDA {
      each_sum<T>([&](auto v, auto t) PP_INLINE_LAMBDA {
        min_sums.of[v][t] = add_pairs(min_sums.of[v][t], p.mins[j][v], act_sum_pair<Fmt>(*x[t], j));
      });
    });
  each_sum<T>([&](auto v, auto t) PP_INLINE_LAMBDA {
    float* to = acc + t * kPanelRows + v * kLanes;
    VInt sum = sums.of[v][t];
    if constexpr (!kSumsInInts) sum = without_offset<Fmt>(sum, min_sums.of[v][t]);
    store_float(to, finish_block<Fmt>(p.d[v], p.dmin[v], sum, min_sums.of[v][t], x[t]->d, load_float(to)));
  });
}

template <class Fmt, int T>
PP_INLINE void sum_block(const VInt (*codes)[kPanelVecs], const ActBlock* const (&x)[T], const int8_t* const (&q)[T],
                         PanelSums<T>& sums) {
  constexpr int kSteps = group_steps(Fmt::kMaxCode, 8);
  each_sum<T>([&](auto v, auto t) PP_INLINE_LAMBDA { sums.of[v][t] = zero(); });
  unroll<8 / kSteps>([&](auto g) PP_INLINE_LAMBDA {
    PanelSums<T> group;
    each_sum<T>([&](auto v, auto t) PP_INLINE_LAMBDA { group.of[v][t] = zero(); });
    add_products<Fmt::kSigned, kSteps>(codes + g * kSteps, q, g * kSteps * 4, group);
    each_sum<T>([&](auto v, auto t) PP_INLINE_LAMBDA { sums.of[v][t] = add_group(sums.of[v][t], group.of[v][t]); });
  });
  each_sum<T>([&](auto v, auto t) PP_INLINE_LAMBDA {
    sums.of[v][t] = without_offset<Fmt>(sums.of[v][t], broadcast4(&x[t]->sum));
  });
}

template <int T, class Fmt>
void multiply_panel(const BlockPanel<Fmt>& p, const ActBlock* const (&x)[T], int n_blocks, float* acc) {
  VFloat total[kPanelVecs][T];
  each_sum<T>([&](auto v, auto t) PP_INLINE_LAMBDA { total[v][t] = load_float(acc + t * kPanelRows + v * kLanes); });
  for (int b = 0; b < n_blocks; ++b) {
    const ActBlock* block[T];
    const int8_t* q[T];
    for (int t = 0; t < T; ++t) {
      block[t] = x[t] + b;
      q[t] = block[t]->q;
    }
    PanelSums<T> sums;
    sum_block<Fmt, T>(p.codes + b * 8, block, q, sums);
    each_sum<T>([&](auto v, auto t) PP_INLINE_LAMBDA {
      const VInt min_sum = Fmt::kHasMin ? broadcast4(&block[t]->sum) : zero();
      total[v][t] = finish_block<Fmt>(p.d[b][v], p.m[b][v], sums.of[v][t], min_sum, block[t]->d, total[v][t]);
    });
  }
  each_sum<T>([&](auto v, auto t) PP_INLINE_LAMBDA { store_float(acc + t * kPanelRows + v * kLanes, total[v][t]); });
}

template <class Fmt, int T>
PP_INLINE void multiply_tokens(const TileArgs& a, const PanelOf<Fmt>& p, int64_t token, int64_t block, int n_blocks,
                               float* acc) {
  using Act = ActOf<Fmt>;
  const Act* x[T];
  for (int t = 0; t < T; ++t) x[t] = reinterpret_cast<const Act*>(act_row(a, token + t)) + block;
  multiply_panel<T>(p, x, n_blocks, acc);
}

template <class Fmt>
void panel_tile(const TileArgs& a, int64_t token0, int64_t token1) {
  constexpr int kPanelBlocks = kPanelValues / Fmt::kValues;
  alignas(64) float acc[kChunkTokens][kPanelRows];
  PanelOf<Fmt> panel;
  const int64_t n_blocks = a.cols / Fmt::kValues, n = token1 - token0;
  for (int64_t r = 0; r < a.n_rows; r += kPanelRows) {
    Rows rows[kPanelVecs];
    for (int v = 0; v < kPanelVecs; ++v) rows[v] = rows_at(a, r + v * kLanes);
    for (int64_t i = 0; i < n; ++i)
      for (int v = 0; v < kPanelVecs; ++v) store_float(acc[i] + v * kLanes, zero_float());
    Ahead ahead(a, r + kPanelRows);
    for (int64_t b = 0; b < n_blocks; b += kPanelBlocks) {
      const int count = static_cast<int>(n_blocks - b < kPanelBlocks ? n_blocks - b : kPanelBlocks);
      // A burst of prefetches would make the core wait: some follow every pass of tokens.
      const int64_t passes = n / kPanelTokens + 1;
      int64_t left = kPanelRows * count * static_cast<int64_t>(sizeof(typename Fmt::Block));
      const int64_t share = (left / passes + 63) / 64 * 64;
      for (int v = 0; v < kPanelVecs; ++v) fill_panel(panel, v, rows[v], b, count);
      int64_t i = 0;
      for (; i + kPanelTokens <= n; i += kPanelTokens) {
        ahead.fetch(share);
        left -= share;
        multiply_tokens<Fmt, kPanelTokens>(a, panel, token0 + i, b, count, acc[i]);
      }
      if (left > 0) ahead.fetch(left);
      if constexpr (kPanelTokens > 4) {
        if (n - i >= 4) {
          multiply_tokens<Fmt, 4>(a, panel, token0 + i, b, count, acc[i]);
          i += 4;
        }
      }
      switch (n - i) {
        case 3: multiply_tokens<Fmt, 3>(a, panel, token0 + i, b, count, acc[i]); break;
        case 2: multiply_tokens<Fmt, 2>(a, panel, token0 + i, b, count, acc[i]); break;
        case 1: multiply_tokens<Fmt, 1>(a, panel, token0 + i, b, count, acc[i]); break;
      }
    }
    for (int64_t i = 0; i < n; ++i) {
      VFloat sums[kPanelVecs];
      for (int v = 0; v < kPanelVecs; ++v) sums[v] = load_float(acc[i] + v * kLanes);
      write_rows(a, token0 + i, r, sums, kPanelVecs);
    }
  }
}

template <class Fmt>
void tile_many(const TileArgs& a) {
  for (int64_t i = 0; i < a.n; i += kChunkTokens)
    panel_tile<Fmt>(a, i, a.n - i < kChunkTokens ? a.n : i + kChunkTokens);
}

inline TileFn many_fn(TensorType type) {
  return with_format(type, [](auto format) -> TileFn { return tile_many<decltype(format)>; });
}

}  // namespace
}  // namespace pintpot::lanes

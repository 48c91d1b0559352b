// Products of F32, F16 and BF16 weights with float activations.
//
// One vector of partial sums per (row, token), filled in order of k and summed in one fixed way at the end: the
// same bits for any number of rows, tokens and threads.
#include "matmul_simd.inl"

namespace pintpot::lanes {
namespace {

// load(p): the kLanes weights from p on. kRowsForOne: rows taken side by side for one token, as many as were fastest
// from memory (docs/performance.md).
struct F32Weights {
  static constexpr int kBytes = 4, kRowsForOne = 8;
  PP_INLINE static VFloat load(const std::byte* p) { return loadu_float(reinterpret_cast<const float*>(p)); }
};
struct F16Weights {
  static constexpr int kBytes = 2, kRowsForOne = 2;
  PP_INLINE static VFloat load(const std::byte* p) { return load_half(p); }
};
struct BF16Weights {
  static constexpr int kBytes = 2, kRowsForOne = 2;
  PP_INLINE static VFloat load(const std::byte* p) { return load_bfloat16(p); }
};

// Prefetches memory front to back, as many bytes at a time as are being used of R rows side by side: several rows read
// in step defeat the prefetchers of the hardware.
template <class W, int R>
class RowsAhead {
 public:
  PP_INLINE RowsAhead(const TileArgs& a, int64_t row) : ahead_(a), last_row_(a.w + (row + R - 1) * a.row_bytes) {}

  // What lies as far behind the last row as the rows have been read, before weights k .. k + kLanes of them are.
  PP_INLINE void fetch(int64_t k) const {
    ahead_.fetch(last_row_ + R * k * W::kBytes, R * kLanes * W::kBytes);
  }

 private:
  FarAhead ahead_;
  const std::byte* last_row_;
};

// R rows times T tokens over k in [0, cols), into out[T][R].
template <class W, bool kFirst, int R, int T>
PP_INLINE void dot_floats(const std::byte* const (&w)[R], const float* const (&x)[T], int64_t cols,
                          const RowsAhead<W, R>& ahead, float (&out)[T][R]) {
  VFloat sum[R][T];
  unroll<R * T>([&](auto i) PP_INLINE_LAMBDA { sum[i / T][i % T] = zero_float(); });
  const int64_t whole = cols / kLanes * kLanes;
  for (int64_t k = 0; k < whole; k += kLanes) {
    if constexpr (kFirst) ahead.fetch(k);
    VFloat xs[T];
    unroll<T>([&](auto t) PP_INLINE_LAMBDA { xs[t] = loadu_float(x[t] + k); });
    unroll<R>([&](auto r) PP_INLINE_LAMBDA {
      const VFloat ws = W::load(w[r] + k * W::kBytes);
      unroll<T>([&](auto t) PP_INLINE_LAMBDA { sum[r][t] = fma(ws, xs[t], sum[r][t]); });
    });
  }
  if (whole < cols) {
    const auto left = static_cast<size_t>(cols - whole);
    alignas(64) float xs[T][kLanes] = {};
    for (int t = 0; t < T; ++t) __builtin_memcpy(xs[t], x[t] + whole, left * sizeof(float));
    unroll<R>([&](auto r) PP_INLINE_LAMBDA {
      alignas(64) std::byte ws[kLanes * 4] = {};
      __builtin_memcpy(ws, w[r] + whole * W::kBytes, left * W::kBytes);
      unroll<T>([&](auto t) PP_INLINE_LAMBDA {
        sum[r][t] = fma(W::load(ws), load_float(xs[t]), sum[r][t]);
      });
    });
  }
  unroll<R * T>([&](auto i) PP_INLINE_LAMBDA { out[i % T][i / T] = sum_lanes(sum[i / T][i % T]); });
}

constexpr int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

// R rows from `row` times T tokens from `token`; where fewer are left the last is repeated.
template <class W, int R, int T, bool kFirst>
void float_block(const TileArgs& a, int64_t row, int64_t token) {
  const int64_t n_rows = at_most(R, a.n_rows - row), n_tokens = at_most(T, a.n - token);
  const std::byte* w[R];
  const float* x[T];
  for (int r = 0; r < R; ++r) w[r] = a.w + (row + (r < n_rows ? r : n_rows - 1)) * a.row_bytes;
  for (int t = 0; t < T; ++t)
    x[t] = reinterpret_cast<const float*>(act_row(a, token + (t < n_tokens ? t : n_tokens - 1)));
  float out[T][R];
  dot_floats<W, kFirst>(w, x, a.cols, RowsAhead<W, R>(a, row), out);
  for (int64_t t = 0; t < n_tokens; ++t)
    for (int64_t r = 0; r < n_rows; ++r) a.out[(token + t) * a.ld_out + row + r] = out[t][r];
}

// All rows of the tile, R at a time, times up to T tokens from `token`. The first pass finds the weights in memory,
// others in cache, where prefetching is all cost.
template <class W, int R, int T, bool kFirst>
void pass(const TileArgs& a, int64_t token) {
  for (int64_t row = 0; row < a.n_rows; row += R) float_block<W, R, T, kFirst>(a, row, token);
}

template <class W>
void tile_float(const TileArgs& a) {
  if (a.n == 1) return pass<W, W::kRowsForOne, 1, true>(a, 0);
  if (a.n <= 3) return pass<W, 4, 3, true>(a, 0);
  pass<W, 4, kFloatTokens, true>(a, 0);
  int64_t i = kFloatTokens;
  for (; i + 3 < a.n; i += kFloatTokens) pass<W, 4, kFloatTokens, false>(a, i);
  for (; i < a.n; i += 3) pass<W, 4, 3, false>(a, i);
}

inline TileFn float_fn(TensorType type) {
  switch (type) {
    case TensorType::f32: return tile_float<F32Weights>;
    case TensorType::f16: return tile_float<F16Weights>;
    case TensorType::bf16: return tile_float<BF16Weights>;
    default: return nullptr;
  }
}

}  // namespace
}  // namespace pintpot::lanes

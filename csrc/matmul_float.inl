// Products of F32, F16 and BF16 weights with float activations.
//
// One vector of partial sums per (row, token), filled in order of k and summed in one fixed way at the end: the
// same bits for any number of rows, tokens and threads.
#include "matmul_simd.inl"

namespace pintpot::lanes {
namespace {

// load(row, k): weights k .. k + kLanes of a row. Where fewer are left, load_some reads `count` of them and gives
// zeros for the rest.
struct F32Weights {
  static constexpr int kBytes = 4;
  PP_INLINE static VFloat load(const std::byte* p) { return loadu_float(reinterpret_cast<const float*>(p)); }
};
struct F16Weights {
  static constexpr int kBytes = 2;
  PP_INLINE static VFloat load(const std::byte* p) { return load_half(p); }
};
struct BF16Weights {
  static constexpr int kBytes = 2;
  PP_INLINE static VFloat load(const std::byte* p) { return load_bfloat16(p); }
};

// R rows times T tokens over k in [0, cols), into out[T][R].
template <class W, int R, int T>
PP_INLINE void dot_floats(const std::byte* const (&w)[R], const float* const (&x)[T], int64_t cols,
                          float (&out)[T][R]) {
  VFloat sum[R][T];
  unroll<R * T>([&](auto i) PP_INLINE_LAMBDA { sum[i / T][i % T] = zero_float(); });
  const int64_t whole = cols / kLanes * kLanes;
  for (int64_t k = 0; k < whole; k += kLanes) {
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

// R rows from `row` times T tokens from `token`; where fewer are left the last is repeated.
template <class W, int R, int T>
void float_block(const TileArgs& a, int64_t row, int64_t n_rows, int64_t token, int64_t n_tokens) {
  const std::byte* w[R];
  const float* x[T];
  for (int r = 0; r < R; ++r) w[r] = a.w + (row + (r < n_rows ? r : n_rows - 1)) * a.row_bytes;
  for (int t = 0; t < T; ++t)
    x[t] = reinterpret_cast<const float*>(act_row(a, token + (t < n_tokens ? t : n_tokens - 1)));
  float out[T][R];
  dot_floats<W, R, T>(w, x, a.cols, out);
  for (int64_t t = 0; t < n_tokens; ++t)
    for (int64_t r = 0; r < n_rows; ++r) a.out[(token + t) * a.ld_out + row + r] = out[t][r];
}

constexpr int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

template <class W>
void tile_float(const TileArgs& a) {
  if (a.n == 1) {
    for (int64_t r = 0; r < a.n_rows; r += 8) float_block<W, 8, 1>(a, r, at_most(8, a.n_rows - r), 0, 1);
    return;
  }
  // A few rows stay in the first-level cache while tokens pass by, kFloatTokens at a time.
  int64_t i = 0;
  for (; i + 3 < a.n; i += kFloatTokens)
    for (int64_t r = 0; r < a.n_rows; r += 4)
      float_block<W, 4, kFloatTokens>(a, r, at_most(4, a.n_rows - r), i, at_most(kFloatTokens, a.n - i));
  for (; i < a.n; i += 3)
    for (int64_t r = 0; r < a.n_rows; r += 4)
      float_block<W, 4, 3>(a, r, at_most(4, a.n_rows - r), i, at_most(3, a.n - i));
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

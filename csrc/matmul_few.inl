// Quantized products of 1 to kFewTokens tokens: codes are used as they are unpacked.
#include "matmul_simd.inl"

namespace pintpot::lanes {
namespace {

template <class Fmt, int T>
PP_INLINE void dot_block(const Rows& rows, int64_t at, const ActOf<Fmt>* const (&x)[T], VFloat (&acc)[T]) {

  const HeaderOf<Fmt> h = Fmt::header(rows, at);
  VInt sum[T], group[T], min_sum[T];
  for (int t = 0; t < T; ++t) sum[t] = zero();
  Fmt::codes(rows, at, [&](auto step, VInt codes) PP_INLINE_LAMBDA {
    unroll<T>([&](auto t) PP_INLINE_LAMBDA {
      const VInt q = broadcast4(x[t]->q + step * 4);
      if constexpr (step % Fmt::kGroup == 0) group[t] = dot4<Fmt::kSigned>(codes, q);
      else group[t] = dot4_add<Fmt::kSigned>(group[t], codes, q);
      if constexpr (step % Fmt::kGroup == Fmt::kGroup - 1) sum[t] = close_group<Fmt, step>(h, sum[t], group[t]);
    });
  });
  unroll<T>([&](auto t) PP_INLINE_LAMBDA {
    min_sum[t] = zero();
    if constexpr (kNeedsMinSum<Fmt> && kIsSuper<Fmt>) {
      unroll<128 / Fmt::kSub>([&](auto p) PP_INLINE_LAMBDA {
        min_sum[t] = add_pairs(min_sum[t], h.template min_pair<p>(), act_sum_pair<Fmt>(*x[t], p));
      });
    } else if constexpr (kNeedsMinSum<Fmt>) {
      min_sum[t] = broadcast4(&x[t]->sum);
    }
    acc[t] = finish_block<Fmt>(h.d, min_scale<Fmt>(h), sum[t], min_sum[t], x[t]->d, acc[t]);
  });
}

template <class Fmt, int T>
void dot_tile(const TileArgs& a) {
  using Block = typename Fmt::Block;
  using Act = ActOf<Fmt>;
  const int64_t n_blocks = a.cols / Fmt::kValues;
  for (int64_t r = 0; r < a.n_rows; r += kLanes) {
    const Rows rows = rows_at(a, r);
    Ahead ahead(a, r + kLanes);
    VFloat acc[T];
    const Act* x[T];
    for (int t = 0; t < T; ++t) {
      acc[t] = zero_float();
      x[t] = reinterpret_cast<const Act*>(act_row(a, t));
    }
    for (int64_t b = 0; b < n_blocks; ++b) {
      ahead.fetch(kLanes * static_cast<int64_t>(sizeof(Block)));
      dot_block<Fmt, T>(rows, b * static_cast<int64_t>(sizeof(Block)), x, acc);
      for (int t = 0; t < T; ++t) ++x[t];
    }
    for (int t = 0; t < T; ++t) write_rows(a, t, r, &acc[t], 1);
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

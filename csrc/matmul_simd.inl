// Integer products of quantized weights, over the formats of formats_simd.inl.
//
// Weight rows lie side by side in vector lanes, so that one activation broadcast feeds many rows and nothing is
// summed across lanes. Few tokens: codes are used as they are unpacked. Many: 16 rows of 256 values are unpacked
// once into a panel that stays in the first-level cache, and all tokens pass over it. Both sum a block exactly in
// integers and add blocks in order, so a result does not depend on which of them made it.
#include "blocks.h"
#include "matmul_kernels.h"

namespace pintpot::lanes {
namespace {

inline constexpr int kPanelRows = kPanelVecs * kLanes;
inline constexpr int kChunkTokens = 128;  // tokens whose sums are kept while a panel goes by
static_assert(kPanelRows == 16);

template <class Fmt>
inline constexpr bool kIsSuper = Fmt::kValues == 256;

template <bool Super> struct PickAct { using Type = ActBlock; };
template <> struct PickAct<true> { using Type = ActSuper; };
template <class Fmt>
using ActOf = typename PickAct<kIsSuper<Fmt>>::Type;

template <class Fmt>
using HeaderOf = decltype(Fmt::header(*static_cast<const Rows*>(nullptr), 0));

constexpr int log2_of(int power) { return power <= 1 ? 0 : 1 + log2_of(power / 2); }

// Rows [first, first + kLanes) of the tile.
PP_INLINE Rows rows_at(const TileArgs& a, int64_t first) {
  Rows rows;
  for (int l = 0; l < kLanes; ++l) {
    const int64_t r = first + l < a.n_rows ? first + l : a.n_rows - 1;
    rows.p[l] = a.w + r * a.row_bytes;
  }
  return rows;
}

// Prefetches the rows that come next, as many bytes at a time as are being used: rows are contiguous, so this
// walks memory in order while the rows in hand are read side by side.
class Ahead {
 public:
  PP_INLINE Ahead(const TileArgs& a, int64_t next_row)
      : at_(a.w + next_row * a.row_bytes), end_(a.w + a.n_rows * a.row_bytes) {}

  PP_INLINE void fetch(int64_t n) {
    if (at_ < end_)
      for (int64_t i = 0; i < n; i += 64) prefetch(at_ + i);
    at_ += n;
  }

 private:
  const std::byte *at_, *end_;
};

// Adds what a group of code vectors gave to the block's sum.
template <class Fmt, int Step, class Header>
PP_INLINE VInt close_group(const Header& h, VInt sum, VInt group) {
  if constexpr (kIsSuper<Fmt>) return add_group_scaled(sum, group, h.template scale<Step * 4 / Fmt::kSub>());
  return add_group(sum, group);
}

// acc + (one block of w) . x, given the block's sums of code * q (scaled) and, for 256-blocks, min * sum(q).
template <class Fmt>
PP_INLINE VFloat finish_block(VFloat d, VFloat m, VInt sum, VInt min_sum, float x_d, VFloat acc) {
  const VFloat xd = floats(x_d);
  if constexpr (Fmt::kOffset != 0) sum = sub(sum, shift_left(min_sum, log2_of(Fmt::kOffset)));
  acc = fma(mul(d, xd), to_float(sum), acc);
  if constexpr (Fmt::kHasMin) {
    const VFloat md = mul(m, xd);
    acc = kIsSuper<Fmt> ? fnma(md, to_float(min_sum), acc) : fma(md, to_float(min_sum), acc);
  }
  return acc;
}

template <class Fmt>
inline constexpr bool kNeedsMinSum = Fmt::kHasMin || Fmt::kOffset != 0;

template <class Fmt, class Header>
PP_INLINE VFloat min_scale(const Header& h) {
  if constexpr (!Fmt::kHasMin) return zero_float();
  else if constexpr (kIsSuper<Fmt>) return h.dmin;
  else return h.m;
}

// The sums of activations that go with mins 2p and 2p + 1.
template <class Fmt>
PP_INLINE VInt act_sum_pair(const ActSuper& x, int p) {
  return broadcast4(Fmt::kSub == 16 ? &x.sum16[2 * p] : &x.sum32[2 * p]);
}

// ---- few tokens

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

PP_INLINE void write_rows(const TileArgs& a, int64_t token, int64_t first, const VFloat* acc, int n_vecs) {
  float* out = a.out + token * a.ld_out + first;
  const int64_t left = a.n_rows - first;
  if (left >= n_vecs * kLanes) {
    for (int v = 0; v < n_vecs; ++v) storeu_float(out + v * kLanes, acc[v]);
    return;
  }
  alignas(64) float values[kPanelRows];
  for (int v = 0; v < n_vecs; ++v) store_float(values + v * kLanes, acc[v]);
  for (int64_t r = 0; r < left; ++r) out[r] = values[r];
}

template <class Fmt, int T>
void dot_tile(const TileArgs& a, int64_t token0) {
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
      x[t] = reinterpret_cast<const Act*>(act_row(a, token0 + t));
    }
    for (int64_t b = 0; b < n_blocks; ++b) {
      ahead.fetch(kLanes * static_cast<int64_t>(sizeof(Block)));
      dot_block<Fmt, T>(rows, b * static_cast<int64_t>(sizeof(Block)), x, acc);
      for (int t = 0; t < T; ++t) ++x[t];
    }
    for (int t = 0; t < T; ++t) write_rows(a, token0 + t, r, &acc[t], 1);
  }
}

// ---- many tokens

// 16 rows x one 256-block.
template <class Fmt>
struct alignas(64) SuperPanel {
  static constexpr int kSubs = 256 / Fmt::kSub;
  VInt codes[64][kPanelVecs];
  VInt scales[kSubs][kPanelVecs];
  VInt mins[kSubs / 2][kPanelVecs];
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
  unroll<256 / Fmt::kSub>([&](auto j) PP_INLINE_LAMBDA { p.scales[j][v] = h.template scale<j>(); });
  if constexpr (kNeedsMinSum<Fmt>)
    unroll<128 / Fmt::kSub>([&](auto j) PP_INLINE_LAMBDA { p.mins[j][v] = h.template min_pair<j>(); });
  Fmt::codes(rows, at, [&](auto step, VInt codes) PP_INLINE_LAMBDA { p.codes[step][v] = codes; });
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

// sums[v][t] of one group of steps.
template <class Fmt, int T>
PP_INLINE void dot_group(const VInt (*codes)[kPanelVecs], const int8_t* const (&q)[T], int64_t at,
                         VInt (&group)[kPanelVecs][T]) {
  unroll<Fmt::kGroup>([&](auto s) PP_INLINE_LAMBDA {
    unroll<T>([&](auto t) PP_INLINE_LAMBDA {
      const VInt x = broadcast4(q[t] + at + s * 4);
      unroll<kPanelVecs>([&](auto v) PP_INLINE_LAMBDA {
        if constexpr (s == 0) group[v][t] = dot4<Fmt::kSigned>(codes[s][v], x);
        else group[v][t] = dot4_add<Fmt::kSigned>(group[v][t], codes[s][v], x);
      });
    });
  });
}

template <int T, class Fmt>
void multiply_panel(const SuperPanel<Fmt>& p, const ActSuper* const (&x)[T], int, float* acc) {
  constexpr int kGroups = 64 / Fmt::kGroup;
  const int8_t* q[T];
  VInt sum[kPanelVecs][T], min_sum[kPanelVecs][T];
  for (int t = 0; t < T; ++t) {
    q[t] = x[t]->q;
    for (int v = 0; v < kPanelVecs; ++v) sum[v][t] = min_sum[v][t] = zero();
  }
  for (int g = 0; g < kGroups; ++g) {
    VInt group[kPanelVecs][T];
    dot_group<Fmt, T>(p.codes + g * Fmt::kGroup, q, g * Fmt::kGroup * 4, group);
    const VInt* scale = p.scales[g * Fmt::kGroup * 4 / Fmt::kSub];
    unroll<kPanelVecs * T>([&](auto i) PP_INLINE_LAMBDA {
      sum[i / T][i % T] = add_group_scaled(sum[i / T][i % T], group[i / T][i % T], scale[i / T]);
    });
  }
  if constexpr (kNeedsMinSum<Fmt>)
    unroll<128 / Fmt::kSub>([&](auto j) PP_INLINE_LAMBDA {
      unroll<kPanelVecs * T>([&](auto i) PP_INLINE_LAMBDA {
        min_sum[i / T][i % T] = add_pairs(min_sum[i / T][i % T], p.mins[j][i / T], act_sum_pair<Fmt>(*x[i % T], j));
      });
    });
  unroll<kPanelVecs * T>([&](auto i) PP_INLINE_LAMBDA {
    constexpr int v = i / T, t = i % T;
    float* to = acc + t * kPanelRows + v * kLanes;
    store_float(to, finish_block<Fmt>(p.d[v], p.dmin[v], sum[v][t], min_sum[v][t], x[t]->d, load_float(to)));
  });
}

template <int T, class Fmt>
void multiply_panel(const BlockPanel<Fmt>& p, const ActBlock* const (&x)[T], int n_blocks, float* acc) {
  constexpr int kGroups = 8 / Fmt::kGroup;
  VFloat total[kPanelVecs][T];
  unroll<kPanelVecs * T>([&](auto i) PP_INLINE_LAMBDA {
    total[i / T][i % T] = load_float(acc + i % T * kPanelRows + i / T * kLanes);
  });
  for (int b = 0; b < n_blocks; ++b) {
    const int8_t* q[T];
    VInt sum[kPanelVecs][T];
    for (int t = 0; t < T; ++t) {
      q[t] = x[t][b].q;
      for (int v = 0; v < kPanelVecs; ++v) sum[v][t] = zero();
    }
    unroll<kGroups>([&](auto g) PP_INLINE_LAMBDA {
      VInt group[kPanelVecs][T];
      dot_group<Fmt, T>(p.codes + b * 8 + g * Fmt::kGroup, q, g * Fmt::kGroup * 4, group);
      unroll<kPanelVecs * T>([&](auto i) PP_INLINE_LAMBDA {
        sum[i / T][i % T] = add_group(sum[i / T][i % T], group[i / T][i % T]);
      });
    });
    unroll<kPanelVecs * T>([&](auto i) PP_INLINE_LAMBDA {
      constexpr int v = i / T, t = i % T;
      VInt min_sum = zero();
      if constexpr (kNeedsMinSum<Fmt>) min_sum = broadcast4(&x[t][b].sum);
      total[v][t] = finish_block<Fmt>(p.d[b][v], p.m[b][v], sum[v][t], min_sum, x[t][b].d, total[v][t]);
    });
  }
  unroll<kPanelVecs * T>([&](auto i) PP_INLINE_LAMBDA {
    store_float(acc + i % T * kPanelRows + i / T * kLanes, total[i / T][i % T]);
  });
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
      ahead.fetch(kPanelRows * count * static_cast<int64_t>(sizeof(typename Fmt::Block)));
      for (int v = 0; v < kPanelVecs; ++v) fill_panel(panel, v, rows[v], b, count);
      int64_t i = 0;
      for (; i + kPanelTokens <= n; i += kPanelTokens)
        multiply_tokens<Fmt, kPanelTokens>(a, panel, token0 + i, b, count, acc[i]);
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
void tile_quantized(const TileArgs& a) {
  if (a.n == 1) return dot_tile<Fmt, 1>(a, 0);
  if (a.n == 2) return dot_tile<Fmt, 2>(a, 0);
  for (int64_t i = 0; i < a.n; i += kChunkTokens)
    panel_tile<Fmt>(a, i, a.n - i < kChunkTokens ? a.n : i + kChunkTokens);
}

TileFn tile_fn(TensorType type) {
  switch (type) {
    case TensorType::q4_0: return tile_quantized<Q4_0>;
    case TensorType::q4_1: return tile_quantized<Q4_1>;
    case TensorType::q5_0: return tile_quantized<Q5_0>;
    case TensorType::q5_1: return tile_quantized<Q5_1>;
    case TensorType::q8_0: return tile_quantized<Q8_0>;
    case TensorType::iq4_nl: return tile_quantized<IQ4_NL>;
    case TensorType::mxfp4: return tile_quantized<MXFP4>;
    case TensorType::q2_k: return tile_quantized<Q2_K>;
    case TensorType::q3_k: return tile_quantized<Q3_K>;
    case TensorType::q4_k: return tile_quantized<Q4_K>;
    case TensorType::q5_k: return tile_quantized<Q5_K>;
    case TensorType::q6_k: return tile_quantized<Q6_K>;
    case TensorType::iq4_xs: return tile_quantized<IQ4_XS>;
    case TensorType::f32: return tile_float<F32Weights>;
    case TensorType::f16: return tile_float<F16Weights>;
    case TensorType::bf16: return tile_float<BF16Weights>;
  }
  return nullptr;
}

}  // namespace
}  // namespace pintpot::lanes

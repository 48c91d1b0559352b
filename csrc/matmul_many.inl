// Quantized products of many tokens: 16 rows of 256 values are unpacked into a panel, and tokens pass over it.
#include "matmul_simd.inl"

namespace pintpot::lanes {
namespace {

inline constexpr int kPanelRows = kPanelVecs * kLanes;
inline constexpr int kChunkTokens = 128;  // tokens whose sums are kept while a panel goes by
static_assert(kPanelRows == 16);

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
void tile_many(const TileArgs& a) {
  for (int64_t i = 0; i < a.n; i += kChunkTokens)
    panel_tile<Fmt>(a, i, a.n - i < kChunkTokens ? a.n : i + kChunkTokens);
}

inline TileFn many_fn(TensorType type) {
  return with_format(type, [](auto format) -> TileFn { return tile_many<decltype(format)>; });
}

}  // namespace
}  // namespace pintpot::lanes

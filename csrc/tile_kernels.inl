// The two register-tiled products that attention and the gated delta net are made of, included inside an
// instruction set's namespace. A "panel" is [n][16] values read through a loader, so that the stored formats
// (f32, f16, int8 with scales) share one body.

// Asks for `bytes` bytes at p, to arrive in the second-level cache: the first holds few misses at a time.
inline void prefetch(const void* p, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(static_cast<const char*>(p) + at, 0, 2);
}

// Indices of a panel between two calls of a loader's begin().
inline constexpr int64_t kPanelStep = 32;

// Loaders of up to kMaxPanels panels that lie `stride` values apart. begin<G>(i) is called for a multiple of
// kPanelStep before the indices that follow, with the number of panels in use; at(i, g) is index i of panel g.
struct PanelF32 {
  const float* p;
  int64_t stride = 0;
  int64_t ahead = 0;  // where the same values of the next block lie, in bytes from here; 0: nothing follows
  template <int G>
  void begin(int64_t i) const {
    for (int64_t g = 0; ahead != 0 && g < G; ++g)
      prefetch(reinterpret_cast<const char*>(p + g * stride + i * kPanelLanes) + ahead,
               kPanelStep * kPanelLanes * 4);
  }
  F32x16 at(int64_t i, int64_t g) const { return load(p + g * stride + i * kPanelLanes); }
};

struct PanelF16 {
  const uint16_t* p;
  int64_t stride;
  int64_t ahead;
  template <int G>
  void begin(int64_t i) const {
    for (int64_t g = 0; ahead != 0 && g < G; ++g)
      prefetch(reinterpret_cast<const char*>(p + g * stride + i * kPanelLanes) + ahead,
               kPanelStep * kPanelLanes * 2);
  }
  F32x16 at(int64_t i, int64_t g) const { return load_f16(p + g * stride + i * kPanelLanes); }
};

// Values: one scale per index, the same for the panels read together.
struct PanelQ8Values {
  const int8_t* p;
  int64_t stride;
  int64_t ahead;
  const float* scales;  // [n]
  template <int G>
  void begin(int64_t i) const {
    for (int64_t g = 0; ahead != 0 && g < G; ++g)
      prefetch(p + g * stride + i * kPanelLanes + ahead, kPanelStep * kPanelLanes);
  }
  F32x16 at(int64_t i, int64_t g) const {
    return mul(load_i8(p + g * stride + i * kPanelLanes), set1(scales[i]));
  }
};

// out[r * ld_out + g * 16 + lane] = sum_i a[r * lda + i] * panel g[i][lane] for R rows and G panels. Few
// accumulators are unrolled over i too: they must outnumber the latency of an addition.
template <int R, int G, class Panel>
inline void row_products(const float* a, int64_t lda, int64_t n, Panel panel, float* out, int64_t ld_out) {
  constexpr int U = R * G == 1 ? 4 : R * G == 2 ? 2 : 1;
  F32x16 acc[R][G][U];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g)
#pragma GCC unroll 4
      for (int u = 0; u < U; ++u) acc[r][g][u] = zero();
  const auto step = [&](int64_t i, int u) __attribute__((always_inline)) {
    F32x16 x[G];
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g) x[g] = panel.at(i, g);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const F32x16 w = set1(a[r * lda + i]);
#pragma GCC unroll 2
      for (int g = 0; g < G; ++g) acc[r][g][u] = fma(w, x[g], acc[r][g][u]);
    }
  };
  for (int64_t i0 = 0; i0 < n; i0 += kPanelStep) {
    panel.template begin<G>(i0);
    const int64_t end = i0 + kPanelStep < n ? i0 + kPanelStep : n;
    int64_t i = i0;
    for (; i + U <= end; i += U)
#pragma GCC unroll 4
      for (int u = 0; u < U; ++u) step(i + u, u);
    for (; i < end; ++i) step(i, 0);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g) {
      F32x16 sum = acc[r][g][0];
#pragma GCC unroll 4
      for (int u = 1; u < U; ++u) sum = add(sum, acc[r][g][u]);
      store(out + r * ld_out + g * kPanelLanes, sum);
    }
}

// out[r * ld_out + g * ld_panel + lane] = out[...] * keep[r * keep_stride]
//   + sum_i a[r * a_row + i * a_col] * panel g[i][lane] for R rows, G panels and i in [begin, end).
template <int R, int G, class Panel>
inline void row_mix(const float* a, int64_t a_row, int64_t a_col, int64_t begin, int64_t end, Panel panel,
                    const float* keep, int64_t keep_stride, float* out, int64_t ld_out, int64_t ld_panel) {
  F32x16 acc[R][G];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g)
      acc[r][g] = mul(load(out + r * ld_out + g * ld_panel), set1(keep[r * keep_stride]));
  for (int64_t i0 = begin / kPanelStep * kPanelStep; i0 < end; i0 += kPanelStep) {
    panel.template begin<G>(i0);
    const int64_t stop = i0 + kPanelStep < end ? i0 + kPanelStep : end;
    for (int64_t i = i0 < begin ? begin : i0; i < stop; ++i) {
      F32x16 x[G];
#pragma GCC unroll 2
      for (int g = 0; g < G; ++g) x[g] = panel.at(i, g);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const F32x16 w = set1(a[r * a_row + i * a_col]);
#pragma GCC unroll 2
        for (int g = 0; g < G; ++g) acc[r][g] = fma(w, x[g], acc[r][g]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g) store(out + r * ld_out + g * ld_panel, acc[r][g]);
}

template <int V>
struct Rows {
  static constexpr int value = V;
};
template <int V>
using Panels = Rows<V>;

// Calls body(Rows<R>, first_row) over `rows` rows in nearly equal tiles of at most kMaxRows.
template <int R = kMaxRows, class Body>
inline void call_with_rows(int64_t count, int64_t first, Body& body) {
  if (count == R) return body(Rows<R>{}, first);
  if constexpr (R > 1) call_with_rows<R - 1>(count, first, body);
}

template <class Body>
inline void for_row_tiles(int64_t rows, Body&& body) {
  const int64_t tiles = (rows + kMaxRows - 1) / kMaxRows;
  int64_t row = 0;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t count = (rows - row) / (tiles - t);
    call_with_rows(count, row, body);
    row += count;
  }
}

// Calls body(Panels<G>, first_panel) over panels [begin, end), kMaxPanels at a time.
template <class Body>
inline void for_panels(int64_t begin, int64_t end, Body&& body) {
  for (; begin + kMaxPanels <= end; begin += kMaxPanels) body(Panels<kMaxPanels>{}, begin);
  for (; begin < end; ++begin) body(Panels<1>{}, begin);
}

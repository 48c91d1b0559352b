// The two register-tiled products that attention and the gated delta net are made of, included inside an
// instruction set's namespace. A "panel" is [n][16] values read through a loader, so that the stored formats
// (f32, f16, int8 with scales) share one body.

// Loaders: begin(i) is called at every multiple of 32, then at(i) for the indices that follow.
struct PanelF32 {
  const float* p;
  void begin(int64_t) {}
  F32x16 at(int64_t i) const { return load(p + i * kPanelLanes); }
};

struct PanelF16 {
  const uint16_t* p;
  void begin(int64_t) {}
  F32x16 at(int64_t i) const { return load_f16(p + i * kPanelLanes); }
};

// Keys: one scale per lane and 32 indices.
struct PanelQ8Keys {
  const int8_t* p;
  const uint16_t* scales;  // [n / 32][16]
  F32x16 scale;
  void begin(int64_t i) { scale = load_f16(scales + i / 32 * kPanelLanes); }
  F32x16 at(int64_t i) const { return mul(load_i8(p + i * kPanelLanes), scale); }
};

// Values: one scale per index.
struct PanelQ8Values {
  const int8_t* p;
  const float* scales;  // [n]
  void begin(int64_t) {}
  F32x16 at(int64_t i) const { return mul(load_i8(p + i * kPanelLanes), set1(scales[i])); }
};

// out[r * ld_out + lane] = sum_i a[r * lda + i] * panel[i][lane] for R rows. Few rows are unrolled over i
// too: the accumulators must outnumber the latency of an addition.
template <int R, class Panel>
inline void row_products(const float* a, int64_t lda, int64_t n, Panel panel, float* out, int64_t ld_out) {
  constexpr int U = R == 1 ? 4 : R == 2 ? 2 : 1;
  F32x16 acc[R][U];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int u = 0; u < U; ++u) acc[r][u] = zero();
  for (int64_t i0 = 0; i0 < n; i0 += 32) {
    panel.begin(i0);
    const int64_t end = i0 + 32 < n ? i0 + 32 : n;
    int64_t i = i0;
    for (; i + U <= end; i += U) {
#pragma GCC unroll 4
      for (int u = 0; u < U; ++u) {
        const F32x16 x = panel.at(i + u);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) acc[r][u] = fma(set1(a[r * lda + i + u]), x, acc[r][u]);
      }
    }
    for (; i < end; ++i) {
      const F32x16 x = panel.at(i);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) acc[r][0] = fma(set1(a[r * lda + i]), x, acc[r][0]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    F32x16 sum = acc[r][0];
#pragma GCC unroll 4
    for (int u = 1; u < U; ++u) sum = add(sum, acc[r][u]);
    store(out + r * ld_out, sum);
  }
}

// out[r * ld_out + lane] = out[...] * keep[r * keep_stride] + sum_i a[r * a_row + i * a_col] * panel[i][lane]
// for R rows and i in [begin, end).
template <int R, class Panel>
inline void row_mix(const float* a, int64_t a_row, int64_t a_col, int64_t begin, int64_t end, Panel panel,
                    const float* keep, int64_t keep_stride, float* out, int64_t ld_out) {
  F32x16 acc[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) acc[r] = mul(load(out + r * ld_out), set1(keep[r * keep_stride]));
  panel.begin(0);
  for (int64_t i = begin; i < end; ++i) {
    const F32x16 x = panel.at(i);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) acc[r] = fma(set1(a[r * a_row + i * a_col]), x, acc[r]);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) store(out + r * ld_out, acc[r]);
}

template <int V>
struct Rows {
  static constexpr int value = V;
};

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

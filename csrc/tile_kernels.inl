// The two register-tiled products that attention and the gated delta net are made of, included inside an
// instruction set's namespace. A "panel" is [n][16] values read through a loader, so that the stored formats
// (f32, f16) share one body.

// Asks for `bytes` bytes at p, to arrive in the second-level cache: the first holds few misses at a time.
inline void prefetch(const void* p, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(static_cast<const char*>(p) + at, 0, 2);
}

// Indices of a panel between two calls of a loader's begin().
inline constexpr int64_t kPanelStep = 32;

// Loaders: begin(i) is called at every multiple of kPanelStep, then at(i) for the indices that follow. `ahead`:
// where the same values of the block read next lie, in bytes from here; 0: nothing follows.
struct PanelF32 {
  const float* p;
  int64_t ahead = 0;
  void begin(int64_t i) const {
    if (ahead != 0) prefetch(reinterpret_cast<const char*>(p + i * kPanelLanes) + ahead, kPanelStep * kPanelLanes * 4);
  }
  F32x16 at(int64_t i) const { return load(p + i * kPanelLanes); }
};

struct PanelF16 {
  const uint16_t* p;
  int64_t ahead;
  void begin(int64_t i) const {
    if (ahead != 0) prefetch(reinterpret_cast<const char*>(p + i * kPanelLanes) + ahead, kPanelStep * kPanelLanes * 2);
  }
  F32x16 at(int64_t i) const { return load_f16(p + i * kPanelLanes); }
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
  for (int64_t i0 = 0; i0 < n; i0 += kPanelStep) {
    panel.begin(i0);
    const int64_t end = i0 + kPanelStep < n ? i0 + kPanelStep : n;
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
  for (int64_t i0 = begin / kPanelStep * kPanelStep; i0 < end; i0 += kPanelStep) {
    panel.begin(i0);
    const int64_t stop = i0 + kPanelStep < end ? i0 + kPanelStep : end;
    for (int64_t i = i0 < begin ? begin : i0; i < stop; ++i) {
      const F32x16 x = panel.at(i);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) acc[r] = fma(set1(a[r * a_row + i * a_col]), x, acc[r]);
    }
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

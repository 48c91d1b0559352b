// Kernels of attention.h, included inside an instruction set's namespace after tile_kernels.inl.

inline constexpr int64_t kGroups = kKvBlock / kPanelLanes;  // groups of 16 keys in a block

inline int64_t round_lanes(int64_t n) { return (n + kPanelLanes - 1) / kPanelLanes * kPanelLanes; }

inline std::byte* kv_block(const KvHead& kv, std::byte* base, int64_t block) {
  return base + block % kv.n_blocks * kv.block_stride;
}

// Bytes from a block to the one after it, or 0 where that is not among those that a task reads.
inline int64_t block_ahead(const KvHead& kv, std::byte* base, int64_t block, int64_t key_end) {
  return (block + 1) * kKvBlock < key_end ? kv_block(kv, base, block + 1) - kv_block(kv, base, block) : 0;
}

// Calls body(panel) with the 16-wide panel at value `at` of a block that holds f32 or f16.
template <class Body>
inline void with_panel(KvType type, const std::byte* block, int64_t at, int64_t ahead, Body&& body) {
  if (type == KvType::f32) return body(PanelF32{reinterpret_cast<const float*>(block) + at, ahead});
  return body(PanelF16{reinterpret_cast<const uint16_t*>(block) + at, ahead});
}

template <class Panel>
inline void unpack(Panel panel, int64_t begin, int64_t end, float* out) {
  for (int64_t i = begin; i < end; ++i) {
    if (i % kPanelStep == 0 || i == begin) panel.begin(i / kPanelStep * kPanelStep);
    store(out + i * kPanelLanes, panel.at(i));
  }
}

// Where an AttendTask's scratch floats go.
struct AttendScratch {
  float* scores;     // [rows, 64], then the softmax weights
  float* keep;       // [rows], what the block multiplies earlier sums by
  float* top;        // [rows], the largest weight of the block
  float* top_scale;  // [rows], the largest scale of the values that the row sees, for q8_0; NaN: one is not finite
  float* q_scale;    // [rows], of q16
  float* keys;       // [dim_k][16]
  float* values;     // [64][16]
  int16_t* q16;      // [rows, dim_k], for q8_0 keys
};

int64_t attend_scratch(int64_t rows, int64_t dim_k) {
  return rows * kKvBlock + 4 * round_lanes(rows) + kPanelLanes * (dim_k + kKvBlock) + (rows * dim_k + 1) / 2;
}

inline AttendScratch carve(const AttendTask& t) {
  AttendScratch s;
  s.scores = t.scratch;
  s.keep = s.scores + t.rows * kKvBlock;
  s.top = s.keep + round_lanes(t.rows);
  s.top_scale = s.top + round_lanes(t.rows);
  s.q_scale = s.top_scale + round_lanes(t.rows);
  s.keys = s.q_scale + round_lanes(t.rows);
  s.values = s.keys + kPanelLanes * t.kv.dim_k;
  s.q16 = reinterpret_cast<int16_t*>(s.values + kPanelLanes * kKvBlock);
  return s;
}

// A query as 16-bit integers with one scale, which is NaN where a value is not finite: an error of at most
// 2^-16 of the largest value, well below that of 8-bit keys.
inline float quantize_query(const float* x, int64_t n, int16_t* q) {
  F32x16 top = zero(), zeros = zero();  // zeros: until 0 * NaN or 0 * infinity
  for (int64_t i = 0; i < n; i += kPanelLanes) {
    top = max(top, abs(load(x + i)));
    zeros = fma(load(x + i), zero(), zeros);
  }
  const bool finite = hsum(zeros) == 0.0f;
  const float d = finite ? hmax(top) / 32767.0f : __builtin_nanf("");
  const float inv = d > 0.0f ? 1.0f / d : 0.0f;
  for (int64_t i = 0; i < n; i += kPanelLanes)
    store_i16(q + i, finite && inv <= __FLT_MAX__ ? mul(load(x + i), set1(inv)) : zero());
  return d;
}

// Scores of R rows against a group of q8_0 keys, in integers: for each 32 dimensions a sum of 32 * 32767 * 127 at most.
template <int R>
inline void q8_products(const AttendTask& t, const AttendScratch& w, int64_t row, const std::byte* block, int64_t group,
                        int64_t ahead) {
  const int64_t dim = t.kv.dim_k;
  const auto* keys = reinterpret_cast<const int8_t*>(block) + group * dim * kPanelLanes;
  const auto* scales = reinterpret_cast<const uint16_t*>(block + kKvBlock * dim) + group * dim / 32 * kPanelLanes;
  const int16_t* q = w.q16 + row * dim;
  float* out = w.scores + row * kKvBlock + group * kPanelLanes;
  for (int64_t first = 0; first < dim; first += 32) {
    if (ahead != 0) prefetch(keys + first * kPanelLanes + ahead, 32 * kPanelLanes);
    I32x16 acc[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) acc[r] = zero_i32();
    for (int64_t i = first; i < first + 32; i += 2) {
      const I16x32 k = load_i8_pairs(keys + i * kPanelLanes);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) acc[r] = dot_pairs(acc[r], k, set1_pair(q + r * dim + i));
    }
    const F32x16 scale = load_f16(scales + first / 32 * kPanelLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      float* sum = out + r * kKvBlock;
      store(sum, first == 0 ? mul(to_f32(acc[r]), scale) : fma(to_f32(acc[r]), scale, load(sum)));
    }
  }
  for (int64_t r = 0; r < R; ++r) store(out + r * kKvBlock, mul(set1(w.q_scale[row + r]), load(out + r * kKvBlock)));
}

// Lanes of `s` outside [lo, hi) become -inf.
inline F32x16 mask_lanes(F32x16 s, int64_t lo, int64_t hi) {
  const F32x16 lane = iota(), dead = set1(-__builtin_inff());
  s = select_lt(lane, set1(static_cast<float>(lo < 0 ? 0 : lo)), dead, s);
  return select_lt(lane, set1(static_cast<float>(hi > 16 ? 16 : hi)), s, dead);
}

// One row's scores of a block become softmax weights against the running maximum. Keys [lo, hi) of the
// block count; groups [g0, g1) hold scores.
inline void softmax_row(float* s, int64_t g0, int64_t g1, int64_t lo, int64_t hi, float softcap, float& m,
                        float& l, float& keep, float& top_weight) {
  keep = 1.0f;
  top_weight = 0.0f;
  if (hi <= lo) {
    for (int64_t g = g0; g < g1; ++g) store(s + g * kPanelLanes, zero());
    return;
  }
  F32x16 top = set1(-__builtin_inff());
  for (int64_t g = g0; g < g1; ++g) {
    F32x16 x = load(s + g * kPanelLanes);
    if (softcap != 0.0f) x = mul(set1(softcap), tanh(mul(x, set1(1.0f / softcap))));
    const int64_t first = g * kPanelLanes;
    if (lo > first || hi < first + kPanelLanes) x = mask_lanes(x, lo - first, hi - first);
    store(s + g * kPanelLanes, x);
    top = max(top, x);
  }
  const float block_max = hmax(top);
  top_weight = block_max < m ? __builtin_expf(block_max - m) : 1.0f;
  if (block_max > m) {
    keep = __builtin_expf(m - block_max);
    m = block_max;
  }
  F32x16 sum = zero();
  for (int64_t g = g0; g < g1; ++g) {
    const F32x16 p = exp(sub(load(s + g * kPanelLanes), set1(m)));
    store(s + g * kPanelLanes, p);
    sum = add(sum, p);
  }
  const float total = hsum(sum);
  if (total != total) top_weight = total;
  l = l * keep + total;
}

// Keys [begin, end) of a block, and the position of the block's first key.
struct BlockKeys {
  int64_t base, begin, end;

  // Those that row r sees; none where end <= begin.
  BlockKeys seen(const AttendTask& t, int64_t r) const {
    const int64_t pos = t.pos0 + r / t.group - base;  // of the query, within the block
    const int64_t oldest = pos + 1 - t.window;
    return {base, oldest > begin ? oldest : begin, pos + 1 < end ? pos + 1 : end};
  }
};

template <class Panel>
inline bool all_finite(Panel panel, int64_t begin, int64_t end) {
  F32x16 zeros = zero();  // until 0 * NaN or 0 * infinity
  for (int64_t i = begin; i < end; ++i) zeros = fma(panel.at(i), zero(), zeros);
  return hsum(zeros) == 0.0f;
}

// Adds a strip of a block's values, weighted, to every row's sums. `all_seen`: every row sees every key.
template <class Panel>
inline void mix_values(const AttendTask& t, const AttendScratch& w, Panel panel, int64_t strip, const BlockKeys& keys,
                       bool all_seen) {
  const int64_t ld_o = round_lanes(t.kv.dim_v);
  float* out = t.o + strip * kPanelLanes;
  const auto mix = [&](auto rows, int64_t r, int64_t begin, int64_t end) {
    row_mix<decltype(rows)::value>(w.scores + r * kKvBlock, kKvBlock, 1, begin, end, panel, w.keep + r, 1,
                                   out + r * ld_o, ld_o);
  };
  if (all_seen || all_finite(panel, keys.begin, keys.end)) {
    for_row_tiles(t.rows, [&](auto rows, int64_t r) { mix(rows, r, keys.begin, keys.end); });
    return;
  }
  // A weight of 0 would not keep a NaN that another row sees out of this one.
  for (int64_t r = 0; r < t.rows; ++r) {
    const BlockKeys seen = keys.seen(t, r);
    if (seen.begin < seen.end) mix(Rows<1>{}, r, seen.begin, seen.end);
  }
}

// Adds two strips of a block's q8_0 values, weighted, to R rows' sums, in integers: weights times value scales become
// 16-bit integers relative to the largest that the row can have in the block. That depends on keys that the row sees
// alone, so nothing of the result depends on others.
template <int R>
inline void q8_mix(const AttendTask& t, const AttendScratch& w, int64_t row, const int8_t* values, int64_t ahead,
                   const float* scales, int64_t g0, int64_t g1, float* out) {
  alignas(64) int16_t weights[R][kKvBlock];
  float back[R];
  const int64_t ld_o = round_lanes(t.kv.dim_v);
  for (int64_t r = 0; r < R; ++r) {
    const float top = w.top[row + r] * w.top_scale[row + r];
    const F32x16 to_int = set1(top > 1e-30f ? 32767.0f / top : 0.0f);
    back[r] = top / 32767.0f;
    for (int64_t i = g0 * kPanelLanes; i < g1 * kPanelLanes; i += kPanelLanes)
      store_i16(weights[r] + i, mul(mul(load(w.scores + (row + r) * kKvBlock + i), to_int), load(scales + i)));
  }
  for (int64_t strip = 0; strip < 2; ++strip, values += kKvBlock * kPanelLanes, out += kPanelLanes) {
    if (ahead != 0) prefetch(values + ahead, kKvBlock * kPanelLanes);
    I32x16 acc[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) acc[r] = zero_i32();
    for (int64_t i = g0 * kPanelLanes; i < g1 * kPanelLanes; i += 2) {
      const I16x32 v = load_i8_pairs(values + i * kPanelLanes);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) acc[r] = dot_pairs(acc[r], v, set1_pair(weights[r] + i));
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      float* sum = out + (row + r) * ld_o;
      store(sum, fma(to_f32(acc[r]), set1(back[r]), mul(load(sum), set1(w.keep[row + r]))));
    }
  }
}

// The largest of scales[begin .. end), which are not negative; `bad` is set where one is not finite.
inline float top_scale(const float* scales, int64_t begin, int64_t end, bool& bad) {
  F32x16 top = zero(), zeros = zero();
  for (int64_t i = begin / kPanelLanes * kPanelLanes; i < end; i += kPanelLanes) {
    const F32x16 lane = add(iota(), set1(static_cast<float>(i)));
    F32x16 s = select_lt(lane, set1(static_cast<float>(end)), load(scales + i), zero());
    s = select_lt(lane, set1(static_cast<float>(begin)), zero(), s);
    top = max(top, s);
    zeros = fma(s, zero(), zeros);  // until 0 * NaN
  }
  bad = hsum(zeros) != 0.0f;
  return hmax(top);
}

// Adds a block's q8_0 values, weighted, to every row's sums.
inline void mix_q8_values(const AttendTask& t, const AttendScratch& w, const std::byte* block, int64_t ahead,
                          const BlockKeys& keys, bool all_seen) {
  const int64_t g0 = keys.begin / kPanelLanes, g1 = (keys.end + kPanelLanes - 1) / kPanelLanes;
  const auto* stored_scales = reinterpret_cast<const uint16_t*>(block + kKvBlock * t.kv.dim_v);
  const auto* values = reinterpret_cast<const int8_t*>(block);
  for (int64_t c = 0; c < t.kv.dim_v; c += 32, stored_scales += kKvBlock, values += 32 * kKvBlock) {
    alignas(64) float scales[kKvBlock];
    for (int64_t i = g0 * kPanelLanes; i < g1 * kPanelLanes; i += kPanelLanes)
      store(scales + i, load_f16(stored_scales + i));
    bool bad;
    const float top = top_scale(scales, keys.begin, keys.end, bad);
    for (int64_t r = 0; r < t.rows; ++r) {
      w.top_scale[r] = top;
      if (all_seen && !bad) continue;
      const BlockKeys seen = keys.seen(t, r);
      bool sees_bad;
      w.top_scale[r] = top_scale(scales, seen.begin, seen.end, sees_bad);
      if (sees_bad) w.top_scale[r] = __builtin_nanf("");
    }
    // What no row sees, or what is not finite, must not meet weights of 0.
    if (bad || keys.begin != g0 * kPanelLanes || keys.end != g1 * kPanelLanes)
      for (int64_t i = g0 * kPanelLanes; i < g1 * kPanelLanes; ++i)
        if (i < keys.begin || i >= keys.end || !(scales[i] <= __FLT_MAX__)) scales[i] = 0.0f;
    for_row_tiles(t.rows, [&](auto rows, int64_t r) {
      q8_mix<decltype(rows)::value>(t, w, r, values, ahead, scales, g0, g1, t.o + c);
    });
  }
}

// The scores of groups [g0, g1) of a block's keys, for every row.
inline void score_keys(const AttendTask& t, const AttendScratch& w, const std::byte* block, int64_t g0, int64_t g1,
                       int64_t ahead, bool unpacks) {
  const KvHead& kv = t.kv;
  for (int64_t g = g0; g < g1; ++g) {
    if (kv.type_k == KvType::q8_0) {
      for_row_tiles(t.rows, [&](auto rows, int64_t r) {
        q8_products<decltype(rows)::value>(t, w, r, block, g, ahead);
      });
      continue;
    }
    const auto products = [&](auto panel) {
      for_row_tiles(t.rows, [&](auto rows, int64_t r) {
        row_products<decltype(rows)::value>(t.q + r * kv.dim_k, kv.dim_k, kv.dim_k, panel,
                                            w.scores + r * kKvBlock + g * kPanelLanes, kKvBlock);
      });
    };
    with_panel(kv.type_k, block, g * kv.dim_k * kPanelLanes, ahead, [&](auto panel) {
      if (!unpacks || kv.type_k == KvType::f32) return products(panel);
      unpack(panel, 0, kv.dim_k, w.keys);
      products(PanelF32{w.keys});
    });
  }
}

void attend(const AttendTask& t) {
  const AttendScratch w = carve(t);
  const KvHead& kv = t.kv;
  const int64_t ld_o = round_lanes(kv.dim_v), strips = ld_o / kPanelLanes;
  // Enough rows to pay for unpacking a block once; fewer read the stored format directly.
  const bool unpacks = t.rows > 2 * kMaxRows;
  for (int64_t r = 0; r < t.rows; ++r) {
    t.m[r] = -__builtin_inff();
    t.l[r] = 0.0f;
    if (kv.type_k == KvType::q8_0) w.q_scale[r] = quantize_query(t.q + r * kv.dim_k, kv.dim_k, w.q16 + r * kv.dim_k);
  }
  for (int64_t i = 0; i < t.rows * ld_o; i += kPanelLanes) store(t.o + i, zero());

  for (int64_t b = t.key_begin / kKvBlock; b * kKvBlock < t.key_end; ++b) {
    const std::byte* v_block = kv_block(kv, kv.v, b);
    const int64_t base = b * kKvBlock;
    const int64_t k0 = t.key_begin > base ? t.key_begin - base : 0;
    const int64_t k1 = t.key_end - base < kKvBlock ? t.key_end - base : kKvBlock;
    const int64_t g0 = k0 / kPanelLanes, g1 = (k1 + kPanelLanes - 1) / kPanelLanes;
    const int64_t ahead = block_ahead(kv, kv.k, b, t.key_end);

    score_keys(t, w, kv_block(kv, kv.k, b), g0, g1, ahead, unpacks);
    const BlockKeys keys{base, k0, k1};
    bool all_seen = true;
    for (int64_t r = 0; r < t.rows; ++r) {
      const BlockKeys seen = keys.seen(t, r);
      all_seen &= seen.begin == k0 && seen.end == k1;
      softmax_row(w.scores + r * kKvBlock, g0, g1, seen.begin, seen.end, t.softcap, t.m[r], t.l[r], w.keep[r],
                  w.top[r]);
    }
    if (kv.type_v == KvType::q8_0) {
      mix_q8_values(t, w, v_block, ahead, keys, all_seen);
      continue;
    }
    for (int64_t s = 0; s < strips; ++s)
      with_panel(kv.type_v, v_block, s * kKvBlock * kPanelLanes, ahead, [&](auto panel) {
        if (!unpacks || kv.type_v == KvType::f32) return mix_values(t, w, panel, s, keys, all_seen);
        unpack(panel, k0, k1, w.values);
        mix_values(t, w, PanelF32{w.values}, s, keys, all_seen);
      });
  }
}

void merge(const MergeTask& t) {
  float top = t.has_sink ? t.sink : -__builtin_inff();
  for (int64_t p = 0; p < t.parts; ++p) top = t.m[p * t.stride_ml] > top ? t.m[p * t.stride_ml] : top;
  float total = t.has_sink ? __builtin_expf(t.sink - top) : 0.0f;
  for (int64_t p = 0; p < t.parts; ++p) {
    float& m = t.m[p * t.stride_ml];
    m = __builtin_expf(m - top);  // from here on the part's weight
    total += t.l[p * t.stride_ml] * m;
  }
  const F32x16 inv = set1(1.0f / total);
  for (int64_t i = 0; i < t.dim; i += kPanelLanes) {
    F32x16 sum = zero();
    for (int64_t p = 0; p < t.parts; ++p)
      sum = fma(set1(t.m[p * t.stride_ml]), load(t.o + p * t.stride_o + i), sum);
    sum = mul(sum, inv);
    const int64_t n = t.dim - i < kPanelLanes ? t.dim - i : kPanelLanes;
    if (t.gate) sum = mul(sum, sigmoid(load_part(t.gate + i, n)));
    store_part(t.out + i, sum, n);
  }
}

inline float sum_squares(const float* x, int64_t n) {
  F32x16 sum = zero();
  int64_t i = 0;
  for (; i + kPanelLanes <= n; i += kPanelLanes) sum = fma(load(x + i), load(x + i), sum);
  if (i < n) {
    const F32x16 tail = load_part(x + i, n - i);
    sum = fma(tail, tail, sum);
  }
  return hsum(sum);
}

void prepare_head(const HeadTask& t) {
  float factor = t.factor;
  if (t.norm)
    factor /= __builtin_sqrtf(sum_squares(t.x, t.dim) / static_cast<float>(t.dim) + t.eps);
  for (int64_t i = 0; i < t.dim; i += kPanelLanes) {
    const int64_t n = t.dim - i < kPanelLanes ? t.dim - i : kPanelLanes;
    F32x16 x = mul(load_part(t.x + i, n), set1(factor));
    if (t.norm && t.norm_weight) x = mul(x, load_part(t.norm_weight + i, n));
    store_part(t.out + i, x, n);
  }
  if (!t.cos) return;
  // The pair (a, b) of angle i is (2i, 2i + 1) or (i, i + n_rot_half).
  const int64_t step = t.interleaved ? 2 : 1, apart = t.interleaved ? 1 : t.n_rot_half;
  int64_t i = 0;
  for (; !t.interleaved && i + kPanelLanes <= t.n_rot_half; i += kPanelLanes) {
    const F32x16 a = load(t.out + i), b = load(t.out + i + apart);
    const F32x16 cos = load(t.cos + i), sin = load(t.sin + i);
    store(t.out + i, sub(mul(a, cos), mul(b, sin)));
    store(t.out + i + apart, add(mul(a, sin), mul(b, cos)));
  }
  for (; i < t.n_rot_half; ++i) {
    float* x = t.out + i * step;
    const float a = x[0], b = x[apart];
    x[0] = a * t.cos[i] - b * t.sin[i];
    x[apart] = a * t.sin[i] + b * t.cos[i];
  }
}

// 32 floats as int8 with one scale (GGUF's Q8_0). The scale is NaN where a value is not finite, so that it stays
// visible.
inline uint16_t quantize_32(const float* x, int8_t* q) {
  float top = 0.0f;
  bool finite = true;
  for (int i = 0; i < 32; ++i) {
    const float a = __builtin_fabsf(x[i]);
    finite &= a <= __FLT_MAX__;
    top = a > top ? a : top;
  }
  const float d = finite ? top / 127.0f : __builtin_nanf("");
  const float inv = d > 0.0f ? 1.0f / d : 0.0f;
  for (int i = 0; i < 32; ++i) q[i] = finite ? static_cast<int8_t>(__builtin_lrintf(x[i] * inv)) : 0;
  uint16_t h[kPanelLanes];
  store_f16(h, set1(d));
  return h[0];
}

void store_key(const KvHead& kv, int64_t pos, const float* x) {
  std::byte* block = kv_block(kv, kv.k, pos / kKvBlock);
  const int64_t g = pos % kKvBlock / kPanelLanes, lane = pos % kPanelLanes;
  const int64_t at = g * kv.dim_k * kPanelLanes + lane;
  switch (kv.type_k) {
    case KvType::f32: {
      float* out = reinterpret_cast<float*>(block) + at;
      for (int64_t i = 0; i < kv.dim_k; ++i) out[i * kPanelLanes] = x[i];
      return;
    }
    case KvType::f16: {
      uint16_t* out = reinterpret_cast<uint16_t*>(block) + at;
      for (int64_t i = 0; i < kv.dim_k; i += kPanelLanes) {
        const int64_t n = kv.dim_k - i < kPanelLanes ? kv.dim_k - i : kPanelLanes;
        uint16_t h[kPanelLanes];
        store_f16(h, load_part(x + i, n));
        for (int64_t j = 0; j < n; ++j) out[(i + j) * kPanelLanes] = h[j];
      }
      return;
    }
    case KvType::q8_0: {
      auto* pairs = reinterpret_cast<int8_t*>(block) + g * kv.dim_k * kPanelLanes + 2 * lane;
      auto* scales = reinterpret_cast<uint16_t*>(block + kKvBlock * kv.dim_k) + g * kv.dim_k / 32 * kPanelLanes;
      for (int64_t i = 0; i < kv.dim_k; i += 32) {
        int8_t q[32];
        scales[i / 32 * kPanelLanes + lane] = quantize_32(x + i, q);
        for (int64_t j = 0; j < 32; j += 2) __builtin_memcpy(pairs + (i + j) * kPanelLanes, q + j, 2);
      }
      return;
    }
  }
}

void store_value(const KvHead& kv, int64_t pos, const float* x) {
  std::byte* block = kv_block(kv, kv.v, pos / kKvBlock);
  const int64_t row = pos % kKvBlock;
  switch (kv.type_v) {
    case KvType::f32:
      for (int64_t i = 0; i < kv.dim_v; i += kPanelLanes)
        store(reinterpret_cast<float*>(block) + (i * kKvBlock + row * kPanelLanes),
              load_part(x + i, kv.dim_v - i < kPanelLanes ? kv.dim_v - i : kPanelLanes));
      return;
    case KvType::f16:
      for (int64_t i = 0; i < kv.dim_v; i += kPanelLanes)
        store_f16(reinterpret_cast<uint16_t*>(block) + (i * kKvBlock + row * kPanelLanes),
                  load_part(x + i, kv.dim_v - i < kPanelLanes ? kv.dim_v - i : kPanelLanes));
      return;
    case KvType::q8_0: {
      auto* scales = reinterpret_cast<uint16_t*>(block + kKvBlock * kv.dim_v);
      for (int64_t i = 0; i < kv.dim_v; i += 32) {
        int8_t q[32];
        scales[i / 32 * kKvBlock + row] = quantize_32(x + i, q);
        auto* pairs = reinterpret_cast<int8_t*>(block) + i * kKvBlock + row / 2 * 2 * kPanelLanes + row % 2;
        for (int64_t j = 0; j < 32; ++j) pairs[j / kPanelLanes * kKvBlock * kPanelLanes + j % kPanelLanes * 2] = q[j];
      }
      return;
    }
  }
}

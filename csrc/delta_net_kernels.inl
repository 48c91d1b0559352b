// Kernels of delta_net.h, included inside an instruction set's namespace after attention_kernels.inl.

inline constexpr int64_t kMaxTaps = 8;

void conv(const ConvTask& t) {
  const float* rows[kMaxTaps];
  for (int64_t i = 0; i < t.n; ++i) {
    for (int64_t j = 0; j < t.taps; ++j) {
      const int64_t from = i + j - (t.taps - 1);
      rows[j] = from < 0 ? t.state + (from + t.taps - 1) * t.ld_state : t.x + from * t.ldx;
    }
    float* out = t.out + i * t.ld_out;
    for (int64_t c = 0; c < t.dim; c += kPanelLanes) {
      const int64_t n = t.dim - c < kPanelLanes ? t.dim - c : kPanelLanes;
      F32x16 sum = zero();
      if (n == kPanelLanes)
        for (int64_t j = 0; j < t.taps; ++j)
          sum = fma(load(t.weight + j * t.ld_weight + c), load(rows[j] + c), sum);
      else
        for (int64_t j = 0; j < t.taps; ++j)
          sum = fma(load_part(t.weight + j * t.ld_weight + c, n), load_part(rows[j] + c, n), sum);
      store(out + c, silu(sum));
    }
    if (t.l2_norm) {
      const F32x16 f = set1(t.factor / __builtin_sqrtf(sum_squares(out, t.dim) + t.eps));
      for (int64_t c = 0; c < t.dim; c += kPanelLanes) store(out + c, mul(load(out + c), f));
    }
  }
  // The window slides by n: what lies behind it is older state while n < taps - 1.
  for (int64_t j = 0; j < t.taps - 1; ++j) {
    const int64_t from = t.n + j - (t.taps - 1);
    const float* row = from < 0 ? t.state + (t.n + j) * t.ld_state : t.x + from * t.ldx;
    __builtin_memcpy(t.state + j * t.ld_state, row, static_cast<size_t>(t.dim) * 4);
  }
}

// Tokens handled by one sweep over the state. The sweep reads and writes each state value once and spends
// 3 multiply-adds a token on it, the recurrence's own count; the corrections among the tokens of a block
// grow with its length. 16 fills one group of lanes.
inline constexpr int64_t kDeltaBlock = kPanelLanes;

int64_t delta_scratch(int64_t dim_k, int64_t dim_v) {
  return kDeltaBlock * (dim_k + round_lanes(dim_v) + 4 * kPanelLanes) + 4 * kPanelLanes;
}

// One block of at most 16 tokens of a v head. With G_i = g_0 + ... + g_i, the recurrence unrolls to
//   d_i = beta_i (v_i - e^{G_i} S^T k_i) - sum_{j<i} beta_i e^{G_i - G_j} (k_i.k_j) d_j
//   o_i = e^{G_i} S^T q_i + sum_{j<=i} e^{G_i - G_j} (q_i.k_j) d_j
//   S'  = e^{G_last} S + sum_j e^{G_last - G_j} k_j d_j^T
// where every exponent is <= 0. (Yang et al. 2024, arXiv:2412.06464, section 3.3.)
struct DeltaBlock {
  const DeltaTask& t;
  int64_t first, n;      // tokens [first, first + n)
  float* keys;           // [dim_k][16], the block's keys transposed
  float* out;            // [16, dim_v rounded up], S^T q, then o
  float* a;              // [16][16], weights of earlier d in d
  float* p;              // [16][16], weights of d in o
  float* u;              // [16][16], S^T k of a strip
  float* d;              // [16][16]
  float* sums;           // [16], G
  float* decay;          // [16], e^G
  float* to_last;        // [16], e^{G_last - G}
  float* beta;           // [16]

  DeltaBlock(const DeltaTask& task, int64_t token, int64_t count) : t(task), first(token), n(count) {
    float* s = task.scratch;
    const auto take = [&s](int64_t size) {
      float* r = s;
      s += size;
      return r;
    };
    keys = take(task.dim_k * kPanelLanes);
    out = take(kDeltaBlock * round_lanes(task.dim_v));
    a = take(kPanelLanes * kPanelLanes);
    p = take(kPanelLanes * kPanelLanes);
    u = take(kPanelLanes * kPanelLanes);
    d = take(kPanelLanes * kPanelLanes);
    sums = take(kPanelLanes);
    decay = take(kPanelLanes);
    to_last = take(kPanelLanes);
    beta = take(kPanelLanes);
  }

  void gates() {
    float total = 0.0f;
    for (int64_t i = 0; i < kDeltaBlock; ++i) {
      if (i < n) total += t.g[(first + i) * t.ld_gate];
      sums[i] = total;
      beta[i] = i < n ? t.beta[(first + i) * t.ld_gate] : 0.0f;
    }
    store(decay, exp(load(sums)));
    store(to_last, exp(sub(set1(total), load(sums))));
  }

  void dots() {
    const float* k = t.k + first * t.ld_qk;
    const float* q = t.q + first * t.ld_qk;
    for (int64_t i = 0; i < t.dim_k; ++i)
      for (int64_t j = 0; j < kPanelLanes; ++j) keys[i * kPanelLanes + j] = j < n ? k[j * t.ld_qk + i] : 0.0f;
    for_row_tiles(n, [&](auto rows, int64_t r) {
      row_products<decltype(rows)::value>(k + r * t.ld_qk, t.ld_qk, t.dim_k, PanelF32{keys},
                                          a + r * kPanelLanes, kPanelLanes);
      row_products<decltype(rows)::value>(q + r * t.ld_qk, t.ld_qk, t.dim_k, PanelF32{keys},
                                          p + r * kPanelLanes, kPanelLanes);
    });
    for (int64_t i = 0; i < n; ++i) {
      const F32x16 between = exp(sub(set1(sums[i]), load(sums)));
      store(a + i * kPanelLanes, mul(mul(between, set1(beta[i])), load(a + i * kPanelLanes)));
      const F32x16 past = select_lt(iota(), set1(static_cast<float>(i + 1)), between, zero());
      store(p + i * kPanelLanes, mul(past, load(p + i * kPanelLanes)));
    }
  }

  void strip(int64_t s) {
    float* state = t.state + s * t.dim_k * kPanelLanes;
    const float* k = t.k + first * t.ld_qk;
    const float* q = t.q + first * t.ld_qk;
    const int64_t ld_out = round_lanes(t.dim_v);
    for_row_tiles(n, [&](auto rows, int64_t r) {
      row_products<decltype(rows)::value>(k + r * t.ld_qk, t.ld_qk, t.dim_k, PanelF32{state},
                                          u + r * kPanelLanes, kPanelLanes);
      row_products<decltype(rows)::value>(q + r * t.ld_qk, t.ld_qk, t.dim_k, PanelF32{state},
                                          out + r * ld_out + s * kPanelLanes, ld_out);
    });
    const float* v = t.v + first * t.ld_v + s * kPanelLanes;
    for (int64_t i = 0; i < n; ++i) {
      F32x16 even = sub(load(v + i * t.ld_v), mul(set1(decay[i]), load(u + i * kPanelLanes)));
      F32x16 odd = zero();
      even = mul(set1(beta[i]), even);
      int64_t j = 0;
      for (; j + 2 <= i; j += 2) {
        even = sub(even, mul(set1(a[i * kPanelLanes + j]), load(d + j * kPanelLanes)));
        odd = fma(set1(a[i * kPanelLanes + j + 1]), load(d + (j + 1) * kPanelLanes), odd);
      }
      if (j < i) even = sub(even, mul(set1(a[i * kPanelLanes + j]), load(d + j * kPanelLanes)));
      store(d + i * kPanelLanes, sub(even, odd));
    }
    for_row_tiles(n, [&](auto rows, int64_t r) {
      row_mix<decltype(rows)::value>(p + r * kPanelLanes, kPanelLanes, 1, 0, n, PanelF32{d}, decay + r, 1,
                                     out + r * ld_out + s * kPanelLanes, ld_out);
    });
    for (int64_t i = 0; i < n; ++i)
      store(d + i * kPanelLanes, mul(set1(to_last[i]), load(d + i * kPanelLanes)));
    for_row_tiles(t.dim_k, [&](auto rows, int64_t r) {
      row_mix<decltype(rows)::value>(k + r, 1, t.ld_qk, 0, n, PanelF32{d}, decay + n - 1, 0,
                                     state + r * kPanelLanes, kPanelLanes);
    });
  }
};

// RMSNorm, weight and gate of one token's o.
inline void finish_token(const DeltaTask& t, int64_t token, const float* o) {
  const float mean = sum_squares(o, t.dim_v) / static_cast<float>(t.dim_v);
  const F32x16 inv = set1(1.0f / __builtin_sqrtf(mean + t.eps));
  for (int64_t c = 0; c < t.dim_v; c += kPanelLanes) {
    const int64_t m = t.dim_v - c < kPanelLanes ? t.dim_v - c : kPanelLanes;
    const F32x16 y = mul(mul(load(o + c), inv), load_part(t.norm + c, m));
    const F32x16 gate = silu(load_part(t.z + token * t.ld_z + c, m));
    store_part(t.out + token * t.ld_out + c, mul(y, gate), m);
  }
}

inline float dot(const float* a, const float* b, int64_t n) {
  F32x16 sum = zero();
  for (int64_t i = 0; i < n; i += kPanelLanes) {
    const int64_t m = n - i < kPanelLanes ? n - i : kPanelLanes;
    sum = fma(load_part(a + i, m), load_part(b + i, m), sum);
  }
  return hsum(sum);
}

// A token alone (decode) needs no block: the recurrence itself, with
//   d = beta (v - e^g S^T k);  o = e^g S^T q + (q.k) d;  S' = e^g S + k d^T
inline void delta_token(const DeltaTask& t, int64_t token) {
  const float* k = t.k + token * t.ld_qk;
  const float* q = t.q + token * t.ld_qk;
  const F32x16 decay = exp(set1(t.g[token * t.ld_gate])), beta = set1(t.beta[token * t.ld_gate]);
  const F32x16 qk = set1(dot(q, k, t.dim_k));
  float* o = t.scratch;
  for (int64_t c = 0; c < t.dim_v; c += kPanelLanes) {
    float* state = t.state + c * t.dim_k;
    F32x16 u[2] = {zero(), zero()}, r[2] = {zero(), zero()};  // S^T k and S^T q, for even and odd i
    int64_t i = 0;
    for (; i + 2 <= t.dim_k; i += 2)
#pragma GCC unroll 2
      for (int64_t j = 0; j < 2; ++j) {
        const F32x16 s = load(state + (i + j) * kPanelLanes);
        u[j] = fma(set1(k[i + j]), s, u[j]);
        r[j] = fma(set1(q[i + j]), s, r[j]);
      }
    if (i < t.dim_k) {
      const F32x16 s = load(state + i * kPanelLanes);
      u[0] = fma(set1(k[i]), s, u[0]);
      r[0] = fma(set1(q[i]), s, r[0]);
    }
    const F32x16 v = load(t.v + token * t.ld_v + c);
    const F32x16 d = mul(beta, sub(v, mul(decay, add(u[0], u[1]))));
    store(o + c, fma(qk, d, mul(decay, add(r[0], r[1]))));
    for (i = 0; i < t.dim_k; ++i) {
      float* s = state + i * kPanelLanes;
      store(s, fma(set1(k[i]), d, mul(load(s), decay)));
    }
  }
  finish_token(t, token, o);
}

void delta(const DeltaTask& t) {
  if (t.n <= kShortSegment) {
    for (int64_t i = 0; i < t.n; ++i) delta_token(t, i);
    return;
  }
  for (int64_t first = 0; first < t.n; first += kDeltaBlock) {
    const int64_t n = t.n - first < kDeltaBlock ? t.n - first : kDeltaBlock;
    if (n == 1) {
      delta_token(t, first);
      continue;
    }
    DeltaBlock block(t, first, n);
    block.gates();
    block.dots();
    for (int64_t s = 0; s < round_lanes(t.dim_v) / kPanelLanes; ++s) block.strip(s);
    for (int64_t i = 0; i < n; ++i) finish_token(t, first + i, block.out + i * round_lanes(t.dim_v));
  }
}

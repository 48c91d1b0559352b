// Kernels of row_kernels.h on F32x16, included inside an instruction set's namespace after simd/f32_<isa>.h.

// body(offset, lanes) for every 16 values of a row, then for what is left of it.
template <class Body>
inline void each_16(int64_t n, Body&& body) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) body(i, int64_t{16});
  if (i < n) body(i, n - i);
}

inline F32x16 load_some(const float* p, int64_t lanes) { return lanes == 16 ? load(p) : load_part(p, lanes); }
inline void store_some(float* p, F32x16 a, int64_t lanes) {
  if (lanes == 16)
    store(p, a);
  else
    store_part(p, a, lanes);
}

// The sum of term(offset, lanes), which must be zero in lanes past the end. Four sums hide the latency.
template <class Term>
inline float sum_16(int64_t n, Term&& term) {
  F32x16 s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    s0 = term(s0, i, int64_t{16});
    s1 = term(s1, i + 16, int64_t{16});
    s2 = term(s2, i + 32, int64_t{16});
    s3 = term(s3, i + 48, int64_t{16});
  }
  for (; i + 16 <= n; i += 16) s0 = term(s0, i, int64_t{16});
  if (i < n) s1 = term(s1, i, n - i);
  return hsum(add(add(s0, s1), add(s2, s3)));
}

// tanh to about 2 ulp, small arguments included (Cephes' tanhf).
inline F32x16 tanh_exact(F32x16 x) {
  const F32x16 z = mul(x, x);
  F32x16 p = set1(-5.70498872745e-3f);
  p = fma(p, z, set1(2.06390887954e-2f));
  p = fma(p, z, set1(-5.37397155531e-2f));
  p = fma(p, z, set1(1.33314422036e-1f));
  p = fma(p, z, set1(-3.33332819422e-1f));
  const F32x16 small = fma(mul(p, z), x, x);
  const F32x16 large = sub(set1(1.0f), div(set1(2.0f), add(set1(1.0f), exp(add(x, x)))));
  return select_lt(z, set1(0.625f * 0.625f), small, large);
}

// x sigmoid(k x)
inline F32x16 swish(F32x16 x, F32x16 k) {
  return div(x, add(set1(1.0f), exp(sub(zero(), mul(x, k)))));
}

// 0.5 x (1 + tanh u) is x sigmoid(2u), which keeps its precision where tanh is close to -1.
inline F32x16 gelu_tanh(F32x16 x) {
  constexpr float kTwoSqrt2OverPi = 1.5957691216057308f;
  return swish(x, fma(mul(x, x), set1(kTwoSqrt2OverPi * 0.044715f), set1(kTwoSqrt2OverPi)));
}

inline void row_normalize(const float* x, const float* weight, float sum_squares, float eps, int64_t n,
                          float* out) {
  const F32x16 factor = set1(1.0f / __builtin_sqrtf(sum_squares / static_cast<float>(n) + eps));
  each_16(n, [&](int64_t i, int64_t lanes) {
    F32x16 y = mul(load_some(x + i, lanes), factor);
    if (weight) y = mul(y, load_some(weight + i, lanes));
    store_some(out + i, y, lanes);
  });
}

void row_rms_norm(const float* x, const float* weight, float eps, int64_t n, float* out) {
  const float squares = sum_16(n, [&](F32x16 sum, int64_t i, int64_t lanes) {
    const F32x16 v = load_some(x + i, lanes);
    return fma(v, v, sum);
  });
  row_normalize(x, weight, squares, eps, n, out);
}

void row_add_rms_norm(float* x, const float* delta, const float* weight, float eps, int64_t n, float* out) {
  const float squares = sum_16(n, [&](F32x16 sum, int64_t i, int64_t lanes) {
    const F32x16 v = add(load_some(x + i, lanes), load_some(delta + i, lanes));
    store_some(x + i, v, lanes);
    return fma(v, v, sum);
  });
  row_normalize(x, weight, squares, eps, n, out);
}

void row_add(float* x, const float* delta, int64_t n) {
  each_16(n, [&](int64_t i, int64_t lanes) {
    store_some(x + i, add(load_some(x + i, lanes), load_some(delta + i, lanes)), lanes);
  });
}

void row_scale(float* x, float factor, int64_t n) {
  const F32x16 f = set1(factor);
  each_16(n, [&](int64_t i, int64_t lanes) { store_some(x + i, mul(load_some(x + i, lanes), f), lanes); });
}

void row_softcap(float* x, float cap, int64_t n) {
  const F32x16 c = set1(cap);
  each_16(n, [&](int64_t i, int64_t lanes) {
    store_some(x + i, mul(c, tanh_exact(div(load_some(x + i, lanes), c))), lanes);
  });
}

// out = body(gate, up), lane by lane
template <class Body>
inline void row_pairs(const float* gate, const float* up, int64_t n, float* out, Body&& body) {
  each_16(n, [&](int64_t i, int64_t lanes) {
    store_some(out + i, body(load_some(gate + i, lanes), load_some(up + i, lanes)), lanes);
  });
}

void row_gated(Activation activation, const float* gate, const float* up, int64_t n, float* out) {
  switch (activation) {
    case Activation::silu:
      return row_pairs(gate, up, n, out, [](F32x16 g, F32x16 u) { return mul(swish(g, set1(1.0f)), u); });
    case Activation::gelu_tanh:
      return row_pairs(gate, up, n, out, [](F32x16 g, F32x16 u) { return mul(gelu_tanh(g), u); });
    case Activation::swiglu_oai:
      return row_pairs(gate, up, n, out, [](F32x16 g, F32x16 u) {
        const F32x16 limit = set1(7.0f), one = set1(1.0f);
        return mul(swish(min(limit, g), set1(1.702f)), add(min(limit, max(sub(zero(), limit), u)), one));
      });
  }
}

void row_accumulate(float* y, const float* x, float factor, int64_t n) {
  const F32x16 f = set1(factor);
  each_16(n, [&](int64_t i, int64_t lanes) {
    store_some(y + i, fma(load_some(x + i, lanes), f, load_some(y + i, lanes)), lanes);
  });
}

void row_softmax(float* x, int64_t n) {
  float largest = x[0];
  for (int64_t i = 1; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  const F32x16 m = set1(largest);
  const float sum = sum_16(n, [&](F32x16 total, int64_t i, int64_t lanes) {
    const F32x16 e = exp(sub(load_some(x + i, lanes), m));
    store_some(x + i, e, lanes);
    return add(total, load_some(x + i, lanes));
  });
  row_scale(x, 1.0f / sum, n);
}

void row_sigmoid(float* x, int64_t n) {
  each_16(n, [&](int64_t i, int64_t lanes) { store_some(x + i, sigmoid(load_some(x + i, lanes)), lanes); });
}

float row_dot(const float* a, const float* b, int64_t n) {
  return sum_16(n, [&](F32x16 sum, int64_t i, int64_t lanes) {
    return fma(load_some(a + i, lanes), load_some(b + i, lanes), sum);
  });
}

inline constexpr RowKernels kRowKernels = {
    row_rms_norm, row_add_rms_norm, row_add,     row_scale,   row_softcap,
    row_gated,    row_accumulate,   row_softmax, row_sigmoid, row_dot,
};

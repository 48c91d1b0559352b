// Functions on F32x16, included by each f32_<isa>.h inside its namespace.

// e^x to about 1 ulp; 0 below -87.3 (so exp(-inf) is 0), the largest power below overflow above 88.3; a NaN
// stays one. Cephes' expf: x = n ln2 + r, then a degree-6 polynomial.
inline F32x16 exp(F32x16 x) {
  const F32x16 lowest = set1(-87.33654f);
  const F32x16 c = min(set1(88.3762626f), max(lowest, x));
  const F32x16 n = round(mul(c, set1(1.44269504089f)));
  const F32x16 r = fma(n, set1(2.12194440e-4f), fma(n, set1(-0.693359375f), c));
  F32x16 p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  const F32x16 e = fma(p, mul(r, r), add(r, set1(1.0f)));
  return select_lt(x, lowest, zero(), mul(e, pow2i(n)));
}

inline F32x16 sigmoid(F32x16 x) { return div(set1(1.0f), add(set1(1.0f), exp(sub(zero(), x)))); }
inline F32x16 silu(F32x16 x) { return div(x, add(set1(1.0f), exp(sub(zero(), x)))); }
// Absolute error below 1e-7.
inline F32x16 tanh(F32x16 x) {
  return sub(set1(1.0f), div(set1(2.0f), add(set1(1.0f), exp(add(x, x)))));
}

// x = s l + m with codes l in 0..L: the search behind Q4_1, Q5_1, Q2_K, Q4_K and Q5_K.
//
// Weighted least squares throughout. Given codes, the best (s, m) solves a 2x2 system; given (s, m), the best codes
// are the nearest. Starting points are ranges clipped more or less at either end.

// Sums over a sub-block's codes: of w l, w l^2, w x l.
struct AffineSums {
  F32x16 l, ll, xl;
};

struct AffineFit {
  F32x16 s, m;
  F32x16 error;
  AffineSums sums;
};

template <int L>
inline F32x16 affine_code(F32x16 x, F32x16 inverse, F32x16 offset) {
  return round(clamp(add(mul(x, inverse), offset), 0.0f, static_cast<float>(L)));
}

// The sums of C ranges' codes in one pass.
template <int L, int C, class G>
inline void affine_sums(const G& g, const F32x16 (&inverse)[C], const F32x16 (&offset)[C], AffineSums (&out)[C]) {
  for (AffineSums& s : out) s = {zero(), zero(), zero()};
  for (int i = 0; i < G::kValues; ++i) {
    const F32x16 x = load(g.x + i * 16), w = load(g.w + i * 16);
    for (int c = 0; c < C; ++c) {
      const F32x16 l = affine_code<L>(x, inverse[c], offset[c]), wl = mul(w, l);
      out[c].l = add(out[c].l, wl);
      out[c].ll = add(out[c].ll, mul(wl, l));
      out[c].xl = add(out[c].xl, mul(wl, x));
    }
  }
}

// The codes nearest to s l + m, as range parameters.
inline void affine_nearest(F32x16 s, F32x16 m, F32x16& inv, F32x16& offset) {
  inv = inverse(s);
  offset = neg(mul(m, inv));
}

template <class G>
inline F32x16 affine_error(const G& g, const AffineSums& a, F32x16 s, F32x16 m) {
  const F32x16 two = set1(2.0f);
  const F32x16 scale_part = mul(s, sub(mul(s, a.ll), mul(two, sub(a.xl, mul(m, a.l)))));
  const F32x16 min_part = mul(m, sub(mul(m, g.w_sum), mul(two, g.x_sum)));
  return add(g.xx_sum, add(scale_part, min_part));
}

// The best (s, m) for given codes, with m <= 0 where kMinBelow.
template <bool kMinBelow, class G>
inline AffineFit affine_solve(const G& g, const AffineSums& a) {
  const F32x16 det = sub(mul(g.w_sum, a.ll), mul(a.l, a.l));
  // All codes alike: the determinant is rounding noise.
  const F32x16 tiny = mul(set1(1e-6f), mul(g.w_sum, a.ll));
  const F32x16 level = div(g.x_sum, g.w_sum);
  F32x16 s = select_lt(tiny, det, div(sub(mul(g.w_sum, a.xl), mul(g.x_sum, a.l)), det), zero());
  F32x16 m = select_lt(tiny, det, div(sub(mul(a.ll, g.x_sum), mul(a.l, a.xl)), det), level);
  if constexpr (kMinBelow) {
    s = select_lt(zero(), m, ratio(a.xl, a.ll), s);
    m = min(m, zero());
  }
  return {s, m, affine_error(g, a, s, m), a};
}

inline void affine_keep(AffineFit& best, const AffineFit& f) {
  const F32x16 a = f.error, b = best.error;
  best = {pick(a, b, f.s, best.s), pick(a, b, f.m, best.m), min(a, b),
          {pick(a, b, f.sums.l, best.sums.l), pick(a, b, f.sums.ll, best.sums.ll),
           pick(a, b, f.sums.xl, best.sums.xl)}};
}

// What is cut from a range at either end, in steps of it: first from that of the values, then from the best fit's.
constexpr float kAffineCuts[4] = {-0.6f, -0.05f, 0.5f, 1.2f};
constexpr float kAffineShifts[4] = {-0.3f, -0.1f, 0.1f, 0.3f};

// Fits from the codes of ranges [low, low + L step] with every pair of cuts.
template <int L, bool kMinBelow, class G>
inline void affine_try(const G& g, const F32x16 low, const F32x16 step, const float (&cuts)[4], AffineFit& best) {
  for (const float below : cuts) {
    F32x16 inv[4], offset[4];
    AffineSums sums[4];
    for (int k = 0; k < 4; ++k)
      affine_nearest(mul(step, set1(1.0f - (below + cuts[k]) / L)), add(low, mul(step, set1(below))), inv[k],
                     offset[k]);
    affine_sums<L>(g, inv, offset, sums);
    for (int k = 0; k < 4; ++k) affine_keep(best, affine_solve<kMinBelow>(g, sums[k]));
  }
}

// The best real-valued (s, m) of each sub-block.
template <int L, bool kMinBelow, class G>
inline AffineFit affine_search(const G& g) {
  F32x16 low = load(g.x), high = low;
  for (int i = 1; i < G::kValues; ++i) {
    low = min(low, load(g.x + i * 16));
    high = max(high, load(g.x + i * 16));
  }
  if constexpr (kMinBelow) low = min(low, zero());
  const F32x16 step = mul(sub(high, low), set1(1.0f / L));
  AffineFit best{zero(), zero(), set1(__builtin_inff()), {zero(), zero(), zero()}};
  affine_try<L, kMinBelow>(g, low, step, kAffineCuts, best);
  affine_try<L, kMinBelow>(g, best.m, best.s, kAffineShifts, best);
  return best;
}

// Integer scales and minima of a super-block's sub-blocks: s = d ls, m = -dmin lm.
struct AffineScales {
  F32x16 d, dmin, ls, lm;
  F32x16 error;  // of the super-block
};

// The integers in 0..S that fit the codes behind `sums` best: the two next to the best scale, each with its minimum.
template <int S, class G>
inline void affine_integers(const G& g, const AffineFit& f, AffineScales& a) {
  const F32x16 inv_d = inverse(a.d), inv_min = inverse(a.dmin);
  const F32x16 inv_w = div(set1(1.0f), g.w_sum);
  // The best scale when the minimum may follow.
  const F32x16 below = round(clamp(sub(mul(f.s, inv_d), set1(0.5f)), 0.0f, S));
  F32x16 error = set1(__builtin_inff());
  for (int up = 0; up < 2; ++up) {
    const F32x16 ls = min(add(below, set1(static_cast<float>(up))), set1(S));
    const F32x16 s = mul(ls, a.d);
    const F32x16 m = mul(sub(mul(s, f.sums.l), g.x_sum), inv_w);  // -m, best for s
    const F32x16 lm = round(clamp(mul(m, inv_min), 0.0f, S));
    const F32x16 e = affine_error(g, f.sums, s, neg(mul(lm, a.dmin)));
    a.ls = up ? select_lt(e, error, ls, a.ls) : ls;
    a.lm = up ? select_lt(e, error, lm, a.lm) : lm;
    error = min(e, error);
  }
  a.error = error;
}

inline void affine_keep(AffineScales& best, const AffineScales& a) {
  const F32x16 x = a.error, y = best.error;
  best = {pick(x, y, a.d, best.d), pick(x, y, a.dmin, best.dmin), pick(x, y, a.ls, best.ls),
          pick(x, y, a.lm, best.lm), min(x, y)};
}

// d and dmin by least squares, for the integers in `a` and codes behind `sums`.
template <int kSuper, class G>
inline void affine_solve_super(const G& g, const AffineSums& sums, AffineScales& a) {
  const F32x16 ss = sum_super<kSuper>(mul(mul(a.ls, a.ls), sums.ll));
  const F32x16 sm = sum_super<kSuper>(mul(mul(a.ls, a.lm), sums.l));
  const F32x16 mm = sum_super<kSuper>(mul(mul(a.lm, a.lm), g.w_sum));
  const F32x16 xs = sum_super<kSuper>(mul(a.ls, sums.xl));
  const F32x16 xm = neg(sum_super<kSuper>(mul(a.lm, g.x_sum)));
  const F32x16 det = sub(mul(ss, mm), mul(sm, sm)), tiny = mul(set1(1e-6f), mul(ss, mm));
  const F32x16 d = select_lt(tiny, det, div(add(mul(xs, mm), mul(xm, sm)), det), ratio(xs, ss));
  const F32x16 dmin = select_lt(tiny, det, div(add(mul(xm, ss), mul(xs, sm)), det), a.dmin);
  a.d = g.half(max(d, zero()));
  a.dmin = g.half(max(dmin, zero()));
}

// One pass over the values: nearest codes for the scales in `a`; their sums and exact error.
template <int L, int kSuper, class G>
inline AffineFit affine_recode(const G& g, AffineScales& a) {
  F32x16 inv[1], offset[1];
  AffineSums sums[1];
  const F32x16 s = mul(a.ls, a.d), m = neg(mul(a.lm, a.dmin));
  affine_nearest(s, m, inv[0], offset[0]);
  affine_sums<L>(g, inv, offset, sums);
  a.error = sum_super<kSuper>(affine_error(g, sums[0], s, m));
  return affine_solve<true>(g, sums[0]);
}

// Blocks of their own: scale and minimum are halves, of any sign.
template <int L, class G>
inline AffineFit affine_single(const G& g) {
  AffineFit fit = affine_search<L, false>(g), best = fit;
  best.error = set1(__builtin_inff());
  for (int round = 0; round < 2; ++round) {
    F32x16 inv[1], offset[1];
    AffineSums sums[1];
    const F32x16 s = g.half(fit.s);
    F32x16 m = g.half(div(sub(g.x_sum, mul(s, fit.sums.l)), g.w_sum));
    affine_nearest(s, m, inv[0], offset[0]);
    affine_sums<L>(g, inv, offset, sums);
    affine_keep(best, {s, m, affine_error(g, sums[0], s, m), sums[0]});
    fit = affine_solve<false>(g, sums[0]);
  }
  return best;
}

// Each sub-block's best pair of integers among the one in `a` and its neighbours, codes following; their sums.
template <int L, int S, int kSuper, class G>
inline AffineSums affine_step(const G& g, AffineScales& a) {
  constexpr float kSteps[][2] = {{0, 0}, {1, 1}, {-1, -1}, {1, 0}, {-1, 0}, {0, 1}, {0, -1}, {1, -1}, {-1, 1}};
  constexpr int kTogether = 3;
  const F32x16 ls = a.ls, lm = a.lm;
  AffineSums best{};
  F32x16 error = set1(__builtin_inff());
  for (size_t c = 0; c < std::size(kSteps); c += kTogether) {
    F32x16 inv[kTogether], offset[kTogether], s[kTogether], m[kTogether];
    AffineSums sums[kTogether];
    for (int k = 0; k < kTogether; ++k) {
      s[k] = clamp(add(ls, set1(kSteps[c + k][0])), 0.0f, S);
      m[k] = clamp(add(lm, set1(kSteps[c + k][1])), 0.0f, S);
      affine_nearest(mul(s[k], a.d), neg(mul(m[k], a.dmin)), inv[k], offset[k]);
    }
    affine_sums<L>(g, inv, offset, sums);
    for (int k = 0; k < kTogether; ++k) {
      const F32x16 e = affine_error(g, sums[k], mul(s[k], a.d), neg(mul(m[k], a.dmin)));
      a.ls = pick(e, error, s[k], a.ls);
      a.lm = pick(e, error, m[k], a.lm);
      best = {pick(e, error, sums[k].l, best.l), pick(e, error, sums[k].ll, best.ll),
              pick(e, error, sums[k].xl, best.xl)};
      error = min(e, error);
    }
  }
  a.error = sum_super<kSuper>(error);
  return best;
}

// How many integers less than S the largest scale, or minimum, of a super-block may take.
constexpr float kAffineScaleCuts[] = {-0.5f, 0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f};

// Scales of a super-block: chosen for the codes of the best real-valued fits, then codes, integers and d, dmin in turn.
template <int L, int S, int kSuper, class G>
inline AffineScales affine_super(const G& g) {
  AffineFit fit = affine_search<L, true>(g);
  const F32x16 top_s = max_super<kSuper>(fit.s), top_m = max_super<kSuper>(neg(fit.m));
  AffineScales best{zero(), zero(), zero(), zero(), set1(__builtin_inff())};
  const auto consider = [&](F32x16 d, F32x16 dmin) {
    AffineScales a{d, dmin, zero(), zero(), zero()};
    affine_integers<S>(g, fit, a);
    a.error = sum_super<kSuper>(a.error);
    affine_keep(best, a);
  };
  const F32x16 dmin = g.half(mul(top_m, set1(1.0f / S)));
  for (float cut : kAffineScaleCuts) consider(g.half(mul(top_s, set1(1.0f / (S - cut)))), dmin);
  for (float cut : kAffineScaleCuts) consider(best.d, g.half(mul(top_m, set1(1.0f / (S - cut)))));
  AffineScales a = best;
  best.error = set1(__builtin_inff());
  for (int round = 0; round < 2; ++round) {
    fit = affine_recode<L, kSuper>(g, a);
    affine_keep(best, a);
    affine_solve_super<kSuper>(g, fit.sums, a);
    affine_integers<S>(g, fit, a);
  }
  a = best;
  const AffineSums sums = affine_step<L, S, kSuper>(g, a);
  affine_keep(best, a);
  affine_solve_super<kSuper>(g, sums, a);
  affine_recode<L, kSuper>(g, a);
  affine_keep(best, a);
  return best;
}

// The codes of scales s and minima m, in lanes.
template <int L, class G>
inline void affine_codes(const G& g, F32x16 s, F32x16 m, int8_t* lanes) {
  F32x16 inv, offset;
  affine_nearest(s, m, inv, offset);
  for (int i = 0; i < G::kValues; ++i) store_i8(lanes + i * 16, affine_code<L>(load(g.x + i * 16), inv, offset));
}

// x = s l with levels l around zero: the search behind Q4_0, Q5_0, Q3_K, Q6_K (evenly spaced), IQ4_NL and IQ4_XS
// (a table). The scale may be negative: it decides at which end the larger level lies.
//
// Given codes, the best scale is a ratio of two sums; given the scale, the best codes are the nearest. Starting points
// lay the largest value at, inside or outside either end of the levels.

// Codes -L..L-1.
template <int L>
struct EvenLevels {
  static constexpr float kLow = -L, kHigh = L - 1, kStep = 1.0f;
  static F32x16 level(F32x16 v) { return round(clamp(v, kLow, kHigh)); }
  static F32x16 code(F32x16 v) { return add(level(v), set1(L)); }  // as it is stored
};

// The levels of IQ4_NL. The level below v comes from a parabola that runs between the middles of neighbours.
struct TableLevels {
  static constexpr float kLow = -127.0f, kHigh = 113.0f, kStep = 16.0f;
  alignas(64) static constexpr float kLevels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                    1,    13,   25,  38,  53,  69,  89,  113};
  alignas(64) static constexpr float kMiddles[16] = {-115.5f, -93.5f, -74.0f, -57.0f, -42.0f, -28.5f, -16.0f, -4.5f,
                                                     7.0f,    19.0f,  31.5f,  45.5f,  61.0f,  79.0f,  101.0f, 1e9f};
  // The index of the level nearest to v; the upper of two.
  static F32x16 code(F32x16 v) {
    const F32x16 c = clamp(v, kLow, kHigh);
    const F32x16 curve = add(mul(add(mul(c, set1(1.24580509e-5f)), set1(0.0691950449f)), c), set1(7.85502503f));
    const F32x16 k = clamp(round(sub(curve, set1(0.5f))), 0.0f, 14.0f);
    return select_lt(c, lookup(kMiddles, k), k, add(k, set1(1.0f)));
  }
  static F32x16 level(F32x16 v) { return lookup(kLevels, code(v)); }
};

// Sums over a sub-block's codes: of w l^2, w x l.
struct SymmetricSums {
  F32x16 ll, xl;
};

struct SymmetricFit {
  F32x16 s;
  F32x16 gain;  // what the codes take off the sum of w x^2
  SymmetricSums sums;
};

template <class Levels, int C, class G>
inline void symmetric_sums(const G& g, const F32x16 (&inv)[C], SymmetricSums (&out)[C]) {
  for (SymmetricSums& s : out) s = {zero(), zero()};
  for (int i = 0; i < G::kValues; ++i) {
    const F32x16 x = load(g.x + i * 16), w = load(g.w + i * 16);
    for (int c = 0; c < C; ++c) {
      const F32x16 l = Levels::level(mul(x, inv[c])), wl = mul(w, l);
      out[c].ll = add(out[c].ll, mul(wl, l));
      out[c].xl = add(out[c].xl, mul(wl, x));
    }
  }
}

inline SymmetricFit symmetric_solve(const SymmetricSums& a) {
  const F32x16 s = ratio(a.xl, a.ll);
  return {s, mul(s, a.xl), a};
}

template <class G>
inline F32x16 symmetric_error(const G& g, const SymmetricSums& a, F32x16 s) {
  return add(g.xx_sum, mul(s, sub(mul(s, a.ll), mul(set1(2.0f), a.xl))));
}

inline void symmetric_keep(SymmetricFit& best, const SymmetricFit& f) {
  const F32x16 a = best.gain, b = f.gain;
  best = {pick(a, b, f.s, best.s), max(a, b),
          {pick(a, b, f.sums.ll, best.sums.ll), pick(a, b, f.sums.xl, best.sums.xl)}};
}

// How far outside an end of the levels the largest value starts, in steps; then what the best is stretched by.
constexpr float kSymmetricStarts[8] = {-0.9f, -0.45f, 0.0f, 0.45f, 0.9f, 1.4f, 2.0f, 2.8f};
constexpr float kSymmetricShifts[8] = {-0.6f, -0.4f, -0.2f, -0.1f, 0.1f, 0.2f, 0.4f, 0.6f};

// Fits from the codes of inverse scales inv (1 + step * stretch).
template <class Levels, class G>
inline void symmetric_try(const G& g, const F32x16 inv, float step, const float (&stretches)[8],
                          SymmetricFit& best) {
  for (int c = 0; c < 8; c += 4) {
    F32x16 tried[4];
    SymmetricSums sums[4];
    for (int k = 0; k < 4; ++k) tried[k] = mul(inv, set1(1.0f + step * stretches[c + k]));
    symmetric_sums<Levels>(g, tried, sums);
    for (int k = 0; k < 4; ++k) symmetric_keep(best, symmetric_solve(sums[k]));
  }
}

// The best real-valued scale of each sub-block.
template <class Levels, class G>
inline SymmetricFit symmetric_search(const G& g) {
  const F32x16 one_over = inverse(extreme<G::kValues>(g.x));
  SymmetricFit best{zero(), zero(), {zero(), zero()}};
  for (const float end : {Levels::kLow, Levels::kHigh})
    symmetric_try<Levels>(g, mul(one_over, set1(end)), Levels::kStep / __builtin_fabsf(end), kSymmetricStarts, best);
  symmetric_try<Levels>(g, inverse(best.s), Levels::kStep / Levels::kHigh, kSymmetricShifts, best);
  return best;
}

// Integer scales of a super-block's sub-blocks: s = d ls. A block of its own has ls = 1.
struct SymmetricScales {
  F32x16 d, ls;
  F32x16 error;  // of the super-block
};

inline void symmetric_keep(SymmetricScales& best, const SymmetricScales& a) {
  const F32x16 x = a.error, y = best.error;
  best = {pick(x, y, a.d, best.d), pick(x, y, a.ls, best.ls), min(x, y)};
}

template <int S>
inline F32x16 symmetric_integers(F32x16 s, F32x16 d) {
  return round(clamp(mul(s, inverse(d)), -S, S - 1));
}

// One pass over the values: nearest codes for the scales in `a`; their best scales, and the exact error.
template <class Levels, int kSuper, class G>
inline SymmetricFit symmetric_recode(const G& g, SymmetricScales& a) {
  const F32x16 s = mul(a.ls, a.d);
  F32x16 inv[1] = {inverse(s)};
  SymmetricSums sums[1];
  symmetric_sums<Levels>(g, inv, sums);
  a.error = sum_super<kSuper>(symmetric_error(g, sums[0], s));
  return symmetric_solve(sums[0]);
}

// How many integers less than S the largest scale of a super-block may take.
constexpr float kSymmetricScaleCuts[] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};

// Scales of a super-block: chosen for the codes of the best real-valued fits, then codes, d and integers in turn.
template <class Levels, int S, int kSuper, class G>
inline SymmetricScales symmetric_super(const G& g) {
  SymmetricFit fit = symmetric_search<Levels>(g);
  const F32x16 top = max_super<kSuper>(abs(fit.s));
  SymmetricScales best{zero(), zero(), set1(__builtin_inff())};
  for (const float sign : {-1.0f, 1.0f})
    for (const float cut : kSymmetricScaleCuts) {
      SymmetricScales a{g.half(mul(top, set1(sign / (S - cut)))), zero(), zero()};
      a.ls = symmetric_integers<S>(fit.s, a.d);
      a.error = sum_super<kSuper>(symmetric_error(g, fit.sums, mul(a.ls, a.d)));
      symmetric_keep(best, a);
    }
  SymmetricScales a = best;
  best.error = set1(__builtin_inff());
  for (int round = 0; round < 3; ++round) {
    fit = symmetric_recode<Levels, kSuper>(g, a);
    symmetric_keep(best, a);
    const F32x16 xs = sum_super<kSuper>(mul(a.ls, fit.sums.xl));
    const F32x16 ss = sum_super<kSuper>(mul(mul(a.ls, a.ls), fit.sums.ll));
    a.d = g.half(ratio(xs, ss));
    a.ls = symmetric_integers<S>(fit.s, a.d);
  }
  return best;
}

// Blocks of their own: the scale is a half.
template <class Levels, class G>
inline SymmetricScales symmetric_single(const G& g) {
  SymmetricFit fit = symmetric_search<Levels>(g);
  SymmetricScales best{zero(), set1(1.0f), set1(__builtin_inff())};
  for (int round = 0; round < 2; ++round) {
    SymmetricScales a{g.half(fit.s), set1(1.0f), zero()};
    fit = symmetric_recode<Levels, 1>(g, a);
    symmetric_keep(best, a);
  }
  return best;
}

template <class Levels, class G>
inline void symmetric_codes(const G& g, F32x16 s, int8_t* lanes) {
  const F32x16 inv = inverse(s);
  for (int i = 0; i < G::kValues; ++i) store_i8(lanes + i * 16, Levels::code(mul(load(g.x + i * 16), inv)));
}

// The first `count` lanes as blocks of scale d.
template <class Levels, class G, class Block>
inline void store_symmetric(const G& g, F32x16 d, Block* out, int64_t count) {
  alignas(64) int8_t lanes[G::kValues * 16], codes[G::kValues * 16];
  symmetric_codes<Levels>(g, d, lanes);
  from_lanes(lanes, G::kValues, codes);
  alignas(64) uint16_t halves[16];
  store_halves(g, d, halves);
  for (int64_t b = 0; b < count; ++b) {
    out[b].d = halves[b];
    pack(out[b], codes + b * G::kValues);
  }
}

// Formats whose codes follow from the largest value of a block, or from few tries: Q8_0, MXFP4, and without importance
// Q4_0 and IQ4_NL. They are what llama.cpp writes, byte for byte, so every choice is in its order of operations.

// Nearest integer of v >= 0, ties upwards.
inline F32x16 round_half_up(F32x16 v) {
  const F32x16 r = round(v);
  return select_lt(sub(v, r), set1(0.5f), r, add(r, set1(1.0f)));
}

bool to_q8_0(const BlockTask& t) {
  auto* out = reinterpret_cast<BlockQ8_0*>(t.out);
  for (int64_t b = 0; b < t.n_rows * t.cols / 32; ++b) {
    const F32x16 x0 = load(t.x + b * 32), x1 = load(t.x + b * 32 + 16);
    const float d = hmax(max(abs(x0), abs(x1))) / 127.0f;
    const F32x16 inverse = set1(d > 0 ? 1.0f / d : 0.0f);
    const auto codes = [&](F32x16 x, int8_t* q) {
      const F32x16 r = round_half_up(abs(mul(x, inverse)));
      store_i8(q, select_lt(x, zero(), sub(zero(), r), r));
    };
    codes(x0, out[b].qs);
    codes(x1, out[b].qs + 16);
    out[b].d = to_half(d);
  }
  return true;
}

bool to_q4_0(const BlockTask& t) {
  auto* out = reinterpret_cast<BlockQ4_0*>(t.out);
  const int64_t n_blocks = t.n_rows * t.cols / 32;
  for (int64_t b = 0; b < n_blocks; b += 16) {
    const int64_t lanes = n_blocks - b < 16 ? n_blocks - b : 16;
    alignas(64) float x[32 * 16];
    to_lanes(t.x + b * 32, 32, lanes, x);
    const F32x16 d = div(extreme<32>(x), set1(-8.0f));
    const F32x16 inv = inverse(d);
    alignas(64) int8_t codes[32 * 16];
    for (int i = 0; i < 32; ++i) {
      const F32x16 v = add(mul(load(x + i * 16), inv), set1(8.5f)), r = round(v);
      store_i8(codes + i * 16, min(set1(15.0f), select_lt(v, r, sub(r, set1(1.0f)), r)));
    }
    alignas(64) int8_t flat[32 * 16];
    from_lanes(codes, 32, flat);
    alignas(64) float scales[16];
    store(scales, d);
    for (int j = 0; j < lanes; ++j) {
      out[b + j].d = to_half(scales[j]);
      pack_nibbles(flat + j * 32, 16, out[b + j].qs);
    }
  }
  return true;
}

// The scale for which the codes fit best under weights x^2: a try with the largest value at the far end, then 15 that
// lay it around the lowest level.
bool to_iq4_nl(const BlockTask& t) {
  auto* out = reinterpret_cast<BlockIQ4_NL*>(t.out);
  constexpr float kNothing = 1e-15f;  // blocks of smaller values are zero
  each_group<32, 1>(t, [&](Group<32, 1>& g, int64_t first, int64_t count) {
    for (int i = 0; i < 32; ++i) store(g.w + i * 16, mul(load(g.x + i * 16), load(g.x + i * 16)));
    const F32x16 largest = extreme<32>(g.x);
    F32x16 d = zero(), best = zero();
    for (int k = -1; k < 15; ++k) {
      const F32x16 start = k < 0 ? div(set1(1.0f), div(neg(largest), set1(-127.0f)))
                                 : div(set1(static_cast<float>(k - 7) - 127.0f), largest);
      const F32x16 inv[1] = {select_lt(zero(), abs(largest), start, zero())};
      SymmetricSums a[1];
      symmetric_sums<TableLevels>(g, inv, a);
      const F32x16 s = ratio(a[0].xl, a[0].ll), old = mul(best, a[0].ll), now = mul(a[0].xl, a[0].xl);
      const F32x16 better = k < 0 ? set1(1.0f) : select_lt(old, now, set1(1.0f), zero());
      d = select_lt(zero(), better, s, d);
      best = select_lt(zero(), better, mul(s, a[0].xl), best);
    }
    d = select_lt(mul(abs(largest), g.unit), set1(kNothing), zero(), d);
    store_symmetric<TableLevels>(g, d, out + first, count);
  });
  return true;
}

// The nearest code of v, in steps of half MXFP4's smallest: of two levels the smaller, and no negative zero.
inline F32x16 mxfp4_code(F32x16 v) {
  const F32x16 size = abs(v);
  F32x16 code = zero();
  for (const float middle : {0.5f, 1.5f, 2.5f, 3.5f, 5.0f, 7.0f, 10.0f})
    code = add(code, select_lt(set1(middle), size, set1(1.0f), zero()));
  const F32x16 negative = select_lt(v, zero(), set1(8.0f), zero());
  return add(code, select_lt(zero(), code, negative, zero()));
}

// The exponent field of a float: floor(log2) + 127, 0 for what is subnormal.
inline int exponent_field(float f) { return static_cast<int>(std::bit_cast<uint32_t>(f) >> 23 & 255); }

// The scale is a power of two: that of the largest value, over 4; with importance also twice or half that, if better.
bool to_mxfp4(const BlockTask& t) {
  auto* out = reinterpret_cast<BlockMXFP4*>(t.out);
  alignas(64) static constexpr float kLevels[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  each_group<32, 1>(t, [&](const Group<32, 1>& g, int64_t first, int64_t count) {
    alignas(64) float size[16], shift[16];
    store(size, mul(abs(extreme<32>(g.x)), g.unit));
    F32x16 least = set1(__builtin_inff()), best = zero();
    for (const float step : {1.0f, 2.0f, 0.5f}) {
      const F32x16 inv = set1(8.0f / step);  // the largest value has been scaled to between 1 and 2
      F32x16 error = zero();
      for (int i = 0; i < 32; ++i) {
        const F32x16 v = mul(load(g.x + i * 16), inv), diff = sub(v, lookup(kLevels, mxfp4_code(v)));
        error = add(error, mul(load(g.w + i * 16), mul(diff, diff)));
      }
      error = mul(error, set1(step * step));
      best = pick(error, least, set1(step), best);
      least = min(error, least);
      if (!t.importance) break;
    }
    store(shift, best);
    alignas(64) float d[16];
    for (int j = 0; j < 16; ++j) {
      const int e = exponent_field(size[j]) - 2 + (shift[j] > 1 ? 1 : shift[j] < 1 ? -1 : 0);
      const int kept = size[j] > 0 && e > 0 ? (e < 254 ? e : 254) : 0;
      if (j < count) out[first + j].e = static_cast<uint8_t>(kept);
      d[j] = e8m0_half_to_float(static_cast<uint8_t>(kept));
    }
    const F32x16 inv = div(g.unit, load(d));
    alignas(64) int8_t lanes[32 * 16], codes[32 * 16];
    for (int i = 0; i < 32; ++i) store_i8(lanes + i * 16, mxfp4_code(mul(load(g.x + i * 16), inv)));
    from_lanes(lanes, 32, codes);
    for (int64_t b = 0; b < count; ++b) pack(out[first + b], codes + b * 32);
  });
  return true;
}

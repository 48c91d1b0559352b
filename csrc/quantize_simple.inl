// The formats whose codes follow from the largest value of a block: Q8_0 and Q4_0 as llama.cpp defines them.

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
    F32x16 largest = zero(), size = zero();  // the first value of the largest size
    for (int i = 0; i < 32; ++i) {
      const F32x16 v = load(x + i * 16), a = abs(v);
      largest = select_lt(size, a, v, largest);
      size = max(size, a);
    }
    const F32x16 d = div(largest, set1(-8.0f));
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

// Float formats in and out, on F32x16.

// x with infinities and NaN made NaN, everything else 0: sums of these tell whether all values were finite.
inline F32x16 not_finite(F32x16 x) { return mul(x, zero()); }

template <class Load>
inline bool widen_row(int64_t n, float* out, Load&& load_16) {
  F32x16 bad = zero();
  for (int64_t i = 0; i < n; i += 16) {
    const F32x16 v = load_16(i, n - i < 16 ? n - i : 16);
    bad = add(bad, not_finite(v));
    store_part(out + i, v, n - i < 16 ? n - i : 16);
  }
  return hsum(bad) == 0.0f;
}

// The first `lanes` halves at p, zeros behind.
inline F32x16 load_bits_16(const uint16_t* p, int64_t lanes, F32x16 (*convert)(const uint16_t*)) {
  if (lanes == 16) return convert(p);
  uint16_t bits[16] = {};
  std::memcpy(bits, p, static_cast<size_t>(lanes) * 2);
  return convert(bits);
}

bool widen(TensorType type, const std::byte* source, int64_t n, float* out) {
  const auto* bits = reinterpret_cast<const uint16_t*>(source);
  switch (type) {
    case TensorType::f16:
      return widen_row(n, out, [&](int64_t i, int64_t lanes) { return load_bits_16(bits + i, lanes, load_f16); });
    case TensorType::bf16:
      return widen_row(n, out, [&](int64_t i, int64_t lanes) { return load_bits_16(bits + i, lanes, load_bf16); });
    default: {
      const auto* floats = reinterpret_cast<const float*>(source);
      return widen_row(n, out, [&](int64_t i, int64_t lanes) { return load_part(floats + i, lanes); });
    }
  }
}

bool to_f32(const BlockTask& t) {
  std::memcpy(t.out, t.x, static_cast<size_t>(t.n_rows * t.cols) * 4);
  return true;
}

bool to_f16(const BlockTask& t) {
  constexpr float kOverflow = 65520.0f;  // what rounds to 2^16, which is an infinity
  F32x16 largest = zero();
  const int64_t n = t.n_rows * t.cols;
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t lanes = n - i < 16 ? n - i : 16;
    const F32x16 v = load_part(t.x + i, lanes);
    largest = max(largest, abs(v));
    uint16_t bits[16];
    store_f16(bits, v);
    std::memcpy(t.out + i * 2, bits, static_cast<size_t>(lanes) * 2);
  }
  return hmax(largest) < kOverflow;
}

// To nearest, ties to even. A value above the largest bfloat16 rounds to it: there is no infinity in weights.
bool to_bf16(const BlockTask& t) {
  const int64_t n = t.n_rows * t.cols;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(t.x[i]);
    const uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
    const auto half = static_cast<uint16_t>((rounded & 0x7FFFu) == 0x7F80u ? rounded - 1 : rounded);
    std::memcpy(t.out + i * 2, &half, 2);
  }
  return true;
}

// One GGUF block to plain numbers, in portable C++: what dequantization, the scalar kernels and their tests
// read. The SIMD kernels unpack many rows at once and have their own (formats_simd.inl).
#pragma once

#include <cstring>

#include "blocks.h"
#include "half.h"
#include "tensor_type.h"

namespace pintpot {

// w[i] = d * q[i] + m
struct PlainBlock {
  using Act = ActBlock;
  static constexpr int kValues = 32;
  float d, m;
  int8_t q[32];
};

// w[i] = d * scale[i / 16] * q[i] - dmin * min[i / 16]
struct PlainSuper {
  using Act = ActSuper;
  static constexpr int kValues = 256;
  float d, dmin;
  int16_t scale[16], min[16];
  int8_t q[256];
};

inline PlainBlock decode_block(const BlockQ8_0& b) {
  PlainBlock p{half_to_float(b.d), 0, {}};
  std::memcpy(p.q, b.qs, 32);
  return p;
}

template <class Code>
PlainBlock decode_nibbles(float d, float m, const uint8_t (&qs)[16], Code code) {
  PlainBlock p{d, m, {}};
  for (int i = 0; i < 16; ++i) {
    p.q[i] = static_cast<int8_t>(code(qs[i] & 15, i));
    p.q[i + 16] = static_cast<int8_t>(code(qs[i] >> 4, i + 16));
  }
  return p;
}

inline int bit(const uint8_t* bytes, int i) { return bytes[i / 8] >> (i % 8) & 1; }

inline PlainBlock decode_block(const BlockQ4_0& b) {
  return decode_nibbles(half_to_float(b.d), 0, b.qs, [](int n, int) { return n - 8; });
}
inline PlainBlock decode_block(const BlockQ4_1& b) {
  return decode_nibbles(half_to_float(b.d), half_to_float(b.m), b.qs, [](int n, int) { return n; });
}
inline PlainBlock decode_block(const BlockQ5_0& b) {
  return decode_nibbles(half_to_float(b.d), 0, b.qs, [&](int n, int i) { return n + 16 * bit(b.qh, i) - 16; });
}
inline PlainBlock decode_block(const BlockQ5_1& b) {
  return decode_nibbles(half_to_float(b.d), half_to_float(b.m), b.qs,
                        [&](int n, int i) { return n + 16 * bit(b.qh, i); });
}
inline PlainBlock decode_block(const BlockIQ4_NL& b) {
  return decode_nibbles(half_to_float(b.d), 0, b.qs, [](int n, int) { return kIQ4Codes[n]; });
}
inline PlainBlock decode_block(const BlockMXFP4& b) {
  return decode_nibbles(e8m0_half_to_float(b.e), 0, b.qs, [](int n, int) { return kMXFP4Codes[n]; });
}

inline PlainSuper decode_block(const BlockQ2_K& b) {
  PlainSuper p{half_to_float(b.d), half_to_float(b.dmin), {}, {}, {}};
  for (int j = 0; j < 16; ++j) {
    p.scale[j] = b.scales[j] & 15;
    p.min[j] = b.scales[j] >> 4;
  }
  for (int i = 0; i < 256; ++i)  // each 32 bytes hold four groups of 32 codes, two bits apart
    p.q[i] = b.qs[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
  return p;
}

inline PlainSuper decode_block(const BlockQ3_K& b) {
  PlainSuper p{half_to_float(b.d), 0, {}, {}, {}};
  for (int j = 0; j < 16; ++j) {
    const int low = b.scales[j % 8] >> (j / 8 * 4) & 15;
    const int high = b.scales[8 + j % 4] >> (j / 4 * 2) & 3;
    p.scale[j] = static_cast<int16_t>((high << 4 | low) - 32);
  }
  for (int i = 0; i < 256; ++i) {
    const int low = b.qs[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
    const int high = b.hmask[i % 32] >> (i / 32) & 1;
    p.q[i] = static_cast<int8_t>((high << 2 | low) - 4);
  }
  return p;
}

// The 6-bit scales and mins of Q4_K and Q5_K: the first four whole, the last four with their top bits in
// the first four's.
inline void decode_scales_6bit(const uint8_t (&s)[12], PlainSuper& p) {
  for (int j = 0; j < 8; ++j) {
    const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
    const int min = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
    p.scale[2 * j] = p.scale[2 * j + 1] = static_cast<int16_t>(scale);
    p.min[2 * j] = p.min[2 * j + 1] = static_cast<int16_t>(min);
  }
}

inline PlainSuper decode_block(const BlockQ4_K& b) {
  PlainSuper p{half_to_float(b.d), half_to_float(b.dmin), {}, {}, {}};
  decode_scales_6bit(b.scales, p);
  for (int i = 0; i < 256; ++i) p.q[i] = b.qs[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
  return p;
}

inline PlainSuper decode_block(const BlockQ5_K& b) {
  PlainSuper p{half_to_float(b.d), half_to_float(b.dmin), {}, {}, {}};
  decode_scales_6bit(b.scales, p);
  for (int i = 0; i < 256; ++i) {
    const int low = b.qs[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
    p.q[i] = static_cast<int8_t>(low | (b.qh[i % 32] >> (i / 32) & 1) << 4);
  }
  return p;
}

inline PlainSuper decode_block(const BlockQ6_K& b) {
  PlainSuper p{half_to_float(b.d), 0, {}, {}, {}};
  for (int j = 0; j < 16; ++j) p.scale[j] = b.scales[j];
  for (int i = 0; i < 256; ++i) {
    const int low = b.ql[i / 128 * 64 + i % 64] >> (i / 64 % 2 * 4) & 15;
    const int high = b.qh[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
    p.q[i] = static_cast<int8_t>((high << 4 | low) - 32);
  }
  return p;
}

inline PlainSuper decode_block(const BlockIQ4_XS& b) {
  PlainSuper p{half_to_float(b.d), 0, {}, {}, {}};
  for (int j = 0; j < 8; ++j) {
    const int scale = (b.scales_l[j / 2] >> (j % 2 * 4) & 15) | (b.scales_h >> (j * 2) & 3) << 4;
    p.scale[2 * j] = p.scale[2 * j + 1] = static_cast<int16_t>(scale - 32);
  }
  for (int i = 0; i < 256; ++i)
    p.q[i] = kIQ4Codes[b.qs[i / 32 * 16 + i % 16] >> (i / 16 % 2 * 4) & 15];
  return p;
}

// Calls f(Block{}) for the block struct of a quantized type; false for a float type.
template <class F>
bool with_block(TensorType type, F&& f) {
  switch (type) {
    case TensorType::q4_0: f(BlockQ4_0{}); return true;
    case TensorType::q4_1: f(BlockQ4_1{}); return true;
    case TensorType::q5_0: f(BlockQ5_0{}); return true;
    case TensorType::q5_1: f(BlockQ5_1{}); return true;
    case TensorType::q8_0: f(BlockQ8_0{}); return true;
    case TensorType::iq4_nl: f(BlockIQ4_NL{}); return true;
    case TensorType::mxfp4: f(BlockMXFP4{}); return true;
    case TensorType::q2_k: f(BlockQ2_K{}); return true;
    case TensorType::q3_k: f(BlockQ3_K{}); return true;
    case TensorType::q4_k: f(BlockQ4_K{}); return true;
    case TensorType::q5_k: f(BlockQ5_K{}); return true;
    case TensorType::q6_k: f(BlockQ6_K{}); return true;
    case TensorType::iq4_xs: f(BlockIQ4_XS{}); return true;
    default: return false;
  }
}

}  // namespace pintpot

// Small float formats in portable C++: IEEE half, bfloat16, and the power-of-two scale of MXFP4.
#pragma once

#include <bit>
#include <cstdint>

namespace pintpot {

inline float half_to_float(uint16_t h) {
  const uint32_t sign = uint32_t{h & 0x8000u} << 16;
  const uint32_t magnitude = uint32_t{h & 0x7FFFu} << 13;
  if ((h & 0x7C00u) == 0x7C00u) return std::bit_cast<float>(sign | 0x7F800000u | magnitude);
  // Rescaling by 2^112 moves the exponent bias and handles subnormals in one exact multiplication.
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f));
}

// x with a half's 11 significant bits (to nearest, ties to even), its exponent unlimited.
inline float round_to_half_precision(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return std::bit_cast<float>((bits + 0xFFFu + ((bits >> 13) & 1u)) & ~0x1FFFu);
}

inline float bfloat16_to_float(uint16_t b) { return std::bit_cast<float>(uint32_t{b} << 16); }

// 2^(e - 128): the E8M0 scale of an MXFP4 block, halved because its codes are stored doubled.
inline float e8m0_half_to_float(uint8_t e) {
  return std::bit_cast<float>(e < 2 ? uint32_t{0x00200000} << e : uint32_t{e - 1u} << 23);
}

}  // namespace pintpot

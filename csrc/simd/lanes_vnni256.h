// Products of code vectors by AVX-512 VNNI's instructions on 256-bit vectors.
#pragma once

#include "simd/lanes_256.h"

namespace pintpot::lanes {
namespace {

// vpdpbusd sums in 32 bits: the longest group fits.
constexpr int group_steps(int, int steps) { return steps; }

// vpdpbusd takes unsigned codes: signed ones are stored with an offset, which the activations' sums take out.
inline constexpr int kSignedOffset = 128;
PP_INLINE VInt from_signed(VInt s) { return _mm256_xor_si256(s, bytes(0x80)); }

// Sums of products within a group of up to group_steps() code vectors.
template <bool Signed>
PP_INLINE VInt dot4_add(VInt group, VInt codes, VInt x) {
  static_assert(!Signed);
  return _mm256_dpbusd_epi32(group, codes, x);
}
template <bool Signed>
PP_INLINE VInt dot4(VInt codes, VInt x) {
  return dot4_add<Signed>(zero(), codes, x);
}
PP_INLINE VInt add_group(VInt sum, VInt group) { return add(sum, group); }
PP_INLINE VInt add_group_scaled(VInt sum, VInt group, VInt scale) {
  return add(sum, _mm256_mullo_epi32(group, scale));
}

// sum + a0 * b0 + a1 * b1 of the 16-bit pairs in each lane.
PP_INLINE VInt add_pairs(VInt sum, VInt a, VInt b) { return _mm256_dpwssd_epi32(sum, a, b); }

// Byte J of each lane as the scale add_group_scaled wants: here, in 32 bits.
template <int J>
PP_INLINE VInt scale_u8(VInt v) {
  return bit_and(shift_right(v, 8 * J), ints(0xFF));
}
template <int J>
PP_INLINE VInt scale_s8(VInt v) {
  return _mm256_srai_epi32(shift_left(v, 24 - 8 * J), 24);
}

}  // namespace
}  // namespace pintpot::lanes

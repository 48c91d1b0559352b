// 256-bit vectors of codes that lie side by side in one row. row_codes_512.h has the same names for 512 bits.
//
// A vector has kHalves halves of 32 bytes; CodePlaces of row_codes.inl says which values of a block they are.
#pragma once

#include "simd/lanes_avx2.h"

namespace pintpot::lanes {
namespace {

using VCodes = __m256i;
inline constexpr int kHalves = 1;

PP_INLINE VCodes no_codes() { return _mm256_setzero_si256(); }
PP_INLINE VCodes code_bytes(int b) { return bytes(b); }
PP_INLINE VCodes load_codes(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// 32 bytes at p in every half; the 32-bit words of half i are shifted right by First + i * Step.
template <int First, int Step>
PP_INLINE VCodes load_shifted(const void* p) {
  return shift_right(load_codes(p), First);
}

// Bits of a where mask has them, else bits of b, which has none in mask's place.
PP_INLINE VCodes join(VCodes mask, VCodes a, VCodes b) { return bit_or(bit_and(mask, a), b); }

// Scales, a byte each, as spread_scales wants them.
template <bool Signed>
PP_INLINE VCodes widen_scales(__m128i scales) {
  return _mm256_broadcastsi128_si256(scales);
}

// The scales of a code vector's quarters as 16-bit numbers, each as often as its quarter has pairs of codes.
template <class Places, int Sub, bool Signed>
PP_INLINE VCodes spread_scales(VCodes scales) {
  struct Order {
    alignas(32) int8_t at[32];
  };
  static constexpr Order order = [] {
    Order o{};
    for (int i = 0; i < 32; ++i)
      o.at[i] = i % 2 == (Signed ? 1 : 0) ? static_cast<int8_t>(Places::quarter(i / 16) / Sub) : int8_t{-1};
    return o;
  }();
  const VCodes v = _mm256_shuffle_epi8(scales, _mm256_load_si256(reinterpret_cast<const __m256i*>(order.at)));
  return Signed ? _mm256_srai_epi16(v, 8) : v;
}

// Products of codes and activations, summed as far as 16 bits hold them.
template <bool SignedCodes>
PP_INLINE VCodes multiply(VCodes codes, VCodes x) { return dot4<SignedCodes>(codes, x); }

// The scales of two code vectors, and sum + their products, scaled.
template <class Even, class Odd, int Sub, bool Signed>
struct PairScales {
  VCodes even, odd;
  PP_INLINE explicit PairScales(VCodes scales)
      : even(spread_scales<Even, Sub, Signed>(scales)), odd(spread_scales<Odd, Sub, Signed>(scales)) {}
  PP_INLINE VCodes add_to(VCodes sum, VCodes a, VCodes b) const {
    return add_group_scaled(add_group_scaled(sum, a, even), b, odd);
  }
};

// Offsets of codes are taken out of a block's sum, by the sums of its activations.
inline constexpr bool kHasPairOffsets = false;

// The sums over the lanes of eight vectors, in order, by a tree: of two vectors, of four, of all.
PP_INLINE VCodes fold_2(VCodes a, VCodes b) {
  return _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
}
PP_INLINE VCodes fold_4(VCodes a, VCodes b) {
  return _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}
PP_INLINE VInt fold_8(VCodes a, VCodes b) {
  return add(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
}

}  // namespace
}  // namespace pintpot::lanes

// 512-bit vectors of codes that lie side by side in one row: row_codes_256.h has the same names. Headers and sums
// of rows stay in the 256-bit vectors of lanes_vnni256.h.
#pragma once

#include "simd/avx512_intrinsics.h"
#include "simd/lanes_vnni256.h"

namespace pintpot::lanes {
namespace {

using VCodes = __m512i;
inline constexpr int kHalves = 2;

PP_INLINE VCodes no_codes() { return _mm512_setzero_si512(); }
PP_INLINE VCodes code_bytes(int b) { return _mm512_set1_epi8(static_cast<char>(b)); }
PP_INLINE VCodes load_codes(const void* p) { return _mm512_loadu_si512(p); }
PP_INLINE VCodes bit_and(VCodes a, VCodes b) { return _mm512_and_si512(a, b); }
PP_INLINE VCodes bit_or(VCodes a, VCodes b) { return _mm512_or_si512(a, b); }
PP_INLINE VCodes shift_right(VCodes v, int n) { return _mm512_srli_epi32(v, static_cast<unsigned>(n)); }
PP_INLINE VCodes shift_left(VCodes v, int n) { return _mm512_slli_epi32(v, static_cast<unsigned>(n)); }

PP_INLINE VCodes two_halves(const void* low, const void* high) {
  const VCodes v = _mm512_castsi256_si512(_mm256_loadu_si256(static_cast<const __m256i*>(low)));
  return _mm512_inserti64x4(v, _mm256_loadu_si256(static_cast<const __m256i*>(high)), 1);
}

template <int First, int Step>
PP_INLINE VCodes load_shifted(const void* p) {
  const VCodes v = _mm512_broadcast_i64x4(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  constexpr int a = First, b = First + Step;
  return _mm512_srlv_epi32(v, _mm512_setr_epi32(a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b));
}

// a where mask has ones, else b.
PP_INLINE VCodes join(VCodes mask, VCodes a, VCodes b) { return _mm512_ternarylogic_epi32(mask, a, b, 0xCA); }

template <bool Signed>
PP_INLINE VCodes widen_scales(__m128i scales) {
  return _mm512_castsi256_si512(Signed ? _mm256_cvtepi8_epi16(scales) : _mm256_cvtepu8_epi16(scales));
}

// Sums of four products, which 16 bits hold (63 * 127 * 4).
template <bool SignedCodes>
PP_INLINE VCodes multiply(VCodes codes, VCodes x) {
  static_assert(!SignedCodes);
  return _mm512_dpbusd_epi32(no_codes(), codes, x);
}

// Both vectors' sums are packed into one vector of 16-bit numbers: half of a quarter each, alternating.
template <class Even, class Odd, int Sub, bool Signed>
struct PairScales {
  VCodes both;
  PP_INLINE explicit PairScales(VCodes scales) {
    struct Order {
      alignas(64) int16_t at[32];
    };
    static constexpr Order order = [] {
      Order o{};
      for (int i = 0; i < 32; ++i)
        o.at[i] = static_cast<int16_t>((i / 4 % 2 ? Odd::quarter(i / 8) : Even::quarter(i / 8)) / Sub);
      return o;
    }();
    both = _mm512_permutexvar_epi16(_mm512_load_si512(order.at), scales);
  }
  PP_INLINE VCodes add_to(VCodes sum, VCodes a, VCodes b) const {
    return _mm512_dpwssd_epi32(sum, _mm512_packs_epi32(a, b), both);
  }
  // The same with `offsets`, of the same 16-bit sums, taken out.
  PP_INLINE VCodes add_to(VCodes sum, VCodes a, VCodes b, VCodes offsets) const {
    return _mm512_dpwssd_epi32(sum, _mm512_sub_epi16(_mm512_packs_epi32(a, b), offsets), both);
  }
};

// What codes that are all `offset` would give in place of a and b, for the activations x_a and x_b.
PP_INLINE VCodes pair_offsets(int offset, VCodes x_a, VCodes x_b) {
  const VCodes codes = code_bytes(offset);
  return _mm512_packs_epi32(multiply<false>(codes, x_a), multiply<false>(codes, x_b));
}
inline constexpr bool kHasPairOffsets = true;

PP_INLINE VCodes fold_2(VCodes a, VCodes b) {
  return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}
PP_INLINE VCodes fold_4(VCodes a, VCodes b) {
  return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}
PP_INLINE VInt fold_8(VCodes a, VCodes b) {
  const VCodes v = _mm512_add_epi32(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xDD));
  const VInt low = _mm512_castsi512_si256(v), high = _mm512_extracti64x4_epi64(v, 1);
  return add(_mm256_permute2x128_si256(low, high, 0x20), _mm256_permute2x128_si256(low, high, 0x31));
}

}  // namespace
}  // namespace pintpot::lanes

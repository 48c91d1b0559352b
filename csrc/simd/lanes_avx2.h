// The AVX2 level's products of code vectors: pairs in 16 bits, then groups of pairs in 32.
#pragma once

#include "simd/lanes_256.h"

namespace pintpot::lanes {
namespace {

inline constexpr int kPanelVecs = 2;    // row vectors of a prefill panel: 16 rows
inline constexpr int kPanelTokens = 4;  // tokens that share one pass over a panel

// Products of u8 codes <= 127 and s8 activations are summed in pairs in 16 bits: this many pairs fit.
constexpr int group_steps(int max_code, int steps) {
  int fit = 32767 / (2 * 127 * max_code);
  while (fit < steps && steps % fit != 0) --fit;
  return fit < steps ? fit : steps;
}

inline constexpr bool kSumsInInts = false;

// Signed codes keep their sign here: from_signed is the identity and their offset 0.
inline constexpr int kSignedOffset = 0;
PP_INLINE VInt from_signed(VInt s) { return s; }

// Sums of products within a group of up to group_steps() code vectors.
template <bool Signed>
PP_INLINE VInt dot4(VInt codes, VInt x) {
  if constexpr (Signed) return _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));
  return _mm256_maddubs_epi16(codes, x);
}
template <bool Signed>
PP_INLINE VInt dot4_add(VInt group, VInt codes, VInt x) {
  return _mm256_add_epi16(group, dot4<Signed>(codes, x));
}
PP_INLINE VInt add_group(VInt sum, VInt group) {
  return add(sum, _mm256_madd_epi16(group, _mm256_set1_epi16(1)));
}
PP_INLINE VInt add_group_scaled(VInt sum, VInt group, VInt scale) {
  return add(sum, _mm256_madd_epi16(group, scale));
}

// sum + a0 * b0 + a1 * b1 of the 16-bit pairs in each lane.
PP_INLINE VInt add_pairs(VInt sum, VInt a, VInt b) { return add(sum, _mm256_madd_epi16(a, b)); }

// Byte J of each lane as the scale add_group_scaled wants: here, twice in 16 bits.
template <int J>
PP_INLINE VInt scale_u8(VInt v) {
  return shuffle_lane<J, -1, J, -1>(v);
}
template <int J>
PP_INLINE VInt scale_s8(VInt v) {
  return _mm256_srai_epi16(shuffle_lane<-1, J, -1, J>(v), 8);
}

}  // namespace
}  // namespace pintpot::lanes

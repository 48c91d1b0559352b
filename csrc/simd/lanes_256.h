// 256-bit vectors for integer products: eight weight rows side by side, one per 32-bit lane.
//
// A code vector (VInt) holds four consecutive codes of each row; broadcast4 puts the four matching activations
// beside them. How the two are multiplied is for lanes_avx2.h and lanes_vnni256.h to say; lanes_avx512.h has the
// names of all three for sixteen rows. Unnamed namespace: see matmul_kernels.h.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "unroll.h"

namespace pintpot::lanes {
namespace {

using VInt = __m256i;
using VFloat = __m256;
inline constexpr int kLanes = 8;
inline constexpr int kFloatTokens = 3;  // tokens at a time in float products: 4 x 3 sums in registers

PP_INLINE VInt zero() { return _mm256_setzero_si256(); }
PP_INLINE VFloat zero_float() { return _mm256_setzero_ps(); }
PP_INLINE VFloat load_float(const float* p) { return _mm256_load_ps(p); }
PP_INLINE void store_float(float* p, VFloat v) { _mm256_store_ps(p, v); }
PP_INLINE VFloat loadu_float(const float* p) { return _mm256_loadu_ps(p); }
PP_INLINE VFloat load_half(const void* p) { return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p))); }
PP_INLINE VFloat load_bfloat16(const void* p) {
  const __m256i v = _mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
}
PP_INLINE void storeu_float(float* p, VFloat v) { _mm256_storeu_ps(p, v); }
PP_INLINE void store_ints(int32_t* p, VInt v) { _mm256_store_si256(reinterpret_cast<__m256i*>(p), v); }
PP_INLINE void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }
PP_INLINE VInt bytes(int b) { return _mm256_set1_epi8(static_cast<char>(b)); }
PP_INLINE VInt ints(int i) { return _mm256_set1_epi32(i); }
PP_INLINE VFloat floats(float f) { return _mm256_set1_ps(f); }

PP_INLINE VInt broadcast4(const void* p) {
  return _mm256_castps_si256(_mm256_broadcast_ss(static_cast<const float*>(p)));
}

PP_INLINE VInt bit_and(VInt a, VInt b) { return _mm256_and_si256(a, b); }
PP_INLINE VInt bit_or(VInt a, VInt b) { return _mm256_or_si256(a, b); }
PP_INLINE VInt shift_right(VInt v, int n) { return _mm256_srli_epi32(v, n); }
PP_INLINE VInt shift_left(VInt v, int n) { return _mm256_slli_epi32(v, n); }
PP_INLINE VInt sub_bytes(VInt a, VInt b) { return _mm256_sub_epi8(a, b); }
PP_INLINE VInt add(VInt a, VInt b) { return _mm256_add_epi32(a, b); }
PP_INLINE VInt sub(VInt a, VInt b) { return _mm256_sub_epi32(a, b); }
PP_INLINE VFloat to_float(VInt v) { return _mm256_cvtepi32_ps(v); }
PP_INLINE VFloat as_float(VInt v) { return _mm256_castsi256_ps(v); }
PP_INLINE VFloat mul(VFloat a, VFloat b) { return _mm256_mul_ps(a, b); }
PP_INLINE VFloat fma(VFloat a, VFloat b, VFloat c) { return _mm256_fmadd_ps(a, b, c); }
PP_INLINE VFloat fnma(VFloat a, VFloat b, VFloat c) { return _mm256_fnmadd_ps(a, b, c); }

PP_INLINE float sum_lanes(VFloat v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

// table[code] for codes 0..15 in every byte; the table is 16 bytes.
PP_INLINE VInt lookup(const int8_t* table, VInt codes) {
  const __m128i t = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(t), codes);
}

// The halves in the low 16 bits of each lane.
PP_INLINE VFloat half_to_floats(VInt v) {
  v = bit_and(v, ints(0xFFFF));
  v = _mm256_permute4x64_epi64(_mm256_packus_epi32(v, v), 0b1000);
  return _mm256_cvtph_ps(_mm256_castsi256_si128(v));
}

// A byte shuffle that treats all lanes alike: bytes b0..b3 of a result lane are bytes of the source lane,
// or zero where negative.
template <int B0, int B1, int B2, int B3>
PP_INLINE VInt shuffle_lane(VInt v) {
  constexpr auto at = [](int b, int lane) { return static_cast<char>(b < 0 ? -1 : b + 4 * lane); };
  return _mm256_shuffle_epi8(
      v, _mm256_setr_epi8(at(B0, 0), at(B1, 0), at(B2, 0), at(B3, 0), at(B0, 1), at(B1, 1), at(B2, 1), at(B3, 1),
                          at(B0, 2), at(B1, 2), at(B2, 2), at(B3, 2), at(B0, 3), at(B1, 3), at(B2, 3), at(B3, 3),
                          at(B0, 0), at(B1, 0), at(B2, 0), at(B3, 0), at(B0, 1), at(B1, 1), at(B2, 1), at(B3, 1),
                          at(B0, 2), at(B1, 2), at(B2, 2), at(B3, 2), at(B0, 3), at(B1, 3), at(B2, 3), at(B3, 3)));
}

// Bytes J and J + 1 of each lane as a pair of 16-bit numbers, for add_pairs.
template <int J>
PP_INLINE VInt pair_u8(VInt v) {
  return shuffle_lane<J, -1, J + 1, -1>(v);
}
template <int J>
PP_INLINE VInt pair_s8(VInt v) {
  return _mm256_srai_epi16(shuffle_lane<-1, J, -1, J + 1>(v), 8);
}

// Bytes 0 and 1 of each lane of `even` and `odd`, alternating; and bytes 2 and 3.
PP_INLINE VInt zip_bytes_low(VInt even, VInt odd) {
  return bit_or(shuffle_lane<0, -1, 1, -1>(even), shuffle_lane<-1, 0, -1, 1>(odd));
}
PP_INLINE VInt zip_bytes_high(VInt even, VInt odd) {
  return bit_or(shuffle_lane<2, -1, 3, -1>(even), shuffle_lane<-1, 2, -1, 3>(odd));
}

// Bits 4S..4S+3 of each lane as bit 4 of its four bytes (the fifth bits of code vector S).
template <int S>
PP_INLINE VInt fifth_bits(VInt v) {
  const VInt select = ints(S % 2 ? static_cast<int>(0x80402010) : 0x08040201);
  const VInt spread = shuffle_lane<S / 2, S / 2, S / 2, S / 2>(v);
  return bit_and(_mm256_cmpeq_epi8(bit_and(spread, select), select), bytes(0x10));
}

// 2^(e - 128) for the exponent e in each lane (0..255), subnormals included.
PP_INLINE VFloat e8m0_half_to_floats(VInt e) {
  const VInt normal = shift_left(sub(e, ints(1)), 23);
  const VInt subnormal = _mm256_sllv_epi32(ints(0x00200000), e);
  return as_float(_mm256_blendv_epi8(normal, subnormal, _mm256_cmpgt_epi32(ints(2), e)));
}

// kLanes rows of a weight matrix; rows past the last repeat it.
struct Rows {
  const std::byte* p[kLanes];
};

// 16 bytes at `offset` of every row, transposed: lane r of out[i] is 32-bit word i of row r.
PP_INLINE void load16(const Rows& rows, int64_t offset, VInt (&out)[4]) {
  auto two = [&](int r) {
    const auto* low = reinterpret_cast<const __m128i*>(rows.p[r] + offset);
    const auto* high = reinterpret_cast<const __m128i*>(rows.p[r + 4] + offset);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(low)), _mm_loadu_si128(high), 1);
  };
  const VInt r0 = two(0), r1 = two(1), r2 = two(2), r3 = two(3);
  const VInt a = _mm256_unpacklo_epi32(r0, r1), b = _mm256_unpackhi_epi32(r0, r1);
  const VInt c = _mm256_unpacklo_epi32(r2, r3), d = _mm256_unpackhi_epi32(r2, r3);
  out[0] = _mm256_unpacklo_epi64(a, c);
  out[1] = _mm256_unpackhi_epi64(a, c);
  out[2] = _mm256_unpacklo_epi64(b, d);
  out[3] = _mm256_unpackhi_epi64(b, d);
}

// 4 bytes at `offset` of every row.
PP_INLINE VInt load4(const Rows& rows, int64_t offset) {
  auto word = [&](int r) {
    int32_t w;
    __builtin_memcpy(&w, rows.p[r] + offset, 4);
    return w;
  };
  return _mm256_setr_epi32(word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7));
}

}  // namespace
}  // namespace pintpot::lanes

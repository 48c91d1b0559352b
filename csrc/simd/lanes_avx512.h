// The AVX-512 level's vectors for integer products (F, BW, DQ, VL, VNNI): sixteen weight rows side by side, one per
// 32-bit lane. lanes_avx2.h has the same names for eight rows. Unnamed namespace: see matmul_kernels.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd/avx512_intrinsics.h"
#include "unroll.h"

namespace pintpot::lanes {
namespace {

using VInt = __m512i;
using VFloat = __m512;
inline constexpr int kLanes = 16;
inline constexpr int kFloatTokens = 6;  // tokens at a time in float products: 4 x 6 sums in registers
inline constexpr int kPanelVecs = 1;    // row vectors of a prefill panel: 16 rows
inline constexpr int kPanelTokens = 8;  // tokens that share one pass over a panel

// vpdpbusd sums in 32 bits: the longest group fits, and a group may begin with a number instead of zero.
constexpr int group_steps(int, int steps) { return steps; }
inline constexpr bool kSumsInInts = true;

// vpdpbusd takes unsigned codes: signed ones are stored with an offset, which the activations' sums take out.
inline constexpr int kSignedOffset = 128;
PP_INLINE VInt from_signed(VInt s) { return _mm512_xor_si512(s, _mm512_set1_epi8(static_cast<char>(0x80))); }

PP_INLINE VInt zero() { return _mm512_setzero_si512(); }
PP_INLINE VFloat zero_float() { return _mm512_setzero_ps(); }
PP_INLINE VFloat load_float(const float* p) { return _mm512_load_ps(p); }
PP_INLINE void store_float(float* p, VFloat v) { _mm512_store_ps(p, v); }
PP_INLINE VFloat loadu_float(const float* p) { return _mm512_loadu_ps(p); }
PP_INLINE VInt loadu_16_shorts(const void* p) {
  return _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
PP_INLINE VFloat load_half(const void* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
PP_INLINE VFloat load_bfloat16(const void* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(loadu_16_shorts(p), 16));
}
PP_INLINE void storeu_float(float* p, VFloat v) { _mm512_storeu_ps(p, v); }
PP_INLINE void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }
PP_INLINE VInt bytes(int b) { return _mm512_set1_epi8(static_cast<char>(b)); }
PP_INLINE VInt ints(int i) { return _mm512_set1_epi32(i); }
PP_INLINE VFloat floats(float f) { return _mm512_set1_ps(f); }
PP_INLINE VInt load_shorts(const int16_t* p) {
  return _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
PP_INLINE void store_ints(int32_t* p, VInt v) { _mm512_store_si512(p, v); }

PP_INLINE VInt broadcast4(const void* p) {
  int32_t four;
  __builtin_memcpy(&four, p, 4);
  return _mm512_set1_epi32(four);
}

PP_INLINE VInt bit_and(VInt a, VInt b) { return _mm512_and_si512(a, b); }
PP_INLINE VInt bit_or(VInt a, VInt b) { return _mm512_or_si512(a, b); }
PP_INLINE VInt shift_right(VInt v, int n) { return _mm512_srli_epi32(v, static_cast<unsigned>(n)); }
PP_INLINE VInt shift_left(VInt v, int n) { return _mm512_slli_epi32(v, static_cast<unsigned>(n)); }
PP_INLINE VInt sub_bytes(VInt a, VInt b) { return _mm512_sub_epi8(a, b); }
PP_INLINE VInt add(VInt a, VInt b) { return _mm512_add_epi32(a, b); }
PP_INLINE VInt sub(VInt a, VInt b) { return _mm512_sub_epi32(a, b); }
PP_INLINE VInt mul_ints(VInt v, int factor) { return _mm512_mullo_epi32(v, ints(factor)); }
PP_INLINE VFloat to_float(VInt v) { return _mm512_cvtepi32_ps(v); }
PP_INLINE VFloat as_float(VInt v) { return _mm512_castsi512_ps(v); }
PP_INLINE VFloat mul(VFloat a, VFloat b) { return _mm512_mul_ps(a, b); }
PP_INLINE VFloat fma(VFloat a, VFloat b, VFloat c) { return _mm512_fmadd_ps(a, b, c); }
PP_INLINE VFloat fnma(VFloat a, VFloat b, VFloat c) { return _mm512_fnmadd_ps(a, b, c); }

PP_INLINE float sum_lanes(VFloat v) { return _mm512_reduce_add_ps(v); }

// table[code] for codes 0..15 in every byte; the table is 16 bytes.
PP_INLINE VInt lookup(const int8_t* table, VInt codes) {
  const __m128i t = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(t), codes);
}

// Byte `code` of the lane that each code, 0 to 3, lies in.
PP_INLINE VInt in_lane(VInt codes) { return bit_or(codes, _mm512_set4_epi32(0x0C0C0C0C, 0x08080808, 0x04040404, 0)); }
PP_INLINE VInt lookup_in_lane(VInt table, VInt codes) { return _mm512_shuffle_epi8(table, in_lane(codes)); }

// The same for codes 0 to 7; those from 4 on are found in `high`.
PP_INLINE VInt lookup_in_lane(VInt low, VInt high, VInt codes) {
  const VInt at = in_lane(bit_and(codes, bytes(3)));
  return _mm512_mask_shuffle_epi8(_mm512_shuffle_epi8(low, at), _mm512_test_epi8_mask(codes, bytes(4)), high, at);
}

// The halves in the low 16 bits of each lane.
PP_INLINE VFloat half_to_floats(VInt v) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v)); }

// Sums of products within a group of up to group_steps() code vectors.
template <bool Signed>
PP_INLINE VInt dot4_add(VInt group, VInt codes, VInt x) {
  static_assert(!Signed);
  return _mm512_dpbusd_epi32(group, codes, x);
}
template <bool Signed>
PP_INLINE VInt dot4(VInt codes, VInt x) {
  return dot4_add<Signed>(zero(), codes, x);
}
PP_INLINE VInt add_group(VInt sum, VInt group) { return add(sum, group); }
PP_INLINE VInt add_group_scaled(VInt sum, VInt group, VInt scale) {
  return add(sum, _mm512_mullo_epi32(group, scale));
}

// sum + a0 * b0 + a1 * b1 of the 16-bit pairs in each lane.
PP_INLINE VInt add_pairs(VInt sum, VInt a, VInt b) { return _mm512_dpwssd_epi32(sum, a, b); }

// A byte shuffle that treats all lanes alike: bytes b0..b3 of a result lane are bytes of the source lane,
// or zero where negative.
template <int B0, int B1, int B2, int B3>
PP_INLINE VInt shuffle_lane(VInt v) {
  constexpr auto at = [](int b, int lane) { return static_cast<char>(b < 0 ? -1 : b + 4 * lane); };
  const __m128i order =
      _mm_setr_epi8(at(B0, 0), at(B1, 0), at(B2, 0), at(B3, 0), at(B0, 1), at(B1, 1), at(B2, 1), at(B3, 1),
                    at(B0, 2), at(B1, 2), at(B2, 2), at(B3, 2), at(B0, 3), at(B1, 3), at(B2, 3), at(B3, 3));
  return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(order));
}

// Byte J of each lane as the scale add_group_scaled wants: here, in 32 bits.
template <int J>
PP_INLINE VInt scale_u8(VInt v) {
  return bit_and(shift_right(v, 8 * J), ints(0xFF));
}
template <int J>
PP_INLINE VInt scale_s8(VInt v) {
  return _mm512_srai_epi32(shift_left(v, 24 - 8 * J), 24);
}

// Bytes J and J + 1 of each lane as a pair of 16-bit numbers, for add_pairs.
template <int J>
PP_INLINE VInt pair_u8(VInt v) {
  return shuffle_lane<J, -1, J + 1, -1>(v);
}
template <int J>
PP_INLINE VInt pair_s8(VInt v) {
  return _mm512_srai_epi16(shuffle_lane<-1, J, -1, J + 1>(v), 8);
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
  return _mm512_maskz_mov_epi8(_mm512_test_epi8_mask(spread, select), bytes(0x10));
}

// 2^(e - 128) for the exponent e in each lane (0..255), subnormals included.
PP_INLINE VFloat e8m0_half_to_floats(VInt e) {
  const VInt normal = shift_left(sub(e, ints(1)), 23);
  const VInt subnormal = _mm512_sllv_epi32(ints(0x00200000), e);
  return as_float(_mm512_mask_mov_epi32(normal, _mm512_cmplt_epi32_mask(e, ints(2)), subnormal));
}

// kLanes rows of a weight matrix; rows past the last repeat it.
struct Rows {
  const std::byte* p[kLanes];
};

// 16 bytes at `offset` of every row, transposed: lane r of out[i] is 32-bit word i of row r.
PP_INLINE void load16(const Rows& rows, int64_t offset, VInt (&out)[4]) {
  auto one = [&](int r) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows.p[r] + offset)); };
  auto four = [&](int r) {
    VInt v = _mm512_castsi128_si512(one(r));
    v = _mm512_inserti32x4(v, one(r + 4), 1);
    v = _mm512_inserti32x4(v, one(r + 8), 2);
    return _mm512_inserti32x4(v, one(r + 12), 3);
  };
  const VInt r0 = four(0), r1 = four(1), r2 = four(2), r3 = four(3);
  const VInt a = _mm512_unpacklo_epi32(r0, r1), b = _mm512_unpackhi_epi32(r0, r1);
  const VInt c = _mm512_unpacklo_epi32(r2, r3), d = _mm512_unpackhi_epi32(r2, r3);
  out[0] = _mm512_unpacklo_epi64(a, c);
  out[1] = _mm512_unpackhi_epi64(a, c);
  out[2] = _mm512_unpacklo_epi64(b, d);
  out[3] = _mm512_unpackhi_epi64(b, d);
}

// 4 bytes at `offset` of every row.
PP_INLINE VInt load4(const Rows& rows, int64_t offset) {
  auto word = [&](int r) {
    int32_t w;
    __builtin_memcpy(&w, rows.p[r] + offset, 4);
    return w;
  };
  return _mm512_setr_epi32(word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7), word(8), word(9),
                           word(10), word(11), word(12), word(13), word(14), word(15));
}

}  // namespace
}  // namespace pintpot::lanes

// F32x16 in portable code: four 4-lane vectors of the compiler's own vector type (SSE2, NEON, or scalars).
// The interface is the same in f32_avx2.h and f32_avx512.h; kernels are written once against it.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "half.h"

namespace pintpot::scalar {

typedef float F32x4 __attribute__((vector_size(16)));
typedef int32_t I32x4 __attribute__((vector_size(16)));

// Sixteen floats.
struct F32x16 {
  F32x4 q[4];
};

// Rows of a register tile whose accumulators fit the registers of this level.
inline constexpr int kMaxRows = 2;

inline F32x4 splat4(float x) { return F32x4{x, x, x, x}; }

#define PINTPOT_EACH4(expr) \
  F32x16 r;                 \
  for (int i = 0; i < 4; ++i) r.q[i] = (expr); \
  return r

inline F32x16 load(const float* p) {
  F32x16 r;
  std::memcpy(&r, p, 64);
  return r;
}
inline void store(float* p, F32x16 a) { std::memcpy(p, &a, 64); }
inline F32x16 set1(float x) { PINTPOT_EACH4(splat4(x)); }
inline F32x16 zero() { return set1(0.0f); }
inline F32x16 iota() {
  return {{F32x4{0, 1, 2, 3}, F32x4{4, 5, 6, 7}, F32x4{8, 9, 10, 11}, F32x4{12, 13, 14, 15}}};
}
inline F32x16 add(F32x16 a, F32x16 b) { PINTPOT_EACH4(a.q[i] + b.q[i]); }
inline F32x16 sub(F32x16 a, F32x16 b) { PINTPOT_EACH4(a.q[i] - b.q[i]); }
inline F32x16 mul(F32x16 a, F32x16 b) { PINTPOT_EACH4(a.q[i] * b.q[i]); }
inline F32x16 div(F32x16 a, F32x16 b) { PINTPOT_EACH4(a.q[i] / b.q[i]); }
// a * b + c
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { PINTPOT_EACH4(a.q[i] * b.q[i] + c.q[i]); }

inline F32x4 pick4(I32x4 mask, F32x4 yes, F32x4 no) { return mask ? yes : no; }
inline F32x16 max(F32x16 a, F32x16 b) { PINTPOT_EACH4(pick4(a.q[i] > b.q[i], a.q[i], b.q[i])); }
inline F32x16 min(F32x16 a, F32x16 b) { PINTPOT_EACH4(pick4(a.q[i] < b.q[i], a.q[i], b.q[i])); }
// a < b ? yes : no, lane by lane
inline F32x16 select_lt(F32x16 a, F32x16 b, F32x16 yes, F32x16 no) {
  PINTPOT_EACH4(pick4(a.q[i] < b.q[i], yes.q[i], no.q[i]));
}

inline F32x16 abs(F32x16 a) {
  const F32x4 none = splat4(0.0f);
  PINTPOT_EACH4(pick4(a.q[i] < none, none - a.q[i], a.q[i] + none));
}

#undef PINTPOT_EACH4

inline F32x16 sqrt(F32x16 a) {
  float f[16];
  store(f, a);
  for (float& v : f) v = __builtin_sqrtf(v);
  return load(f);
}

// Lane i of the result is lane i ^ kMask of a, for kMask 1, 2, 4 or 8.
template <int kMask>
inline F32x16 swap_lanes(F32x16 a) {
  float from[16], to[16];
  store(from, a);
  for (int i = 0; i < 16; ++i) to[i] = from[i ^ kMask];
  return load(to);
}

inline float hsum(F32x16 a) {
  const F32x4 s = (a.q[0] + a.q[2]) + (a.q[1] + a.q[3]);
  return (s[0] + s[2]) + (s[1] + s[3]);
}
inline float hmax(F32x16 a) {
  const F32x16 m = max(a, F32x16{{a.q[2], a.q[3], a.q[2], a.q[3]}});
  const F32x4 s = pick4(m.q[0] > m.q[1], m.q[0], m.q[1]);
  const float x = s[0] > s[1] ? s[0] : s[1], y = s[2] > s[3] ? s[2] : s[3];
  return x > y ? x : y;
}

// The first n (0..16) floats, zeros behind; nothing is read or written past them.
inline F32x16 load_part(const float* p, int64_t n) {
  if (n >= 16) return load(p);
  F32x16 r = zero();
  std::memcpy(&r, p, static_cast<size_t>(n) * 4);
  return r;
}
inline void store_part(float* p, F32x16 a, int64_t n) {
  if (n >= 16) return store(p, a);
  std::memcpy(p, &a, static_cast<size_t>(n) * 4);
}

// Round to nearest even; overflow becomes infinity.
inline uint16_t f32_to_half(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u);
  if (magnitude >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);
  if (magnitude < 0x38800000u)  // subnormal: let the adder round to a multiple of 2^-24
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) -
                                         0x3F000000u));
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xFFFu + (magnitude >> 13 & 1u)) >> 13));
}

inline F32x16 load_f16(const uint16_t* p) {
  float f[16];
  for (int i = 0; i < 16; ++i) f[i] = half_to_float(p[i]);
  return load(f);
}
inline void store_f16(uint16_t* p, F32x16 a) {
  float f[16];
  store(f, a);
  for (int i = 0; i < 16; ++i) p[i] = f32_to_half(f[i]);
}
inline F32x16 load_bf16(const uint16_t* p) {
  float f[16];
  for (int i = 0; i < 16; ++i) f[i] = bfloat16_to_float(p[i]);
  return load(f);
}
// Integral values that fit, as bytes.
inline void store_i8(int8_t* p, F32x16 a) {
  float f[16];
  store(f, a);
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(f[i]);
}

// Sixteen sums.
struct I32x16 {
  I32x4 q[4];
};
// Sixteen pairs of 16-bit factors: the first of each, then the second.
struct I16x32 {
  I32x4 even[4], odd[4];
};
inline I32x16 zero_i32() { return {}; }
inline F32x16 to_f32(I32x16 a) {
  F32x16 r;
  for (int i = 0; i < 4; ++i) r.q[i] = __builtin_convertvector(a.q[i], F32x4);
  return r;
}
inline I16x32 load_i8_pairs(const int8_t* p) {
  I16x32 r;
  for (int i = 0; i < 16; ++i) {
    r.even[i / 4][i % 4] = p[2 * i];
    r.odd[i / 4][i % 4] = p[2 * i + 1];
  }
  return r;
}
inline I16x32 set1_pair(const int16_t* p) {
  I16x32 r;
  for (int i = 0; i < 4; ++i) {
    r.even[i] = I32x4{p[0], p[0], p[0], p[0]};
    r.odd[i] = I32x4{p[1], p[1], p[1], p[1]};
  }
  return r;
}
// Lane by lane: sum + the products of a pair.
inline I32x16 dot_pairs(I32x16 sum, I16x32 a, I16x32 b) {
  for (int i = 0; i < 4; ++i) sum.q[i] += a.even[i] * b.even[i] + a.odd[i] * b.odd[i];
  return sum;
}
// Rounded to the nearest integer, which fits.
inline void store_i16(int16_t* p, F32x16 a) {
  float f[16];
  store(f, a);
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int16_t>(__builtin_lrintf(f[i]));
}

// table[i] for integral i in 0..15
inline F32x16 lookup(const float* table, F32x16 i) {
  float f[16];
  store(f, i);
  for (float& v : f) v = table[static_cast<int>(v)];
  return load(f);
}
// 2^n for integral n in [-126, 127].
inline F32x16 pow2i(F32x16 n) {
  F32x16 r;
  for (int i = 0; i < 4; ++i) {
    const I32x4 e = (__builtin_convertvector(n.q[i], I32x4) + 127) << 23;
    std::memcpy(&r.q[i], &e, 16);
  }
  return r;
}
// Nearest integer, for |a| < 2^22.
inline F32x16 round(F32x16 a) {
  const F32x16 magic = set1(12582912.0f);
  return sub(add(a, magic), magic);
}

#include "simd/f32_math.inl"

}  // namespace pintpot::scalar

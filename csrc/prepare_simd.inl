// Preparation of activations (ActBlock, ActSuper) with AVX2, which every x86 level above scalar has.
#include <immintrin.h>

#include "blocks.h"
#include "half.h"
#include "simd/unroll.h"

namespace pintpot::lanes {
namespace {

PP_INLINE float max_lane(__m256 v) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

// q = round(x * 127 / amax), half to even; returns d = amax / 127, or NaN where a value is not finite.
template <int N>
PP_INLINE float quantize_group(const float* x, int8_t* q) {
  const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
  const __m256 limit = _mm256_set1_ps(__FLT_MAX__);
  __m256 amax = _mm256_setzero_ps(), finite = magnitude;
  for (int i = 0; i < N; i += 8) {
    const __m256 v = _mm256_and_ps(_mm256_loadu_ps(x + i), magnitude);
    finite = _mm256_and_ps(finite, _mm256_cmp_ps(v, limit, _CMP_LE_OQ));
    amax = _mm256_max_ps(amax, v);
  }
  const bool all_finite = _mm256_movemask_epi8(_mm256_cmpeq_epi32(_mm256_castps_si256(finite),
                                                                  _mm256_castps_si256(magnitude))) == -1;
  const float inverse = all_finite ? 127.0f / max_lane(amax) : 0.0f;
  if (!all_finite || !(inverse <= __FLT_MAX__)) {
    __builtin_memset(q, 0, N);
    return all_finite ? 0.0f : __builtin_nanf("");
  }
  const __m256 scale = _mm256_set1_ps(inverse);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // undoes the packs' 128-bit lanes
  for (int i = 0; i < N; i += 32) {
    __m256i v[4];
    for (int j = 0; j < 4; ++j) v[j] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i + j * 8), scale));
    const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + i), _mm256_permutevar8x32_epi32(packed, order));
  }
  return 1.0f / inverse;
}

// Sums of four neighbours each, in 32 bits.
PP_INLINE __m256i sums_of_four(const int8_t* q) {
  const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q));
  return _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), v), _mm256_set1_epi16(1));
}

PP_INLINE int32_t sum_of_four(__m128i v) {
  v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0b01001110));
  return _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32(v, 0b10110001)));
}

void prepare_block(const float* x, int64_t cols, std::byte* out) {
  auto* acts = reinterpret_cast<ActBlock*>(out);
  for (int64_t b = 0; b < cols / 32; ++b) {
    acts[b].d = round_to_half_precision(quantize_group<32>(x + b * 32, acts[b].q));
    const __m256i s = sums_of_four(acts[b].q);
    acts[b].sum = sum_of_four(_mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1)));
  }
}

void prepare_super(const float* x, int64_t cols, std::byte* out) {
  auto* acts = reinterpret_cast<ActSuper*>(out);
  for (int64_t b = 0; b < cols / 256; ++b) {
    ActSuper& a = acts[b];
    a.d = quantize_group<256>(x + b * 256, a.q);
    __m128i total = _mm_setzero_si128();
    for (int i = 0; i < 2; ++i) {  // 128 values: four vectors, whose lower halves hold the even groups of 16
      const int8_t* q = a.q + i * 128;
      const __m256i s01 = _mm256_hadd_epi32(sums_of_four(q), sums_of_four(q + 32));
      const __m256i s23 = _mm256_hadd_epi32(sums_of_four(q + 64), sums_of_four(q + 96));
      const __m256i s = _mm256_hadd_epi32(s01, s23);
      const __m128i even = _mm256_castsi256_si128(s), odd = _mm256_extracti128_si256(s, 1);
      const __m128i both = _mm_packs_epi32(_mm_unpacklo_epi32(even, odd), _mm_unpackhi_epi32(even, odd));
      _mm_store_si128(reinterpret_cast<__m128i*>(a.sum16 + i * 8), both);
      const __m128i sum32 = _mm_add_epi32(even, odd);
      _mm_storel_epi64(reinterpret_cast<__m128i*>(a.sum32 + i * 4), _mm_packs_epi32(sum32, sum32));
      total = _mm_add_epi32(total, sum32);
    }
    a.sum = sum_of_four(total);
  }
}

}  // namespace
}  // namespace pintpot::lanes

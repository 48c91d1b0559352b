// How the codes of a 256-value block unpack where one row is taken at a time, over the vectors of
// simd/row_codes_<bits>.h. Nothing is moved between lanes: a vector holds the codes that one load and a few shifts
// give, and activations and scales are put in their order.
//
// RowCodes<Fmt>::scales(p)   the scales of the block at p, a byte each, in order
// RowCodes<Fmt>::each(p, f)  calls f(Index<i>, code vector) for every vector of the block, in order
// RowCodes<Fmt>::Places<i>   which values vector i holds
#include <cstring>

#include "blocks.h"

namespace pintpot::lanes {
namespace {

// Which values of a block a code vector holds: half i has the 32 from First + i * HalfStep on.
template <int First, int HalfStep>
struct CodePlaces {
  static constexpr int kFirst = First, kHalfStep = HalfStep;
  static constexpr int quarter(int i) { return First + i / 2 * HalfStep + i % 2 * 16; }
};

template <class Fmt>
struct RowCodes;

PP_INLINE VCodes masked(VCodes v, int mask) { return bit_and(v, code_bytes(mask)); }

// Shifts bit From of every byte to bit To; bits of other bytes come along.
template <int From, int To>
PP_INLINE VCodes move_bit(VCodes v) {
  if constexpr (From > To) return shift_right(v, From - To);
  else if constexpr (From < To) return shift_left(v, To - From);
  else return v;
}

PP_INLINE __m128i load_128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

PP_INLINE uint32_t load_32(const std::byte* p) {
  uint32_t v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <>
struct RowCodes<Q2_K> {
  template <int I>
  using Places = CodePlaces<I / 4 * kHalves * 128 + I % 4 * 32, 128>;

  PP_INLINE static __m128i scales(const std::byte* p) { return _mm_and_si128(load_128(p), _mm_set1_epi8(15)); }

  template <class F>
  PP_INLINE static void each(const std::byte* p, F&& f) {
    unroll<2 / kHalves>([&](auto g) PP_INLINE_LAMBDA {  // 32 bytes hold the quarters of 128 values
      const VCodes q = load_codes(p + 16 + g * kHalves * 32);
      unroll<4>([&](auto j) PP_INLINE_LAMBDA {
        f(Index<g * 4 + j>{}, masked(shift_right(q, 2 * j), 3));
      });
    });
  }
};

template <>
struct RowCodes<Q3_K> {
  template <int I>
  using Places = RowCodes<Q2_K>::Places<I>;

  PP_INLINE static __m128i scales(const std::byte* p) {
    const __m128i nibbles = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 96));
    const __m128i low = _mm_and_si128(_mm_unpacklo_epi64(nibbles, _mm_srli_epi32(nibbles, 4)), _mm_set1_epi8(15));
    const __m128i pairs = _mm_set1_epi32(static_cast<int>(load_32(p + 104)));
    const __m128i high = _mm_and_si128(_mm_srlv_epi32(pairs, _mm_setr_epi32(0, 2, 4, 6)), _mm_set1_epi8(3));
    return _mm_sub_epi8(_mm_or_si128(low, _mm_slli_epi32(high, 4)), _mm_set1_epi8(32));
  }

  template <class F>
  PP_INLINE static void each(const std::byte* p, F&& f) {
    unroll<2 / kHalves>([&](auto g) PP_INLINE_LAMBDA {
      const VCodes q = load_codes(p + 32 + g * kHalves * 32);
      const VCodes high = load_shifted<g * kHalves * 4, 4>(p);
      unroll<4>([&](auto j) PP_INLINE_LAMBDA {
        const VCodes top = masked(move_bit<j, 2>(high), 4);
        f(Index<g * 4 + j>{}, join(code_bytes(3), shift_right(q, 2 * j), top));
      });
    });
  }
};

// The 6-bit scales of Q4_K and Q5_K.
PP_INLINE __m128i scales_6bit(const std::byte* p) {
  const uint32_t first = load_32(p + 4), last = load_32(p + 12);
  const uint64_t low = first & 0x3F3F3F3F, high = (last & 0x0F0F0F0F) | (first >> 2 & 0x30303030);
  return _mm_cvtsi64_si128(static_cast<int64_t>(low | high << 32));
}

template <>
struct RowCodes<Q4_K> {
  template <int I>
  using Places = CodePlaces<I / 2 * kHalves * 64 + I % 2 * 32, 64>;

  PP_INLINE static __m128i scales(const std::byte* p) { return scales_6bit(p); }

  template <class F>
  PP_INLINE static void each(const std::byte* p, F&& f) {
    unroll<4 / kHalves>([&](auto g) PP_INLINE_LAMBDA {  // 32 bytes hold 64 values, low nibbles first
      const VCodes q = load_codes(p + 16 + g * kHalves * 32);
      f(Index<g * 2>{}, masked(q, 15));
      f(Index<g * 2 + 1>{}, masked(shift_right(q, 4), 15));
    });
  }
};

template <>
struct RowCodes<Q5_K> {
  template <int I>
  using Places = RowCodes<Q4_K>::Places<I>;

  PP_INLINE static __m128i scales(const std::byte* p) { return scales_6bit(p); }

  template <class F>
  PP_INLINE static void each(const std::byte* p, F&& f) {
    unroll<4 / kHalves>([&](auto g) PP_INLINE_LAMBDA {
      const VCodes q = load_codes(p + 48 + g * kHalves * 32);
      const VCodes high = load_shifted<g * kHalves * 2, 2>(p + 16);
      f(Index<g * 2>{}, join(code_bytes(15), q, masked(move_bit<0, 4>(high), 16)));
      f(Index<g * 2 + 1>{}, join(code_bytes(15), shift_right(q, 4), masked(move_bit<1, 4>(high), 16)));
    });
  }
};

template <>
struct RowCodes<Q6_K> {
  template <int I>
  using Places = CodePlaces<I / 2 * kHalves / 2 * 128 + I / 2 * kHalves % 2 * 32 + I % 2 * 64, 32>;

  PP_INLINE static __m128i scales(const std::byte* p) { return load_128(p + 192); }

  template <class F>
  PP_INLINE static void each(const std::byte* p, F&& f) {
    unroll<4 / kHalves>([&](auto g) PP_INLINE_LAMBDA {  // 32 bytes of nibbles: 32 values and the 32 that are 64 on
      constexpr int k = g * kHalves;
      const VCodes q = load_codes(p + k * 32);
      const VCodes high = load_shifted<k % 2 * 2, 2>(p + 128 + k / 2 * 32);
      f(Index<g * 2>{}, join(code_bytes(15), q, masked(shift_left(high, 4), 0x30)));
      f(Index<g * 2 + 1>{}, join(code_bytes(15), shift_right(q, 4), masked(high, 0x30)));
    });
  }
};

// Up to so many tokens, rows are taken one at a time: where that was faster on Zen 4 (docs/performance.md).
template <class Fmt>
inline constexpr int kRowByRowTokens = 0;
template <>
inline constexpr int kRowByRowTokens<Q2_K> = kHalves == 2 ? kFewTokens : 1;
template <>
inline constexpr int kRowByRowTokens<Q3_K> = kHalves == 2 ? kFewTokens : 0;
template <>
inline constexpr int kRowByRowTokens<Q4_K> = kHalves == 2 ? kFewTokens : 1;
template <>
inline constexpr int kRowByRowTokens<Q5_K> = kHalves == 2 ? kFewTokens : 1;
template <>
inline constexpr int kRowByRowTokens<Q6_K> = kHalves == 2 ? kFewTokens : 3;

}  // namespace
}  // namespace pintpot::lanes

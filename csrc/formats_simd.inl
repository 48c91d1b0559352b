// How each quantized format unpacks kLanes rows at once, over the vectors of simd/lanes_<isa>.h.
//
// A format says
//   Block, kValues     the GGUF block and its number of weights; a block is kValues / 4 code vectors ("steps")
//   kMaxCode           greatest absolute code
//   kSigned, kOffset   codes are stored code + kOffset when not kSigned
//   header(rows, at)   scales of the block at byte `at` of every row
//   codes(rows, at, f) calls f(Index<step>, code vector), each group of kGroup steps consecutively
// 32-value formats:  w = d * code + m            (m where kHasMin)
// 256-value formats: w = d * scale * code - dmin * min, with a scale (and min) per kSub values (min where kHasMin)
// Their headers give scale<j>() for sub-block j, and min_pair<p>(): mins 2p and 2p+1, or where kOffset is not 0
// the scales 2p and 2p+1, by which the offset is taken out again.
#include "blocks.h"

namespace pintpot::lanes {
namespace {

PP_INLINE VInt low_nibbles(VInt v) { return bit_and(v, bytes(0x0F)); }
PP_INLINE VInt high_nibbles(VInt v) { return bit_and(shift_right(v, 4), bytes(0x0F)); }

// ---- 256-value blocks

// Scales of a 256-block as bytes, four sub-blocks a vector.
template <int N, bool SignedScales>
struct Scales {
  VInt v[N];

  template <int J>
  PP_INLINE VInt scale() const {
    if constexpr (SignedScales) return scale_s8<J % 4>(v[J / 4]);
    return scale_u8<J % 4>(v[J / 4]);
  }
  template <int P>
  PP_INLINE VInt pair() const {
    if constexpr (SignedScales) return pair_s8<P % 2 * 2>(v[P / 2]);
    return pair_u8<P % 2 * 2>(v[P / 2]);
  }
};

// N vectors of scales and of mins.
template <int N>
struct MinHeader {
  VFloat d, dmin;
  Scales<N, false> scales, mins;
  template <int J>
  PP_INLINE VInt scale() const { return scales.template scale<J>(); }
  template <int P>
  PP_INLINE VInt min_pair() const { return mins.template pair<P>(); }
};

template <int N>
struct OffsetHeader {
  VFloat d;
  Scales<N, true> scales;
  template <int J>
  PP_INLINE VInt scale() const { return scales.template scale<J>(); }
  template <int P>
  PP_INLINE VInt min_pair() const { return scales.template pair<P>(); }
};

struct Q2_K {
  using Block = BlockQ2_K;
  static constexpr int kValues = 256, kSub = 16, kMaxCode = 3, kOffset = 0;
  static constexpr bool kSigned = false, kHasMin = true;
  static constexpr int kGroup = group_steps(kMaxCode, kSub / 4);

  PP_INLINE static MinHeader<4> header(const Rows& rows, int64_t at) {
    MinHeader<4> h;
    VInt s[4];
    load16(rows, at, s);
    for (int i = 0; i < 4; ++i) {
      h.scales.v[i] = low_nibbles(s[i]);
      h.mins.v[i] = high_nibbles(s[i]);
    }
    const VInt dm = load4(rows, at + 80);
    h.d = half_to_floats(dm);
    h.dmin = half_to_floats(shift_right(dm, 16));
    return h;
  }

  template <class F>
  PP_INLINE static void codes(const Rows& rows, int64_t at, F&& f) {
    unroll<4>([&](auto c) PP_INLINE_LAMBDA {  // 16 bytes hold a quarter of four sub-blocks, 32 values apart
      VInt q[4];
      load16(rows, at + 16 + c * 16, q);
      unroll<4>([&](auto j) PP_INLINE_LAMBDA {
        unroll<4>([&](auto i) PP_INLINE_LAMBDA {
          f(Index<c / 2 * 32 + j * 8 + c % 2 * 4 + i>{}, bit_and(shift_right(q[i], 2 * j), bytes(3)));
        });
      });
    });
  }
};

struct Q3_K {
  using Block = BlockQ3_K;
  static constexpr int kValues = 256, kSub = 16, kMaxCode = 7, kOffset = 4;
  static constexpr bool kSigned = false, kHasMin = false;
  static constexpr int kGroup = group_steps(kMaxCode, kSub / 4);

  PP_INLINE static OffsetHeader<4> header(const Rows& rows, int64_t at) {
    VInt w[4];
    load16(rows, at + 94, w);  // two bytes of codes, 12 of scales, d
    VInt s[3];
    for (int i = 0; i < 3; ++i) s[i] = bit_or(shift_right(w[i], 16), shift_left(w[i + 1], 16));
    OffsetHeader<4> h;
    unroll<4>([&](auto i) PP_INLINE_LAMBDA {
      const VInt low = i < 2 ? low_nibbles(s[i % 2]) : high_nibbles(s[i % 2]);
      const VInt high = shift_left(bit_and(shift_right(s[2], 2 * i), bytes(3)), 4);
      h.scales.v[i] = sub_bytes(bit_or(low, high), bytes(32));
    });
    h.d = half_to_floats(shift_right(w[3], 16));
    return h;
  }

  template <class F>
  PP_INLINE static void codes(const Rows& rows, int64_t at, F&& f) {
    unroll<2>([&](auto c) PP_INLINE_LAMBDA {
      VInt hmask[4];
      load16(rows, at + c * 16, hmask);
      unroll<2>([&](auto half) PP_INLINE_LAMBDA {
        VInt q[4];
        load16(rows, at + 32 + half * 32 + c * 16, q);
        unroll<4>([&](auto j) PP_INLINE_LAMBDA {
          unroll<4>([&](auto i) PP_INLINE_LAMBDA {
            constexpr int bit = half * 4 + j;  // of hmask, wanted as bit 2
            const VInt high = bit < 2 ? shift_left(hmask[i], 2 - bit) : shift_right(hmask[i], bit - 2);
            f(Index<half * 32 + j * 8 + c * 4 + i>{},
              bit_or(bit_and(shift_right(q[i], 2 * j), bytes(3)), bit_and(high, bytes(4))));
          });
        });
      });
    });
  }
};

// d, dmin and the 6-bit scales and mins of Q4_K and Q5_K: the first 16 bytes of both.
PP_INLINE MinHeader<2> header_6bit(const Rows& rows, int64_t at) {
  VInt w[4];
  load16(rows, at, w);
  MinHeader<2> h;
  h.d = half_to_floats(w[0]);
  h.dmin = half_to_floats(shift_right(w[0], 16));
  h.scales.v[0] = bit_and(w[1], bytes(63));
  h.mins.v[0] = bit_and(w[2], bytes(63));
  h.scales.v[1] = bit_or(low_nibbles(w[3]), bit_and(shift_right(w[1], 2), bytes(0x30)));
  h.mins.v[1] = bit_or(high_nibbles(w[3]), bit_and(shift_right(w[2], 2), bytes(0x30)));
  return h;
}

struct Q4_K {
  using Block = BlockQ4_K;
  static constexpr int kValues = 256, kSub = 32, kMaxCode = 15, kOffset = 0;
  static constexpr bool kSigned = false, kHasMin = true;
  static constexpr int kGroup = group_steps(kMaxCode, kSub / 4);

  PP_INLINE static MinHeader<2> header(const Rows& rows, int64_t at) { return header_6bit(rows, at); }

  template <class F>
  PP_INLINE static void codes(const Rows& rows, int64_t at, F&& f) {
    unroll<4>([&](auto j) PP_INLINE_LAMBDA {  // 32 bytes hold sub-blocks 2j (low nibbles) and 2j + 1
      VInt q[2][4];
      load16(rows, at + 16 + j * 32, q[0]);
      load16(rows, at + 32 + j * 32, q[1]);
      unroll<8>([&](auto i) PP_INLINE_LAMBDA { f(Index<j * 16 + i>{}, low_nibbles(q[i / 4][i % 4])); });
      unroll<8>([&](auto i) PP_INLINE_LAMBDA { f(Index<j * 16 + 8 + i>{}, high_nibbles(q[i / 4][i % 4])); });
    });
  }
};

struct Q5_K {
  using Block = BlockQ5_K;
  static constexpr int kValues = 256, kSub = 32, kMaxCode = 31, kOffset = 0;
  static constexpr bool kSigned = false, kHasMin = true;
  static constexpr int kGroup = 4;  // codes come 16 bytes of a sub-block at a time

  PP_INLINE static MinHeader<2> header(const Rows& rows, int64_t at) { return header_6bit(rows, at); }

  template <class F>
  PP_INLINE static void codes(const Rows& rows, int64_t at, F&& f) {
    unroll<2>([&](auto c) PP_INLINE_LAMBDA {
      VInt high[4];  // bit s of byte i: the fifth bit of value i of sub-block s
      load16(rows, at + 16 + c * 16, high);
      unroll<4>([&](auto j) PP_INLINE_LAMBDA {
        VInt q[4];
        load16(rows, at + 48 + j * 32 + c * 16, q);
        auto fifth = [&](int i, int sub) PP_INLINE_LAMBDA {
          const VInt v = sub < 4 ? shift_left(high[i], 4 - sub) : shift_right(high[i], sub - 4);
          return bit_and(v, bytes(0x10));
        };
        unroll<4>([&](auto i) PP_INLINE_LAMBDA {
          f(Index<j * 16 + c * 4 + i>{}, bit_or(low_nibbles(q[i]), fifth(i, 2 * j)));
        });
        unroll<4>([&](auto i) PP_INLINE_LAMBDA {
          f(Index<j * 16 + 8 + c * 4 + i>{}, bit_or(high_nibbles(q[i]), fifth(i, 2 * j + 1)));
        });
      });
    });
  }
};

struct Q6_K {
  using Block = BlockQ6_K;
  static constexpr int kValues = 256, kSub = 16, kMaxCode = 63, kOffset = 32;
  static constexpr bool kSigned = false, kHasMin = false;
  static constexpr int kGroup = group_steps(kMaxCode, kSub / 4);

  PP_INLINE static OffsetHeader<4> header(const Rows& rows, int64_t at) {
    OffsetHeader<4> h;
    load16(rows, at + 192, h.scales.v);
    h.d = half_to_floats(shift_right(load4(rows, at + 206), 16));
    return h;
  }

  template <class F>
  PP_INLINE static void codes(const Rows& rows, int64_t at, F&& f) {
    unroll<4>([&](auto c) PP_INLINE_LAMBDA {  // half c / 2 of the block, 16 bytes c % 2 of each 32
      VInt low[2][4], high[4];
      load16(rows, at + c / 2 * 64 + c % 2 * 16, low[0]);
      load16(rows, at + c / 2 * 64 + c % 2 * 16 + 32, low[1]);
      load16(rows, at + 128 + c * 16, high);
      unroll<4>([&](auto j) PP_INLINE_LAMBDA {
        unroll<4>([&](auto i) PP_INLINE_LAMBDA {
          const VInt nibble = j < 2 ? low_nibbles(low[j % 2][i]) : high_nibbles(low[j % 2][i]);
          const VInt top = j < 2 ? shift_left(high[i], 4 - 2 * j) : shift_right(high[i], 2 * j - 4);
          f(Index<c / 2 * 32 + j * 8 + c % 2 * 4 + i>{}, bit_or(nibble, bit_and(top, bytes(0x30))));
        });
      });
    });
  }
};

// Codes by table: nibbles low then high of 16 bytes, in order.
template <class F>
PP_INLINE void table_codes(const Rows& rows, int64_t at, const int8_t* table, F&& f) {
  VInt q[4];
  load16(rows, at, q);
  unroll<4>([&](auto i) PP_INLINE_LAMBDA { f(i, lookup(table, low_nibbles(q[i]))); });
  unroll<4>([&](auto i) PP_INLINE_LAMBDA { f(Index<i + 4>{}, lookup(table, high_nibbles(q[i]))); });
}

struct IQ4_XS {
  using Block = BlockIQ4_XS;
  static constexpr int kValues = 256, kSub = 32, kMaxCode = 127, kOffset = kSignedOffset;
  static constexpr bool kSigned = kSignedOffset == 0, kHasMin = false;
  static constexpr int kGroup = group_steps(kMaxCode, kSub / 4);

  PP_INLINE static OffsetHeader<2> header(const Rows& rows, int64_t at) {
    VInt w[4];
    load16(rows, at, w);  // d and the high bits of scales; their low nibbles; codes
    OffsetHeader<2> h;
    h.d = half_to_floats(w[0]);
    const VInt even = low_nibbles(w[1]), odd = high_nibbles(w[1]);
    unroll<2>([&](auto i) PP_INLINE_LAMBDA {
      const VInt low = i == 0 ? zip_bytes_low(even, odd) : zip_bytes_high(even, odd);
      const VInt two_bits = bit_and(shift_right(w[0], 16 + 8 * i), ints(0xFF));
      VInt high = bit_and(two_bits, ints(3));
      high = bit_or(high, bit_and(shift_left(two_bits, 6), ints(0x300)));
      high = bit_or(high, bit_and(shift_left(two_bits, 12), ints(0x30000)));
      high = bit_or(high, bit_and(shift_left(two_bits, 18), ints(0x3000000)));
      h.scales.v[i] = sub_bytes(bit_or(low, shift_left(high, 4)), bytes(32));
    });
    return h;
  }

  template <class F>
  PP_INLINE static void codes(const Rows& rows, int64_t at, F&& f) {
    unroll<8>([&](auto j) PP_INLINE_LAMBDA {
      table_codes(rows, at + 8 + j * 16, kIQ4Codes,
                  [&](auto i, VInt v) PP_INLINE_LAMBDA { f(Index<j * 8 + i>{}, from_signed(v)); });
    });
  }
};

// ---- 32-value blocks

struct PlainHeader {
  VFloat d, m;  // m only where kHasMin
};

template <class F>
PP_INLINE void nibble_codes(const Rows& rows, int64_t at, F&& f) {
  VInt q[4];
  load16(rows, at, q);
  unroll<4>([&](auto i) PP_INLINE_LAMBDA { f(i, low_nibbles(q[i])); });
  unroll<4>([&](auto i) PP_INLINE_LAMBDA { f(Index<i + 4>{}, high_nibbles(q[i])); });
}

PP_INLINE PlainHeader header_d(const Rows& rows, int64_t at) {
  return {half_to_floats(load4(rows, at)), zero_float()};
}

PP_INLINE PlainHeader header_dm(const Rows& rows, int64_t at) {
  const VInt dm = load4(rows, at);
  return {half_to_floats(dm), half_to_floats(shift_right(dm, 16))};
}

struct Q4_0 {
  using Block = BlockQ4_0;
  static constexpr int kValues = 32, kMaxCode = 15, kOffset = 8;
  static constexpr bool kSigned = false, kHasMin = false;
  static constexpr int kGroup = group_steps(kMaxCode, 8);

  PP_INLINE static PlainHeader header(const Rows& rows, int64_t at) { return header_d(rows, at); }
  template <class F>
  PP_INLINE static void codes(const Rows& rows, int64_t at, F&& f) { nibble_codes(rows, at + 2, f); }
};

struct Q4_1 {
  using Block = BlockQ4_1;
  static constexpr int kValues = 32, kMaxCode = 15, kOffset = 0;
  static constexpr bool kSigned = false, kHasMin = true;
  static constexpr int kGroup = group_steps(kMaxCode, 8);

  PP_INLINE static PlainHeader header(const Rows& rows, int64_t at) { return header_dm(rows, at); }
  template <class F>
  PP_INLINE static void codes(const Rows& rows, int64_t at, F&& f) { nibble_codes(rows, at + 4, f); }
};

template <class F>
PP_INLINE void five_bit_codes(const Rows& rows, int64_t qh_at, F&& f) {
  const VInt qh = load4(rows, qh_at);
  nibble_codes(rows, qh_at + 4, [&](auto i, VInt v) PP_INLINE_LAMBDA {
    f(i, bit_or(v, fifth_bits<i>(qh)));
  });
}

struct Q5_0 {
  using Block = BlockQ5_0;
  static constexpr int kValues = 32, kMaxCode = 31, kOffset = 16;
  static constexpr bool kSigned = false, kHasMin = false;
  static constexpr int kGroup = group_steps(kMaxCode, 8);

  PP_INLINE static PlainHeader header(const Rows& rows, int64_t at) { return header_d(rows, at); }
  template <class F>
  PP_INLINE static void codes(const Rows& rows, int64_t at, F&& f) { five_bit_codes(rows, at + 2, f); }
};

struct Q5_1 {
  using Block = BlockQ5_1;
  static constexpr int kValues = 32, kMaxCode = 31, kOffset = 0;
  static constexpr bool kSigned = false, kHasMin = true;
  static constexpr int kGroup = group_steps(kMaxCode, 8);

  PP_INLINE static PlainHeader header(const Rows& rows, int64_t at) { return header_dm(rows, at); }
  template <class F>
  PP_INLINE static void codes(const Rows& rows, int64_t at, F&& f) { five_bit_codes(rows, at + 4, f); }
};

struct Q8_0 {
  using Block = BlockQ8_0;
  static constexpr int kValues = 32, kMaxCode = 128, kOffset = kSignedOffset;
  static constexpr bool kSigned = kSignedOffset == 0, kHasMin = false;
  static constexpr int kGroup = group_steps(kMaxCode, 8);

  PP_INLINE static PlainHeader header(const Rows& rows, int64_t at) { return header_d(rows, at); }
  template <class F>
  PP_INLINE static void codes(const Rows& rows, int64_t at, F&& f) {
    unroll<2>([&](auto c) PP_INLINE_LAMBDA {
      VInt q[4];
      load16(rows, at + 2 + c * 16, q);
      unroll<4>([&](auto i) PP_INLINE_LAMBDA { f(Index<c * 4 + i>{}, from_signed(q[i])); });
    });
  }
};

struct IQ4_NL {
  using Block = BlockIQ4_NL;
  static constexpr int kValues = 32, kMaxCode = 127, kOffset = kSignedOffset;
  static constexpr bool kSigned = kSignedOffset == 0, kHasMin = false;
  static constexpr int kGroup = group_steps(kMaxCode, 8);

  PP_INLINE static PlainHeader header(const Rows& rows, int64_t at) { return header_d(rows, at); }
  template <class F>
  PP_INLINE static void codes(const Rows& rows, int64_t at, F&& f) {
    table_codes(rows, at + 2, kIQ4Codes, [&](auto i, VInt v) PP_INLINE_LAMBDA { f(i, from_signed(v)); });
  }
};

struct MXFP4 {
  using Block = BlockMXFP4;
  static constexpr int kValues = 32, kMaxCode = 28, kOffset = 16;
  static constexpr bool kSigned = false, kHasMin = false;
  static constexpr int kGroup = group_steps(kMaxCode, 8);
  // kMXFP4Codes + kOffset
  alignas(16) static constexpr int8_t kCodes[16] = {16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4};

  PP_INLINE static PlainHeader header(const Rows& rows, int64_t at) {
    return {e8m0_half_to_floats(bit_and(load4(rows, at), ints(0xFF))), zero_float()};
  }
  template <class F>
  PP_INLINE static void codes(const Rows& rows, int64_t at, F&& f) { table_codes(rows, at + 1, kCodes, f); }
};

}  // namespace
}  // namespace pintpot::lanes

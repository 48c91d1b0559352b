// Formats whose codes times scales fit a byte, for levels whose products take any unsigned byte and sum in 32 bits:
// a panel of products needs no scales.
#include "matmul_simd.inl"

namespace pintpot::lanes {
namespace {

template <>
struct Folded<Q2_K> {
  static constexpr bool kIs = true;
  static constexpr int kOffset = 0;

  PP_INLINE explicit Folded(const HeaderOf<Q2_K>& h) {
    unroll<16>([&](auto j) PP_INLINE_LAMBDA { products_[j] = mul_ints(h.template scale<j>(), 0x03020100); });
  }
  template <int Step>
  PP_INLINE VInt at(VInt codes) const {
    return lookup_in_lane(products_[Step / 4], codes);
  }

 private:
  VInt products_[16];  // of a sub-block: bytes scale * 0, * 1, * 2, * 3 in every lane
};

// (code - 4) * scale + 124 is 0 to 252. With u = scale + 32, which is 0 to 63, that is 252 - 32 code - (4 - code) u for
// codes below 4 and 252 - 32 code + (code - 4) u for the others: no byte of either table borrows from the next.
template <>
struct Folded<Q3_K> {
  static constexpr bool kIs = true;
  static constexpr int kOffset = 124;

  PP_INLINE explicit Folded(const HeaderOf<Q3_K>& h) {
    unroll<16>([&](auto j) PP_INLINE_LAMBDA {
      const VInt u = add(h.template scale<j>(), ints(32));
      low_[j] = sub(ints(static_cast<int>(0x9CBCDCFC)), mul_ints(u, 0x01020304));
      high_[j] = add(ints(0x1C3C5C7C), mul_ints(u, 0x03020100));
    });
  }
  template <int Step>
  PP_INLINE VInt at(VInt codes) const {
    return lookup_in_lane(low_[Step / 4], high_[Step / 4], codes);
  }

 private:
  VInt low_[16], high_[16];  // of a sub-block: what codes 0 to 3 and 4 to 7 become, a byte each
};

}  // namespace
}  // namespace pintpot::lanes

// Compile-time loops for the kernels. Everything has internal linkage: see matmul_kernels.h.
#pragma once

#define PP_INLINE inline __attribute__((always_inline))
#define PP_INLINE_LAMBDA __attribute__((always_inline))

namespace pintpot::lanes {
namespace {

// An index that is a constant: usable as a template argument inside a generic lambda.
template <int I>
struct Index {
  static constexpr int value = I;
  constexpr operator int() const { return I; }
};

template <int N, int I = 0, class F>
PP_INLINE void unroll(F&& f) {
  if constexpr (I < N) {
    f(Index<I>{});
    unroll<N, I + 1>(f);
  }
}

}  // namespace
}  // namespace pintpot::lanes

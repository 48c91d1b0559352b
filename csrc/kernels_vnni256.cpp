// Products of few tokens for the AVX-512 level, on 256-bit vectors. Everything here lives in an unnamed namespace: see
// matmul_kernels.h.
#include "simd/lanes_vnni256.h"

#include "matmul_few.inl"

namespace pintpot {

// Q4_K stays with the AVX2 kernels: on Zen 4 one token took 7 to 19% longer here (docs/performance.md).
TileFn few_fn_vnni256(TensorType type) {
  return type == TensorType::q4_k ? matmul_kernels_avx2().few(type) : lanes::few_fn(type);
}

}  // namespace pintpot

// Products of few tokens for the AVX-512 level, on 256-bit vectors. Everything here lives in an unnamed namespace: see
// matmul_kernels.h.
#include "simd/row_codes_512.h"

#include "matmul_few.inl"

namespace pintpot {

TileFn few_fn_vnni256(TensorType type) {
  return lanes::few_fn(type);
}

}  // namespace pintpot

// Products of few tokens for the AVX-512 level: rows side by side in 256-bit vectors, codes of one row in 512 bits.
// Everything here lives in an unnamed namespace: see matmul_kernels.h.
#include "simd/row_codes_512.h"

#include "matmul_few.inl"

namespace pintpot {

TileFn few_fn_vnni256(TensorType type) {
  return lanes::few_fn(type);
}

}  // namespace pintpot

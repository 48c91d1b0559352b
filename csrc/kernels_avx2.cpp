// The AVX2 level (with FMA and F16C). Everything here lives in an unnamed namespace: see matmul_kernels.h.
#include "matmul_kernels.h"

namespace pintpot {
const MatmulKernels& matmul_kernels_avx2() { return matmul_kernels_scalar(); }
}  // namespace pintpot

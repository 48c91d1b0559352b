// The AVX-512 level (F, BW, DQ, VL, VNNI). Everything here lives in an unnamed namespace: see matmul_kernels.h.
#include "matmul_kernels.h"

namespace pintpot {
const MatmulKernels& matmul_kernels_avx512() { return matmul_kernels_scalar(); }
}  // namespace pintpot

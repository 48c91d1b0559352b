// The AVX-512 level (F, BW, DQ, VL, VNNI). Everything per-ISA has internal names: see matmul_kernels.h.
#include "matmul_kernels.h"

namespace pintpot {
// The products have no kernels of this width yet.
const MatmulKernels& matmul_kernels_avx512() { return matmul_kernels_avx2(); }
}  // namespace pintpot

#include "mixer_kernels.h"
#include "row_kernels.h"
#include "simd/f32_avx512.h"

namespace pintpot {
namespace avx512 {
#include "mixer_kernels.inl"
#include "row_kernels.inl"
}  // namespace avx512

const MixerKernels& mixer_kernels_avx512() { return avx512::kMixerKernels; }
const RowKernels& row_kernels_avx512() { return avx512::kRowKernels; }
}  // namespace pintpot

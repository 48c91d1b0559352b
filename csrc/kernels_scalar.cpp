// The kernel level that runs everywhere: plain C++, no intrinsics.
#include "matmul_scalar.inl"

#include "mixer_kernels.h"
#include "row_kernels.h"
#include "simd/f32_scalar.h"

namespace pintpot {
namespace scalar {
#include "mixer_kernels.inl"
#include "row_kernels.inl"
}  // namespace scalar

const MixerKernels& mixer_kernels_scalar() { return scalar::kMixerKernels; }
const RowKernels& row_kernels_scalar() { return scalar::kRowKernels; }
}  // namespace pintpot

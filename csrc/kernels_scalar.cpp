// The kernel level that runs everywhere: plain C++, no intrinsics.
#include "matmul_scalar.inl"

#include "mixer_kernels.h"
#include "simd/f32_scalar.h"

namespace pintpot {
namespace scalar {
#include "mixer_kernels.inl"
}  // namespace scalar

const MixerKernels& mixer_kernels_scalar() { return scalar::kMixerKernels; }
}  // namespace pintpot

// The quantizer everywhere: plain C++, no intrinsics.
#include <bit>
#include <cstring>
#include <iterator>

#include "blocks.h"
#include "half.h"
#include "quantize_kernels.h"
#include "simd/f32_scalar.h"

namespace pintpot {
namespace scalar {
#include "quantize_kernels.inl"
}  // namespace scalar

const QuantizeKernels& quantize_kernels_scalar() { return scalar::kQuantizeKernels; }
}  // namespace pintpot

// The quantizer on AVX2 and F16C.
#include <bit>
#include <cstring>
#include <iterator>

#include "blocks.h"
#include "half.h"
#include "quantize_kernels.h"
#include "simd/f32_avx2.h"

namespace pintpot {
namespace avx2 {
#include "quantize_kernels.inl"
}  // namespace avx2

const QuantizeKernels& quantize_kernels_avx2() { return avx2::kQuantizeKernels; }
}  // namespace pintpot

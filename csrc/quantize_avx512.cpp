// The quantizer on AVX-512.
#include <bit>
#include <cstring>
#include <iterator>

#include "blocks.h"
#include "half.h"
#include "quantize_kernels.h"
#include "simd/f32_avx512.h"

namespace pintpot {
namespace avx512 {
#include "quantize_kernels.inl"
}  // namespace avx512

const QuantizeKernels& quantize_kernels_avx512() { return avx512::kQuantizeKernels; }
}  // namespace pintpot

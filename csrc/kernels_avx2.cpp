// The AVX2 level (with FMA and F16C). Everything here lives in an unnamed namespace: see matmul_kernels.h.
#include "simd/row_codes_256.h"

#include "matmul_few.inl"
#include "matmul_float.inl"
#include "matmul_many.inl"
#include "prepare_simd.inl"

namespace pintpot {

const MatmulKernels& matmul_kernels_avx2() {
  static constexpr MatmulKernels kernels{lanes::float_fn, lanes::few_fn, lanes::many_fn, lanes::prepare_block,
                                         lanes::prepare_super};
  return kernels;
}

}  // namespace pintpot

#include "mixer_kernels.h"
#include "row_kernels.h"
#include "simd/f32_avx2.h"

namespace pintpot {
namespace avx2 {
#include "mixer_kernels.inl"
#include "row_kernels.inl"
}  // namespace avx2

const MixerKernels& mixer_kernels_avx2() { return avx2::kMixerKernels; }
const RowKernels& row_kernels_avx2() { return avx2::kRowKernels; }
}  // namespace pintpot

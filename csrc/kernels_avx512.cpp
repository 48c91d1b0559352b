// The AVX-512 level (F, BW, DQ, VL, VNNI). Everything per-ISA has internal names: see matmul_kernels.h.
#include "simd/lanes_avx512.h"

#include "folded_codes.inl"
#include "matmul_float.inl"
#include "matmul_many.inl"
#include "prepare_simd.inl"

namespace pintpot {

const MatmulKernels& matmul_kernels_avx512() {
  // Transposing rows into 512-bit vectors costs more than the wider products save where codes are used once or twice.
  static constexpr MatmulKernels kernels{lanes::float_fn, few_fn_vnni256, lanes::many_fn, lanes::prepare_block,
                                         lanes::prepare_super};
  return kernels;
}

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

// Kernels of quantize_kernels.h on F32x16, included inside an instruction set's namespace after simd/f32_<isa>.h.
// No fma(): its result is another at the level that has none.

#include "quantize_lanes.inl"

#include "quantize_pack.inl"

#include "quantize_affine.inl"

#include "quantize_symmetric.inl"

#include "quantize_float.inl"

#include "quantize_simple.inl"

#include "quantize_formats.inl"

bool quantize_blocks(TensorType kind, const BlockTask& task) {
  switch (kind) {
    case TensorType::f32: return to_f32(task);
    case TensorType::f16: return to_f16(task);
    case TensorType::bf16: return to_bf16(task);
    case TensorType::q8_0: return to_q8_0(task);
    case TensorType::q4_0:
      return task.importance ? to_symmetric<BlockQ4_0, EvenLevels<8>>(task) : to_q4_0(task);
    case TensorType::q4_1: return to_affine<BlockQ4_1, 15>(task);
    case TensorType::q5_0: return to_symmetric<BlockQ5_0, EvenLevels<16>>(task);
    case TensorType::q5_1: return to_affine<BlockQ5_1, 31>(task);
    case TensorType::iq4_nl:
      return task.importance ? to_symmetric<BlockIQ4_NL, TableLevels>(task) : to_iq4_nl(task);
    case TensorType::mxfp4: return to_mxfp4(task);
    case TensorType::iq4_xs: return to_symmetric_super<BlockIQ4_XS, 32, TableLevels, 32, Cost::even>(task);
    case TensorType::q3_k: return to_symmetric_super<BlockQ3_K, 16, EvenLevels<4>, 32, Cost::larger>(task);
    case TensorType::q6_k: return to_symmetric_super<BlockQ6_K, 16, EvenLevels<32>, 128, Cost::even>(task);
    case TensorType::q2_k: return to_affine_super<BlockQ2_K, 16, 3, 15, Cost::larger>(task);
    case TensorType::q4_k: return to_affine_super<BlockQ4_K, 32, 15, 63, Cost::even>(task);
    case TensorType::q5_k: return to_affine_super<BlockQ5_K, 32, 31, 63, Cost::even>(task);
  }
  return false;
}

inline constexpr QuantizeKernels kQuantizeKernels = {widen, quantize_blocks};

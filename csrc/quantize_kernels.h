// The per-instruction-set half of quantize.h: plain data and function tables only (see row_kernels.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor_type.h"

namespace pintpot {

// Whole rows, as one run of blocks. Values are finite.
struct BlockTask {
  const float* x;           // [n_rows, cols]
  const float* importance;  // [cols], at most 1; or nullptr
  int64_t n_rows, cols;
  std::byte* out;
};

struct QuantizeKernels {
  // n values of an F32, F16 or BF16 row as floats; false when one is not finite.
  bool (*widen)(TensorType type, const std::byte* source, int64_t n, float* out);
  // Blocks of `kind`; false when a value overflows (F16 only).
  bool (*blocks)(TensorType kind, const BlockTask& task);
};

const QuantizeKernels& quantize_kernels_scalar();
const QuantizeKernels& quantize_kernels_avx2();
const QuantizeKernels& quantize_kernels_avx512();

}  // namespace pintpot

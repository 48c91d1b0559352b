// The per-instruction-set half of matmul.h: what matmul.cpp asks of a kernel level.
//
// This header and everything it includes is plain data: the kernel translation units are built for different
// CPUs, and an inline function emitted by one of them could be the copy that the linker keeps for all.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor_type.h"

namespace pintpot {

// out[i * ld_out + r] = w[r] . x[x_rows ? x_rows[i] : i] for r in [0, n_rows), i in [0, n).
struct TileArgs {
  const std::byte* w;  // row 0 of the tile
  int64_t row_bytes;
  int64_t n_rows;
  int64_t cols;
  const std::byte* acts;  // prepared rows, act_stride bytes apart
  int64_t act_stride;
  const int32_t* x_rows;  // or nullptr
  int64_t n;
  float* out;
  int64_t ld_out;
  const std::byte* next;  // what this thread will probably read after the tile, or nullptr
};

using TileFn = void (*)(const TileArgs&);
using PrepareFn = void (*)(const float* x, int64_t cols, std::byte* out);

// Up to so many tokens, quantized weights are multiplied as they are unpacked; for more they are unpacked first.
inline constexpr int kFewTokens = 4;

struct MatmulKernels {
  TileFn (*floats)(TensorType type);
  TileFn (*few)(TensorType type);   // quantized weights, n <= kFewTokens
  TileFn (*many)(TensorType type);  // quantized weights, any n; the same bits
  PrepareFn prepare_block;  // ActKind::q8_block
  PrepareFn prepare_super;  // ActKind::q8_super
};

const MatmulKernels& matmul_kernels_scalar();
const MatmulKernels& matmul_kernels_avx2();
const MatmulKernels& matmul_kernels_avx512();

// The avx512 level's `few`, where rows lie side by side in 256-bit vectors.
TileFn few_fn_vnni256(TensorType type);

}  // namespace pintpot

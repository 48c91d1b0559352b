// Products of quantized weight matrices with float activations: the one place that knows weight formats.
//
// Weights stay in their GGUF block layout (memory-mapped, read-only). Activations are prepared once per
// product ("acts"): as float rows for float weights, as int8 blocks for quantized ones. mul_tile computes
// a tile of output rows for any number of tokens on one thread; callers tile flat over the pool.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor_type.h"

namespace pintpot {

struct Engine;

// A read-only view of n_mats matrices [rows, cols] (an expert stack has n_mats = n_expert, else 1).
// Rows are contiguous blocks; matrices are mat_stride bytes apart (more than rows * row_bytes when the
// view is part of a fused tensor).
struct Matrix {
  const std::byte* data = nullptr;
  TensorType type = TensorType::f32;
  int64_t n_mats = 1;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_bytes = 0;
  int64_t mat_stride = 0;
  int32_t source = -1;  // what an InputRecorder files its inputs under; negative: nothing

  const std::byte* row(int64_t mat, int64_t r) const { return data + mat * mat_stride + r * row_bytes; }
};

// Gathered rows [first, first + n) go through matrix `mat` of a stack.
struct Group {
  int32_t mat;
  int32_t first;
  int32_t n;
};

// How activations must be prepared for a weight type.
enum class ActKind : int32_t {
  f32,       // as they are
  q8_block,  // int8, one float scale and the sum per 32 values (types with 32-value blocks)
  q8_super,  // int8, one float scale per 256 values, int16 sums per 16 (K-quants, IQ4_XS)
};
ActKind act_kind(TensorType type);
int64_t act_row_bytes(ActKind kind, int64_t cols);

// Prepares one row of `cols` floats. `out` is 64-byte aligned and act_row_bytes() long.
void prepare_row(ActKind kind, const float* x, int64_t cols, std::byte* out);

// Rows computed together by one mul_tile call; callers make tiles a multiple of this (last one excepted).
inline constexpr int64_t kTileRows = 16;

// out[i * ld_out + r] = W[mat][r] . x[x_rows ? x_rows[i] : i]   for r in [row0, row1), i in [0, n).
// `acts` holds prepared rows, act_row_bytes apart. Single-threaded; results do not depend on the tiling.
// `next`: the weights that this thread will probably read next, or nullptr.
void mul_tile(const Matrix& w, int64_t mat, int64_t row0, int64_t row1, const std::byte* acts,
              const int32_t* x_rows, int64_t n, float* out, int64_t ld_out, const std::byte* next = nullptr);

// out[i * ld_out + r] = W[mat][r] . x[i] for n float rows `ldx` apart, on the whole pool.
// `bias` (rows floats) is added when not null.
void matmul(Engine& engine, const Matrix& w, int64_t mat, const float* x, int64_t ldx, int64_t n,
            const float* bias, float* out, int64_t ld_out);

// Several products of the same input (q, k, v; gate, up): inputs are prepared once per ActKind and all
// tiles share one parallel region.
struct Product {
  const Matrix* w;
  const float* bias;  // or nullptr
  float* out;
  int64_t ld_out;
  int64_t mat = 0;
};
void matmul_many(Engine& engine, const Product* products, int n_products, const float* x, int64_t ldx,
                 int64_t n);

// Dequantizes row r of matrix mat into `cols` floats (embedding lookup, tests).
void dequantize_row(const Matrix& w, int64_t mat, int64_t r, float* out);

}  // namespace pintpot

// Weights into GGUF blocks: rows of any type this project computes with, requantized to another.
//
// Every choice (scales, codes) is made with the same operations in the same order at every instruction-set level,
// so that a file does not depend on the machine that wrote it, nor on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "matmul.h"
#include "thread_pool.h"
#include "workspace.h"

namespace pintpot {

struct QuantizeTask {
  Matrix source;
  int64_t mat, row0, n_rows;
  TensorType kind;
  const float* importance;  // [cols], what a squared error of a column costs; nullptr: all the same
  bool measure;
  std::byte* out;  // [n_rows] rows of `kind`
};

struct QuantizeResult {
  int64_t bad_row = -1;      // first row (counted from 0) with a value `kind` cannot stand for; -1: none
  double squared_error = 0;  // sum of importance * (x - dequantized)^2; 0 unless measured
};

// Quantizes on the whole pool. NaN and infinity are bad in every type, and so is what would overflow in F16. The
// contents of bad rows and their neighbours are unspecified.
QuantizeResult quantize(ThreadPool& pool, Workspace& ws, const QuantizeTask& task);

}  // namespace pintpot

// Element-wise work on rows of activations, float32 [n, width], contiguous. Small inputs are done by the
// calling thread, large ones by the pool; results are the same either way.
#pragma once

#include <cstdint>

#include "matmul.h"
#include "row_kernels.h"
#include "thread_pool.h"

namespace pintpot {

// Values (of one input) below which the calling thread alone is faster than waking the pool.
inline constexpr int64_t kParallelValues = 32768;

// Calls body(first, last) for ranges that cover [0, n_rows), on the pool when rows of `width` make it pay.
template <class Body>
void each_rows(ThreadPool& pool, int64_t n_rows, int64_t width, Body&& body) {
  if (n_rows * width < kParallelValues || pool.size() == 1) {
    if (n_rows > 0) body(int64_t{0}, n_rows);
    return;
  }
  const int64_t chunk = width >= kParallelValues / 4 ? 1 : kParallelValues / 4 / width;
  pool.run((n_rows + chunk - 1) / chunk, [&](int64_t item, int) {
    const int64_t first = item * chunk;
    body(first, first + chunk < n_rows ? first + chunk : n_rows);
  });
}

// out = x / sqrt(mean(x^2) + eps) * weight [width]; `weight` may be null.
void rms_norm(ThreadPool& pool, const float* x, const float* weight, float eps, int64_t n, int64_t width,
              float* out);

// x += delta in place, then out = rms_norm(x).
void add_rms_norm(ThreadPool& pool, float* x, const float* delta, const float* weight, float eps, int64_t n,
                  int64_t width, float* out);

// x += delta
void add(ThreadPool& pool, float* x, const float* delta, int64_t n_values);
// x *= factor
void scale(ThreadPool& pool, float* x, float factor, int64_t n_values);
// x = cap * tanh(x / cap)
void softcap(ThreadPool& pool, float* x, float cap, int64_t n_values);
// out = activation(gate) * up
void gated(ThreadPool& pool, Activation activation, const float* gate, const float* up, int64_t n_values,
           float* out);

// Rows tokens[i] of w as floats [n, w.cols]. Tokens must be in [0, w.rows).
void embed(ThreadPool& pool, const Matrix& w, const int32_t* tokens, int64_t n, float* out);

}  // namespace pintpot

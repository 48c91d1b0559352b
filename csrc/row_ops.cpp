#include "row_ops.h"

#include "cpu_features.h"

namespace pintpot {

namespace {

// Flat arrays are cut into pieces of this many values.
constexpr int64_t kPiece = 4096;

// Calls body(offset, n) for pieces of a flat array.
template <class Body>
void each_piece(ThreadPool& pool, int64_t n_values, Body&& body) {
  each_rows(pool, (n_values + kPiece - 1) / kPiece, kPiece, [&](int64_t first, int64_t last) {
    const int64_t begin = first * kPiece, end = last * kPiece < n_values ? last * kPiece : n_values;
    body(begin, end - begin);
  });
}

}  // namespace

const RowKernels& row_kernels() {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::avx512: return row_kernels_avx512();
    case Isa::avx2: return row_kernels_avx2();
    case Isa::scalar: break;
  }
#endif
  return row_kernels_scalar();
}

void rms_norm(ThreadPool& pool, const float* x, const float* weight, float eps, int64_t n, int64_t width,
              float* out) {
  const RowKernels& k = row_kernels();
  each_rows(pool, n, width, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) k.rms_norm(x + i * width, weight, eps, width, out + i * width);
  });
}

void add_rms_norm(ThreadPool& pool, float* x, const float* delta, const float* weight, float eps, int64_t n,
                  int64_t width, float* out) {
  const RowKernels& k = row_kernels();
  each_rows(pool, n, width, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      k.add_rms_norm(x + i * width, delta + i * width, weight, eps, width, out + i * width);
  });
}

void add(ThreadPool& pool, float* x, const float* delta, int64_t n_values) {
  const RowKernels& k = row_kernels();
  each_piece(pool, n_values, [&](int64_t at, int64_t n) { k.add(x + at, delta + at, n); });
}

void scale(ThreadPool& pool, float* x, float factor, int64_t n_values) {
  const RowKernels& k = row_kernels();
  each_piece(pool, n_values, [&](int64_t at, int64_t n) { k.scale(x + at, factor, n); });
}

void softcap(ThreadPool& pool, float* x, float cap, int64_t n_values) {
  const RowKernels& k = row_kernels();
  each_piece(pool, n_values, [&](int64_t at, int64_t n) { k.softcap(x + at, cap, n); });
}

void gated(ThreadPool& pool, Activation activation, const float* gate, const float* up, int64_t n_values,
           float* out) {
  const RowKernels& k = row_kernels();
  each_piece(pool, n_values,
             [&](int64_t at, int64_t n) { k.gated(activation, gate + at, up + at, n, out + at); });
}

void embed(ThreadPool& pool, const Matrix& w, const int32_t* tokens, int64_t n, float* out) {
  each_rows(pool, n, w.cols, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) dequantize_row(w, 0, tokens[i], out + i * w.cols);
  });
}

}  // namespace pintpot

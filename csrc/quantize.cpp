#include "quantize.h"

#include <algorithm>
#include <atomic>
#include <limits>

#include "cpu_features.h"
#include "quantize_kernels.h"

namespace pintpot {

namespace {

// Values of a tile: they and their codes stay in the second-level cache.
constexpr int64_t kTileValues = 16384;

const QuantizeKernels& kernels() {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::avx512: return quantize_kernels_avx512();
    case Isa::avx2: return quantize_kernels_avx2();
    case Isa::scalar: break;
  }
#endif
  return quantize_kernels_scalar();
}

// What all tiles share.
struct Run {
  const QuantizeTask& task;
  const QuantizeKernels& kernels;
  const float* importance;  // the task's, divided by its largest
  int64_t out_row_bytes;
};

// Row `row` of the task's source as floats; false when one is not finite.
bool read_row(const Run& run, int64_t row, float* out) {
  const QuantizeTask& t = run.task;
  const std::byte* source = t.source.row(t.mat, t.row0 + row);
  switch (t.source.type) {
    case TensorType::f32:
    case TensorType::f16:
    case TensorType::bf16: return run.kernels.widen(t.source.type, source, t.source.cols, out);
    default:
      dequantize_row(t.source, t.mat, t.row0 + row, out);
      return run.kernels.widen(TensorType::f32, reinterpret_cast<const std::byte*>(out), t.source.cols, out);
  }
}

double row_error(const QuantizeTask& t, const float* x, const float* y) {
  double sum = 0;
  for (int64_t i = 0; i < t.source.cols; ++i) {
    const double diff = double{x[i]} - double{y[i]};
    sum += (t.importance ? double{t.importance[i]} : 1.0) * diff * diff;
  }
  return sum;
}

// Rows [first, last); the first bad one, or `last`. `x` holds their values, `y` one row; errors by row.
int64_t quantize_rows(const Run& run, int64_t first, int64_t last, float* x, float* y, double* errors) {
  const QuantizeTask& t = run.task;
  const int64_t cols = t.source.cols;
  for (int64_t r = first; r < last; ++r)
    if (!read_row(run, r, x + (r - first) * cols)) return r;
  std::byte* out = t.out + first * run.out_row_bytes;
  if (!run.kernels.blocks(t.kind, {x, run.importance, last - first, cols, out})) {
    for (int64_t r = first; r < last; ++r)
      if (!run.kernels.blocks(t.kind, {x + (r - first) * cols, run.importance, 1, cols, out})) return r;
  }
  if (!t.measure) return last;
  const Matrix made{t.out, t.kind, 1, t.n_rows, cols, run.out_row_bytes, 0};
  for (int64_t r = first; r < last; ++r) {
    dequantize_row(made, 0, r, y);
    errors[r] = row_error(t, x + (r - first) * cols, y);
  }
  return last;
}

// The importance with its largest value 1, so that sums of products stay in range; nullptr where it says nothing.
const float* normalized(Workspace& ws, const float* importance, int64_t cols) {
  if (!importance) return nullptr;
  const float largest = *std::max_element(importance, importance + cols);
  if (!(largest > 0)) return nullptr;
  auto* out = ws.take<float>(cols);
  for (int64_t i = 0; i < cols; ++i) out[i] = importance[i] / largest;
  return out;
}

}  // namespace

QuantizeResult quantize(ThreadPool& pool, Workspace& ws, const QuantizeTask& task) {
  Workspace::Frame frame(ws);
  const int64_t cols = task.source.cols, n_rows = task.n_rows;
  const TypeInfo& info = *type_info(static_cast<int32_t>(task.kind));
  const Run run{task, kernels(), normalized(ws, task.importance, cols),
                cols / info.block_values * info.block_bytes};
  const int64_t tile = std::clamp<int64_t>(kTileValues / cols, 1, std::max<int64_t>(n_rows, 1));
  const int64_t scratch = (tile + 1) * cols;
  auto* values = ws.take<float>(scratch * pool.size());
  auto* errors = ws.take<double>(task.measure ? n_rows : 0);
  std::atomic<int64_t> bad{std::numeric_limits<int64_t>::max()};
  pool.run((n_rows + tile - 1) / tile, [&](int64_t item, int thread) {
    const int64_t first = item * tile, last = std::min(first + tile, n_rows);
    float* x = values + thread * scratch;
    const int64_t stopped = quantize_rows(run, first, last, x, x + tile * cols, errors);
    if (stopped == last) return;
    int64_t seen = bad.load();
    while (stopped < seen && !bad.compare_exchange_weak(seen, stopped)) {}
  });
  QuantizeResult result;
  if (bad.load() < n_rows) {
    result.bad_row = bad.load();
    return result;
  }
  for (int64_t r = 0; task.measure && r < n_rows; ++r) result.squared_error += errors[r];
  return result;
}

}  // namespace pintpot

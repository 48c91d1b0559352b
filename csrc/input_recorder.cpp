#include "input_recorder.h"

#include <algorithm>

namespace pintpot {

namespace {

constexpr int64_t kColumns = 256;  // of an item: its sums stay in the L1 cache

}  // namespace

void InputRecorder::add(ThreadPool& pool, const Matrix& w, const float* x, int64_t ldx, const int32_t* x_rows,
                        const Group* groups, int64_t n_groups) {
  if (w.source < 0) return;
  const auto source = static_cast<size_t>(w.source);
  if (source >= sums_.size()) sums_.resize(source + 1);
  Sums& sums = sums_[source];
  if (sums.rows.empty()) {
    sums.squares.resize(static_cast<size_t>(w.n_mats * w.cols));
    sums.rows.resize(static_cast<size_t>(w.n_mats));
  }
  for (int64_t g = 0; g < n_groups; ++g) sums.rows[static_cast<size_t>(groups[g].mat)] += groups[g].n;

  const int64_t chunks = (w.cols + kColumns - 1) / kColumns;
  pool.run(n_groups * chunks, [&](int64_t item, int) {
    const Group& group = groups[item / chunks];
    const int64_t first = item % chunks * kColumns, n = std::min(kColumns, w.cols - first);
    double* squares = sums.squares.data() + group.mat * w.cols + first;
    for (int64_t p = group.first; p < group.first + group.n; ++p) {
      const float* row = x + (x_rows ? x_rows[p] : p) * ldx + first;
      for (int64_t j = 0; j < n; ++j) squares[j] += static_cast<double>(row[j]) * static_cast<double>(row[j]);
    }
  });
}

}  // namespace pintpot

// What weight matrices are multiplied with: the sum of squares of each input column, and the number of input
// rows, for each matrix of a stack. Importance matrices are made of this.
#pragma once

#include <cstdint>
#include <vector>

#include "matmul.h"
#include "thread_pool.h"

namespace pintpot {

class InputRecorder {
 public:
  struct Sums {
    std::vector<double> squares;  // [n_mats, cols]; empty: never multiplied
    std::vector<int64_t> rows;    // [n_mats]
  };

  // Adds the rows that `groups` send through w: gathered row p is row x_rows[p] of x (null: row p), rows of x
  // are ldx apart. A matrix without a source is passed over. A column is summed in the order of its rows, on
  // one thread: sums do not depend on the number of threads.
  void add(ThreadPool& pool, const Matrix& w, const float* x, int64_t ldx, const int32_t* x_rows,
           const Group* groups, int64_t n_groups);

  // By Matrix::source; sources beyond the last one seen are absent.
  const std::vector<Sums>& sums() const { return sums_; }

 private:
  std::vector<Sums> sums_;
};

}  // namespace pintpot

// Gated feed-forward layers: down . (activation(gate . x) * (up . x)), one or a stack of them (experts).
//
// Two parallel regions do the work. In the first an item is a tile of rows of gate and the same rows of up
// for all tokens of a group: the activation is applied while the tile is in the cache. The second is the
// product with down. Results depend neither on the number of threads nor on which tokens are computed
// together.
#pragma once

#include <cstdint>

#include "engine.h"
#include "matmul.h"
#include "row_kernels.h"

namespace pintpot {

// Weights. In a stack, matrix e of gate, up and down is one feed-forward; biases follow one another.
struct FFN {
  Matrix gate;  // n_mats x [n_ff, n_embd]
  Matrix up;
  Matrix down;  // n_mats x [n_out, n_ff]
  Activation activation = Activation::silu;
  const float* gate_bias = nullptr;  // [n_mats, n_ff], or none
  const float* up_bias = nullptr;
  const float* down_bias = nullptr;  // [n_mats, n_out], or none

  int64_t n_embd() const { return gate.cols; }
  int64_t n_ff() const { return gate.rows; }
  int64_t n_out() const { return down.rows; }
};

// out [n, n_out] = feed-forward 0 of x [n, n_embd].
void ffn(Engine& engine, const FFN& w, const float* x, int64_t n, float* out);

// The rows of one input, prepared once for every ActKind asked for. Memory is the engine's, up to the end of
// the frame that is open when get() is called; x itself is used where it is as the kernels want it.
class PreparedRows {
 public:
  // x is [n, cols], contiguous, and outlives this.
  PreparedRows(Engine& engine, const float* x, int64_t n, int64_t cols)
      : engine_(engine), x_(x), n_(n), cols_(cols) {}

  // For mul_tile with weights of `type`. Not to be called inside a parallel region the first time.
  const std::byte* get(TensorType type);
  const float* floats() const { return x_; }

 private:
  Engine& engine_;
  const float* x_;
  int64_t n_, cols_;
  const std::byte* prepared_[3] = {};
};

// What one stack of feed-forwards has to do. Gathered row p is row x_rows[p] of the input (null: row p).
struct FFNPart {
  const FFN* w;
  const Group* groups;
  int64_t n_groups;
  const int32_t* x_rows;
  float* h;  // [gathered rows, n_ff]: the intermediate
};

// h = activation(gate . x) * (up . x) for every part, in one parallel region.
void gate_up(Engine& engine, PreparedRows& x, const FFNPart* parts, int n_parts);

// Rows of a tile when `total_rows` rows are shared out: kTileRows times a power of two, so that tiles of most
// matrices begin on a page.
int64_t rows_per_tile(int64_t total_rows, int n_threads);

// Tokens of a group that pass through a tile together. Their results fit the L1 or L2 cache.
inline constexpr int64_t kTileTokens = 128;

// A copy of w that starts at row `row0` of matrix `mat`, so that a tile's results start at its output's
// column 0.
inline Matrix tile_of(const Matrix& w, int64_t mat, int64_t row0, int64_t n_rows) {
  Matrix tile = w;
  tile.data = w.row(mat, row0);
  tile.n_mats = 1;
  tile.rows = n_rows;
  return tile;
}

}  // namespace pintpot

// Softmax attention over a KV cache, from hidden states to the output projection, in one call.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "batch.h"
#include "engine.h"
#include "kv_cache.h"
#include "matmul.h"
#include "rope.h"

namespace pintpot {

// The weights and constants of one layer (pintpot.kernels.api.AttentionWeights says what each means).
// Matrices are borrowed views, vectors are copies; an empty vector means absent. Immutable once checked.
struct AttentionLayer {
  static constexpr int64_t kNoWindow = std::numeric_limits<int64_t>::max() / 2;

  int64_t n_head = 0, n_head_kv = 0, head_dim_k = 0, head_dim_v = 0;
  float scale = 1.0f;
  Matrix wq, wo;
  std::optional<Matrix> wk, wv;
  Rope rope;
  std::vector<float> bq, bk, bv, bo;  // [rows of the matrix]
  std::vector<float> q_norm, k_norm;  // [head_dim_k]
  bool v_norm = false;
  float norm_eps = 1e-6f;
  bool gated = false;
  std::vector<float> sinks;  // [n_head]
  int64_t window = kNoWindow;
  float softcap = 0.0f;  // 0: none

  int64_t n_embd() const { return wq.cols; }
  int64_t q_width() const { return n_head * head_dim_k * (gated ? 2 : 1); }

  // Throws std::invalid_argument, naming the weight, when the shapes do not fit together.
  void check() const;
};

// x [batch.n_tokens(), n_embd] -> out [batch.n_tokens(), wo.rows]. Stores the step's keys and values in the
// cache first (unless the layer has no wk and reads another layer's). Results do not depend on the number
// of threads. Throws std::invalid_argument, before it writes anything, when the cache does not fit the
// layer, a slot does not exist, or a segment does not fit the capacity: past + n tokens, or window + n - 1
// for a layer with a window.
void attention(Engine& engine, const AttentionLayer& layer, const float* x, KVCache& cache,
               const Batch& batch, float* out);

}  // namespace pintpot

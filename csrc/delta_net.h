// The gated delta net (Yang et al. 2024, arXiv:2412.06464) as Qwen 3.5 uses it, from hidden states to the
// output projection, in one call.
#pragma once

#include <cstdint>
#include <vector>

#include "batch.h"
#include "engine.h"
#include "kv_cache.h"
#include "matmul.h"

namespace pintpot {

// Weights and constants of one layer (pintpot.kernels.api.DeltaNetWeights). Matrices are borrowed views,
// vectors are copies. Immutable once checked.
struct DeltaNetLayer {
  int64_t n_head_k = 0, n_head_v = 0, head_dim_k = 0, head_dim_v = 0, conv_kernel = 0;
  float norm_eps = 1e-6f;
  Matrix wqkv, wz, wbeta, walpha, wo;
  std::vector<float> conv;     // [conv_kernel, conv_dim]: taps outermost, the last meets the token itself
  std::vector<float> dt_bias;  // [n_head_v]
  std::vector<float> a;        // [n_head_v]
  std::vector<float> norm;     // [head_dim_v]

  int64_t n_embd() const { return wqkv.cols; }
  int64_t conv_dim() const { return 2 * n_head_k * head_dim_k + n_head_v * head_dim_v; }

  // Throws std::invalid_argument, naming the weight, when the shapes do not fit together.
  void check() const;
};

// x [batch.n_tokens(), n_embd] -> out [batch.n_tokens(), wo.rows]; the state of the batch's slots moves on
// (past is not looked at: a new sequence starts with DeltaState::reset). Results do not depend on the number
// of threads. Throws std::invalid_argument, before it writes anything, when the state does not fit.
void delta_net(Engine& engine, const DeltaNetLayer& layer, const float* x, DeltaState& state,
               const Batch& batch, float* out);

}  // namespace pintpot

// Mixture of experts: route, gate, up, activation, down, weighted sum and shared expert.
//
// Routing and expert work are separate steps, so that a caller can compute a subset of the chosen experts
// here and the rest elsewhere: moe_experts() skips negative ids.
#pragma once

#include <cstdint>

#include "engine.h"
#include "ffn.h"
#include "matmul.h"

namespace pintpot {

enum class Gating : int32_t {
  softmax,       // over all experts, then the top k
  softmax_topk,  // the top k logits, then softmax over those
  sigmoid,       // of every logit, then the top k
};

// Weights belong to the caller and outlive the layer.
struct MoELayer {
  int64_t n_expert = 0;
  int64_t n_expert_used = 0;
  Gating gating = Gating::softmax;
  bool normalize = false;  // divide the chosen weights by their sum
  float weight_scale = 1.0f;
  Matrix router;                       // [n_expert, n_embd]
  const float* router_bias = nullptr;  // [n_expert], added to the logits, or none
  FFN experts;                         // n_mats = n_expert
  const float* down_scale = nullptr;   // [n_expert], multiplies down . h before its bias, or none
  bool has_shared = false;
  FFN shared;                          // n_mats = 1; no biases
  const float* shared_gate = nullptr;  // [n_embd]: sigmoid(x . shared_gate) multiplies the shared output
};

// Chooses n_expert_used experts for each of n tokens from the router's view of them, router_x [n, n_embd].
// ids and weights: [n, n_expert_used], best first, the lower id first among equals; ids of a token are
// distinct and valid whatever the logits are (a NaN counts as the worst).
void moe_route(Engine& engine, const MoELayer& layer, const float* router_x, int64_t n, int32_t* ids,
               float* weights);

// out [n, n_embd] = sum over a token's ids of weight * expert(x), plus the shared expert when `with_shared`.
// Ids are in [0, n_expert), or negative: not computed here. Contributions are added in the order of expert
// ids, the shared expert last.
void moe_experts(Engine& engine, const MoELayer& layer, const float* x, int64_t n, const int32_t* ids,
                 const float* weights, bool with_shared, float* out);

// Both. router_x: null when the router sees x. routes: receives the ids, or null.
void moe(Engine& engine, const MoELayer& layer, const float* x, const float* router_x, int64_t n, float* out,
         int32_t* routes);

}  // namespace pintpot

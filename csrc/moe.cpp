#include "moe.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "row_ops.h"

namespace pintpot {

namespace {

// The smallest normal half: what llama.cpp clamps the sum of weights to before it divides.
constexpr float kMinWeightSum = 6.103515625e-5f;

// The k best of n scores in descending order, the lower index first among equals.
void top_k(const float* scores, int64_t n, int64_t k, int32_t* ids, float* best) {
  int64_t found = 0;
  for (int64_t e = 0; e < n; ++e) {
    const float s = std::isnan(scores[e]) ? -std::numeric_limits<float>::infinity() : scores[e];
    if (found == k && !(s > best[k - 1])) continue;
    int64_t at = found < k ? found++ : k - 1;
    for (; at > 0 && s > best[at - 1]; --at) {
      best[at] = best[at - 1];
      ids[at] = ids[at - 1];
    }
    best[at] = s;
    ids[at] = static_cast<int32_t>(e);
  }
}

void choose(const RowKernels& k, const MoELayer& layer, float* logits, int32_t* ids, float* weights) {
  if (layer.gating == Gating::softmax) k.softmax(logits, layer.n_expert);
  if (layer.gating == Gating::sigmoid) k.sigmoid(logits, layer.n_expert);
  const int64_t used = layer.n_expert_used;
  top_k(logits, layer.n_expert, used, ids, weights);
  for (int64_t j = 0; j < used; ++j) weights[j] = logits[ids[j]];  // a NaN stays visible
  if (layer.gating == Gating::softmax_topk) k.softmax(weights, used);
  if (layer.normalize) {
    float sum = 0;
    for (int64_t j = 0; j < used; ++j) sum += weights[j];
    for (int64_t j = 0; j < used; ++j) weights[j] /= std::max(kMinWeightSum, sum);
  }
  if (layer.weight_scale != 1.0f) k.scale(weights, layer.weight_scale, used);
}

// Tokens sorted by expert.
struct Gathered {
  Group* groups;
  int64_t n_groups = 0;
  int64_t n_rows = 0;
  int32_t* x_rows;  // token of each row
  float* factors;   // what down . h is multiplied by: the routing weight times down_scale
  float* weights;   // what the bias of down is multiplied by: the routing weight
};

Gathered gather(Workspace& ws, const MoELayer& layer, int64_t n, const int32_t* ids, const float* weights) {
  const int64_t used = layer.n_expert_used, n_pairs = n * used;
  auto* groups = ws.take<Group>(std::min(layer.n_expert, n_pairs));
  auto* x_rows = ws.take<int32_t>(n_pairs);
  auto* factors = ws.take<float>(n_pairs);
  auto* sorted_weights = layer.down_scale ? ws.take<float>(n_pairs) : factors;
  Workspace::Frame frame(ws);
  auto* next = ws.take<int32_t>(layer.n_expert);  // where the next row of an expert goes
  std::fill_n(next, layer.n_expert, 0);
  for (int64_t p = 0; p < n_pairs; ++p)
    if (ids[p] >= 0) ++next[ids[p]];
  int32_t rows = 0;
  int64_t n_groups = 0;
  for (int64_t e = 0; e < layer.n_expert; ++e) {
    const int32_t count = next[e];
    if (count) groups[n_groups++] = {static_cast<int32_t>(e), rows, count};
    next[e] = rows;
    rows += count;
  }
  for (int64_t p = 0; p < n_pairs; ++p) {
    if (ids[p] < 0) continue;
    const int32_t row = next[ids[p]]++;
    x_rows[row] = static_cast<int32_t>(p / used);
    sorted_weights[row] = weights[p];
    if (layer.down_scale) factors[row] = weights[p] * layer.down_scale[ids[p]];
  }
  return {groups, n_groups, rows, x_rows, factors, sorted_weights};
}

// One part of the weighted sum: out[x_rows[p]] += factors[p] * (down . h[p]) + weights[p] * bias.
struct DownPart {
  const FFNPart* ffn;
  const std::byte* acts;  // h, prepared
  const float* factors;   // null: 1
  const float* weights;   // null: no bias
};

// Rows [row0, row0 + n_rows) of one group's results, added to out. `next`: as of mul_tile.
void add_down_tile(const RowKernels& k, const DownPart& part, const Group& group, int64_t row0,
                   int64_t n_rows, float* tile, float* out, const std::byte* next) {
  const FFN& w = *part.ffn->w;
  const int64_t stride = act_row_bytes(act_kind(w.down.type), w.down.cols);
  const Matrix down = tile_of(w.down, group.mat, row0, n_rows);
  for (int64_t done = 0; done < group.n; done += kTileTokens) {
    const int64_t n = std::min(kTileTokens, group.n - done), first = group.first + done;
    mul_tile(down, 0, 0, n_rows, part.acts + first * stride, nullptr, n, tile, n_rows, next);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t token = part.ffn->x_rows ? part.ffn->x_rows[first + i] : first + i;
      float* y = out + token * w.n_out() + row0;
      k.accumulate(y, tile + i * n_rows, part.factors ? part.factors[first + i] : 1.0f, n_rows);
      if (w.down_bias)
        k.accumulate(y, w.down_bias + group.mat * w.n_out() + row0, part.weights[first + i], n_rows);
    }
  }
}

// out [n, n_embd] = the sum of all parts. An item owns a tile of output columns for all tokens and adds every
// expert's share in turn: no partial sums in memory, and one order of additions for any number of threads.
void down_sum(Engine& engine, const MoELayer& layer, const DownPart* parts, int n_parts, int64_t n,
              float* out) {
  const RowKernels& k = row_kernels();
  Workspace::Frame frame(engine.ws);
  const int64_t n_out = layer.experts.n_out();
  const int64_t tile_rows = rows_per_tile(n_out, engine.pool.size());
  const int64_t tile_values = std::min(n, kTileTokens) * tile_rows;
  float* tiles = engine.ws.take<float>(tile_values * engine.pool.size());
  engine.pool.run((n_out + tile_rows - 1) / tile_rows, [&](int64_t item, int thread) {
    const int64_t row0 = item * tile_rows, n_rows = std::min(tile_rows, n_out - row0);
    for (int64_t i = 0; i < n; ++i) std::fill_n(out + i * n_out + row0, n_rows, 0.0f);
    const auto first_of = [](const DownPart& part, int64_t g, int64_t row) {
      return part.ffn->w->down.row(part.ffn->groups[g].mat, row);
    };
    for (int p = 0; p < n_parts; ++p)
      for (int64_t g = 0; g < parts[p].ffn->n_groups; ++g) {
        const int64_t next_row = row0 + tile_rows * engine.pool.size();
        const std::byte* next = nullptr;
        if (g + 1 < parts[p].ffn->n_groups) next = first_of(parts[p], g + 1, row0);
        else if (p + 1 < n_parts) next = first_of(parts[p + 1], 0, row0);
        else if (next_row < n_out && parts[0].ffn->n_groups > 0) next = first_of(parts[0], 0, next_row);
        add_down_tile(k, parts[p], parts[p].ffn->groups[g], row0, n_rows, tiles + thread * tile_values, out, next);
      }
  });
}

}  // namespace

void moe_route(Engine& engine, const MoELayer& layer, const float* router_x, int64_t n, int32_t* ids,
               float* weights) {
  if (n <= 0) return;
  const RowKernels& k = row_kernels();
  Workspace::Frame frame(engine.ws);
  const int64_t n_expert = layer.n_expert, used = layer.n_expert_used;
  float* logits = engine.ws.take<float>(n * n_expert);
  matmul(engine, layer.router, 0, router_x, layer.router.cols, n, layer.router_bias, logits, n_expert);
  // Choosing costs about as much as a few passes over the logits.
  each_rows(engine.pool, n, 4 * n_expert, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      choose(k, layer, logits + i * n_expert, ids + i * used, weights + i * used);
  });
}

void moe_experts(Engine& engine, const MoELayer& layer, const float* x, int64_t n, const int32_t* ids,
                 const float* weights, bool with_shared, float* out) {
  if (n <= 0) return;
  const int64_t n_embd = layer.experts.n_embd();
  Workspace::Frame frame(engine.ws);
  PreparedRows x_rows(engine, x, n, n_embd);
  const Gathered chosen = gather(engine.ws, layer, n, ids, weights);
  const Group all{0, 0, static_cast<int32_t>(n)};
  FFNPart ffn_parts[2] = {{&layer.experts, chosen.groups, chosen.n_groups, chosen.x_rows,
                           engine.ws.take<float>(chosen.n_rows * layer.experts.n_ff())}};
  float* shared_factors = nullptr;
  int n_parts = 1;
  if (with_shared && layer.has_shared) {
    ffn_parts[n_parts++] = {&layer.shared, &all, 1, nullptr, engine.ws.take<float>(n * layer.shared.n_ff())};
    if (layer.shared_gate) {
      const RowKernels& k = row_kernels();
      shared_factors = engine.ws.take<float>(n);
      for (int64_t i = 0; i < n; ++i) shared_factors[i] = k.dot(x + i * n_embd, layer.shared_gate, n_embd);
      k.sigmoid(shared_factors, n);
    }
  }
  gate_up(engine, x_rows, ffn_parts, n_parts);

  if (engine.recorder)
    for (int p = 0; p < n_parts; ++p) {
      const FFNPart& part = ffn_parts[p];
      engine.recorder->add(engine.pool, part.w->down, part.h, part.w->n_ff(), nullptr, part.groups, part.n_groups);
    }
  DownPart down_parts[2];
  PreparedRows h[2] = {{engine, ffn_parts[0].h, chosen.n_rows, layer.experts.n_ff()},
                       {engine, ffn_parts[1].h, n, layer.shared.n_ff()}};
  for (int p = 0; p < n_parts; ++p)
    down_parts[p] = {&ffn_parts[p], h[p].get(ffn_parts[p].w->down.type), p ? shared_factors : chosen.factors,
                     p ? nullptr : chosen.weights};
  down_sum(engine, layer, down_parts, n_parts, n, out);
}

void moe(Engine& engine, const MoELayer& layer, const float* x, const float* router_x, int64_t n, float* out,
         int32_t* routes) {
  if (n <= 0) return;
  Workspace::Frame frame(engine.ws);
  int32_t* ids = routes ? routes : engine.ws.take<int32_t>(n * layer.n_expert_used);
  float* weights = engine.ws.take<float>(n * layer.n_expert_used);
  moe_route(engine, layer, router_x ? router_x : x, n, ids, weights);
  moe_experts(engine, layer, x, n, ids, weights, true, out);
}

}  // namespace pintpot

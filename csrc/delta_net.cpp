#include "delta_net.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "mixer_kernels.h"

namespace pintpot {

namespace {

constexpr int64_t kGateTokens = 32;  // tokens whose gates one task computes

void expect(bool ok, const char* what, const std::string& detail) {
  if (!ok) throw std::invalid_argument(std::string("delta_net: ") + what + " " + detail);
}

void check_matrix(const char* name, const Matrix& w, int64_t rows, int64_t cols) {
  expect(w.rows == rows && w.cols == cols, name,
         "is " + std::to_string(w.rows) + " x " + std::to_string(w.cols) + ", expected " +
             std::to_string(rows) + " x " + std::to_string(cols));
}

void check_vector(const char* name, const std::vector<float>& v, int64_t size) {
  expect(static_cast<int64_t>(v.size()) == size, name,
         "has " + std::to_string(v.size()) + " values, expected " + std::to_string(size));
}

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

float softplus(float x) { return x > 20.0f ? x : std::log1p(std::exp(x)); }

// One step of one layer: what its phases share.
struct Step {
  Engine& engine;
  const DeltaNetLayer& layer;
  DeltaState& state;
  const Batch& batch;
  const MixerKernels& kernels;
  int64_t n, ld_k, ld_v;
  float *qkv, *z, *beta, *alpha;  // projections; then beta and the log decay
  float *q, *k, *v;               // [heads][n][ld]: after convolution and norm
  float* mixed;                   // [n, n_head_v * head_dim_v]

  Step(Engine& e, const DeltaNetLayer& l, DeltaState& s, const Batch& b)
      : engine(e), layer(l), state(s), batch(b), kernels(mixer_kernels()), n(b.n_tokens()),
        ld_k(round_up(l.head_dim_k, kPanelLanes)), ld_v(round_up(l.head_dim_v, kPanelLanes)) {
    qkv = e.ws.take<float>(n * l.conv_dim());
    z = e.ws.take<float>(n * l.wz.rows);
    beta = e.ws.take<float>(n * l.n_head_v);
    alpha = e.ws.take<float>(n * l.n_head_v);
    q = e.ws.take<float>(l.n_head_k * n * ld_k);
    k = e.ws.take<float>(l.n_head_k * n * ld_k);
    v = e.ws.take<float>(l.n_head_v * n * ld_v);
    mixed = e.ws.take<float>(n * l.n_head_v * l.head_dim_v);
  }

  void project(const float* x) {
    const Product products[] = {{&layer.wqkv, nullptr, qkv, layer.wqkv.rows},
                                {&layer.wz, nullptr, z, layer.wz.rows},
                                {&layer.wbeta, nullptr, beta, layer.n_head_v},
                                {&layer.walpha, nullptr, alpha, layer.n_head_v}};
    matmul_many(engine, products, 4, x, layer.n_embd(), n);
  }

  // Convolution and norms, a task a head; gates, a task for some tokens.
  void convolve() {
    const auto& segments = batch.segments();
    const int64_t heads = 2 * layer.n_head_k + layer.n_head_v;
    const int64_t convolutions = heads * static_cast<int64_t>(segments.size());
    engine.pool.run(convolutions + (n + kGateTokens - 1) / kGateTokens, [&](int64_t i, int) {
      if (i < convolutions)
        convolve_head(segments[static_cast<size_t>(i / heads)], i % heads);
      else
        gates((i - convolutions) * kGateTokens);
    });
  }

  void convolve_head(const Segment& s, int64_t head) {
    const int64_t hk = layer.n_head_k, dk = layer.head_dim_k, dv = layer.head_dim_v;
    const bool is_q = head < hk, is_v = head >= 2 * hk;
    const int64_t channel = is_v ? 2 * hk * dk + (head - 2 * hk) * dv : head * dk;
    const int64_t ld = is_v ? ld_v : ld_k;
    float* out = is_q ? q + head * n * ld : is_v ? v + (head - 2 * hk) * n * ld : k + (head - hk) * n * ld;
    ConvTask task;
    task.n = s.n;
    task.dim = is_v ? dv : dk;
    task.taps = layer.conv_kernel;
    task.x = qkv + s.first * layer.conv_dim() + channel;
    task.weight = layer.conv.data() + channel;
    task.state = state.conv(s.slot) + channel;
    task.ldx = task.ld_weight = task.ld_state = layer.conv_dim();
    task.out = out + s.first * ld;
    task.ld_out = ld;
    task.l2_norm = !is_v;
    task.eps = layer.norm_eps;
    task.factor = is_q ? 1.0f / std::sqrt(static_cast<float>(dk)) : 1.0f;
    kernels.conv(task);
  }

  void gates(int64_t first) {
    const int64_t end = std::min(n, first + kGateTokens) * layer.n_head_v;
    for (int64_t i = first * layer.n_head_v; i < end; ++i) {
      const auto h = static_cast<size_t>(i % layer.n_head_v);
      beta[i] = 1.0f / (1.0f + std::exp(-beta[i]));
      alpha[i] = layer.a[h] * softplus(alpha[i] + layer.dt_bias[h]);
    }
  }

  void recur() {
    Workspace::Frame frame(engine.ws);
    const auto& segments = batch.segments();
    const int64_t per_thread =
        round_up(kernels.delta_scratch(layer.head_dim_k, layer.head_dim_v), kPanelLanes);
    float* scratch = engine.ws.take<float>(engine.pool.size() * per_thread);
    engine.pool.run(static_cast<int64_t>(segments.size()) * layer.n_head_v, [&](int64_t i, int thread) {
      const Segment& s = segments[static_cast<size_t>(i / layer.n_head_v)];
      const int64_t h = i % layer.n_head_v, head_k = h % layer.n_head_k;
      const int64_t gate = s.first * layer.n_head_v + h, width = layer.n_head_v * layer.head_dim_v;
      const int64_t column = s.first * width + h * layer.head_dim_v;
      DeltaTask task;
      task.n = s.n;
      task.dim_k = layer.head_dim_k;
      task.dim_v = layer.head_dim_v;
      task.q = q + (head_k * n + s.first) * ld_k;
      task.k = k + (head_k * n + s.first) * ld_k;
      task.ld_qk = ld_k;
      task.v = v + (h * n + s.first) * ld_v;
      task.ld_v = ld_v;
      task.g = alpha + gate;
      task.beta = beta + gate;
      task.ld_gate = layer.n_head_v;
      task.state = state.head(s.slot, h);
      task.z = z + column;
      task.ld_z = width;
      task.norm = layer.norm.data();
      task.eps = layer.norm_eps;
      task.out = mixed + column;
      task.ld_out = width;
      task.scratch = scratch + thread * per_thread;
      kernels.delta(task);
    });
  }
};

}  // namespace

void DeltaNetLayer::check() const {
  const auto positive = [](int64_t v) { return v >= 1 && v <= (1 << 14); };
  expect(positive(n_head_k) && positive(n_head_v) && n_head_v % n_head_k == 0, "n_head_v",
         std::to_string(n_head_v) + " is no positive multiple of n_head_k " + std::to_string(n_head_k));
  expect(positive(head_dim_k) && positive(head_dim_v), "head_dim_k and head_dim_v", "must be positive");
  expect(conv_kernel >= 1 && conv_kernel <= 8, "conv_kernel", "must be 1 to 8");
  check_matrix("wqkv", wqkv, conv_dim(), n_embd());
  check_matrix("wz", wz, n_head_v * head_dim_v, n_embd());
  check_matrix("wbeta", wbeta, n_head_v, n_embd());
  check_matrix("walpha", walpha, n_head_v, n_embd());
  check_matrix("wo", wo, wo.rows, n_head_v * head_dim_v);
  check_vector("conv", conv, conv_kernel * conv_dim());
  check_vector("dt_bias", dt_bias, n_head_v);
  check_vector("a", a, n_head_v);
  check_vector("norm", norm, head_dim_v);
}

void delta_net(Engine& engine, const DeltaNetLayer& layer, const float* x, DeltaState& state,
               const Batch& batch, float* out) {
  expect(state.n_head_v() == layer.n_head_v && state.head_dim_k() == layer.head_dim_k &&
             state.head_dim_v() == layer.head_dim_v && state.conv_dim() == layer.conv_dim() &&
             state.conv_kernel() == layer.conv_kernel,
         "the state", "has another shape than the layer");
  expect(batch.max_slot() < state.n_slots(), "slot",
         std::to_string(batch.max_slot()) + " is beyond the state's " + std::to_string(state.n_slots()));
  if (batch.n_tokens() == 0) return;
  Workspace::Frame frame(engine.ws);
  Step step(engine, layer, state, batch);
  step.project(x);
  step.convolve();
  step.recur();
  matmul(engine, layer.wo, 0, step.mixed, layer.wo.cols, step.n, nullptr, out, layer.wo.rows);
}

}  // namespace pintpot

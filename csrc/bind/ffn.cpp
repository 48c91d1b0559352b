#include "ffn.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nanobind/stl/optional.h>

#include "bind.h"
#include "bind_rows.h"
#include "moe.h"

namespace pintpot {

namespace {

using OptionalVector = std::optional<VectorF32>;
using OptionalRows = std::optional<RowsF32>;

// Layers as Python holds them: pointers into weights, and references to the arrays that own those.
struct BoundFFN {
  FFN w;
  nb::object keep;
};

struct BoundMoE {
  MoELayer layer;
  nb::object keep;
  std::vector<OptionalVector> vectors;
  std::vector<OptionalRows> biases;
};

void check(bool ok, const char* message) {
  if (!ok) throw nb::value_error(message);
}

FFN make_ffn(const BoundMatrix& gate, const BoundMatrix& up, const BoundMatrix& down, const char* activation,
             int64_t n_mats) {
  const Matrix &g = gate.m, &u = up.m, &d = down.m;
  check(g.n_mats == n_mats && u.n_mats == n_mats && d.n_mats == n_mats,
        "feed-forward: gate, up and down differ in their number of matrices");
  check(g.rows == u.rows && g.cols == u.cols && d.cols == g.rows && d.rows == g.cols,
        "feed-forward: gate, up and down do not fit together");
  FFN w;
  w.gate = g;
  w.up = u;
  w.down = d;
  w.activation = parse_activation(activation);
  return w;
}

const float* vector_data(const OptionalVector& v, int64_t n, const char* message) {
  check(!v || static_cast<int64_t>(v->shape(0)) == n, message);
  return v ? v->data() : nullptr;
}

const float* rows_data(const OptionalRows& v, int64_t n, int64_t width, const char* message) {
  check(!v || (static_cast<int64_t>(v->shape(0)) == n && static_cast<int64_t>(v->shape(1)) == width),
        message);
  return v ? v->data() : nullptr;
}

Gating parse_gating(const char* name) {
  const std::string_view s = name;
  if (s == "softmax") return Gating::softmax;
  if (s == "softmax_topk") return Gating::softmax_topk;
  if (s == "sigmoid") return Gating::sigmoid;
  throw nb::value_error(("unknown gating " + std::string(s)).c_str());
}

void init_ffn(BoundFFN* self, const BoundMatrix& gate, const BoundMatrix& up, const BoundMatrix& down,
              const char* activation) {
  new (self) BoundFFN{make_ffn(gate, up, down, activation, 1), nb::make_tuple(gate.keep, up.keep, down.keep)};
}

void init_moe(BoundMoE* self, int64_t n_expert, int64_t n_expert_used, const char* gating, bool normalize,
              const BoundMatrix& router, const BoundMatrix& gate, const BoundMatrix& up,
              const BoundMatrix& down, const char* activation, float weight_scale,
              const OptionalVector& router_bias, const OptionalRows& gate_bias, const OptionalRows& up_bias,
              const OptionalRows& down_bias, const OptionalVector& down_scale, const BoundFFN* shared,
              const OptionalVector& shared_gate) {
  check(n_expert >= 1 && n_expert_used >= 1 && n_expert_used <= n_expert,
        "mixture of experts: n_expert_used must be between 1 and n_expert");
  check(router.m.n_mats == 1 && router.m.rows == n_expert && router.m.cols == gate.m.cols,
        "mixture of experts: the router is not [n_expert, n_embd]");
  MoELayer l;
  l.n_expert = n_expert;
  l.n_expert_used = n_expert_used;
  l.gating = parse_gating(gating);
  l.normalize = normalize;
  l.weight_scale = weight_scale;
  l.router = router.m;
  l.router_bias = vector_data(router_bias, n_expert, "mixture of experts: router_bias is not [n_expert]");
  l.experts = make_ffn(gate, up, down, activation, n_expert);
  const int64_t n_ff = gate.m.rows, n_embd = gate.m.cols;
  l.experts.gate_bias =
      rows_data(gate_bias, n_expert, n_ff, "mixture of experts: gate_bias is not [n_expert, n_ff]");
  l.experts.up_bias =
      rows_data(up_bias, n_expert, n_ff, "mixture of experts: up_bias is not [n_expert, n_ff]");
  l.experts.down_bias =
      rows_data(down_bias, n_expert, n_embd, "mixture of experts: down_bias is not [n_expert, n_embd]");
  l.down_scale = vector_data(down_scale, n_expert, "mixture of experts: down_scale is not [n_expert]");
  if (shared) {
    check(shared->w.n_embd() == n_embd, "mixture of experts: the shared expert has another width");
    l.has_shared = true;
    l.shared = shared->w;
  }
  check(shared || !shared_gate, "mixture of experts: shared_gate without a shared expert");
  l.shared_gate = vector_data(shared_gate, n_embd, "mixture of experts: shared_gate is not [n_embd]");
  new (self)
      BoundMoE{l,
               nb::make_tuple(router.keep, gate.keep, up.keep, down.keep, shared ? shared->keep : nb::none()),
               {router_bias, down_scale, shared_gate},
               {gate_bias, up_bias, down_bias}};
}

int64_t check_rows(const RowsF32& x, const OutF32& out, int64_t width, int64_t rows_per_token) {
  const auto n = static_cast<int64_t>(x.shape(0));
  check(static_cast<int64_t>(x.shape(1)) == width && static_cast<int64_t>(out.shape(0)) == n &&
            static_cast<int64_t>(out.shape(1)) == width,
        "x or out does not have the layer's width");
  check(n * rows_per_token <= INT32_MAX, "too many tokens at once");
  return n;
}

void check_pairs(const auto& a, int64_t n, const MoELayer& l, const char* message) {
  check(static_cast<int64_t>(a.shape(0)) == n && static_cast<int64_t>(a.shape(1)) == l.n_expert_used,
        message);
}

void py_ffn(Engine& e, const BoundFFN& layer, const RowsF32& x, const OutF32& out) {
  const int64_t n = check_rows(x, out, layer.w.n_embd(), 1);
  const OpScope scope(e);
  ffn(e, layer.w, x.data(), n, out.data());
}

void py_moe(Engine& e, const BoundMoE& bound, const RowsF32& x, const OutF32& out,
            const OptionalRows& router_x, const std::optional<OutI32>& routes) {
  const MoELayer& l = bound.layer;
  const int64_t n = check_rows(x, out, l.experts.n_embd(), l.n_expert_used);
  const float* router = rows_data(router_x, n, l.router.cols, "moe: router_x does not have the shape of x");
  if (routes) check_pairs(*routes, n, l, "moe: routes is not [n_tokens, n_expert_used]");
  int32_t* ids = routes ? routes->data() : nullptr;
  const OpScope scope(e);
  moe(e, l, x.data(), router, n, out.data(), ids);
}

void py_moe_route(Engine& e, const BoundMoE& bound, const RowsF32& x, const OutI32& ids,
                  const OutF32& weights) {
  const MoELayer& l = bound.layer;
  const auto n = static_cast<int64_t>(x.shape(0));
  check(static_cast<int64_t>(x.shape(1)) == l.router.cols, "moe_route: x does not have the router's width");
  check_pairs(ids, n, l, "moe_route: ids is not [n_tokens, n_expert_used]");
  check_pairs(weights, n, l, "moe_route: weights is not [n_tokens, n_expert_used]");
  const OpScope scope(e);
  moe_route(e, l, x.data(), n, ids.data(), weights.data());
}

void py_moe_experts(Engine& e, const BoundMoE& bound, const RowsF32& x, const OutI32& ids,
                    const RowsF32& weights, bool with_shared, const OutF32& out) {
  const MoELayer& l = bound.layer;
  const int64_t n = check_rows(x, out, l.experts.n_embd(), l.n_expert_used);
  check_pairs(ids, n, l, "moe_experts: ids is not [n_tokens, n_expert_used]");
  check_pairs(weights, n, l, "moe_experts: weights is not [n_tokens, n_expert_used]");
  for (int64_t p = 0; p < n * l.n_expert_used; ++p)
    check(ids.data()[p] < l.n_expert, "moe_experts: an id is not below n_expert");
  const OpScope scope(e);
  moe_experts(e, l, x.data(), n, ids.data(), weights.data(), with_shared, out.data());
}

}  // namespace

void bind_ffn(nb::module_& m) {
  nb::class_<BoundFFN>(m, "FFNLayer", "A gated feed-forward: down . (activation(gate . x) * (up . x)).")
      .def("__init__", &init_ffn, nb::arg("gate"), nb::arg("up"), nb::arg("down"), nb::arg("activation"));
  m.def("ffn", &py_ffn, nb::arg("engine"), nb::arg("layer"), array_arg("x"), array_arg("out"),
        "out [n, n_embd] = the feed-forward of x.");

  nb::class_<BoundMoE>(m, "MoELayer",
                       "Router, experts and shared expert; see pintpot.kernels.api.MoEWeights.")
      .def("__init__", &init_moe, nb::kw_only(), nb::arg("n_expert"), nb::arg("n_expert_used"),
           nb::arg("gating"), nb::arg("normalize"), nb::arg("router"), nb::arg("gate"), nb::arg("up"),
           nb::arg("down"), nb::arg("activation"), nb::arg("weight_scale") = 1.0f,
           array_arg("router_bias").none() = nb::none(), array_arg("gate_bias").none() = nb::none(),
           array_arg("up_bias").none() = nb::none(), array_arg("down_bias").none() = nb::none(),
           array_arg("down_scale").none() = nb::none(), nb::arg("shared").none() = nb::none(),
           array_arg("shared_gate").none() = nb::none());
  m.def("moe", &py_moe, nb::arg("engine"), nb::arg("layer"), array_arg("x"), array_arg("out"),
        array_arg("router_x").none() = nb::none(), array_arg("routes").none() = nb::none(),
        "The whole layer. routes, int32 [n, n_expert_used], receives the chosen experts.");
  m.def("moe_route", &py_moe_route, nb::arg("engine"), nb::arg("layer"), array_arg("x"), array_arg("ids"),
        array_arg("weights"), "The routing step alone: ids and weights [n, n_expert_used], best first.");
  m.def("moe_experts", &py_moe_experts, nb::arg("engine"), nb::arg("layer"), array_arg("x"), array_arg("ids"),
        array_arg("weights"), nb::arg("with_shared"), array_arg("out"),
        "The expert step alone: negative ids are skipped.");
}

}  // namespace pintpot

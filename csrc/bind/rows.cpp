#include "row_ops.h"

#include <optional>
#include <string>
#include <string_view>

#include <nanobind/stl/optional.h>

#include "bind.h"
#include "bind_rows.h"

namespace pintpot {

Activation parse_activation(const char* name) {
  const std::string_view s = name;
  if (s == "silu") return Activation::silu;
  if (s == "gelu_tanh") return Activation::gelu_tanh;
  if (s == "swiglu_oai") return Activation::swiglu_oai;
  throw nb::value_error(("unknown activation " + std::string(s)).c_str());
}

namespace {

template <class A, class B>
bool same_shape(const A& a, const B& b) {
  return a.shape(0) == b.shape(0) && a.shape(1) == b.shape(1);
}

int64_t rows_of(const auto& a) { return static_cast<int64_t>(a.shape(0)); }
int64_t width_of(const auto& a) { return static_cast<int64_t>(a.shape(1)); }

void py_rms_norm(Engine& e, const RowsF32& x, const std::optional<VectorF32>& weight, float eps,
                 const OutF32& out) {
  if (!same_shape(x, out) || (weight && weight->shape(0) != x.shape(1)))
    throw nb::value_error("rms_norm: weight or out does not have the width of x");
  const float *xp = x.data(), *wp = weight ? weight->data() : nullptr;
  const OpScope scope(e);
  rms_norm(e.pool, xp, wp, eps, rows_of(x), width_of(x), out.data());
}

void py_add_rms_norm(Engine& e, const OutF32& x, const RowsF32& delta, const VectorF32& weight, float eps,
                     const OutF32& out) {
  if (!same_shape(x, out) || !same_shape(x, delta) || weight.shape(0) != x.shape(1))
    throw nb::value_error("add_rms_norm: delta, weight or out does not have the shape of x");
  const OpScope scope(e);
  add_rms_norm(e.pool, x.data(), delta.data(), weight.data(), eps, rows_of(x), width_of(x), out.data());
}

void py_add(Engine& e, const OutF32& x, const RowsF32& delta) {
  if (!same_shape(x, delta)) throw nb::value_error("add: delta does not have the shape of x");
  const OpScope scope(e);
  add(e.pool, x.data(), delta.data(), rows_of(x) * width_of(x));
}

void py_scale(Engine& e, const OutF32& x, float factor) {
  const OpScope scope(e);
  scale(e.pool, x.data(), factor, rows_of(x) * width_of(x));
}

void py_softcap(Engine& e, const OutF32& x, float cap) {
  if (!(cap > 0)) throw nb::value_error("softcap: the cap must be positive");
  const OpScope scope(e);
  softcap(e.pool, x.data(), cap, rows_of(x) * width_of(x));
}

void py_gated(Engine& e, const RowsF32& gate, const RowsF32& up, const char* activation, const OutF32& out) {
  if (!same_shape(gate, up) || !same_shape(gate, out))
    throw nb::value_error("gated: gate, up and out differ in shape");
  const Activation a = parse_activation(activation);
  const OpScope scope(e);
  gated(e.pool, a, gate.data(), up.data(), rows_of(gate) * width_of(gate), out.data());
}

void py_embed(Engine& e, const BoundMatrix& w, const VectorI32& tokens, const OutF32& out) {
  const auto n = static_cast<int64_t>(tokens.shape(0));
  if (rows_of(out) != n || width_of(out) != w.m.cols)
    throw nb::value_error("embed: out needs one row of the matrix's width for each token");
  for (int64_t i = 0; i < n; ++i) {
    const int32_t token = tokens.data()[i];
    if (token < 0 || token >= w.m.rows)
      throw nb::value_error(("token id " + std::to_string(token) + " is outside the embedding's " +
                             std::to_string(w.m.rows) + " rows").c_str());
  }
  const OpScope scope(e);
  embed(e.pool, w.m, tokens.data(), n, out.data());
}

}  // namespace

void bind_rows(nb::module_& m) {
  m.def("rms_norm", &py_rms_norm, nb::arg("engine"), array_arg("x"), array_arg("weight").none(),
        nb::arg("eps"), array_arg("out"), "out = x / sqrt(mean(x^2) + eps) (* weight), row by row.");
  m.def("add_rms_norm", &py_add_rms_norm, nb::arg("engine"), array_arg("x"), array_arg("delta"),
        array_arg("weight"), nb::arg("eps"), array_arg("out"),
        "x += delta in place, then out = rms_norm(x).");
  m.def("add", &py_add, nb::arg("engine"), array_arg("x"), array_arg("delta"), "x += delta in place.");
  m.def("scale", &py_scale, nb::arg("engine"), array_arg("x"), nb::arg("factor"), "x *= factor in place.");
  m.def("softcap", &py_softcap, nb::arg("engine"), array_arg("x"), nb::arg("cap"),
        "x = cap * tanh(x / cap) in place.");
  m.def("gated", &py_gated, nb::arg("engine"), array_arg("gate"), array_arg("up"), nb::arg("activation"),
        array_arg("out"), "out = activation(gate) * up.");
  m.def("embed", &py_embed, nb::arg("engine"), nb::arg("matrix"), array_arg("tokens"), array_arg("out"),
        "Rows of the matrix as float32; ValueError for an id outside it.");
}

}  // namespace pintpot

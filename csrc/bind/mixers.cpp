#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <vector>

#include "attention.h"
#include "batch.h"
#include "bind.h"
#include "delta_net.h"
#include "kv_cache.h"

namespace pintpot {

namespace {

using MaybeMatrix = const BoundMatrix*;
using MaybeVector = std::optional<VectorF32>;

std::vector<float> copy(const MaybeVector& v) {
  return v ? std::vector<float>(v->data(), v->data() + v->size()) : std::vector<float>();
}

std::optional<Matrix> view(MaybeMatrix w) { return w ? std::optional(w->m) : std::nullopt; }

// A layer as Python holds it: the native value, and references to the memory of its matrices.
template <class Layer>
struct Bound {
  Layer layer;
  std::vector<nb::object> keep;
};
using BoundAttention = Bound<AttentionLayer>;
using BoundDeltaNet = Bound<DeltaNetLayer>;

std::vector<nb::object> keep_alive(std::initializer_list<MaybeMatrix> matrices) {
  std::vector<nb::object> keep;
  for (MaybeMatrix w : matrices)
    if (w) keep.push_back(w->keep);
  return keep;
}

void init_attention(BoundAttention* self, int64_t n_head, int64_t n_head_kv, int64_t head_dim_k,
                    int64_t head_dim_v, float scale, const BoundMatrix& wq, MaybeMatrix wk, MaybeMatrix wv,
                    const BoundMatrix& wo, const MaybeVector& rope_inv_freq, bool rope_interleaved,
                    float rope_mscale, const MaybeVector& bq, const MaybeVector& bk, const MaybeVector& bv,
                    const MaybeVector& bo, const MaybeVector& q_norm, const MaybeVector& k_norm, bool v_norm,
                    float norm_eps, bool gated, const MaybeVector& sinks, std::optional<int64_t> window,
                    std::optional<float> softcap) {
  AttentionLayer l;
  l.n_head = n_head;
  l.n_head_kv = n_head_kv;
  l.head_dim_k = head_dim_k;
  l.head_dim_v = head_dim_v;
  l.scale = scale;
  l.wq = wq.m;
  l.wk = view(wk);
  l.wv = view(wv);
  l.wo = wo.m;
  l.rope = {copy(rope_inv_freq), rope_interleaved, rope_mscale};
  l.bq = copy(bq);
  l.bk = copy(bk);
  l.bv = copy(bv);
  l.bo = copy(bo);
  l.q_norm = copy(q_norm);
  l.k_norm = copy(k_norm);
  l.v_norm = v_norm;
  l.norm_eps = norm_eps;
  l.gated = gated;
  l.sinks = copy(sinks);
  l.window = window.value_or(AttentionLayer::kNoWindow);
  l.softcap = softcap.value_or(0.0f);
  l.check();
  new (self) BoundAttention{std::move(l), keep_alive({&wq, wk, wv, &wo})};
}

void init_delta_net(BoundDeltaNet* self, int64_t n_head_k, int64_t n_head_v, int64_t head_dim_k,
                    int64_t head_dim_v, int64_t conv_kernel, float norm_eps, const BoundMatrix& wqkv,
                    const BoundMatrix& wz, const BoundMatrix& wbeta, const BoundMatrix& walpha,
                    const BoundMatrix& wo, const RowsF32& conv, const VectorF32& dt_bias, const VectorF32& a,
                    const VectorF32& norm) {
  DeltaNetLayer l;
  l.n_head_k = n_head_k;
  l.n_head_v = n_head_v;
  l.head_dim_k = head_dim_k;
  l.head_dim_v = head_dim_v;
  l.conv_kernel = conv_kernel;
  l.norm_eps = norm_eps;
  l.wqkv = wqkv.m;
  l.wz = wz.m;
  l.wbeta = wbeta.m;
  l.walpha = walpha.m;
  l.wo = wo.m;
  const size_t channels = conv.shape(0), taps = conv.shape(1);
  if (static_cast<int64_t>(taps) != conv_kernel)
    throw nb::value_error("delta_net: conv does not have conv_kernel columns");
  l.conv.resize(channels * taps);
  for (size_t c = 0; c < channels; ++c)
    for (size_t j = 0; j < taps; ++j) l.conv[j * channels + c] = conv(c, j);
  l.dt_bias = copy(dt_bias);
  l.a = copy(a);
  l.norm = copy(norm);
  l.check();
  new (self) BoundDeltaNet{std::move(l), keep_alive({&wqkv, &wz, &wbeta, &walpha, &wo})};
}

template <class Layer>
void check_io(const Layer& layer, const RowsF32& x, const Batch& batch, const OutF32& out) {
  const auto is = [&](const auto& array, int64_t rows, int64_t cols) {
    return static_cast<int64_t>(array.shape(0)) == rows && static_cast<int64_t>(array.shape(1)) == cols;
  };
  if (!is(x, batch.n_tokens(), layer.n_embd()) || !is(out, batch.n_tokens(), layer.wo.rows))
    throw nb::value_error(
        "x must be [tokens of the batch, n_embd] and out [tokens of the batch, rows of wo]");
}

void py_attention(Engine& engine, const BoundAttention& a, const RowsF32& x, KVCache& cache,
                  const Batch& batch, const OutF32& out) {
  check_io(a.layer, x, batch, out);
  const OpScope scope(engine);
  attention(engine, a.layer, x.data(), cache, batch, out.data());
}

void py_delta_net(Engine& engine, const BoundDeltaNet& d, const RowsF32& x, DeltaState& state,
                  const Batch& batch, const OutF32& out) {
  check_io(d.layer, x, batch, out);
  const OpScope scope(engine);
  delta_net(engine, d.layer, x.data(), state, batch, out.data());
}

template <class Ints>  // VectorI32 or std::vector<int32_t>
void init_batch(Batch* self, const Ints& slots, const Ints& past, const Ints& lengths) {
  if (past.size() != slots.size() || lengths.size() != slots.size())
    throw nb::value_error("slots, past and lengths must be equally long");
  new (self) Batch(slots.data(), past.data(), lengths.data(), static_cast<int64_t>(slots.size()));
}

void bind_state(nb::module_& m) {
  nb::class_<Batch>(m, "Batch", "The tokens of a step: runs of `lengths` tokens after `past` ones, by slot.")
      .def("__init__", &init_batch<VectorI32>, nb::arg("slots"), nb::arg("past"), nb::arg("lengths"))
      .def("__init__", &init_batch<std::vector<int32_t>>, nb::arg("slots"), nb::arg("past"),
           nb::arg("lengths"))
      .def_prop_ro("n_tokens", &Batch::n_tokens);

  nb::class_<KVCache>(m, "KVCache", "Keys and values of one layer; pages cost nothing until written.")
      .def(
          "__init__",
          [](KVCache* self, int64_t n_slots, int64_t capacity, int64_t n_head_kv, int64_t head_dim_k,
             int64_t head_dim_v, const std::string& type_k, const std::string& type_v) {
            new (self) KVCache(n_slots, capacity, n_head_kv, head_dim_k, head_dim_v, parse_kv_type(type_k),
                               parse_kv_type(type_v));
          },
          nb::arg("n_slots"), nb::arg("capacity"), nb::arg("n_head_kv"), nb::arg("head_dim_k"),
          nb::arg("head_dim_v"), nb::arg("type_k"), nb::arg("type_v"))
      .def_prop_ro("nbytes", &KVCache::nbytes)
      .def("copy_slot", &KVCache::copy_slot, nb::arg("src"), nb::arg("dst"), nb::arg("n_tokens"),
           nb::call_guard<nb::gil_scoped_release>());

  nb::class_<DeltaState>(m, "DeltaState", "Recurrent state of one gated delta net layer, zero at first.")
      .def(nb::init<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t>(), nb::arg("n_slots"),
           nb::arg("n_head_v"), nb::arg("head_dim_k"), nb::arg("head_dim_v"), nb::arg("conv_dim"),
           nb::arg("conv_kernel"))
      .def_prop_ro("nbytes", &DeltaState::nbytes)
      .def("reset", &DeltaState::reset, nb::arg("slot"))
      .def("copy_slot", &DeltaState::copy_slot, nb::arg("src"), nb::arg("dst"))
      .def(
          "save",
          [](const DeltaState& s, int64_t slot) {
            std::vector<std::byte> saved(s.slot_bytes());
            s.save(slot, saved.data());
            return nb::bytes(saved.data(), saved.size());
          },
          nb::arg("slot"), "The slot's state, for restore() of a state of the same shape.")
      .def(
          "restore",
          [](DeltaState& s, int64_t slot, const nb::bytes& saved) {
            if (saved.size() != s.slot_bytes())
              throw nb::value_error("the saved state is of another shape");
            s.restore(slot, static_cast<const std::byte*>(saved.data()));
          },
          nb::arg("slot"), nb::arg("saved"));
}

}  // namespace

void bind_mixers(nb::module_& m) {
  bind_state(m);

  nb::class_<BoundAttention>(m, "AttentionLayer", "Prepared weights (pintpot.kernels.api.AttentionWeights).")
      .def("__init__", &init_attention, nb::kw_only(), nb::arg("n_head"), nb::arg("n_head_kv"),
           nb::arg("head_dim_k"), nb::arg("head_dim_v"), nb::arg("scale"), nb::arg("wq"),
           nb::arg("wk").none(), nb::arg("wv").none(), nb::arg("wo"), nb::arg("rope_inv_freq") = nb::none(),
           nb::arg("rope_interleaved") = false, nb::arg("rope_mscale") = 1.0f, nb::arg("bq") = nb::none(),
           nb::arg("bk") = nb::none(), nb::arg("bv") = nb::none(), nb::arg("bo") = nb::none(),
           nb::arg("q_norm") = nb::none(), nb::arg("k_norm") = nb::none(), nb::arg("v_norm") = false,
           nb::arg("norm_eps") = 1e-6f, nb::arg("gated") = false, nb::arg("sinks") = nb::none(),
           nb::arg("window") = nb::none(), nb::arg("softcap") = nb::none());
  m.def("attention", &py_attention, nb::arg("engine"), nb::arg("layer"), nb::arg("x"), nb::arg("cache"),
        nb::arg("batch"), nb::arg("out"));

  nb::class_<BoundDeltaNet>(m, "DeltaNetLayer", "Prepared weights (pintpot.kernels.api.DeltaNetWeights).")
      .def("__init__", &init_delta_net, nb::kw_only(), nb::arg("n_head_k"), nb::arg("n_head_v"),
           nb::arg("head_dim_k"), nb::arg("head_dim_v"), nb::arg("conv_kernel"), nb::arg("norm_eps"),
           nb::arg("wqkv"), nb::arg("wz"), nb::arg("wbeta"), nb::arg("walpha"), nb::arg("wo"),
           nb::arg("conv"), nb::arg("dt_bias"), nb::arg("a"), nb::arg("norm"));
  m.def("delta_net", &py_delta_net, nb::arg("engine"), nb::arg("layer"), nb::arg("x"), nb::arg("state"),
        nb::arg("batch"), nb::arg("out"));
}

}  // namespace pintpot

// Shared by the binding files: array types that check dtype, rank and contiguity at the border.
//
// Ops write into `out` arrays that Python allocates. The GIL is released around every op; an Engine that another
// thread is using is refused. Layers keep the memory of their weights alive (nb::keep_alive or a
// stored nb::object).
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "engine.h"
#include "matmul.h"

namespace pintpot {

namespace nb = nanobind;

using VectorF32 = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using RowsF32 = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using OutF32 = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using VectorI32 = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using OutI32 = nb::ndarray<int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using BytesU8 = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// An array argument taken as it is: nanobind would otherwise pass a converted copy of one of another type or
// layout, and what an op writes into a copy is lost.
inline auto array_arg(const char* name) { return nb::arg(name).noconvert(); }

// A Matrix as Python holds it: the view, and a reference to the memory below it.
struct BoundMatrix {
  Matrix m;
  nb::object keep;
};

// Held by an op while it runs: the engine is its own, and other threads may run Python.
class OpScope {
 public:
  explicit OpScope(Engine& engine) : lease_(engine) {}

 private:
  EngineLease lease_;
  nb::gil_scoped_release release_;
};

void bind_core(nb::module_& m);
void bind_matmul(nb::module_& m);
void bind_mixers(nb::module_& m);   // KV cache, attention, delta net, batch
void bind_rows(nb::module_& m);     // norms, elementwise, embedding
void bind_ffn(nb::module_& m);      // dense FFN and mixture of experts
void bind_bandwidth(nb::module_& m);
void bind_quantize(nb::module_& m);

}  // namespace pintpot

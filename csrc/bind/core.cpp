#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "bind.h"
#include "cpu_features.h"
#include "tensor_type.h"

namespace pintpot {

namespace {

template <class T>
nb::object copied(const std::vector<T>& values, std::initializer_list<size_t> shape) {
  auto* copy = new std::vector<T>(values);
  nb::capsule owner(copy, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return nb::cast(nb::ndarray<nb::numpy, T>(copy->data(), shape, owner));
}

nb::dict recorded(Engine& engine) {
  const EngineLease lease(engine);
  nb::dict out;
  if (!engine.recorder) return out;
  const auto& all = engine.recorder->sums();
  for (size_t source = 0; source < all.size(); ++source) {
    const size_t n_mats = all[source].rows.size();
    if (n_mats == 0) continue;
    out[nb::int_(source)] = nb::make_tuple(copied(all[source].squares, {n_mats, all[source].squares.size() / n_mats}),
                                           copied(all[source].rows, {n_mats}));
  }
  return out;
}

}  // namespace

void bind_core(nb::module_& m) {
  nb::enum_<Isa>(m, "Isa", nb::is_arithmetic())
      .value("scalar", Isa::scalar)
      .value("avx2", Isa::avx2)
      .value("avx512", Isa::avx512);
  m.def("detect_isa", &detect_isa, "The best kernel level this CPU supports.");
  m.def("active_isa", &active_isa, "The kernel level in force.");
  m.def("set_isa", &set_isa, nb::arg("isa"),
        "Force a kernel level (tests, benchmarks); False when the CPU lacks it.");

  nb::class_<Engine>(m, "Engine", "A thread pool and scratch memory; one caller at a time.")
      .def(
          "__init__",
          [](Engine* self, int n_threads) {
            if (n_threads < 1 || n_threads > 1024) throw nb::value_error("n_threads: expected 1 to 1024");
            new (self) Engine(n_threads);
          },
          nb::arg("n_threads"))
      .def_prop_ro("n_threads", [](const Engine& e) { return e.pool.size(); })
      .def_prop_ro("scratch_bytes", [](const Engine& e) { return e.ws.allocated_bytes(); })
      .def(
          "set_poison",
          [](Engine& e, bool on) {
            const EngineLease lease(e);
            e.ws.set_poison(on);
          },
          nb::arg("on"), "Fill scratch memory with NaN before each use (tests).")
      .def(
          "start_recording",
          [](Engine& e) {
            const EngineLease lease(e);
            e.recorder = std::make_unique<InputRecorder>();
          },
          "From now on sum up what matrices with a source are multiplied with, from zero.")
      .def(
          "stop_recording",
          [](Engine& e) {
            const EngineLease lease(e);
            e.recorder.reset();
          },
          "Forget the sums.")
      .def("recorded", &recorded,
           "Sums so far: source to (squares float64 [n_mats, cols], rows int64 [n_mats]).");

  nb::class_<BoundMatrix>(m, "Matrix", "A read-only view of n_mats weight matrices in GGUF blocks.")
      .def(
          "__init__",
          [](BoundMatrix* self, BytesU8 data, int ggml_type, int64_t n_mats, int64_t rows, int64_t cols,
             int64_t row_bytes, int64_t mat_stride, nb::object keep, int32_t source) {
            const TypeInfo* info = type_info(ggml_type);
            if (!info) throw nb::value_error("unsupported tensor type");
            int64_t bytes = 0, before_last = 0;
            if (n_mats < 1 || rows < 1 || cols < 1 || cols % info->block_values != 0 ||
                __builtin_mul_overflow(cols / info->block_values, int64_t{info->block_bytes}, &bytes) ||
                row_bytes != bytes || mat_stride < 0 || __builtin_mul_overflow(rows, row_bytes, &bytes) ||
                __builtin_mul_overflow(n_mats - 1, mat_stride, &before_last) ||
                __builtin_add_overflow(bytes, before_last, &bytes) ||
                static_cast<uint64_t>(bytes) > data.nbytes())
              throw nb::value_error("tensor geometry does not match its data");
            new (self) BoundMatrix{{reinterpret_cast<const std::byte*>(data.data()), info->type, n_mats, rows,
                                    cols, row_bytes, mat_stride, source},
                                   std::move(keep)};
          },
          array_arg("data"), nb::arg("ggml_type"), nb::arg("n_mats"), nb::arg("rows"), nb::arg("cols"),
          nb::arg("row_bytes"), nb::arg("mat_stride"), nb::arg("keep"), nb::arg("source") = -1)
      .def_prop_ro("rows", [](const BoundMatrix& b) { return b.m.rows; })
      .def_prop_ro("cols", [](const BoundMatrix& b) { return b.m.cols; })
      .def_prop_ro("n_mats", [](const BoundMatrix& b) { return b.m.n_mats; });
}

}  // namespace pintpot

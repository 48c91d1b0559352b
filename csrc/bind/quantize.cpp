#include "quantize.h"

#include <cmath>
#include <optional>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include "bind.h"

namespace pintpot {

namespace {

using OutU8 = nb::ndarray<uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

void check_importance(const VectorF32& importance, int64_t cols) {
  if (static_cast<int64_t>(importance.shape(0)) != cols)
    throw nb::value_error("quantize: importance needs one value for each column");
  for (int64_t i = 0; i < cols; ++i)
    if (!(importance.data()[i] >= 0) || !std::isfinite(importance.data()[i]))
      throw nb::value_error("quantize: importance must be finite and not negative");
}

std::pair<int64_t, double> py_quantize(Engine& engine, const BoundMatrix& source, int64_t mat, int64_t row0,
                                       int ggml_type, const OutU8& out, std::optional<VectorF32> importance,
                                       bool measure) {
  const TypeInfo* info = type_info(ggml_type);
  if (!info) throw nb::value_error("quantize: unsupported tensor type");
  const auto n_rows = static_cast<int64_t>(out.shape(0));
  if (mat < 0 || mat >= source.m.n_mats || row0 < 0 || row0 > source.m.rows - n_rows)
    throw nb::value_error("quantize: the source has no such matrix or rows");
  if (source.m.cols % info->block_values != 0)
    throw nb::value_error("quantize: the columns are no whole blocks of this type");
  if (static_cast<int64_t>(out.shape(1)) != source.m.cols / info->block_values * info->block_bytes)
    throw nb::value_error("quantize: out needs the bytes of one row of this type for each row");
  if (importance) check_importance(*importance, source.m.cols);
  const QuantizeTask task{.source = source.m,
                          .mat = mat,
                          .row0 = row0,
                          .n_rows = n_rows,
                          .kind = info->type,
                          .importance = importance ? importance->data() : nullptr,
                          .measure = measure,
                          .out = reinterpret_cast<std::byte*>(out.data())};
  const OpScope scope(engine);
  const QuantizeResult result = quantize(engine.pool, engine.ws, task);
  return {result.bad_row, result.squared_error};
}

}  // namespace

void bind_quantize(nb::module_& m) {
  m.def("quantize", &py_quantize, nb::arg("engine"), nb::arg("source"), nb::arg("mat"), nb::arg("row0"),
        nb::arg("ggml_type"), array_arg("out"), array_arg("importance").none(), nb::arg("measure"),
        "Rows row0.. of matrix `mat` as blocks of ggml_type, uint8 [n, row_bytes]; the first row that holds what "
        "the type cannot (or -1), and the squared error where it is measured.");
}

}  // namespace pintpot

#include "matmul.h"

#include <cstring>
#include <optional>

#include <nanobind/stl/optional.h>

#include "bind.h"

namespace pintpot {

namespace {

void check_matrix_index(const BoundMatrix& w, int64_t mat) {
  if (mat < 0 || mat >= w.m.n_mats) throw nb::value_error("matrix index out of range");
}

void py_matmul(Engine& engine, const BoundMatrix& w, int64_t mat, const RowsF32& x, const OutF32& out,
               std::optional<VectorF32> bias) {
  check_matrix_index(w, mat);
  const auto n = static_cast<int64_t>(x.shape(0));
  if (static_cast<int64_t>(x.shape(1)) != w.m.cols || static_cast<int64_t>(out.shape(0)) != n ||
      static_cast<int64_t>(out.shape(1)) != w.m.rows ||
      (bias && static_cast<int64_t>(bias->shape(0)) != w.m.rows))
    throw nb::value_error("matmul: x, out or bias does not match the matrix");
  const float* b = bias ? bias->data() : nullptr;
  const float* xp = x.data();
  float* op = out.data();
  const OpScope scope(engine);
  matmul(engine, w.m, mat, xp, w.m.cols, n, b, op, w.m.rows);
}

void py_mul_tile(const BoundMatrix& w, int64_t mat, int64_t row0, int64_t row1, const RowsF32& x,
                 std::optional<VectorI32> x_rows, const OutF32& out) {
  check_matrix_index(w, mat);
  if (row0 < 0 || row1 < row0 || row1 > w.m.rows || static_cast<int64_t>(x.shape(1)) != w.m.cols ||
      static_cast<int64_t>(out.shape(1)) < w.m.rows)
    throw nb::value_error("mul_tile: x, out or rows do not match the matrix");
  const auto n_x = static_cast<int64_t>(x.shape(0));
  const int64_t n = x_rows ? static_cast<int64_t>(x_rows->shape(0)) : n_x;
  if (static_cast<int64_t>(out.shape(0)) != n) throw nb::value_error("mul_tile: out needs a row per product");
  for (int64_t i = 0; x_rows && i < n; ++i)
    if (x_rows->data()[i] < 0 || x_rows->data()[i] >= n_x) throw nb::value_error("mul_tile: x_rows out of range");
  const ActKind kind = act_kind(w.m.type);
  const int64_t stride = act_row_bytes(kind, w.m.cols);
  Workspace ws;
  auto* acts = ws.take<std::byte>(n_x * stride);
  for (int64_t i = 0; i < n_x; ++i) prepare_row(kind, x.data() + i * w.m.cols, w.m.cols, acts + i * stride);
  mul_tile(w.m, mat, row0, row1, acts, x_rows ? x_rows->data() : nullptr, n, out.data(),
           static_cast<int64_t>(out.shape(1)));
}

void py_dequantize(const BoundMatrix& w, int64_t mat, int64_t row, const OutF32& out) {
  check_matrix_index(w, mat);
  const auto n = static_cast<int64_t>(out.shape(0));
  if (row < 0 || row + n > w.m.rows || static_cast<int64_t>(out.shape(1)) != w.m.cols)
    throw nb::value_error("dequantize: out does not match the rows");
  for (int64_t i = 0; i < n; ++i) dequantize_row(w.m, mat, row + i, out.data() + i * w.m.cols);
}

nb::bytes py_quantize_acts(int ggml_type, const VectorF32& x) {
  const TypeInfo* info = type_info(ggml_type);
  const auto cols = static_cast<int64_t>(x.shape(0));
  if (!info || cols == 0 || cols % info->block_values != 0)
    throw nb::value_error("quantize_acts: unsupported type or length");
  const ActKind kind = act_kind(info->type);
  const int64_t bytes = act_row_bytes(kind, cols);
  Workspace ws;
  auto* out = ws.take<std::byte>(bytes);
  std::memset(out, 0, static_cast<size_t>(bytes));
  prepare_row(kind, x.data(), cols, out);
  return nb::bytes(out, static_cast<size_t>(bytes));
}

}  // namespace

void bind_matmul(nb::module_& m) {
  m.def("matmul", &py_matmul, nb::arg("engine"), nb::arg("matrix"), nb::arg("mat"), nb::arg("x"), nb::arg("out"),
        nb::arg("bias").none() = nb::none(),
        "out[n, rows] = x[n, cols] @ matrix[mat].T (+ bias[rows]), float32, on the engine's threads.");
  m.def("mul_tile", &py_mul_tile, nb::arg("matrix"), nb::arg("mat"), nb::arg("row0"), nb::arg("row1"),
        nb::arg("x"), nb::arg("x_rows").none(), nb::arg("out"),
        "One tile on the calling thread (tests): out[i, row0:row1] = x[x_rows[i]] @ matrix[mat, row0:row1].T");
  m.def("dequantize", &py_dequantize, nb::arg("matrix"), nb::arg("mat"), nb::arg("row"), nb::arg("out"),
        "Rows row.. of matrix `mat` as float32 [n, cols].");
  m.def("quantize_acts", &py_quantize_acts, nb::arg("ggml_type"), nb::arg("x"),
        "x as the kernels of a weight type see it (tests): the bytes of ActBlock or ActSuper, or of floats.");
}

}  // namespace pintpot

// The Python module pintpot._native. Each op registers its own bindings (csrc/bind/<op>.cpp).
#include <nanobind/nanobind.h>

namespace nb = nanobind;

NB_MODULE(_native, m) {
  m.doc() = "pintpot's CPU kernels";
  nb::set_leak_warnings(false);
}

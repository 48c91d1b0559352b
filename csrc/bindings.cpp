// The Python module pintpot._native. Each op registers its own bindings (csrc/bind/<op>.cpp).
#include "bind/bind.h"

NB_MODULE(_native, m) {
  m.doc() = "pintpot's CPU kernels";
  pintpot::bind_core(m);
  pintpot::bind_matmul(m);
  pintpot::bind_mixers(m);
  pintpot::bind_rows(m);
  pintpot::bind_ffn(m);
  pintpot::bind_bandwidth(m);
  pintpot::bind_quantize(m);
}

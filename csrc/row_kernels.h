// The per-instruction-set half of row_ops.h, ffn.h and moe.h: plain data and function tables only, because an
// inline function emitted by one kernel translation unit could be the copy that the linker keeps for all.
// Every function works on one row of `n` floats, on the calling thread. Arrays need no alignment and no
// padding.
#pragma once

#include <cstdint>

namespace pintpot {

enum class Activation : int32_t { silu, gelu_tanh, swiglu_oai };

struct RowKernels {
  // out = x / sqrt(mean(x^2) + eps) * weight; `weight` may be null, `out` may be x.
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* out);
  // x += delta, then out = rms_norm(x)
  void (*add_rms_norm)(float* x, const float* delta, const float* weight, float eps, int64_t n, float* out);
  // x += delta
  void (*add)(float* x, const float* delta, int64_t n);
  // x *= factor
  void (*scale)(float* x, float factor, int64_t n);
  // x = cap * tanh(x / cap)
  void (*softcap)(float* x, float cap, int64_t n);
  // out = activation(gate) * up; `out` may be gate or up.
  void (*gated)(Activation activation, const float* gate, const float* up, int64_t n, float* out);
  // y += factor * x
  void (*accumulate)(float* y, const float* x, float factor, int64_t n);
  // x = e^(x - max) / sum; a NaN among the values makes all of them NaN.
  void (*softmax)(float* x, int64_t n);
  // x = 1 / (1 + e^-x)
  void (*sigmoid)(float* x, int64_t n);
  float (*dot)(const float* a, const float* b, int64_t n);
};

const RowKernels& row_kernels_scalar();
const RowKernels& row_kernels_avx2();
const RowKernels& row_kernels_avx512();

// The table of active_isa().
const RowKernels& row_kernels();

}  // namespace pintpot

// Matmul kernels in portable C++: one row, one block, one token at a time.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "decode_block.h"
#include "matmul_kernels.h"

namespace pintpot {
namespace {

// q = round(x * 127 / amax) and d = amax / 127; d is NaN when a value is not finite. Returns d.
float quantize_group(const float* x, int n, int8_t* q) {
  float amax = 0;
  bool finite = true;
  for (int i = 0; i < n; ++i) {
    amax = std::max(amax, std::fabs(x[i]));
    finite &= std::fabs(x[i]) <= std::numeric_limits<float>::max();
  }
  const float inverse = 127.0f / amax;
  if (!finite || !(inverse <= std::numeric_limits<float>::max())) {  // not finite, or zero but for underflow
    std::memset(q, 0, static_cast<size_t>(n));
    return finite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
  }
  for (int i = 0; i < n; ++i) q[i] = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
  return 1.0f / inverse;
}

int sum_group(const int8_t* q, int n) {
  int sum = 0;
  for (int i = 0; i < n; ++i) sum += q[i];
  return sum;
}

void prepare_block(const float* x, int64_t cols, std::byte* out) {
  auto* acts = reinterpret_cast<ActBlock*>(out);
  for (int64_t b = 0; b < cols / 32; ++b) {
    acts[b].d = round_to_half_precision(quantize_group(x + b * 32, 32, acts[b].q));
    acts[b].sum = sum_group(acts[b].q, 32);
  }
}

void prepare_super(const float* x, int64_t cols, std::byte* out) {
  auto* acts = reinterpret_cast<ActSuper*>(out);
  for (int64_t b = 0; b < cols / 256; ++b) {
    ActSuper& a = acts[b];
    a.d = quantize_group(x + b * 256, 256, a.q);
    for (int j = 0; j < 16; ++j) a.sum16[j] = static_cast<int16_t>(sum_group(a.q + j * 16, 16));
    for (int j = 0; j < 8; ++j) a.sum32[j] = static_cast<int16_t>(a.sum16[2 * j] + a.sum16[2 * j + 1]);
    a.sum = sum_group(a.q, 256);
  }
}

int dot(const int8_t* a, const int8_t* b, int n) {
  int sum = 0;
  for (int i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// Adds one block's share of a product to `acc`.
void accumulate(const PlainBlock& w, const ActBlock& x, float& acc) {
  acc += w.d * x.d * static_cast<float>(dot(w.q, x.q, 32));
  acc += w.m * x.d * static_cast<float>(x.sum);
}

void accumulate(const PlainSuper& w, const ActSuper& x, float& acc) {
  int sum = 0, min_sum = 0;
  for (int j = 0; j < 16; ++j) {
    sum += w.scale[j] * dot(w.q + j * 16, x.q + j * 16, 16);
    min_sum += w.min[j] * x.sum16[j];
  }
  acc += w.d * x.d * static_cast<float>(sum);
  acc -= w.dmin * x.d * static_cast<float>(min_sum);
}

const std::byte* act_row(const TileArgs& a, int64_t i) {
  return a.acts + (a.x_rows ? a.x_rows[i] : i) * a.act_stride;
}

template <class Block>
void tile_quantized(const TileArgs& a) {
  using Plain = decltype(decode_block(Block{}));
  using Act = typename Plain::Act;
  for (int64_t r = 0; r < a.n_rows; ++r) {
    const auto* row = reinterpret_cast<const Block*>(a.w + r * a.row_bytes);
    for (int64_t i = 0; i < a.n; ++i) a.out[i * a.ld_out + r] = 0;
    for (int64_t b = 0; b < a.cols / Plain::kValues; ++b) {
      const Plain w = decode_block(row[b]);
      for (int64_t i = 0; i < a.n; ++i)
        accumulate(w, reinterpret_cast<const Act*>(act_row(a, i))[b], a.out[i * a.ld_out + r]);
    }
  }
}

float weight_at(const float* w, int64_t k) { return w[k]; }

struct Half { uint16_t bits; };
struct BFloat16 { uint16_t bits; };
float weight_at(const Half* w, int64_t k) { return half_to_float(w[k].bits); }
float weight_at(const BFloat16* w, int64_t k) { return bfloat16_to_float(w[k].bits); }

template <class Weight>
void tile_float(const TileArgs& a) {
  constexpr int kLanes = 8;  // partial sums, for accuracy and so that a compiler can vectorize
  for (int64_t r = 0; r < a.n_rows; ++r) {
    const auto* w = reinterpret_cast<const Weight*>(a.w + r * a.row_bytes);
    for (int64_t i = 0; i < a.n; ++i) {
      const auto* x = reinterpret_cast<const float*>(act_row(a, i));
      float lanes[kLanes] = {};
      int64_t k = 0;
      for (; k + kLanes <= a.cols; k += kLanes)
        for (int l = 0; l < kLanes; ++l) lanes[l] += weight_at(w, k + l) * x[k + l];
      for (; k < a.cols; ++k) lanes[k % kLanes] += weight_at(w, k) * x[k];
      a.out[i * a.ld_out + r] = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
                                ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
    }
  }
}

TileFn float_fn(TensorType type) {
  switch (type) {
    case TensorType::f32: return tile_float<float>;
    case TensorType::f16: return tile_float<Half>;
    case TensorType::bf16: return tile_float<BFloat16>;
    default: return nullptr;
  }
}

TileFn quantized_fn(TensorType type) {
  TileFn fn = nullptr;
  with_block(type, [&](auto block) { fn = tile_quantized<decltype(block)>; });
  return fn;
}

}  // namespace

const MatmulKernels& matmul_kernels_scalar() {
  static constexpr MatmulKernels kernels{float_fn, quantized_fn, quantized_fn, prepare_block, prepare_super};
  return kernels;
}

}  // namespace pintpot

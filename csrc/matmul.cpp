#include "matmul.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "blocks.h"
#include "cpu_features.h"
#include "decode_block.h"
#include "engine.h"
#include "matmul_kernels.h"

namespace pintpot {

namespace {

const MatmulKernels& kernels() {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::avx512: return matmul_kernels_avx512();
    case Isa::avx2: return matmul_kernels_avx2();
    case Isa::scalar: break;
  }
#endif
  return matmul_kernels_scalar();
}

template <class Block>
void dequantize(const std::byte* row, int64_t cols, float* out) {
  const auto* blocks = reinterpret_cast<const Block*>(row);
  using Plain = decltype(decode_block(Block{}));
  for (int64_t b = 0; b < cols / Plain::kValues; ++b) {
    const Plain p = decode_block(blocks[b]);
    for (int i = 0; i < Plain::kValues; ++i) {
      if constexpr (Plain::kValues == 32)
        *out++ = p.d * static_cast<float>(p.q[i]) + p.m;
      else
        *out++ = p.d * static_cast<float>(p.scale[i / 16]) * static_cast<float>(p.q[i]) -
                 p.dmin * static_cast<float>(p.min[i / 16]);
    }
  }
}

// Work items a thread should get at least, so that the last to finish is not waited for long.
constexpr int64_t kItemsPerThread = 8;

// Below this many values, preparing rows on the calling thread beats waking the pool.
constexpr int64_t kParallelPrepareValues = 16384;

constexpr int kActKinds = 3;

}  // namespace

ActKind act_kind(TensorType type) {
  switch (type) {
    case TensorType::f32:
    case TensorType::f16:
    case TensorType::bf16: return ActKind::f32;
    case TensorType::q2_k:
    case TensorType::q3_k:
    case TensorType::q4_k:
    case TensorType::q5_k:
    case TensorType::q6_k:
    case TensorType::iq4_xs: return ActKind::q8_super;
    default: return ActKind::q8_block;
  }
}

int64_t act_row_bytes(ActKind kind, int64_t cols) {
  switch (kind) {
    case ActKind::f32: return (cols * 4 + 63) / 64 * 64;
    case ActKind::q8_block: return (cols / 32 * static_cast<int64_t>(sizeof(ActBlock)) + 63) / 64 * 64;
    case ActKind::q8_super: return cols / 256 * static_cast<int64_t>(sizeof(ActSuper));
  }
  return 0;
}

void prepare_row(ActKind kind, const float* x, int64_t cols, std::byte* out) {
  switch (kind) {
    case ActKind::f32: std::memcpy(out, x, static_cast<size_t>(cols) * sizeof(float)); return;
    case ActKind::q8_block: kernels().prepare_block(x, cols, out); return;
    case ActKind::q8_super: kernels().prepare_super(x, cols, out); return;
  }
}

void mul_tile(const Matrix& w, int64_t mat, int64_t row0, int64_t row1, const std::byte* acts,
              const int32_t* x_rows, int64_t n, float* out, int64_t ld_out, const std::byte* next) {
  if (row0 >= row1 || n <= 0) return;
  const TileArgs args{.w = w.row(mat, row0),
                      .row_bytes = w.row_bytes,
                      .n_rows = row1 - row0,
                      .cols = w.cols,
                      .acts = acts,
                      .act_stride = act_row_bytes(act_kind(w.type), w.cols),
                      .x_rows = x_rows,
                      .n = n,
                      .out = out + row0,
                      .ld_out = ld_out,
                      .next = next};
  const MatmulKernels& k = kernels();
  const auto choose = act_kind(w.type) == ActKind::f32 ? k.floats : n <= kFewTokens ? k.few : k.many;
  choose(w.type)(args);
}

void matmul(Engine& engine, const Matrix& w, int64_t mat, const float* x, int64_t ldx, int64_t n,
            const float* bias, float* out, int64_t ld_out) {
  const Product product{&w, bias, out, ld_out, mat};
  matmul_many(engine, &product, 1, x, ldx, n);
}

void matmul_many(Engine& engine, const Product* products, int n_products, const float* x, int64_t ldx,
                 int64_t n) {
  if (n <= 0 || n_products <= 0) return;
  ThreadPool& pool = engine.pool;
  Workspace& ws = engine.ws;
  if (engine.recorder)
    for (int p = 0; p < n_products; ++p) {
      const Group all{static_cast<int32_t>(products[p].mat), 0, static_cast<int32_t>(n)};
      engine.recorder->add(pool, *products[p].w, x, ldx, nullptr, &all, 1);
    }
  Workspace::Frame frame(ws);
  const int64_t cols = products[0].w->cols;

  const std::byte* acts[kActKinds] = {};
  for (int p = 0; p < n_products; ++p) {
    const ActKind kind = act_kind(products[p].w->type);
    const std::byte*& prepared = acts[static_cast<int>(kind)];
    if (prepared) continue;
    const int64_t stride = act_row_bytes(kind, cols);
    if (kind == ActKind::f32 && ldx * 4 == stride) {  // already as the kernels want them
      prepared = reinterpret_cast<const std::byte*>(x);
      continue;
    }
    auto* rows = ws.take<std::byte>(n * stride);
    prepared = rows;
    auto prepare = [&](int64_t i, int) { prepare_row(kind, x + i * ldx, cols, rows + i * stride); };
    if (n * cols >= kParallelPrepareValues)
      pool.run(n, prepare);
    else
      for (int64_t i = 0; i < n; ++i) prepare(i, 0);
  }

  int64_t total_rows = 0;
  for (int p = 0; p < n_products; ++p) total_rows += products[p].w->rows;
  const int64_t wanted = total_rows / (kItemsPerThread * pool.size());
  const int64_t tile = std::max(kTileRows, wanted / kTileRows * kTileRows);

  int64_t n_items = 0;
  for (int p = 0; p < n_products; ++p) n_items += (products[p].w->rows + tile - 1) / tile;
  const auto locate = [&](int64_t item) {  // product and first row
    const Product* p = products;
    for (int64_t tiles = 0; item >= (tiles = (p->w->rows + tile - 1) / tile); ++p) item -= tiles;
    return std::pair(p, item * tile);
  };
  pool.run(n_items, [&](int64_t item, int) {
    const auto [p, row0] = locate(item);
    const int64_t row1 = std::min(row0 + tile, p->w->rows);
    const std::byte* next = nullptr;
    if (item + pool.size() < n_items) {
      const auto [q, next_row] = locate(item + pool.size());
      next = q->w->row(q->mat, next_row);
    }
    mul_tile(*p->w, p->mat, row0, row1, acts[static_cast<int>(act_kind(p->w->type))], nullptr, n, p->out, p->ld_out,
             next);
    if (p->bias)
      for (int64_t i = 0; i < n; ++i)
        for (int64_t r = row0; r < row1; ++r) p->out[i * p->ld_out + r] += p->bias[r];
  });
}

void dequantize_row(const Matrix& w, int64_t mat, int64_t r, float* out) {
  const std::byte* row = w.row(mat, r);
  switch (w.type) {
    case TensorType::f32: std::memcpy(out, row, static_cast<size_t>(w.cols) * sizeof(float)); return;
    case TensorType::f16:
      for (int64_t i = 0; i < w.cols; ++i) out[i] = half_to_float(reinterpret_cast<const uint16_t*>(row)[i]);
      return;
    case TensorType::bf16:
      for (int64_t i = 0; i < w.cols; ++i) out[i] = bfloat16_to_float(reinterpret_cast<const uint16_t*>(row)[i]);
      return;
    default: with_block(w.type, [&](auto block) { dequantize<decltype(block)>(row, w.cols, out); }); return;
  }
}

}  // namespace pintpot

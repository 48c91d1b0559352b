#include "ffn.h"

#include <algorithm>

#include "row_ops.h"

namespace pintpot {

namespace {

// Large tiles read memory in long runs (measured on Zen 3: tiles of 64 rows take 15% longer than tiles of
// 256); with a dozen for each thread the last to finish is not waited for long.
constexpr int64_t kItemsPerThread = 12;
constexpr int64_t kMinTileRows = 2 * kTileRows;
constexpr int64_t kMaxTileRows = 256;

// The tile [row0, row0 + n_rows) of one group: gate into h, up into `up` (a thread's own), activation in
// place. `next`: as of mul_tile.
void gate_up_tile(const RowKernels& k, const FFNPart& part, const Group& group, int64_t row0, int64_t n_rows,
                  const std::byte* gate_acts, const std::byte* up_acts, float* up, const std::byte* next) {
  const FFN& w = *part.w;
  const Matrix gate_tile = tile_of(w.gate, group.mat, row0, n_rows);
  const Matrix up_tile = tile_of(w.up, group.mat, row0, n_rows);
  const int64_t n_ff = w.n_ff(), bias_at = group.mat * n_ff + row0;
  for (int64_t done = 0; done < group.n; done += kTileTokens) {
    const int64_t n = std::min(kTileTokens, group.n - done), first = group.first + done;
    const int32_t* x_rows = part.x_rows ? part.x_rows + first : nullptr;
    const int64_t skip = part.x_rows ? 0 : first;
    float* h = part.h + first * n_ff + row0;
    mul_tile(gate_tile, 0, 0, n_rows, gate_acts + skip * act_row_bytes(act_kind(w.gate.type), w.gate.cols),
             x_rows, n, h, n_ff, up_tile.data);
    mul_tile(up_tile, 0, 0, n_rows, up_acts + skip * act_row_bytes(act_kind(w.up.type), w.up.cols), x_rows, n,
             up, n_rows, next);
    for (int64_t i = 0; i < n; ++i) {
      float *g = h + i * n_ff, *u = up + i * n_rows;
      if (w.gate_bias) k.add(g, w.gate_bias + bias_at, n_rows);
      if (w.up_bias) k.add(u, w.up_bias + bias_at, n_rows);
      k.gated(w.activation, g, u, n_rows, g);
    }
  }
}

}  // namespace

const std::byte* PreparedRows::get(TensorType type) {
  const ActKind kind = act_kind(type);
  const std::byte*& prepared = prepared_[static_cast<int>(kind)];
  if (prepared) return prepared;
  const int64_t stride = act_row_bytes(kind, cols_);
  if (kind == ActKind::f32 && stride == cols_ * static_cast<int64_t>(sizeof(float)))
    return prepared = reinterpret_cast<const std::byte*>(x_);
  auto* rows = engine_.ws.take<std::byte>(n_ * stride);
  each_rows(engine_.pool, n_, cols_, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) prepare_row(kind, x_ + i * cols_, cols_, rows + i * stride);
  });
  return prepared = rows;
}

int64_t rows_per_tile(int64_t total_rows, int n_threads) {
  int64_t rows = total_rows >= 2 * kMinTileRows * n_threads ? kMinTileRows : kTileRows;
  while (rows < kMaxTileRows && 2 * rows * kItemsPerThread * n_threads <= total_rows) rows *= 2;
  return rows;
}

void gate_up(Engine& engine, PreparedRows& x, const FFNPart* parts, int n_parts) {
  const RowKernels& k = row_kernels();
  int64_t total_rows = 0, max_tokens = 0;
  for (int p = 0; p < n_parts; ++p) {
    total_rows += parts[p].n_groups * parts[p].w->n_ff();
    for (int64_t g = 0; g < parts[p].n_groups; ++g)
      max_tokens = std::max<int64_t>(max_tokens, parts[p].groups[g].n);
    x.get(parts[p].w->gate.type);
    x.get(parts[p].w->up.type);
  }
  if (engine.recorder)
    for (int p = 0; p < n_parts; ++p)
      for (const Matrix* m : {&parts[p].w->gate, &parts[p].w->up})
        engine.recorder->add(engine.pool, *m, x.floats(), m->cols, parts[p].x_rows, parts[p].groups,
                             parts[p].n_groups);
  Workspace::Frame frame(engine.ws);
  const int64_t tile = rows_per_tile(total_rows, engine.pool.size());
  const int64_t up_values = std::min(max_tokens, kTileTokens) * tile;
  float* up = engine.ws.take<float>(up_values * engine.pool.size());

  const auto tiles_of = [&](const FFNPart& part) { return (part.w->n_ff() + tile - 1) / tile; };
  int64_t n_items = 0;
  for (int p = 0; p < n_parts; ++p) n_items += parts[p].n_groups * tiles_of(parts[p]);
  struct Tile {
    const FFNPart* part;
    const Group* group;
    int64_t row0;
  };
  const auto locate = [&](int64_t item) {
    const FFNPart* part = parts;
    for (int64_t items = 0; item >= (items = part->n_groups * tiles_of(*part)); ++part) item -= items;
    return Tile{part, &part->groups[item / tiles_of(*part)], item % tiles_of(*part) * tile};
  };
  engine.pool.run(n_items, [&](int64_t item, int thread) {
    const auto [part, group, row0] = locate(item);
    const std::byte* next = nullptr;
    if (item + engine.pool.size() < n_items) {
      const Tile t = locate(item + engine.pool.size());
      next = t.part->w->gate.row(t.group->mat, t.row0);
    }
    gate_up_tile(k, *part, *group, row0, std::min(tile, part->w->n_ff() - row0), x.get(part->w->gate.type),
                 x.get(part->w->up.type), up + thread * up_values, next);
  });
}

void ffn(Engine& engine, const FFN& w, const float* x, int64_t n, float* out) {
  if (n <= 0) return;
  Workspace::Frame frame(engine.ws);
  PreparedRows rows(engine, x, n, w.n_embd());
  const Group all{0, 0, static_cast<int32_t>(n)};
  const FFNPart part{&w, &all, 1, nullptr, engine.ws.take<float>(n * w.n_ff())};
  gate_up(engine, rows, &part, 1);
  matmul(engine, w.down, 0, part.h, w.n_ff(), n, w.down_bias, out, w.n_out());
}

}  // namespace pintpot

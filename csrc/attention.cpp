#include "attention.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "mixer_kernels.h"

namespace pintpot {

namespace {

// Query rows a task handles: enough to reuse each key and value block, few enough that queries, sums and an
// unpacked block fit the second-level cache.
constexpr int64_t kQueryRows = 64;
// A tile's keys are split into parts of at least this many keys ...
constexpr int64_t kMinPartKeys = 512;
// ... as long as a segment has fewer tasks than this. A constant, so that no result depends on the threads.
constexpr int64_t kTargetTasks = 128;

void expect(bool ok, const char* what, const std::string& detail) {
  if (!ok) throw std::invalid_argument(std::string("attention: ") + what + " " + detail);
}

void check_matrix(const char* name, const Matrix& w, int64_t rows, int64_t cols) {
  expect(w.rows == rows && w.cols == cols, name,
         "is " + std::to_string(w.rows) + " x " + std::to_string(w.cols) + ", expected " +
             std::to_string(rows) + " x " + std::to_string(cols));
}

void check_vector(const char* name, const std::vector<float>& v, int64_t size) {
  expect(v.empty() || static_cast<int64_t>(v.size()) == size, name,
         "has " + std::to_string(v.size()) + " values, expected " + std::to_string(size));
}

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

const float* or_null(const std::vector<float>& v) { return v.empty() ? nullptr : v.data(); }

void check_step(const AttentionLayer& layer, const KVCache& cache, const Batch& batch) {
  expect(cache.n_head_kv() == layer.n_head_kv && cache.head_dim_k() == layer.head_dim_k &&
             cache.head_dim_v() == layer.head_dim_v,
         "the KV cache", "has other heads than the layer");
  expect(batch.max_slot() < cache.n_slots(), "slot",
         std::to_string(batch.max_slot()) + " is beyond the cache's " + std::to_string(cache.n_slots()));
  for (const Segment& s : batch.segments()) {
    const int64_t visible = layer.window == AttentionLayer::kNoWindow ? s.past + s.n : layer.window + s.n - 1;
    const int64_t needed = std::min(visible, s.past + s.n);
    expect(needed <= cache.capacity(), "the KV cache",
           "holds " + std::to_string(cache.capacity()) + " tokens, slot " + std::to_string(s.slot) +
               " needs " + std::to_string(needed));
  }
}

// One step of one layer: what its phases share.
struct Step {
  Engine& engine;
  const AttentionLayer& layer;
  KVCache& cache;
  const Batch& batch;
  const MixerKernels& kernels;
  int64_t n, group, ld_o;
  float *q_raw, *k_raw, *v_raw;  // projections; v_raw is nullptr when v is k
  float* q;                      // [n_head_kv][n][group][head_dim_k]
  float* mixed;                  // [n, n_head * head_dim_v]

  Step(Engine& e, const AttentionLayer& l, KVCache& c, const Batch& b)
      : engine(e), layer(l), cache(c), batch(b), kernels(mixer_kernels()), n(b.n_tokens()),
        group(l.n_head / l.n_head_kv), ld_o(round_up(l.head_dim_v, kPanelLanes)) {
    q_raw = e.ws.take<float>(n * l.q_width());
    k_raw = l.wk ? e.ws.take<float>(n * l.wk->rows) : nullptr;
    v_raw = l.wv ? e.ws.take<float>(n * l.wv->rows) : nullptr;
    q = e.ws.take<float>(n * l.n_head * l.head_dim_k);
    mixed = e.ws.take<float>(n * l.n_head * l.head_dim_v);
  }

  void project(const float* x) {
    Product products[3];
    int count = 0;
    const auto product = [&](const Matrix& w, const std::vector<float>& bias, float* out) {
      products[count++] = {&w, or_null(bias), out, w.rows};
    };
    product(layer.wq, layer.bq, q_raw);
    if (layer.wk) product(*layer.wk, layer.bk, k_raw);
    if (layer.wv) product(*layer.wv, layer.bv, v_raw);
    matmul_many(engine, products, count, x, layer.n_embd(), n);
  }

  // Norms, rotation and scale of queries; keys and values into the cache.
  void prepare() {
    Workspace::Frame frame(engine.ws);
    const int64_t half = layer.rope.half();
    const int64_t per_thread = round_up(2 * half + std::max(layer.head_dim_k, layer.head_dim_v), kPanelLanes);
    float* scratch = engine.ws.take<float>(engine.pool.size() * per_thread);
    for (const Segment& s : batch.segments()) {
      auto one = [&](int64_t i, int thread) {
        float* cos = scratch + thread * per_thread;
        prepare_token(s, i, cos, cos + half, cos + 2 * half);
      };
      if (s.n == 1)
        one(0, 0);
      else
        engine.pool.run(s.n, one);
    }
  }

  void prepare_token(const Segment& s, int64_t i, float* cos, float* sin, float* tmp) {
    const int64_t token = s.first + i, dk = layer.head_dim_k, dv = layer.head_dim_v;
    rope_angles(layer.rope, s.past + i, cos, sin);
    HeadTask head{nullptr, nullptr, dk, !layer.q_norm.empty(), or_null(layer.q_norm), layer.norm_eps,
                  layer.rope.half() > 0 ? cos : nullptr, sin, layer.rope.half(), layer.rope.interleaved,
                  layer.scale};
    for (int64_t h = 0; h < layer.n_head; ++h) {
      head.x = q_raw + token * layer.q_width() + h * (layer.gated ? 2 * dk : dk);
      head.out = q + ((h / group * n + token) * group + h % group) * dk;
      kernels.prepare_head(head);
    }
    if (!layer.wk) return;
    for (int64_t h = 0; h < layer.n_head_kv; ++h) {
      const KvHead kv = cache.head(s.slot, h);
      float* k = k_raw + (token * layer.n_head_kv + h) * dk;
      const float* v = v_raw ? v_raw + (token * layer.n_head_kv + h) * dv : k;
      if (layer.v_norm) {
        kernels.prepare_head({v, tmp, dv, true, nullptr, layer.norm_eps, nullptr, nullptr, 0, false, 1.0f});
        v = tmp;
      }
      kernels.store_value(kv, s.past + i, v);
      head.x = head.out = k;
      head.norm = !layer.k_norm.empty();
      head.norm_weight = or_null(layer.k_norm);
      head.factor = 1.0f;
      kernels.prepare_head(head);
      kernels.store_key(kv, s.past + i, k);
    }
  }

  struct Tile {
    AttendTask task;
    int64_t head, token;  // KV head; first token of the step
    bool partial;         // the rows are merged later with those of other parts
  };

  // The merge of one row whose sums lie in `parts` parts of `rows` rows.
  MergeTask row_merge(const Tile& tile, int64_t row, int64_t parts) const {
    const int64_t token = tile.token + row / group, head = tile.head * group + row % group;
    const int64_t dk = layer.head_dim_k, rows = tile.task.rows;
    const bool sink = !layer.sinks.empty();
    return {tile.task.m + row,
            tile.task.l + row,
            tile.task.o + row * ld_o,
            parts,
            rows,
            rows * ld_o,
            layer.head_dim_v,
            sink,
            sink ? layer.sinks[static_cast<size_t>(head)] : 0.0f,
            layer.gated ? q_raw + token * layer.q_width() + head * 2 * dk + dk : nullptr,
            mixed + (token * layer.n_head + head) * layer.head_dim_v};
  }

  int64_t tile_tokens(const Segment& s) const {
    return s.n <= kShortSegment ? 1 : std::max<int64_t>(1, kQueryRows / group);
  }

  int64_t tile_count(const Segment& s) const {
    return (s.n + tile_tokens(s) - 1) / tile_tokens(s) * layer.n_head_kv;
  }

  // Of a token in a short segment: as many as if it were alone.
  int64_t max_parts(const Segment& s) const {
    const int64_t tiles = s.n <= kShortSegment ? layer.n_head_kv : tile_count(s);
    return std::max<int64_t>(1, kTargetTasks / tiles);
  }

  // The tiles of a segment, appended to `tiles`; merges of those in several parts appended to `merges`.
  void plan(const Segment& s, Tile*& tiles, MergeTask*& merges) {
    for (int64_t first = 0; first < s.n; first += tile_tokens(s)) {
      const int64_t tokens = std::min(tile_tokens(s), s.n - first), rows = tokens * group;
      const int64_t end = s.past + first + tokens;
      const int64_t begin = std::max<int64_t>(0, s.past + first + 1 - layer.window);
      const int64_t block0 = begin / kKvBlock, blocks = (end + kKvBlock - 1) / kKvBlock - block0;
      int64_t parts = std::min(max_parts(s), (end - begin + kMinPartKeys - 1) / kMinPartKeys);
      const int64_t part_blocks = (blocks + parts - 1) / parts;
      parts = (blocks + part_blocks - 1) / part_blocks;
      for (int64_t h = 0; h < layer.n_head_kv; ++h) {
        const AttendTask task{cache.head(s.slot, h),
                              q + (h * n + s.first + first) * group * layer.head_dim_k,
                              rows,
                              group,
                              s.past + first,
                              layer.window,
                              begin,
                              end,
                              layer.softcap,
                              nullptr,
                              nullptr,
                              nullptr,
                              nullptr};
        if (parts == 1) {
          *tiles++ = {task, h, s.first + first, false};
          continue;
        }
        float* m = engine.ws.take<float>(parts * rows);
        float* l = engine.ws.take<float>(parts * rows);
        float* o = engine.ws.take<float>(parts * rows * ld_o);
        for (int64_t p = 0; p < parts; ++p) {
          Tile& tile = *tiles++ = {task, h, s.first + first, true};
          tile.task.key_begin = std::max(begin, (block0 + p * part_blocks) * kKvBlock);
          tile.task.key_end = std::min(end, (block0 + (p + 1) * part_blocks) * kKvBlock);
          tile.task.m = m + p * rows;
          tile.task.l = l + p * rows;
          tile.task.o = o + p * rows * ld_o;
          if (p == 0)
            for (int64_t r = 0; r < rows; ++r) *merges++ = row_merge(tile, r, parts);
        }
      }
    }
  }

  void attend() {
    Workspace::Frame frame(engine.ws);
    int64_t max_tiles = 0, max_tokens = 0;  // of all tiles, in a tile
    for (const Segment& s : batch.segments()) {
      max_tiles += tile_count(s) * max_parts(s);
      max_tokens = std::max(max_tokens, std::min(s.n, tile_tokens(s)));
    }
    Tile* const tiles = engine.ws.take<Tile>(max_tiles);
    MergeTask* const merges = engine.ws.take<MergeTask>(n * layer.n_head);
    Tile* tiles_end = tiles;
    MergeTask* merges_end = merges;
    for (const Segment& s : batch.segments()) plan(s, tiles_end, merges_end);

    const int64_t max_rows = max_tokens * group;
    const int64_t kernel_floats = kernels.attend_scratch(max_rows, layer.head_dim_k);
    const int64_t per_thread = round_up(kernel_floats + max_rows * (ld_o + 2), kPanelLanes);
    float* scratch = engine.ws.take<float>(engine.pool.size() * per_thread);
    const int64_t count = tiles_end - tiles;
    engine.pool.run(count, [&](int64_t i, int thread) {
      // The last tokens of a prompt have the most keys: longest task first.
      Tile& tile = tiles[count - 1 - i];
      tile.task.scratch = scratch + thread * per_thread;
      if (!tile.partial) {
        tile.task.o = tile.task.scratch + kernel_floats;
        tile.task.m = tile.task.o + max_rows * ld_o;
        tile.task.l = tile.task.m + max_rows;
      }
      kernels.attend(tile.task);
      if (!tile.partial)
        for (int64_t r = 0; r < tile.task.rows; ++r) kernels.merge(row_merge(tile, r, 1));
    });
    engine.pool.run(merges_end - merges, [&](int64_t i, int) { kernels.merge(merges[i]); });
  }
};

}  // namespace

void AttentionLayer::check() const {
  const auto positive = [](int64_t v) { return v >= 1 && v <= (1 << 20); };
  expect(positive(n_head) && positive(n_head_kv) && n_head % n_head_kv == 0, "n_head",
         std::to_string(n_head) + " is no positive multiple of n_head_kv " + std::to_string(n_head_kv));
  expect(positive(head_dim_k) && positive(head_dim_v), "head_dim_k and head_dim_v", "must be positive");
  check_matrix("wq", wq, q_width(), n_embd());
  expect(wk || !wv, "wv", "needs wk");
  if (wk) check_matrix("wk", *wk, n_head_kv * head_dim_k, n_embd());
  if (wv) check_matrix("wv", *wv, n_head_kv * head_dim_v, n_embd());
  expect(!wk || wv || head_dim_k == head_dim_v, "a layer without wv", "needs head_dim_v equal to head_dim_k");
  expect(!gated || head_dim_k == head_dim_v, "a gated layer", "needs head_dim_v equal to head_dim_k");
  check_matrix("wo", wo, wo.rows, n_head * head_dim_v);
  expect(bk.empty() || wk, "bk", "needs wk");
  expect(bv.empty() || wv, "bv", "needs wv");
  check_vector("bq", bq, wq.rows);
  if (wk) check_vector("bk", bk, wk->rows);
  if (wv) check_vector("bv", bv, wv->rows);
  check_vector("bo", bo, wo.rows);
  check_vector("q_norm", q_norm, head_dim_k);
  check_vector("k_norm", k_norm, head_dim_k);
  check_vector("sinks", sinks, n_head);
  expect(2 * rope.half() <= head_dim_k, "rope_inv_freq",
         "has " + std::to_string(rope.half()) + " values, more than half of head_dim_k");
  expect(window >= 1, "window", "must be at least 1");
  expect(softcap >= 0.0f, "softcap", "must not be negative");
}

void attention(Engine& engine, const AttentionLayer& layer, const float* x, KVCache& cache,
               const Batch& batch, float* out) {
  check_step(layer, cache, batch);
  if (batch.n_tokens() == 0) return;
  Workspace::Frame frame(engine.ws);
  Step step(engine, layer, cache, batch);
  step.project(x);
  step.prepare();
  step.attend();
  matmul(engine, layer.wo, 0, step.mixed, layer.wo.cols, step.n, or_null(layer.bo), out, layer.wo.rows);
}

}  // namespace pintpot

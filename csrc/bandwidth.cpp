#include "bandwidth.h"

#include <algorithm>
#include <atomic>

namespace pintpot {

namespace {

constexpr int64_t kChunkWords = int64_t{1} << 19;  // 4 MiB: long enough for the prefetchers, short for balance
constexpr int kLanes = 16;  // independent sums: two cache lines in flight a step, vectorized by the compiler

uint64_t fold(const uint64_t* p, int64_t n) {
  uint64_t lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int k = 0; k < kLanes; ++k) lanes[k] ^= p[i + k];
  uint64_t all = 0;
  for (; i < n; ++i) all ^= p[i];
  for (const uint64_t lane : lanes) all ^= lane;
  return all;
}

}  // namespace

uint64_t read_words(Engine& engine, const uint64_t* data, int64_t n_words) {
  std::atomic<uint64_t> all{0};
  engine.pool.run((n_words + kChunkWords - 1) / kChunkWords, [&](int64_t item, int) {
    const int64_t begin = item * kChunkWords;
    all.fetch_xor(fold(data + begin, std::min(kChunkWords, n_words - begin)), std::memory_order_relaxed);
  });
  return all.load();
}

}  // namespace pintpot

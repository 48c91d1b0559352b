#include "thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pintpot {

namespace {

// About 50 microseconds of spinning: longer than the gap between two regions of a decode step,
// short enough that an idle session costs nothing.
constexpr int kSpins = 20000;

inline void cpu_pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int n_threads) {
  for (int i = 1; i < n_threads; ++i) workers_.emplace_back([this, i] { worker(i); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(sleep_mutex_);
    stop_.store(true);
    epoch_.fetch_add(1);
  }
  wake_.notify_all();
  for (auto& w : workers_) w.join();
}

void ThreadPool::work(int index) {
  for (;;) {
    const int64_t i = next_item_.fetch_add(1, std::memory_order_relaxed);
    if (i >= n_items_) return;
    (*task_)(i, index);
  }
}

void ThreadPool::run_region(int64_t n_items, TaskRef task) {
  std::lock_guard region(region_mutex_);
  task_ = &task;
  n_items_ = n_items;
  next_item_.store(0, std::memory_order_relaxed);
  busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  epoch_.fetch_add(1);  // publishes the region (sequentially consistent with sleepers_)
  if (sleepers_.load() > 0) {
    std::lock_guard lock(sleep_mutex_);
    wake_.notify_all();
  }
  work(0);
  // Every worker passes through each region, so none can still hold this one's task afterwards.
  for (int spins = 0; busy_.load(std::memory_order_acquire) > 0; ++spins) {
    if (spins < kSpins) cpu_pause();
    else std::this_thread::yield();  // a worker was descheduled: do not fight it for the core
  }
}

void ThreadPool::worker(int index) {
  uint64_t seen = 0;
  for (;;) {
    for (int spins = 0; epoch_.load(std::memory_order_acquire) == seen && spins < kSpins; ++spins) cpu_pause();
    if (epoch_.load() == seen) {
      std::unique_lock lock(sleep_mutex_);
      sleepers_.fetch_add(1);
      wake_.wait(lock, [&] { return epoch_.load() != seen; });
      sleepers_.fetch_sub(1);
    }
    ++seen;
    if (stop_.load()) return;
    work(index);
    busy_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace pintpot

#include "thread_pool.h"

#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pintpot {

namespace {

// Longer than the gap between two regions of a decode step, short enough that an idle session costs nothing.
// Bounded by time: the pause instruction takes 40 to 140 cycles, depending on the CPU.
constexpr auto kSpinTime = std::chrono::microseconds(100);

inline void cpu_pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins until done() or for about kSpinTime; returns done().
template <class F>
bool spin_until(F done) {
  const auto end = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < 64; ++i) {
      if (done()) return true;
      cpu_pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return done();
}

}  // namespace

ThreadPool::ThreadPool(int n_threads) {
  try {
    for (int i = 1; i < n_threads; ++i) workers_.emplace_back([this, i] { worker(i); });
  } catch (...) {  // the system allows no more threads: those that run must not outlive this object
    join_all();
    throw;
  }
}

ThreadPool::~ThreadPool() { join_all(); }

void ThreadPool::join_all() {
  {
    std::lock_guard lock(sleep_mutex_);
    stop_.store(true);
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

// A region is open while epoch_ is odd. A worker announces itself in inside_ before it looks whether the
// region is still open; the caller closes the region before it looks at inside_. So each sees the other
// (sequentially consistent), and a worker that sleeps through a region costs it nothing.
void ThreadPool::run_region(int64_t n_items, TaskRef task) {
  std::lock_guard region(region_mutex_);
  task_ = &task;
  n_items_ = n_items;
  next_item_.store(0, std::memory_order_relaxed);
  epoch_.fetch_add(1);
  if (sleepers_.load() > 0) {
    { std::lock_guard lock(sleep_mutex_); }  // a worker about to sleep either saw the epoch or waits now
    wake_.notify_all();
  }
  work(0);
  epoch_.fetch_add(1);
  const auto all_out = [this] { return inside_.load() == 0; };
  if (spin_until(all_out)) return;
  while (!all_out()) std::this_thread::yield();  // a worker was descheduled: do not fight it for the core
}

void ThreadPool::worker(int index) {
  uint64_t seen = 0;
  const auto wanted = [&] {
    const uint64_t epoch = epoch_.load();
    return ((epoch & 1) != 0 && epoch != seen) || stop_.load();
  };
  for (;;) {
    if (!spin_until(wanted)) {
      std::unique_lock lock(sleep_mutex_);
      sleepers_.fetch_add(1);
      wake_.wait(lock, wanted);
      sleepers_.fetch_sub(1);
    }
    if (stop_.load()) return;
    const uint64_t epoch = epoch_.load();
    if ((epoch & 1) == 0 || epoch == seen) continue;
    inside_.fetch_add(1);
    if (epoch_.load() == epoch) {
      seen = epoch;
      work(index);
    }
    inside_.fetch_sub(1);
  }
}

}  // namespace pintpot

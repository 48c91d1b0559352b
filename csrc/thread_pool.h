// A fixed pool that runs one parallel region at a time. Workers spin briefly, then sleep.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace pintpot {

// A borrowed callable `void(int64_t item, int thread)`: no allocation, lives as long as the call.
class TaskRef {
 public:
  template <class F>
  TaskRef(F& f) : object_(&f), call_([](void* o, int64_t i, int t) { (*static_cast<F*>(o))(i, t); }) {}
  void operator()(int64_t item, int thread) const { call_(object_, item, thread); }

 private:
  void* object_;
  void (*call_)(void*, int64_t, int);
};

class ThreadPool {
 public:
  // n_threads counts the calling thread; at least 1.
  explicit ThreadPool(int n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls f(item, thread) once for every item in [0, n_items), items handed out dynamically in order;
  // returns when all are done. thread is in [0, size()). f must not throw and must not call run().
  // One region at a time: callers from different threads are serialized.
  template <class F>
  void run(int64_t n_items, F&& f) {
    if (n_items <= 0) return;
    if (workers_.empty() || n_items == 1) {
      for (int64_t i = 0; i < n_items; ++i) f(i, 0);
      return;
    }
    auto& body = f;
    run_region(n_items, TaskRef(body));
  }

 private:
  void run_region(int64_t n_items, TaskRef task);
  void worker(int index);
  void work(int index);
  void join_all();

  std::vector<std::thread> workers_;
  std::mutex region_mutex_;  // one region at a time
  std::mutex sleep_mutex_;
  std::condition_variable wake_;
  alignas(64) std::atomic<uint64_t> epoch_{0};
  alignas(64) std::atomic<int64_t> next_item_{0};
  alignas(64) std::atomic<int> inside_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  std::atomic<bool> stop_{false};
  const TaskRef* task_ = nullptr;
  int64_t n_items_ = 0;
};

}  // namespace pintpot

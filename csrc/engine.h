// What every native op runs on: one thread pool and one workspace, used by one caller at a time.
#pragma once

#include <atomic>
#include <memory>
#include <stdexcept>

#include "input_recorder.h"
#include "thread_pool.h"
#include "workspace.h"

namespace pintpot {

struct Engine {
  explicit Engine(int n_threads) : pool(n_threads) {}

  ThreadPool pool;
  Workspace ws;
  std::unique_ptr<InputRecorder> recorder;  // null: nothing is recorded
  std::atomic<bool> in_use{false};
};

// Makes the engine its holder's until its end; throws std::runtime_error where it is another's.
class EngineLease {
 public:
  explicit EngineLease(Engine& engine) : engine_(engine) {
    if (engine_.in_use.exchange(true, std::memory_order_acquire))
      throw std::runtime_error("this native Engine is in use by another thread; give each thread its own, or take turns");
  }
  ~EngineLease() { engine_.in_use.store(false, std::memory_order_release); }
  EngineLease(const EngineLease&) = delete;
  EngineLease& operator=(const EngineLease&) = delete;

 private:
  Engine& engine_;
};

}  // namespace pintpot

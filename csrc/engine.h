// What every native op runs on: one thread pool and one workspace, used by one caller at a time.
#pragma once

#include "thread_pool.h"
#include "workspace.h"

namespace pintpot {

struct Engine {
  explicit Engine(int n_threads) : pool(n_threads) {}

  ThreadPool pool;
  Workspace ws;
};

}  // namespace pintpot

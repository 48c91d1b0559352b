// Scratch memory of one engine: a stack of 64-byte aligned blocks that grows and is reused, so that a
// decode step allocates nothing. Taken and given back in stack order; not thread-safe (the thread that
// calls ThreadPool::run owns it).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace pintpot {

class Workspace {
 public:
  // Gives back everything taken after its construction.
  class Frame {
   public:
    explicit Frame(Workspace& ws) : ws_(ws), chunk_(ws.chunk_), used_(ws.used_) {}
    ~Frame() { ws_.chunk_ = chunk_; ws_.used_ = used_; }
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;

   private:
    Workspace& ws_;
    size_t chunk_, used_;
  };

  // Uninitialized (NaN-filled when poisoned) memory for n values of T, valid until its frame ends.
  template <class T>
  T* take(int64_t n) { return reinterpret_cast<T*>(take_bytes(static_cast<size_t>(n) * sizeof(T))); }

  // Tests: fill everything handed out with 0xFF bytes (a NaN in every float format).
  void set_poison(bool on) { poison_ = on; }
  size_t allocated_bytes() const;

 private:
  std::byte* take_bytes(size_t n);

  struct Chunk {
    std::unique_ptr<std::byte, void (*)(void*)> data;
    size_t size;
  };
  std::vector<Chunk> chunks_;
  size_t chunk_ = 0, used_ = 0;  // the chunk in use, and the bytes used of it
  bool poison_ = false;
};

}  // namespace pintpot

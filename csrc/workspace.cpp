#include "workspace.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

namespace pintpot {

namespace {
constexpr size_t kAlign = 64;
constexpr size_t kMinChunk = size_t{1} << 20;
}  // namespace

std::byte* Workspace::take_bytes(size_t n) {
  n = std::max(kAlign, (n + kAlign - 1) / kAlign * kAlign);
  while (chunk_ < chunks_.size() && used_ + n > chunks_[chunk_].size) {
    ++chunk_;
    used_ = 0;
  }
  if (chunk_ == chunks_.size()) {
    const size_t size = std::max(n, chunks_.empty() ? kMinChunk : 2 * chunks_.back().size);
    void* p = std::aligned_alloc(kAlign, size);
    if (!p) throw std::bad_alloc();
    chunks_.push_back({{static_cast<std::byte*>(p), &std::free}, size});
    used_ = 0;
  }
  std::byte* p = chunks_[chunk_].data.get() + used_;
  used_ += n;
  if (poison_) std::memset(p, 0xFF, n);
  return p;
}

size_t Workspace::allocated_bytes() const {
  size_t total = 0;
  for (const Chunk& c : chunks_) total += c.size;
  return total;
}

}  // namespace pintpot

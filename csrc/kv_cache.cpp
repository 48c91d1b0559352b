#include "kv_cache.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

namespace pintpot {

namespace {

constexpr int64_t kMaxDim = 1 << 20;  // of any one size but the capacity: products stay far from overflow

void check_size(const char* what, int64_t value, int64_t limit) {
  if (value < 1 || value > limit)
    throw std::invalid_argument(std::string(what) + " is " + std::to_string(value) + ", expected 1 to " +
                                std::to_string(limit));
}

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Bytes of one head's keys or values in a block. `dim` is what is stored of each token.
int64_t head_bytes(const char* what, KvType type, int64_t dim) {
  switch (type) {
    case KvType::f32: return kKvBlock * dim * 4;
    case KvType::f16: return kKvBlock * dim * 2;
    case KvType::q8_0:
      if (dim % 32 != 0)
        throw std::invalid_argument(std::string("a q8_0 cache needs ") + what +
                                    " to be a multiple of 32, not " + std::to_string(dim) + "; use f16");
      return kKvBlock * dim / 32 * 34;
  }
  return 0;
}

size_t checked_total(int64_t count, int64_t bytes) {
  int64_t total;
  if (__builtin_mul_overflow(count, bytes, &total)) throw std::bad_alloc();
  return static_cast<size_t>(total);
}

}  // namespace

KvType parse_kv_type(std::string_view name) {
  if (name == "f32") return KvType::f32;
  if (name == "f16") return KvType::f16;
  if (name == "q8_0") return KvType::q8_0;
  throw std::invalid_argument("unknown KV cache type '" + std::string(name) + "', expected f32, f16 or q8_0");
}

LazyMemory::LazyMemory(size_t bytes) : size_(bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  data_ = static_cast<std::byte*>(p);
#ifdef MADV_HUGEPAGE
  // A step at depth walks all of it: fewer address translations. Advice only, whether it is taken or not.
  madvise(p, bytes, MADV_HUGEPAGE);
#endif
}

LazyMemory::~LazyMemory() { munmap(data_, size_); }

KVCache::KVCache(int64_t n_slots, int64_t capacity, int64_t n_head_kv, int64_t head_dim_k, int64_t head_dim_v,
                 KvType type_k, KvType type_v)
    : n_slots_((check_size("n_slots", n_slots, kMaxDim), n_slots)),
      capacity_((check_size("capacity", capacity, int64_t{1} << 30), capacity)),
      n_head_kv_((check_size("n_head_kv", n_head_kv, kMaxDim), n_head_kv)),
      head_dim_k_((check_size("head_dim_k", head_dim_k, kMaxDim), head_dim_k)),
      head_dim_v_((check_size("head_dim_v", head_dim_v, kMaxDim), head_dim_v)),
      type_k_(type_k),
      type_v_(type_v),
      n_blocks_((capacity + kKvBlock - 1) / kKvBlock),
      key_bytes_(head_bytes("head_dim_k", type_k, head_dim_k)),
      value_bytes_(head_bytes("head_dim_v", type_v,
                              type_v == KvType::q8_0 ? head_dim_v : round_up(head_dim_v, kPanelLanes))),
      block_bytes_(n_head_kv * (key_bytes_ + value_bytes_)),
      memory_(checked_total(n_slots * n_blocks_, block_bytes_)) {}

KvHead KVCache::head(int64_t slot, int64_t h) const {
  std::byte* block = memory_.data() + slot * n_blocks_ * block_bytes_;
  return {block + h * key_bytes_,
          block + n_head_kv_ * key_bytes_ + h * value_bytes_,
          block_bytes_,
          n_blocks_,
          head_dim_k_,
          head_dim_v_,
          type_k_,
          type_v_};
}

void KVCache::copy_slot(int64_t src, int64_t dst, int64_t n_tokens) {
  if (src < 0 || src >= n_slots_ || dst < 0 || dst >= n_slots_ || n_tokens < 0)
    throw std::invalid_argument("copy_slot(" + std::to_string(src) + ", " + std::to_string(dst) + ", " +
                                std::to_string(n_tokens) + ") on a cache of " + std::to_string(n_slots_) +
                                " slots");
  if (src == dst) return;
  const int64_t blocks = std::min(n_blocks_, (n_tokens + kKvBlock - 1) / kKvBlock);
  const int64_t slot_bytes = n_blocks_ * block_bytes_;
  std::memcpy(memory_.data() + dst * slot_bytes, memory_.data() + src * slot_bytes,
              static_cast<size_t>(blocks * block_bytes_));
}

DeltaState::DeltaState(int64_t n_slots, int64_t n_head_v, int64_t head_dim_k, int64_t head_dim_v,
                       int64_t conv_dim, int64_t conv_kernel)
    : n_slots_((check_size("n_slots", n_slots, kMaxDim), n_slots)),
      n_head_v_((check_size("n_head_v", n_head_v, kMaxDim), n_head_v)),
      head_dim_k_((check_size("head_dim_k", head_dim_k, 1 << 14), head_dim_k)),
      head_dim_v_((check_size("head_dim_v", head_dim_v, 1 << 14), head_dim_v)),
      conv_dim_((check_size("conv_dim", conv_dim, int64_t{1} << 30), conv_dim)),
      conv_kernel_((check_size("conv_kernel", conv_kernel, 8), conv_kernel)),
      conv_floats_(round_up((conv_kernel - 1) * conv_dim, kPanelLanes)),
      head_floats_(round_up(head_dim_v, kPanelLanes) * head_dim_k),
      memory_(checked_total(n_slots, static_cast<int64_t>(slot_bytes()))) {}

void DeltaState::check_slot(int64_t slot) const {
  if (slot < 0 || slot >= n_slots_)
    throw std::invalid_argument("slot " + std::to_string(slot) + " of a state with " +
                                std::to_string(n_slots_) + " slots");
}

float* DeltaState::slot_data(int64_t slot) const {
  return reinterpret_cast<float*>(memory_.data() + static_cast<size_t>(slot) * slot_bytes());
}

float* DeltaState::conv(int64_t slot) const { return slot_data(slot); }

float* DeltaState::head(int64_t slot, int64_t h) const {
  return slot_data(slot) + conv_floats_ + h * head_floats_;
}

void DeltaState::reset(int64_t slot) {
  check_slot(slot);
  std::memset(slot_data(slot), 0, slot_bytes());
}

void DeltaState::copy_slot(int64_t src, int64_t dst) {
  check_slot(src);
  check_slot(dst);
  if (src != dst) std::memcpy(slot_data(dst), slot_data(src), slot_bytes());
}

void DeltaState::save(int64_t slot, std::byte* out) const {
  check_slot(slot);
  std::memcpy(out, slot_data(slot), slot_bytes());
}

void DeltaState::restore(int64_t slot, const std::byte* saved) {
  check_slot(slot);
  std::memcpy(slot_data(slot), saved, slot_bytes());
}

}  // namespace pintpot

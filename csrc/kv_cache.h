// Memory of one attention layer's keys and values, and of one gated delta net layer's recurrent state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "mixer_kernels.h"

namespace pintpot {

// "f32", "f16" or "q8_0"; throws std::invalid_argument for anything else.
KvType parse_kv_type(std::string_view name);

// Zeroed memory straight from the operating system: a page costs nothing until it is written.
class LazyMemory {
 public:
  explicit LazyMemory(size_t bytes);  // throws std::bad_alloc
  ~LazyMemory();
  LazyMemory(const LazyMemory&) = delete;
  LazyMemory& operator=(const LazyMemory&) = delete;

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::byte* data_;
  size_t size_;
};

// `n_slots` sequences of `capacity` tokens. Layout: [slot][block of 64 tokens][keys of every head, values of
// every head] (mixer_kernels.h has the blocks), capacity rounded up to blocks. The token at position p lies
// in row p % (rounded capacity), so blocks of positions are blocks of memory even after a wrap. Not
// synchronized: one step writes or reads it at a time.
class KVCache {
 public:
  // Throws std::invalid_argument for sizes that are not positive, or Q8_0 heads that are no multiple of 32.
  KVCache(int64_t n_slots, int64_t capacity, int64_t n_head_kv, int64_t head_dim_k, int64_t head_dim_v,
          KvType type_k, KvType type_v);

  int64_t n_slots() const { return n_slots_; }
  int64_t capacity() const { return capacity_; }
  int64_t n_head_kv() const { return n_head_kv_; }
  int64_t head_dim_k() const { return head_dim_k_; }
  int64_t head_dim_v() const { return head_dim_v_; }
  size_t nbytes() const { return memory_.size(); }

  KvHead head(int64_t slot, int64_t h) const;

  // Makes slot `dst` hold what `src` holds of a sequence's first `n_tokens` tokens.
  void copy_slot(int64_t src, int64_t dst, int64_t n_tokens);

 private:
  int64_t n_slots_, capacity_, n_head_kv_, head_dim_k_, head_dim_v_;
  KvType type_k_, type_v_;
  int64_t n_blocks_, key_bytes_, value_bytes_, block_bytes_;  // of a slot; of a head in a block; of a block
  LazyMemory memory_;
};

// Layout: the last conv_kernel - 1 inputs of the convolution [slot][conv_kernel - 1][conv_dim], oldest first,
// then the memory [slot][n_head_v][head_dim_v / 16, rounded up][head_dim_k][16].
class DeltaState {
 public:
  DeltaState(int64_t n_slots, int64_t n_head_v, int64_t head_dim_k, int64_t head_dim_v, int64_t conv_dim,
             int64_t conv_kernel);

  int64_t n_slots() const { return n_slots_; }
  int64_t n_head_v() const { return n_head_v_; }
  int64_t head_dim_k() const { return head_dim_k_; }
  int64_t head_dim_v() const { return head_dim_v_; }
  int64_t conv_dim() const { return conv_dim_; }
  int64_t conv_kernel() const { return conv_kernel_; }
  size_t nbytes() const { return memory_.size(); }

  float* conv(int64_t slot) const;              // [conv_kernel - 1, conv_dim]
  float* head(int64_t slot, int64_t h) const;   // [head_dim_v / 16, head_dim_k, 16]

  void reset(int64_t slot);
  void copy_slot(int64_t src, int64_t dst);
  size_t slot_bytes() const { return static_cast<size_t>(conv_floats_ + head_floats_ * n_head_v_) * 4; }
  void save(int64_t slot, std::byte* out) const;       // slot_bytes() bytes
  void restore(int64_t slot, const std::byte* saved);  // slot_bytes() bytes of save()

 private:
  void check_slot(int64_t slot) const;
  float* slot_data(int64_t slot) const;

  int64_t n_slots_, n_head_v_, head_dim_k_, head_dim_v_, conv_dim_, conv_kernel_;
  int64_t conv_floats_, head_floats_;
  LazyMemory memory_;
};

}  // namespace pintpot

// Integer products of quantized weights, over the formats of formats_simd.inl.
//
// Weight rows lie side by side in vector lanes, so that one activation broadcast feeds many rows and nothing is
// summed across lanes. Few tokens (matmul_few.inl): codes are used as they are unpacked; the codes of most 256-value
// blocks are even multiplied one row at a time (row_codes.inl), as moving them side by side cost most. Many
// (matmul_many.inl): 16 rows of 256 values are unpacked once into a panel that stays in the first-level cache, and all
// tokens pass over it. Both sum a block exactly in integers and add blocks in order, so a result does not depend on
// which of them made it. Here is what they share.
#pragma once

#include "blocks.h"
#include "formats_simd.inl"
#include "matmul_kernels.h"

namespace pintpot::lanes {
namespace {

PP_INLINE const std::byte* act_row(const TileArgs& a, int64_t i) {
  return a.acts + (a.x_rows ? a.x_rows[i] : i) * a.act_stride;
}

template <class Fmt>
inline constexpr bool kIsSuper = Fmt::kValues == 256;

template <bool Super> struct PickAct { using Type = ActBlock; };
template <> struct PickAct<true> { using Type = ActSuper; };
template <class Fmt>
using ActOf = typename PickAct<kIsSuper<Fmt>>::Type;

template <class Fmt>
using HeaderOf = decltype(Fmt::header(*static_cast<const Rows*>(nullptr), 0));

// What a panel may hold instead of codes: Folded<Fmt>(header).at<Step>(codes) is code * scale + kOffset, unsigned bytes.
template <class Fmt>
struct Folded {
  static constexpr bool kIs = false;
};

constexpr int log2_of(int power) { return power <= 1 ? 0 : 1 + log2_of(power / 2); }

// Rows [first, first + kLanes) of the tile.
PP_INLINE Rows rows_at(const TileArgs& a, int64_t first) {
  Rows rows;
  for (int l = 0; l < kLanes; ++l) {
    const int64_t r = first + l < a.n_rows ? first + l : a.n_rows - 1;
    rows.p[l] = a.w + r * a.row_bytes;
  }
  return rows;
}

// Prefetches the rows that come next, as many bytes at a time as are being used: rows are contiguous, so this
// walks memory in order while the rows in hand are read side by side, and goes on in what comes after the tile. Into
// the second-level cache: a block of eight or sixteen rows is more lines than the first level has misses in flight,
// and the core would wait for each (measured on Zen 4: twice the speed from memory).
class Ahead {
 public:
  PP_INLINE Ahead(const TileArgs& a, int64_t next_row)
      : at_(a.w + next_row * a.row_bytes), left_((a.n_rows - next_row) * a.row_bytes), next_(a.next) {}

  PP_INLINE void fetch(int64_t n) {
    for (int64_t i = 0; i < n; i += 64) {
      if (left_ <= 0 && next_) {
        at_ = next_ - left_;
        next_ = nullptr;
      }
      prefetch(at_);
      at_ += 64;
      left_ -= 64;
    }
  }

 private:
  const std::byte* at_;
  int64_t left_;  // bytes of the tile from at_ on
  const std::byte* next_;
};

// Prefetches what lies kFarBytes after the block in hand where rows are read front to back, on into what comes after
// the tile. Hardware prefetches the next kilobytes by itself, but not over the end of a page. Nearer prefetches got in
// its way (docs/performance.md).
class FarAhead {
 public:
  PP_INLINE explicit FarAhead(const TileArgs& a)
      : end_(a.w + a.n_rows * a.row_bytes), next_(a.next ? a.next : a.w) {}

  PP_INLINE void fetch(const std::byte* block, int64_t n) const {
    const std::byte* at = block + kFarBytes;
    if (at >= end_) at = next_ + (at - end_);
    for (int64_t i = 0; i < n; i += 64) prefetch(at + i);
  }

 private:
  static constexpr int64_t kFarBytes = 8192;
  const std::byte *end_, *next_;
};

// Adds what a group of code vectors gave to the block's sum.
template <class Fmt, int Step, class Header>
PP_INLINE VInt close_group(const Header& h, VInt sum, VInt group) {
  if constexpr (kIsSuper<Fmt>) return add_group_scaled(sum, group, h.template scale<Step * 4 / Fmt::kSub>());
  return add_group(sum, group);
}

// The sum of code * q without what the codes' offset added to it, kOffset times offset_sum.
template <class Fmt>
PP_INLINE VInt without_offset(VInt sum, VInt offset_sum) {
  if constexpr (Fmt::kOffset == 0) return sum;
  else return sub(sum, shift_left(offset_sum, log2_of(Fmt::kOffset)));
}

// acc + (one block of w) . x, given the block's sums of code * q (scaled) and, for 256-blocks, min * sum(q).
template <class Fmt>
PP_INLINE VFloat finish_block(VFloat d, VFloat m, VInt sum, VInt min_sum, float x_d, VFloat acc) {
  const VFloat xd = floats(x_d);
  acc = fma(mul(d, xd), to_float(sum), acc);
  if constexpr (Fmt::kHasMin) {
    const VFloat md = mul(m, xd);
    acc = kIsSuper<Fmt> ? fnma(md, to_float(min_sum), acc) : fma(md, to_float(min_sum), acc);
  }
  return acc;
}

template <class Fmt, class Header>
PP_INLINE VFloat min_scale(const Header& h) {
  if constexpr (!Fmt::kHasMin) return zero_float();
  else if constexpr (kIsSuper<Fmt>) return h.dmin;
  else return h.m;
}

// The sums of activations that go with mins 2p and 2p + 1.
template <class Fmt>
PP_INLINE VInt act_sum_pair(const ActSuper& x, int p) {
  return broadcast4(Fmt::kSub == 16 ? &x.sum16[2 * p] : &x.sum32[2 * p]);
}

// Writes n_vecs row vectors (16 rows at most) from row `first` on; rows past the tile's last are left out.
PP_INLINE void write_rows(const TileArgs& a, int64_t token, int64_t first, const VFloat* acc, int n_vecs) {
  float* out = a.out + token * a.ld_out + first;
  const int64_t left = a.n_rows - first;
  if (left >= n_vecs * kLanes) {
    for (int v = 0; v < n_vecs; ++v) storeu_float(out + v * kLanes, acc[v]);
    return;
  }
  alignas(64) float values[16];
  for (int v = 0; v < n_vecs; ++v) store_float(values + v * kLanes, acc[v]);
  for (int64_t r = 0; r < left; ++r) out[r] = values[r];
}

// What f gives for the format of a quantized type; nullptr for a float type.
template <class F>
PP_INLINE TileFn with_format(TensorType type, F&& f) {
  switch (type) {
    case TensorType::q4_0: return f(Q4_0{});
    case TensorType::q4_1: return f(Q4_1{});
    case TensorType::q5_0: return f(Q5_0{});
    case TensorType::q5_1: return f(Q5_1{});
    case TensorType::q8_0: return f(Q8_0{});
    case TensorType::iq4_nl: return f(IQ4_NL{});
    case TensorType::mxfp4: return f(MXFP4{});
    case TensorType::q2_k: return f(Q2_K{});
    case TensorType::q3_k: return f(Q3_K{});
    case TensorType::q4_k: return f(Q4_K{});
    case TensorType::q5_k: return f(Q5_K{});
    case TensorType::q6_k: return f(Q6_K{});
    case TensorType::iq4_xs: return f(IQ4_XS{});
    default: return nullptr;
  }
}

}  // namespace
}  // namespace pintpot::lanes

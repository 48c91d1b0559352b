// The per-instruction-set half of attention.h and delta_net.h: plain data and function tables only, because
// an inline function emitted by one kernel translation unit could be the copy that the linker keeps for all.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pintpot {

enum class KvType : int32_t { f32, f16, q8_0 };

// Sixteen values lie side by side everywhere in these kernels: 16 keys of one dimension, 16 dimensions of one
// value. It is one AVX-512 register, two of AVX2.
inline constexpr int64_t kPanelLanes = 16;
// Tokens in a block of the KV cache. A block holds, for each KV head, its keys and then its values:
//   keys    [4 groups][head_dim_k][16 keys]             (so that one q broadcast meets 16 keys)
//   values  [head_dim_v / 16, rounded up][64 keys][16]  (so that one weight broadcast meets 16 dimensions)
// Q8_0 blocks hold all int8 values first, side by side in pairs for integer products: keys
// [4 groups][head_dim_k / 2][16 keys][2], values [head_dim_v / 16][32 pairs of keys][16][2]; then the f16 scales, one
// per token and 32 dimensions (the numbers of GGUF's Q8_0): keys [4 groups][head_dim_k / 32][16 keys], values
// [head_dim_v / 32][64 keys].
inline constexpr int64_t kKvBlock = 64;

// Tokens of a segment up to which attention and gated delta net compute one after the other what they would in
// steps of their own, to the bit: a guess of what follows is verified so. pintpot.runtime.speculative knows it.
inline constexpr int64_t kShortSegment = 8;

// One head of one sequence. Position p lies in block p / 64 % n_blocks.
struct KvHead {
  std::byte* k;  // block 0
  std::byte* v;
  int64_t block_stride;
  int64_t n_blocks;
  int64_t dim_k, dim_v;
  KvType type_k, type_v;
};

// Attention of `rows` queries over the keys of one head at positions [key_begin, key_end). Row r belongs to
// the token at position pos0 + r / group, which sees `window` positions, its own included.
// The result is unnormalized: o = sum e^(s - m) v, l = sum e^(s - m), m = the largest score (-inf: no key).
struct AttendTask {
  KvHead kv;
  const float* q;  // [rows, dim_k], scaled
  int64_t rows, group;
  int64_t pos0;
  int64_t window;
  int64_t key_begin, key_end;
  float softcap;   // 0: none
  float* scratch;  // attend_scratch() floats, of this thread alone
  float* m;        // [rows]
  float* l;        // [rows]
  float* o;        // [rows, dim_v rounded up to 16]
};

// Joins `parts` partial results of one row, adds the sink, divides, gates, writes `dim` floats to `out`.
struct MergeTask {
  float* m;  // part p at m[p * stride_ml]; overwritten
  const float* l;
  const float* o;  // part p at o + p * stride_o
  int64_t parts, stride_ml, stride_o;
  int64_t dim;
  bool has_sink;
  float sink;
  const float* gate;  // [dim] before the sigmoid, or nullptr
  float* out;
};

// One head of q or k: RMSNorm, rotation of the first 2 * n_rot_half values, factor.
struct HeadTask {
  const float* x;
  float* out;  // may be x
  int64_t dim;
  bool norm;
  const float* norm_weight;  // or nullptr
  float eps;
  const float* cos;  // [n_rot_half], or nullptr: no rotation
  const float* sin;
  int64_t n_rot_half;
  bool interleaved;
  float factor;
};

// Causal depthwise convolution and SiLU over `dim` channels of `n` consecutive tokens; then, when `l2_norm`,
// each token's channels are divided by sqrt(sum of squares + eps) and multiplied by `factor`.
struct ConvTask {
  int64_t n, dim, taps;
  const float* x;  // token t at x + t * ldx
  int64_t ldx;
  const float* weight;  // tap j at weight + j * ld_weight; the last tap meets the token itself
  int64_t ld_weight;
  float* state;  // the taps - 1 inputs before the first token, oldest first; updated
  int64_t ld_state;
  float* out;  // token t at out + t * ld_out; lanes up to the next multiple of 16 are zeroed
  int64_t ld_out;
  bool l2_norm;
  float eps, factor;
};

// The gated delta rule for `n` consecutive tokens of one v head:
//   S = e^g S;  S += k (beta (v - S^T k))^T;  o = S^T q;  out = RMSNorm(o) * norm * silu(z)
struct DeltaTask {
  int64_t n, dim_k, dim_v;
  const float* q;  // token t at q + t * ld_qk, normalized and scaled
  const float* k;  // likewise, normalized
  int64_t ld_qk;
  const float* v;  // token t at v + t * ld_v, readable up to the next multiple of 16
  int64_t ld_v;
  const float* g;     // log of the decay, token t at g[t * ld_gate]
  const float* beta;  // likewise
  int64_t ld_gate;
  float* state;  // [dim_v / 16 rounded up][dim_k][16]
  const float* z;
  int64_t ld_z;
  const float* norm;  // [dim_v]
  float eps;
  float* out;
  int64_t ld_out;
  float* scratch;  // delta_scratch() floats, of this thread alone
};

struct MixerKernels {
  int64_t (*attend_scratch)(int64_t rows, int64_t dim_k);
  void (*attend)(const AttendTask&);
  void (*merge)(const MergeTask&);
  void (*prepare_head)(const HeadTask&);
  // Stores one token's head at position `pos`, converted.
  void (*store_key)(const KvHead&, int64_t pos, const float* x);
  void (*store_value)(const KvHead&, int64_t pos, const float* x);

  int64_t (*delta_scratch)(int64_t dim_k, int64_t dim_v);
  void (*conv)(const ConvTask&);
  void (*delta)(const DeltaTask&);
};

const MixerKernels& mixer_kernels_scalar();
const MixerKernels& mixer_kernels_avx2();
const MixerKernels& mixer_kernels_avx512();

// The table of active_isa().
const MixerKernels& mixer_kernels();

}  // namespace pintpot

// The mixers' kernels of one instruction set, included inside its namespace after simd/f32_<isa>.h.

#include "tile_kernels.inl"

#include "attention_kernels.inl"

#include "delta_net_kernels.inl"

inline constexpr MixerKernels kMixerKernels = {attend_scratch, attend,        merge, prepare_head, store_key,
                                               store_value,    delta_scratch, conv,  delta};

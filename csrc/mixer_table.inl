// The mixers' function table, included inside an instruction set's namespace after the kernels.

inline constexpr MixerKernels kMixerKernels = {attend_scratch, attend,        merge, prepare_head, store_key,
                                               store_value,    delta_scratch, conv,  delta};

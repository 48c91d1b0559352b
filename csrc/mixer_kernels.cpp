#include "mixer_kernels.h"

#include "cpu_features.h"

namespace pintpot {

const MixerKernels& mixer_kernels() {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::avx512: return mixer_kernels_avx512();
    case Isa::avx2: return mixer_kernels_avx2();
    case Isa::scalar: break;
  }
#endif
  return mixer_kernels_scalar();
}

}  // namespace pintpot

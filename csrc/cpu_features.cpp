#include "cpu_features.h"

#include <atomic>

namespace pintpot {

Isa detect_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
        __builtin_cpu_supports("bmi2")))
    return Isa::scalar;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512vnni"))
    return Isa::avx512;
  return Isa::avx2;
#else
  return Isa::scalar;
#endif
}

namespace {
std::atomic<Isa>& level() {
  static std::atomic<Isa> isa{detect_isa()};
  return isa;
}
}  // namespace

Isa active_isa() { return level().load(std::memory_order_relaxed); }

bool set_isa(Isa isa) {
  if (isa > detect_isa()) return false;
  level().store(isa, std::memory_order_relaxed);
  return true;
}

}  // namespace pintpot

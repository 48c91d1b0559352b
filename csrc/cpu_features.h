// Which instruction set the kernels run on. Chosen once from the CPU, and forced by tests.
#pragma once

namespace pintpot {

enum class Isa { scalar = 0, avx2 = 1, avx512 = 2 };  // avx512: F, BW, DQ, VL and VNNI together

// The best level this CPU and operating system support.
Isa detect_isa();

// The level in force: detect_isa() unless set_isa() was called.
Isa active_isa();

// Forces a level at or below detect_isa(); returns false (and changes nothing) for a higher one.
// Not to be called while kernels run.
bool set_isa(Isa isa);

}  // namespace pintpot

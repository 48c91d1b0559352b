// The kernel level that runs everywhere: plain C++, no intrinsics.
#include "matmul_scalar.inl"

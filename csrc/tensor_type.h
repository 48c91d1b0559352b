// GGUF tensor types this project computes with, and the geometry of their blocks.
// Ids are those of the GGUF specification (ggml_type).
#pragma once

#include <cstddef>
#include <cstdint>

namespace pintpot {

enum class TensorType : int32_t {
  f32 = 0, f16 = 1, q4_0 = 2, q4_1 = 3, q5_0 = 6, q5_1 = 7, q8_0 = 8,
  q2_k = 10, q3_k = 11, q4_k = 12, q5_k = 13, q6_k = 14,
  iq4_nl = 20, iq4_xs = 23, bf16 = 30, mxfp4 = 39,
};

struct TypeInfo {
  TensorType type;
  const char* name;
  int32_t block_values;  // weights in a block
  int32_t block_bytes;
};

// nullptr for a type this project cannot compute with.
const TypeInfo* type_info(int32_t ggml_type);

}  // namespace pintpot

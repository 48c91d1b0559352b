// GGUF quantization blocks as they lie in a file (little-endian, packed). `d`, `dmin` and `m` are IEEE halves.
// Plain data only: this header is shared by translation units built for different instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pintpot {

// 32 weights, w = d * code (+ m). Code i of a nibble block: the low half of qs[i] for i < 16, the high half of
// qs[i - 16] otherwise; qh holds a fifth bit, bit i for code i.
struct BlockQ4_0 { uint16_t d; uint8_t qs[16]; };                    // code = nibble - 8
struct BlockQ4_1 { uint16_t d, m; uint8_t qs[16]; };                 // code = nibble
struct BlockQ5_0 { uint16_t d; uint8_t qh[4]; uint8_t qs[16]; };     // code = (fifth bit, nibble) - 16
struct BlockQ5_1 { uint16_t d, m; uint8_t qh[4]; uint8_t qs[16]; };  // code = (fifth bit, nibble)
struct BlockQ8_0 { uint16_t d; int8_t qs[32]; };
struct BlockIQ4_NL { uint16_t d; uint8_t qs[16]; };  // code = kIQ4Codes[nibble]
struct BlockMXFP4 { uint8_t e; uint8_t qs[16]; };    // code = kMXFP4Codes[nibble], d = 2^(e - 128)

// 256 weights in sub-blocks of 16 or 32, w = d * scale * code - dmin * min. The order of codes and the packing
// of scales differ; decode_block.h spells them out.
struct BlockQ2_K { uint8_t scales[16]; uint8_t qs[64]; uint16_t d, dmin; };
struct BlockQ3_K { uint8_t hmask[32]; uint8_t qs[64]; uint8_t scales[12]; uint16_t d; };
struct BlockQ4_K { uint16_t d, dmin; uint8_t scales[12]; uint8_t qs[128]; };
struct BlockQ5_K { uint16_t d, dmin; uint8_t scales[12]; uint8_t qh[32]; uint8_t qs[128]; };
struct BlockQ6_K { uint8_t ql[128]; uint8_t qh[64]; int8_t scales[16]; uint16_t d; };
struct BlockIQ4_XS { uint16_t d; uint16_t scales_h; uint8_t scales_l[4]; uint8_t qs[128]; };

static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_0) == 22 &&
              sizeof(BlockQ5_1) == 24 && sizeof(BlockQ8_0) == 34 && sizeof(BlockIQ4_NL) == 18 &&
              sizeof(BlockMXFP4) == 17);
static_assert(sizeof(BlockQ2_K) == 84 && sizeof(BlockQ3_K) == 110 && sizeof(BlockQ4_K) == 144 &&
              sizeof(BlockQ5_K) == 176 && sizeof(BlockQ6_K) == 210 && sizeof(BlockIQ4_XS) == 136);

inline constexpr int8_t kIQ4Codes[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                         1,    13,   25,  38,  53,  69,  89,  113};
inline constexpr int8_t kMXFP4Codes[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// Activations prepared for the blocks above: x = d * q, |q| <= 127. A NaN or infinity among the values makes
// d NaN, so that it reaches every output it should.
struct ActBlock {  // ActKind::q8_block
  int8_t q[32];
  float d;      // of half precision, as llama.cpp stores it: the same rounding keeps results close to its own
  int32_t sum;  // of q
};
struct alignas(64) ActSuper {  // ActKind::q8_super
  int8_t q[256];
  int16_t sum16[16];  // of q, in groups of 16
  int16_t sum32[8];   // and of 32
  float d;
  int32_t sum;  // of q
};
static_assert(sizeof(ActBlock) == 40 && sizeof(ActSuper) == 320);

}  // namespace pintpot

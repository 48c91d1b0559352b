// Codes and integer scales of a super-block as the bytes of its format: the reverse of decode_block.h.

// Two bits of codes at a time: byte i of each 32 holds bits `shift`.. of four codes, 32 values apart.
inline void pack_2bit(const int8_t* q, int shift, uint8_t* out) {
  for (int half = 0; half < 2; ++half)
    for (int i = 0; i < 32; ++i) {
      const int8_t* c = q + half * 128 + i;
      const auto part = [&](int k) { return (c[32 * k] >> shift & 3) << 2 * k; };
      out[half * 32 + i] = static_cast<uint8_t>(part(0) | part(1) | part(2) | part(3));
    }
}

// Bit `bit` of 256 codes: bit k of byte i is that of code 32 k + i.
inline void pack_high_bit(const int8_t* q, int bit, uint8_t* out) {
  for (int i = 0; i < 32; ++i) {
    int byte = 0;
    for (int k = 0; k < 8; ++k) byte |= (q[32 * k + i] >> bit & 1) << k;
    out[i] = static_cast<uint8_t>(byte);
  }
}

// The low four bits of 2 * n codes, those n apart sharing a byte.
inline void pack_nibbles(const int8_t* q, int n, uint8_t* out) {
  for (int i = 0; i < n; ++i) out[i] = static_cast<uint8_t>((q[i] & 15) | (q[i + n] & 15) << 4);
}

inline void pack_scales_6bit(const int8_t* scale, const int8_t* min, uint8_t* out) {
  for (int j = 0; j < 4; ++j) {
    out[j] = static_cast<uint8_t>(scale[j] | scale[j + 4] >> 4 << 6);
    out[j + 4] = static_cast<uint8_t>(min[j] | min[j + 4] >> 4 << 6);
    out[j + 8] = static_cast<uint8_t>((scale[j + 4] & 15) | (min[j + 4] & 15) << 4);
  }
}

inline void pack(BlockQ2_K& b, const int8_t* q, const int8_t* scale, const int8_t* min) {
  for (int j = 0; j < 16; ++j) b.scales[j] = static_cast<uint8_t>(scale[j] | min[j] << 4);
  pack_2bit(q, 0, b.qs);
}

inline void pack(BlockQ4_K& b, const int8_t* q, const int8_t* scale, const int8_t* min) {
  pack_scales_6bit(scale, min, b.scales);
  for (int i = 0; i < 4; ++i) pack_nibbles(q + i * 64, 32, b.qs + i * 32);
}

inline void pack(BlockQ5_K& b, const int8_t* q, const int8_t* scale, const int8_t* min) {
  pack_scales_6bit(scale, min, b.scales);
  for (int i = 0; i < 4; ++i) pack_nibbles(q + i * 64, 32, b.qs + i * 32);
  pack_high_bit(q, 4, b.qh);
}

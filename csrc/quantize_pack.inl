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

inline void pack(BlockQ3_K& b, const int8_t* q, const int8_t* scale) {
  for (int j = 0; j < 8; ++j) {
    const int low = scale[j] + 32, high = scale[j + 8] + 32;
    b.scales[j] = static_cast<uint8_t>((low & 15) | (high & 15) << 4);
  }
  for (int j = 0; j < 4; ++j) {
    const auto top = [&](int k) { return (scale[j + 4 * k] + 32) >> 4 << 2 * k; };
    b.scales[8 + j] = static_cast<uint8_t>(top(0) | top(1) | top(2) | top(3));
  }
  pack_2bit(q, 0, b.qs);
  pack_high_bit(q, 2, b.hmask);
}

inline void pack(BlockQ6_K& b, const int8_t* q, const int8_t* scale) {
  std::memcpy(b.scales, scale, 16);
  pack_nibbles(q, 64, b.ql);
  pack_nibbles(q + 128, 64, b.ql + 64);
  pack_2bit(q, 4, b.qh);
}

inline void pack(BlockIQ4_XS& b, const int8_t* q, const int8_t* scale) {
  std::memset(b.scales_l, 0, 4);
  int high = 0;
  for (int j = 0; j < 8; ++j) {
    b.scales_l[j / 2] = static_cast<uint8_t>(b.scales_l[j / 2] | ((scale[j] + 32) & 15) << j % 2 * 4);
    high |= (scale[j] + 32) >> 4 << 2 * j;
  }
  b.scales_h = static_cast<uint16_t>(high);
  for (int i = 0; i < 8; ++i) pack_nibbles(q + i * 32, 16, b.qs + i * 16);
}

// The fifth bits of 32 codes.
inline void pack_fifth(const int8_t* q, uint8_t* out) {
  for (int k = 0; k < 4; ++k) {
    int byte = 0;
    for (int i = 0; i < 8; ++i) byte |= (q[8 * k + i] >> 4 & 1) << i;
    out[k] = static_cast<uint8_t>(byte);
  }
}

template <class Block>
inline void pack(Block& b, const int8_t* q) {
  pack_nibbles(q, 16, b.qs);
  if constexpr (requires { b.qh; }) pack_fifth(q, b.qh);
}

// Sixteen sub-blocks side by side, one in each lane: a search needs no horizontal sums.

// lanes[i * 16 + j] = value i of sub-block j, which starts at x + j * n; sub-blocks from n_lanes on repeat the last.
inline void to_lanes(const float* x, int n, int64_t n_lanes, float* lanes) {
  for (int j = 0; j < 16; ++j) {
    const float* source = x + (j < n_lanes ? j : n_lanes - 1) * n;
    for (int i = 0; i < n; ++i) lanes[i * 16 + j] = source[i];
  }
}

// To IEEE half, to nearest; what overflows becomes the largest half.
inline uint16_t to_half(float f) {
  alignas(64) uint16_t h[16];
  store_f16(h, set1(f < -65504.0f ? -65504.0f : f > 65504.0f ? 65504.0f : f));
  return h[0];
}

// Codes 0..15 of a block of 32, lane j of `codes`, as nibbles.
inline void pack_nibbles(const int8_t* codes, int j, uint8_t* qs) {
  for (int i = 0; i < 16; ++i) qs[i] = static_cast<uint8_t>(codes[i * 16 + j] | codes[(i + 16) * 16 + j] << 4);
}

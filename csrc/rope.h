// Rotary position embedding: angles of a position, computed once a token and shared by its heads.
#pragma once

#include <cstdint>
#include <vector>

namespace pintpot {

// Pair i of a head turns by position * inv_freq[i]; the pair is (2i, 2i + 1) when interleaved, else
// (i, i + inv_freq.size()). Both cosine and sine are multiplied by mscale.
struct Rope {
  std::vector<float> inv_freq;  // radians a position; empty: no rotation
  bool interleaved = false;
  float mscale = 1.0f;

  int64_t half() const { return static_cast<int64_t>(inv_freq.size()); }
};

// Fills cos and sin, half() floats each. The angle is reduced in double, so that it is exact to float
// precision at any position.
void rope_angles(const Rope& rope, int64_t position, float* cos, float* sin);

}  // namespace pintpot

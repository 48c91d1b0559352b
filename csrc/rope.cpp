#include "rope.h"

#include <cmath>
#include <numbers>

namespace pintpot {

void rope_angles(const Rope& rope, int64_t position, float* cos, float* sin) {
  constexpr double kTurn = 2 * std::numbers::pi;
  for (int64_t i = 0; i < rope.half(); ++i) {
    const double angle = static_cast<double>(position) * static_cast<double>(rope.inv_freq[i]);
    const auto reduced = static_cast<float>(angle - kTurn * std::floor(angle / kTurn + 0.5));
    cos[i] = rope.mscale * std::cos(reduced);
    sin[i] = rope.mscale * std::sin(reduced);
  }
}

}  // namespace pintpot

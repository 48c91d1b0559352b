#include "batch.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace pintpot {

Batch::Batch(const int32_t* slots, const int32_t* past, const int32_t* lengths, int64_t count) {
  segments_.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    const Segment s{slots[i], past[i], lengths[i], n_tokens_};
    const std::string where = "batch segment " + std::to_string(i) + ": ";
    if (s.slot < 0) throw std::invalid_argument(where + "negative slot");
    if (s.past < 0 || s.n < 1 || s.past + s.n > kMaxPosition)
      throw std::invalid_argument(where + "past " + std::to_string(s.past) + " and length " +
                                  std::to_string(s.n) + " are out of range");
    const auto same = [&](const Segment& o) { return o.slot == s.slot; };
    if (std::any_of(segments_.begin(), segments_.end(), same))
      throw std::invalid_argument(where + "slot " + std::to_string(s.slot) + " appears twice");
    segments_.push_back(s);
    n_tokens_ += s.n;
    max_slot_ = std::max(max_slot_, s.slot);
  }
}

}  // namespace pintpot

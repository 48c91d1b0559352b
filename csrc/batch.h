// What a step is made of: runs of consecutive tokens of different sequences.
#pragma once

#include <cstdint>
#include <vector>

namespace pintpot {

// `n` tokens of the sequence in `slot`, at positions [past, past + n); the first is the step's token `first`.
struct Segment {
  int32_t slot;
  int64_t past, n, first;
};

// Segments lie one behind the other; no slot appears twice.
class Batch {
 public:
  // Throws std::invalid_argument for lists of unequal length, an empty or negative entry, a repeated slot, or
  // positions beyond kMaxPosition.
  Batch(const int32_t* slots, const int32_t* past, const int32_t* lengths, int64_t count);

  const std::vector<Segment>& segments() const { return segments_; }
  int64_t n_tokens() const { return n_tokens_; }
  int32_t max_slot() const { return max_slot_; }

  static constexpr int64_t kMaxPosition = int64_t{1} << 30;

 private:
  std::vector<Segment> segments_;
  int64_t n_tokens_ = 0;
  int32_t max_slot_ = -1;
};

}  // namespace pintpot

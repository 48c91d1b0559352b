// Reading memory as fast as it comes, to measure it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine.h"

namespace pintpot {

// XOR of all 64-bit words of data[0, n_words), read once on the engine's threads in chunks far larger than a
// page. The result depends on every word, so that none of the reads can be left out.
uint64_t read_words(Engine& engine, const uint64_t* data, int64_t n_words);

}  // namespace pintpot

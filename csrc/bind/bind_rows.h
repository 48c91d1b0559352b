// What the bindings of row ops and feed-forward layers share.
#pragma once

#include "row_kernels.h"

namespace pintpot {

// Activation by its name in pintpot.kernels.api; ValueError for another.
Activation parse_activation(const char* name);

}  // namespace pintpot

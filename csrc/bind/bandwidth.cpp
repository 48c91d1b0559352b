#include "bandwidth.h"

#include "bind.h"

namespace pintpot {

void bind_bandwidth(nb::module_& m) {
  using WordsU64 = nb::ndarray<const uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
  m.def(
      "read_words",
      [](Engine& engine, WordsU64 data) {
        const uint64_t* words = data.data();
        const auto n = static_cast<int64_t>(data.size());
        const OpScope scope(engine);
        return read_words(engine, words, n);
      },
      nb::arg("engine"), array_arg("data"), "XOR of all words, read once on the engine's threads (bandwidth).");
}

}  // namespace pintpot

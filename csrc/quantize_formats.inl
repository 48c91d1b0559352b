// Formats whose scales are searched for: group after group, then packed.

template <class Block, int N, int L, int S, Cost kCost>
bool to_affine_super(const BlockTask& t) {
  constexpr int kSuper = 256 / N;
  auto* out = reinterpret_cast<Block*>(t.out);
  each_group<N, kSuper, kCost>(t, [&](const Group<N, kSuper>& g, int64_t first, int64_t count) {
    const AffineScales a = affine_super<L, S, kSuper>(g);
    alignas(64) int8_t lanes[N * 16], codes[N * 16], scale[16], min[16];
    affine_codes<L>(g, mul(a.ls, a.d), neg(mul(a.lm, a.dmin)), lanes);
    from_lanes(lanes, N, codes);
    store_i8(scale, a.ls);
    store_i8(min, a.lm);
    alignas(64) uint16_t d[16], dmin[16];
    store_halves(g, a.d, d);
    store_halves(g, a.dmin, dmin);
    for (int64_t b = 0; b < count; ++b) {
      const int64_t lane = b * kSuper;
      out[first + b].d = d[lane];
      out[first + b].dmin = dmin[lane];
      pack(out[first + b], codes + b * 256, scale + lane, min + lane);
    }
  });
  return true;
}

template <class Block, int N, class Levels, int S, Cost kCost>
bool to_symmetric_super(const BlockTask& t) {
  constexpr int kSuper = 256 / N;
  auto* out = reinterpret_cast<Block*>(t.out);
  each_group<N, kSuper, kCost>(t, [&](const Group<N, kSuper>& g, int64_t first, int64_t count) {
    const SymmetricScales a = symmetric_super<Levels, S, kSuper>(g);
    alignas(64) int8_t lanes[N * 16], codes[N * 16], scale[16];
    symmetric_codes<Levels>(g, mul(a.ls, a.d), lanes);
    from_lanes(lanes, N, codes);
    store_i8(scale, a.ls);
    alignas(64) uint16_t d[16];
    store_halves(g, a.d, d);
    for (int64_t b = 0; b < count; ++b) {
      out[first + b].d = d[b * kSuper];
      pack(out[first + b], codes + b * 256, scale + b * kSuper);
    }
  });
  return true;
}

template <class Block, int L>
bool to_affine(const BlockTask& t) {
  auto* out = reinterpret_cast<Block*>(t.out);
  each_group<32, 1>(t, [&](const Group<32, 1>& g, int64_t first, int64_t count) {
    const AffineFit a = affine_single<L>(g);
    alignas(64) int8_t lanes[32 * 16], codes[32 * 16];
    affine_codes<L>(g, a.s, a.m, lanes);
    from_lanes(lanes, 32, codes);
    alignas(64) uint16_t d[16], m[16];
    store_halves(g, a.s, d);
    store_halves(g, a.m, m);
    for (int64_t b = 0; b < count; ++b) {
      out[first + b].d = d[b];
      out[first + b].m = m[b];
      pack(out[first + b], codes + b * 32);
    }
  });
  return true;
}

template <class Block, class Levels>
bool to_symmetric(const BlockTask& t) {
  auto* out = reinterpret_cast<Block*>(t.out);
  each_group<32, 1>(t, [&](const Group<32, 1>& g, int64_t first, int64_t count) {
    store_symmetric<Levels>(g, symmetric_single<Levels>(g).d, out + first, count);
  });
  return true;
}

// Sixteen sub-blocks side by side, one in each lane: a search needs no horizontal sums.

// lanes[i * 16 + j] = value i of sub-block j, which starts at x + j * n; sub-blocks from n_lanes on repeat the last.
inline void to_lanes(const float* x, int n, int64_t n_lanes, float* lanes) {
  for (int j = 0; j < 16; ++j) {
    const float* source = x + (j < n_lanes ? j : n_lanes - 1) * n;
    for (int i = 0; i < n; ++i) lanes[i * 16 + j] = source[i];
  }
}

// The reverse, for codes.
inline void from_lanes(const int8_t* lanes, int n, int8_t* codes) {
  for (int j = 0; j < 16; ++j)
    for (int i = 0; i < n; ++i) codes[j * n + i] = lanes[i * 16 + j];
}

// Op over the kSuper lanes of each super-block, in all of them.
template <int kSuper, class Op>
inline F32x16 over_super(F32x16 v, Op&& op) {
  if constexpr (kSuper >= 2) v = op(v, swap_lanes<1>(v));
  if constexpr (kSuper >= 4) v = op(v, swap_lanes<2>(v));
  if constexpr (kSuper >= 8) v = op(v, swap_lanes<4>(v));
  if constexpr (kSuper >= 16) v = op(v, swap_lanes<8>(v));
  return v;
}
template <int kSuper>
inline F32x16 sum_super(F32x16 v) {
  return over_super<kSuper>(v, [](F32x16 a, F32x16 b) { return add(a, b); });
}
template <int kSuper>
inline F32x16 max_super(F32x16 v) {
  return over_super<kSuper>(v, [](F32x16 a, F32x16 b) { return max(a, b); });
}

inline F32x16 neg(F32x16 a) { return sub(zero(), a); }
inline F32x16 clamp(F32x16 a, float low, float high) { return min(set1(high), max(set1(low), a)); }
// a / b, and 0 where b is not above 0
inline F32x16 ratio(F32x16 a, F32x16 b) { return select_lt(zero(), b, div(a, b), zero()); }
// 1 / a, and 0 for 0
inline F32x16 inverse(F32x16 a) { return select_lt(zero(), abs(a), div(set1(1.0f), a), zero()); }

inline F32x16 pick(F32x16 a, F32x16 b, F32x16 yes, F32x16 no) { return select_lt(a, b, yes, no); }

// To the nearest half; what overflows becomes the largest.
inline F32x16 round_half(F32x16 a) {
  alignas(64) uint16_t bits[16];
  store_f16(bits, clamp(a, -65504.0f, 65504.0f));
  return load_f16(bits);
}
inline uint16_t to_half(float f) {
  alignas(64) uint16_t bits[16];
  store_f16(bits, clamp(set1(f), -65504.0f, 65504.0f));
  return bits[0];
}

// A group: 16 sub-blocks of N values, kSuper of them a super-block (1: they are blocks of their own).
//
// Values are divided by a power of two near the largest of their super-block, so that no sum overflows or vanishes,
// whatever a tensor holds. Weights are relative to the largest of their super-block and at least kLeastWeight, so
// that a column of no importance is still given the code that fits it.
template <int N, int kSuper>
struct Group {
  static constexpr int kValues = N;
  alignas(64) float x[N * 16];
  alignas(64) float w[N * 16];
  F32x16 unit;        // what values were divided by
  F32x16 w_sum, x_sum, xx_sum;  // sums of w, w x, w x^2

  // v as the file can hold it: a half, in this group's units
  F32x16 half(F32x16 v) const { return div(round_half(mul(v, unit)), unit); }
};

constexpr float kLeastWeight = 1e-6f;

// 2^floor(log2 a), within bounds whose squares and reciprocals are normal numbers. Exact in every lane.
inline F32x16 power_of_two_below(F32x16 a) {
  alignas(64) float f[16];
  store(f, clamp(a, 0x1p-60f, 0x1p80f));
  for (float& v : f) v = std::bit_cast<float>(std::bit_cast<uint32_t>(v) & 0x7F800000u);
  return load(f);
}

// What squared errors cost besides the importance of their column. `even`: nothing. `larger`: (mean x^2 + x^2)^(1/4),
// so that large values count somewhat more, which gives 2- and 3-bit types better distributions of the next token
// than the least squares do (docs/quantization.md).
enum class Cost { even, larger };

template <Cost kCost, int N, int kSuper>
inline void load_group(const BlockTask& t, int64_t first_lane, int64_t n_lanes, Group<N, kSuper>& g) {
  to_lanes(t.x + first_lane * N, N, n_lanes, g.x);
  F32x16 largest = zero();
  for (int i = 0; i < N; ++i) largest = max(largest, abs(load(g.x + i * 16)));
  g.unit = power_of_two_below(max_super<kSuper>(largest));
  F32x16 scale = set1(1.0f), least = set1(1.0f);
  if (t.importance) {
    const int64_t per_row = t.cols / N;
    for (int j = 0; j < 16; ++j) {
      const int64_t lane = first_lane + (j < n_lanes ? j : n_lanes - 1);
      const float* w = t.importance + lane % per_row * N;
      for (int i = 0; i < N; ++i) g.w[i * 16 + j] = w[i];
    }
    F32x16 top = zero();
    for (int i = 0; i < N; ++i) top = max(top, load(g.w + i * 16));
    top = max_super<kSuper>(top);
    scale = ratio(set1(1.0f), top);
    least = select_lt(zero(), top, set1(kLeastWeight), set1(1.0f));
  }
  const F32x16 down = div(set1(1.0f), g.unit);
  F32x16 mean_square = zero();
  for (int i = 0; i < N; ++i) {
    const F32x16 x = mul(load(g.x + i * 16), down);
    store(g.x + i * 16, x);
    if constexpr (kCost == Cost::larger) mean_square = add(mean_square, mul(x, x));
  }
  mean_square = mul(sum_super<kSuper>(mean_square), set1(1.0f / (N * kSuper)));
  g.w_sum = g.x_sum = g.xx_sum = zero();
  for (int i = 0; i < N; ++i) {
    const F32x16 x = load(g.x + i * 16);
    F32x16 w = t.importance ? max(least, mul(load(g.w + i * 16), scale)) : scale;
    if constexpr (kCost == Cost::larger) {
      const F32x16 square = max(set1(1e-20f), add(mean_square, mul(x, x)));  // above 0 in a block of zeros
      w = mul(w, sqrt(sqrt(square)));
    }
    const F32x16 wx = mul(w, x);
    store(g.w + i * 16, w);
    g.w_sum = add(g.w_sum, w);
    g.x_sum = add(g.x_sum, wx);
    g.xx_sum = add(g.xx_sum, mul(wx, x));
  }
}

// The first value of the largest size in each lane.
template <int N>
inline F32x16 extreme(const float* lanes) {
  F32x16 value = zero(), size = zero();
  for (int i = 0; i < N; ++i) {
    const F32x16 v = load(lanes + i * 16), a = abs(v);
    value = select_lt(size, a, v, value);
    size = max(size, a);
  }
  return value;
}

// Calls body(group, first super-block, how many of its super-blocks count) for all values of a task.
template <int N, int kSuper, Cost kCost = Cost::even, class Body>
inline void each_group(const BlockTask& t, Body&& body) {
  const int64_t n_lanes = t.n_rows * t.cols / N;
  Group<N, kSuper> g;
  for (int64_t lane = 0; lane < n_lanes; lane += 16) {
    const int64_t lanes = n_lanes - lane < 16 ? n_lanes - lane : 16;
    load_group<kCost>(t, lane, lanes, g);
    body(g, lane / kSuper, lanes / kSuper);
  }
}

// Halves as the file holds them.
template <class G>
inline void store_halves(const G& g, F32x16 v, uint16_t (&out)[16]) {
  store_f16(out, clamp(mul(v, g.unit), -65504.0f, 65504.0f));
}

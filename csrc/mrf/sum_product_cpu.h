// The two passes of a message of sum_product on the CPU, shared by forward and backward. Both run down columns, many of
// them side by side; along x they run on the transposed map.
//
// A column is made relative to its largest source, and the springs to their largest weight. Where the sum over the
// sources is far above the smallest number, sums of products are as good as sums of exponentials:
//   sum(t) = sum over s of exp(in(s) - peak) weight(s - t),     out(t) = peak + log sum(t)
// with one exponential per source. Rows where a column's sum is not are computed term by term.
#pragma once

#include <vector>

#include "mrf/sum_product.h"
#include "mrf/tree_cpu.h"

namespace pypose_ops {
namespace tree {

// Sums from here on have lost nothing that matters to terms below the smallest number; and 1 over them can still be
// multiplied with.
template <typename acc>
constexpr acc kSafeSum = sizeof(acc) == 8 ? acc(1e-140) : acc(1e-20);

// The springs of an axis by difference k = s - t + n - 1, relative to the largest weight.
template <typename acc>
struct SpringTable {
  CostTable<acc> cost;
  acc largest;                            // logarithm
  std::vector<acc> weight, first, second;  // times 1, the stretch, its square
  int64_t low, high;                      // the differences k with a weight that is not 0

  void fill(const Spring<acc>& spring, int64_t n) {
    cost.fill(spring, n);
    const int64_t size = 2 * n - 1;
    largest = offset_of(*std::max_element(cost.log_weight.begin(), cost.log_weight.end()));
    weight.resize(size);
    first.resize(size);
    second.resize(size);
    low = size;
    high = -1;
    for (int64_t k = 0; k < size; ++k) {
      weight[k] = simd::exp(cost.log_weight[k] - largest);
      first[k] = weight[k] * cost.stretch[k];
      second[k] = first[k] * cost.stretch[k];
      low = weight[k] > 0 ? std::min(low, k) : low;
      high = weight[k] > 0 ? k : high;
    }
  }
};

// peaks(x) = the largest of column x, out(s) = exp(in(s) - peak). A column without a possible source is 0.
template <typename acc>
void take_exponentials(Padded<acc>& out, std::vector<acc>& peaks, const Padded<acc>& in) {
  const int64_t stride = in.stride;
  peaks.assign(stride, -std::numeric_limits<acc>::infinity());
  acc* peak = peaks.data();
  simd_call([&, peak, stride] {
    for (int64_t s = 0; s < in.rows; ++s) {
      const acc* from = in.row(s);
      for (int64_t x = 0; x < stride; ++x) {
        peak[x] = from[x] > peak[x] ? from[x] : peak[x];
      }
    }
    for (int64_t s = 0; s < in.rows; ++s) {
      const acc* from = in.row(s);
      acc* to = out.row(s);
      for (int64_t x = 0; x < stride; ++x) {
        to[x] = simd::exp(from[x] - offset_of(peak[x]));
      }
    }
  });
}

// kTables sums over rows first ... last - 1 of weights[m][row] in(row), for kVecs vectors of columns.
template <int kVecs, int kTables, typename Isa, typename acc>
PYPOSE_OPS_HOST_DEVICE void weigh_block(
    Isa isa, acc* const (&out)[kTables], const acc* in, int64_t stride, const acc* const (&weights)[kTables], int64_t first,
    int64_t last) {
  using Vec = simd::vec<acc, Isa>;
  constexpr int lanes = simd::lanes<acc, Isa>;
  Vec sums[kTables][kVecs] = {};
  for (int64_t row = first; row < last; ++row) {
    for (int n = 0; n < kVecs; ++n) {
      const Vec v = isa.load(in + row * stride + n * lanes);
      for (int m = 0; m < kTables; ++m) {
        sums[m][n] += weights[m][row] * v;
      }
    }
  }
  for (int m = 0; m < kTables; ++m) {
    for (int n = 0; n < kVecs; ++n) {
      isa.store(out[m] + n * lanes, sums[m][n]);
    }
  }
}

template <int kTables, typename acc>
void weigh_rows(
    acc* const (&out)[kTables], const Padded<acc>& in, const acc* const (&weights)[kTables], int64_t first,
    int64_t last) {
  const acc* from = in.row(0);
  const int64_t stride = in.stride;
  simd_call([&, from, stride, first, last](auto isa) {
    constexpr int lanes = simd::lanes<acc, decltype(isa)>;
    constexpr int kVecs = isa.bytes == 64 ? 2 : 4;
    acc* to[kTables];
    int64_t x = 0;
    for (; x + kVecs * lanes <= stride; x += kVecs * lanes) {
      for (int m = 0; m < kTables; ++m) {
        to[m] = out[m] + x;
      }
      weigh_block<kVecs, kTables>(isa, to, from + x, stride, weights, first, last);
    }
    for (; x < stride; x += lanes) {
      for (int m = 0; m < kTables; ++m) {
        to[m] = out[m] + x;
      }
      weigh_block<1, kTables>(isa, to, from + x, stride, weights, first, last);
    }
  });
}

// Row t of sum_down, term by term. peak is memory of a row.
template <typename acc>
void sum_terms(acc* sum, acc* peak, const Padded<acc>& in, const CostTable<acc>& table, int64_t t) {
  const int64_t stride = in.stride;
  simd_call([&, sum, peak, stride] {
    for (int64_t x = 0; x < stride; ++x) {
      peak[x] = -std::numeric_limits<acc>::infinity();
      sum[x] = 0;
    }
    for (int64_t s = 0; s < in.rows; ++s) {
      const acc weight = table.log_weight[table.at(s, t)];
      const acc* from = in.row(s);
      for (int64_t x = 0; x < stride; ++x) {
        const acc term = from[x] + weight;
        peak[x] = term > peak[x] ? term : peak[x];
      }
    }
    for (int64_t x = 0; x < stride; ++x) {
      peak[x] = offset_of(peak[x]);
    }
    for (int64_t s = 0; s < in.rows; ++s) {
      const acc weight = table.log_weight[table.at(s, t)];
      const acc* from = in.row(s);
      for (int64_t x = 0; x < stride; ++x) {
        sum[x] += simd::exp(from[x] + weight - peak[x]);
      }
    }
    for (int64_t x = 0; x < stride; ++x) {
      // The logarithm of at least 1, or of nothing.
      const acc total = sum[x];
      const acc logarithm = peak[x] + simd::log(total > 0 ? total : acc(1));
      sum[x] = total > 0 ? logarithm : -std::numeric_limits<acc>::infinity();
    }
  });
}

// The lowest of 1 and the numbers, none of which is negative: as their bits, whose minimum is a vector loop, unlike that of
// numbers that may be NaN.
template <typename acc>
struct Lowest {
  using Bits = std::conditional_t<sizeof(acc) == 8, uint64_t, uint32_t>;
  Bits bits = simd::bits_to<Bits>(acc(1));

  PYPOSE_OPS_HOST_DEVICE void add(acc number) {
    const Bits other = simd::bits_to<Bits>(number);
    bits = other < bits ? other : bits;
  }
  PYPOSE_OPS_HOST_DEVICE acc value() const {
    return simd::bits_to<acc>(bits);
  }
};

// sums -> peak + log of them, unless one of them is not safe.
template <typename acc>
bool take_logarithms(acc* sums, const acc* peaks, acc largest, int64_t columns, int64_t stride) {
  acc lowest = 1;
  simd_call([&, sums, peaks, columns] {
    Lowest<acc> least;
    for (int64_t x = 0; x < columns; ++x) {
      const acc sum = sums[x];
      least.add(is_possible(peaks[x]) ? sum : acc(1));
    }
    lowest = least.value();
  });
  if (lowest < kSafeSum<acc>) {
    return false;
  }
  simd_call([=] {
    for (int64_t x = 0; x < stride; ++x) {
      const acc sum = is_possible(peaks[x]) ? sums[x] : acc(1);
      sums[x] = peaks[x] + (largest + simd::log(sum));
    }
  });
  return true;
}

// What the passes share.
template <typename acc>
struct SumScratch {
  std::vector<acc> peaks, row;

  explicit SumScratch(const Shape& s) : row(std::max(s.height, s.width) + 16) {}
};

// out(t) = the sum over rows s of exponentials(s) weight(s - t), in every column; done(t) follows.
template <typename acc, typename Done>
void weigh_down(Padded<acc>& out, const Padded<acc>& exponentials, const SpringTable<acc>& table, const Done& done) {
  const int64_t n = out.rows;
  for (int64_t t = 0; t < n; t += 2) {
    const int64_t base = n - 1 - t;  // k = s + base
    const int64_t first = std::max<int64_t>(0, table.low - base);
    const int64_t last = std::min<int64_t>(n, table.high - base + 2);
    const acc* weight = table.weight.data() + base;
    if (t + 1 < n) {
      weigh_rows<2, acc>({out.row(t), out.row(t + 1)}, exponentials, {weight, weight - 1}, first, last);
    } else {
      weigh_rows<1, acc>({out.row(t)}, exponentials, {weight}, first, last);
    }
    for (int64_t row = t; row < std::min(n, t + 2); ++row) {
      done(row);
    }
  }
}

// out(t) = log of the sum over rows s of exp(in(s) - cost(s, t)), in every column; exponentials is memory of the map.
template <typename acc>
void sum_down(
    Padded<acc>& out, Padded<acc>& exponentials, const Padded<acc>& in, const SpringTable<acc>& table,
    SumScratch<acc>& scratch) {
  take_exponentials(exponentials, scratch.peaks, in);
  weigh_down(out, exponentials, table, [&](int64_t row) {
    if (!take_logarithms(out.row(row), scratch.peaks.data(), table.largest, in.columns, in.stride)) {
      sum_terms(out.row(row), scratch.row.data(), in, table.cost, row);
    }
  });
}

// A message's two passes: source (H, W) -> along_x (H, W), after the pass along x -> out (H, W).
template <typename acc>
struct Passes {
  Padded<acc> across, across_out, across_exponentials;  // transposed: (W, H)
  Padded<acc> along_x, out, exponentials;
  SpringTable<acc> table_x, table_y;
  SumScratch<acc> scratch;

  explicit Passes(const Shape& s)
      : across(s.width, s.height),
        across_out(s.width, s.height),
        across_exponentials(s.width, s.height),
        along_x(s.height, s.width),
        out(s.height, s.width),
        exponentials(s.height, s.width),
        scratch(s) {}

  void fill_tables(const acc* springs, const Tables& t, int64_t i) {
    table_x.fill(spring_of(springs, t.edge[i], t.sign[i], 0), across.rows);
    table_y.fill(spring_of(springs, t.edge[i], t.sign[i], 1), along_x.rows);
  }
  // source is (H, W) without padding.
  void pass_x(const acc* source) {
    transpose(across, source, along_x.columns);
    sum_down(across_out, across_exponentials, across, table_x, scratch);
    transpose(along_x, across_out.data.data(), across_out.stride);
  }
  void pass_y() {
    sum_down(out, exponentials, along_x, table_y, scratch);
  }
};

}  // namespace tree
}  // namespace pypose_ops

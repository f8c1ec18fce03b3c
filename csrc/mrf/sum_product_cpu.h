// The two halves of a message of sum_product on the CPU, shared by forward and backward. Both run down columns, many of
// them side by side; along x they run on the transposed map.
#pragma once

#include <vector>

#include "mrf/sum_product.h"
#include "mrf/tree_cpu.h"

namespace pypose_ops {
namespace tree {

// out(t) = log of the sum over rows s of exp(in(s) + log_weight(s, t)), in every column.
template <typename acc>
void sum_down(Padded<acc>& out, const Padded<acc>& in, const CostTable<acc>& table, Padded<acc>& scratch) {
  const int64_t rows = in.rows;
  const int64_t stride = in.stride;
  std::vector<acc> highest;
  row_limits<true>(highest, in);
  acc* peak = scratch.row(0);
  for (int64_t t = 0; t < rows; ++t) {
    acc* sum = out.row(t);
    simd_call([&, peak, sum, stride] {
      for (int64_t x = 0; x < stride; ++x) {
        peak[x] = -std::numeric_limits<acc>::infinity();
        sum[x] = 0;
      }
      for (int64_t s = 0; s < rows; ++s) {
        const acc weight = table.log_weight[table.at(s, t)];
        const acc* from = in.row(s);
        for (int64_t x = 0; x < stride; ++x) {
          const acc term = from[x] + weight;
          peak[x] = term > peak[x] ? term : peak[x];
        }
      }
      acc lowest = std::numeric_limits<acc>::max();
      for (int64_t x = 0; x < stride; ++x) {
        peak[x] = offset_of(peak[x]);
      }
      for (int64_t x = 0; x < in.columns; ++x) {
        lowest = peak[x] < lowest ? peak[x] : lowest;
      }
      for (int64_t s = 0; s < rows; ++s) {
        const acc weight = table.log_weight[table.at(s, t)];
        if (!(highest[s] + weight - lowest >= kNegligible<acc>)) {
          continue;
        }
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
}

// A message's two passes: source (H, W) -> along_x (H, W), after the pass along x -> out (H, W).
template <typename acc>
struct Passes {
  Padded<acc> across, across_out;  // transposed: (W, H)
  Padded<acc> along_x, out, scratch;
  CostTable<acc> table_x, table_y;

  explicit Passes(const Shape& s)
      : across(s.width, s.height),
        across_out(s.width, s.height),
        along_x(s.height, s.width),
        out(s.height, s.width),
        scratch(1, std::max(s.height, s.width)) {}

  void fill_tables(const acc* springs, const Tables& t, int64_t i) {
    table_x.fill(spring_of(springs, t.edge[i], t.sign[i], 0), across.rows);
    table_y.fill(spring_of(springs, t.edge[i], t.sign[i], 1), along_x.rows);
  }
  // source is (H, W) without padding.
  void pass_x(const acc* source) {
    transpose(across, source, along_x.columns);
    sum_down(across_out, across, table_x, scratch);
    transpose(along_x, across_out.data.data(), across_out.stride);
  }
  void pass_y() {
    sum_down(out, along_x, table_y, scratch);
  }
};

}  // namespace tree
}  // namespace pypose_ops

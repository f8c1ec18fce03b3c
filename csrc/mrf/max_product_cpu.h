// The two passes of a message of max_product on the CPU. Short lines are cheaper by trying every source near enough, many
// lines side by side, than by the envelope, whose branches are unpredictable; long ones go through the envelope.
#pragma once

#include <cmath>
#include <vector>

#include "mrf/max_product.h"
#include "mrf/tree_cpu.h"

namespace pypose_ops {
namespace tree {

constexpr int64_t kShortLine = 256;

// The rows s that can be the best for target t somewhere: all others are below what one row surely gives.
template <typename acc>
struct Sources {
  int64_t first, last;

  Sources(
      const std::vector<acc>& highest, const std::vector<acc>& lowest, const CostTable<acc>& table, acc shift, int64_t t)
      : first(0), last(table.n - 1) {
    const acc expected = static_cast<acc>(t) + shift;
    const int64_t nearest = expected >= static_cast<acc>(last) ? last : expected > 0 ? std::lround(expected) : 0;
    const acc sure = lowest[nearest] + table.log_weight[table.at(nearest, t)];
    while (first < last && highest[first] + table.log_weight[table.at(first, t)] < sure) {
      ++first;
    }
    while (last > first && highest[last] + table.log_weight[table.at(last, t)] < sure) {
      --last;
    }
  }
};

// kVecs vectors of columns: the highest of the sources, the first of equals, and (kWhich) which one it is.
template <int kVecs, bool kWhich, typename Isa, typename acc>
PYPOSE_OPS_HOST_DEVICE void best_of_columns(
    Isa isa, acc* out, acc* best, const acc* in, int64_t stride, const acc* log_weight, int64_t first, int64_t last) {
  using Vec = simd::vec<acc, Isa>;
  constexpr int lanes = simd::lanes<acc, Isa>;
  Vec value[kVecs], source[kVecs];
  for (int n = 0; n < kVecs; ++n) {
    value[n] = Vec{} - std::numeric_limits<acc>::infinity();
    source[n] = Vec{} - acc(1);
  }
  for (int64_t s = first; s <= last; ++s) {
    const Vec here = Vec{} + static_cast<acc>(s);
    const acc weight = log_weight[s];
    for (int n = 0; n < kVecs; ++n) {
      const Vec term = isa.load(in + s * stride + n * lanes) + weight;
      if (kWhich) {
        source[n] = term > value[n] ? here : source[n];
      }
      value[n] = term > value[n] ? term : value[n];
    }
  }
  for (int n = 0; n < kVecs; ++n) {
    isa.store(out + n * lanes, value[n]);
    if (kWhich) {
      isa.store(best + n * lanes, source[n]);
    }
  }
}

// In every column out(t) = the highest of in(s) - cost(s, t), and with kWhich best(t) = that s or -1.
template <bool kWhich, typename acc>
void best_down(
    Padded<acc>& out, Padded<acc>& best, const Padded<acc>& in, const CostTable<acc>& table, acc shift) {
  std::vector<acc> highest, lowest;
  row_limits<true>(highest, in);
  row_limits<false>(lowest, in);
  const int64_t stride = in.stride;
  for (int64_t t = 0; t < in.rows; ++t) {
    const Sources<acc> sources(highest, lowest, table, shift, t);
    const acc* log_weight = table.log_weight.data() + table.at(0, t);
    const acc* from = in.row(0);
    acc* to = out.row(t);
    acc* which = best.row(t);
    simd_call([=](auto isa) {
      constexpr int lanes = simd::lanes<acc, decltype(isa)>;
      int64_t x = 0;
      for (; x + 4 * lanes <= stride; x += 4 * lanes) {
        best_of_columns<4, kWhich>(isa, to + x, which + x, from + x, stride, log_weight, sources.first, sources.last);
      }
      for (; x + 2 * lanes <= stride; x += 2 * lanes) {
        best_of_columns<2, kWhich>(isa, to + x, which + x, from + x, stride, log_weight, sources.first, sources.last);
      }
      for (; x < stride; x += lanes) {
        best_of_columns<1, kWhich>(isa, to + x, which + x, from + x, stride, log_weight, sources.first, sources.last);
      }
    });
  }
}

// A pass over columns that are lines of their own in (columns, rows), transposed.
template <typename acc>
struct Envelopes {
  std::vector<acc> from;
  std::vector<int16_t> hull, best;

  explicit Envelopes(const Shape& s)
      : from(std::max(s.height, s.width)), hull(from.size()), best(from.size()) {}

  // One line of n elements; best as numbers of acc.
  void transform(acc* out, acc* which, const acc* in, int64_t n, const Spring<acc>& spring) {
    transform_line<acc>({in, out, best.data(), 1, 1, hull.data(), from.data(), 1, static_cast<int>(n)}, spring);
    std::copy(best.begin(), best.begin() + n, which);
  }
};

// A message's two passes. Buffers named *_across are transposed, (W, H).
template <typename acc>
struct MaxPasses {
  Padded<acc> across, out_across, best_across;
  Padded<acc> rows, out, best;
  CostTable<acc> table;
  Envelopes<acc> envelopes;

  explicit MaxPasses(const Shape& s)
      : across(s.width, s.height),
        out_across(s.width, s.height),
        best_across(s.width, s.height),
        rows(s.height, s.width),
        out(s.height, s.width),
        best(s.height, s.width),
        envelopes(s) {}

  // source (H, W) without padding -> rows; steps, unless null, receives the columns.
  void pass_x(int16_t* steps, const acc* source, const Spring<acc>& spring) {
    const int64_t height = rows.rows;
    const int64_t width = rows.columns;
    if (width > kShortLine) {
      for (int64_t y = 0; y < height; ++y) {
        envelopes.transform(rows.row(y), best.row(y), source + y * width, width, spring);
      }
    } else {
      table.fill(spring, width);
      transpose(across, source, width);
      search(out_across, best_across, across, spring.shift, steps);
      transpose(rows, out_across.data.data(), out_across.stride);
      if (steps) {
        transpose(best, best_across.data.data(), best_across.stride);
      }
    }
    write_steps(steps);
  }

  // rows -> message (H, W) without padding; steps, unless null, receives the rows.
  void pass_y(acc* message, int16_t* steps, const Spring<acc>& spring) {
    const int64_t height = rows.rows;
    const int64_t width = rows.columns;
    if (height > kShortLine) {
      transpose(across, rows.data.data(), rows.stride);
      for (int64_t x = 0; x < width; ++x) {
        envelopes.transform(out_across.row(x), best_across.row(x), across.row(x), height, spring);
      }
      transpose(out, out_across.data.data(), out_across.stride);
      transpose(best, best_across.data.data(), best_across.stride);
    } else {
      table.fill(spring, height);
      search(out, best, rows, spring.shift, steps);
    }
    for (int64_t y = 0; y < height; ++y) {
      std::copy(out.row(y), out.row(y) + width, message + y * width);
    }
    write_steps(steps);
  }

 private:
  void search(Padded<acc>& to, Padded<acc>& which, const Padded<acc>& from, acc shift, const int16_t* steps) const {
    steps ? best_down<true>(to, which, from, table, shift) : best_down<false>(to, which, from, table, shift);
  }
  void write_steps(int16_t* steps) const {
    if (!steps) {
      return;
    }
    for (int64_t y = 0; y < best.rows; ++y) {
      const acc* from = best.row(y);
      int16_t* to = steps + y * best.columns;
      const int64_t width = best.columns;
      simd_call([=] {
        for (int64_t x = 0; x < width; ++x) {
          to[x] = static_cast<int16_t>(static_cast<int32_t>(from[x]));
        }
      });
    }
  }
};

}  // namespace tree
}  // namespace pypose_ops

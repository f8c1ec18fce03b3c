// The sparse half of the gradients of mrf_message_passing on the CPU: what the active pixels add to the prior, and what
// the prior sends back to them, in one pass over the slopes.
//
// The pairs are ordered by columns. The pixels of a column meet the same columns of a prior's row, so its row and the
// gradient of its row stay in registers for all of them, and each vector of slopes serves four multiplications.
#pragma once

#include <vector>

#include "mrf/mrf_sparse.h"

namespace pypose_ops {
namespace mrf {

// A map's pairs by column, then row.
template <typename acc>
struct PairColumns {
  struct Entry {
    acc upper, lower;
    int32_t row;  // y * stride of the upper pixel, y from -1 on
  };
  std::vector<Entry> pairs;
  std::vector<int32_t> begin;  // (width + 1)

  PairColumns(const PairList<acc>& list, const Frame& f) : begin(f.width + 1, 0) {
    const Pair<acc>* first = list.begin_row(0, -1);
    const Pair<acc>* last = list.end_row(f.strips - 1, f.height - 1);
    pairs.resize(last - first);
    const auto row_of = [&](const Pair<acc>& pair) { return (pair.at + f.stride) / f.stride - 1; };
    for (const Pair<acc>* pair = first; pair < last; ++pair) {
      ++begin[pair->at - row_of(*pair) * f.stride + 1];
    }
    for (int64_t x = 0; x < f.width; ++x) {
      begin[x + 1] += begin[x];
    }
    // A strip's pairs come by rows, so those of a column do.
    std::vector<int32_t> next(begin.begin(), begin.end() - 1);
    for (const Pair<acc>* pair = first; pair < last; ++pair) {
      const int64_t y = row_of(*pair);
      pairs[next[pair->at - y * f.stride]++] = {pair->upper, pair->lower, static_cast<int32_t>(y * f.stride)};
    }
  }
};

// Elements (0, 0) of padded buffers, and of the prior's gradient; null: not wanted.
template <typename acc>
struct GradientFrame {
  const acc* prior;
  const acc* slope;
  acc* grad_prior;
  int64_t grad_stride;
};

// What a block of columns of slopes, from x on, adds: rows i and i + 1 of the prior meet a pair at (y, px) on row
// y + 1 + i - reach of the slopes, the first with the lower pixel, the second with the upper. sums holds two vectors per
// pair, which end up as the gradients of its pixels.
template <int kVecs, bool kPrior, bool kUnary, typename Isa, typename acc>
PYPOSE_OPS_HOST_DEVICE void correlate_block(
    Isa isa, acc* sums, const GradientFrame<acc>& from, const Frame& f, const typename PairColumns<acc>::Entry* pair,
    const typename PairColumns<acc>::Entry* end, int64_t i, int64_t px, int64_t x) {
  using Vec = simd::vec<acc, Isa>;
  constexpr int lanes = simd::lanes<acc, Isa>;
  const int64_t column = x - px + f.reach_x;
  Sums<acc, Isa, kVecs> weights, grads{};
  for (int n = 0; kUnary && n < kVecs; ++n) {
    weights.first[n] = isa.load(from.prior + i * f.stride + column + n * lanes);
    weights.second[n] = isa.load(from.prior + (i + 1) * f.stride + column + n * lanes);
  }
  const acc* slope = from.slope + (1 + i - f.reach_y) * f.stride + x;
  for (; pair < end; ++pair, sums += 2 * lanes) {
    const acc* row = slope + pair->row;
    Vec lower{}, upper{};
    if (kUnary) {
      lower = isa.load(sums);
      upper = isa.load(sums + lanes);
    }
    for (int n = 0; n < kVecs; ++n) {
      const Vec q = isa.load(row + n * lanes);
      if (kPrior) {
        grads.first[n] += pair->lower * q;
        grads.second[n] += pair->upper * q;
      }
      if (kUnary) {
        lower += weights.first[n] * q;
        upper += weights.second[n] * q;
      }
    }
    if (kUnary) {
      isa.store(sums, lower);
      isa.store(sums + lanes, upper);
    }
  }
  for (int n = 0; kPrior && n < kVecs; ++n) {
    acc* to = from.grad_prior + i * from.grad_stride + column + n * lanes;
    isa.store(to, isa.load(to) + grads.first[n]);
    isa.store(to + from.grad_stride, isa.load(to + from.grad_stride) + grads.second[n]);
  }
}

// One strip of columns. Rows of the prior are outermost: their row, and that of the gradient, serve all the columns.
template <int kVecs, bool kPrior, bool kUnary, typename Isa, typename acc>
PYPOSE_OPS_HOST_DEVICE void correlate_strip(
    Isa isa, acc* sums, const GradientFrame<acc>& from, const Frame& f, const PairColumns<acc>& columns, int64_t first_column,
    int64_t last_column) {
  constexpr int lanes = simd::lanes<acc, Isa>;
  const auto* pairs = columns.pairs.data();
  int32_t low[kStrip], high[kStrip];
  for (int64_t px = first_column; px < last_column; ++px) {
    low[px - first_column] = high[px - first_column] = columns.begin[px + 1];
  }
  for (int64_t i = 0; i < f.rows; i += 2) {
    const int64_t top = std::max<int64_t>(-1, f.reach_y - i - 1) * f.stride;
    const int64_t bottom = std::min<int64_t>(f.height - 1, f.height - 2 - i + f.reach_y) * f.stride;
    for (int64_t px = first_column; px < last_column; ++px) {
      const int32_t begin = columns.begin[px];
      int32_t& from_pair = low[px - first_column];
      int32_t& to_pair = high[px - first_column];
      while (from_pair > begin && pairs[from_pair - 1].row >= top) {
        --from_pair;
      }
      while (to_pair > begin && pairs[to_pair - 1].row > bottom) {
        --to_pair;
      }
      if (from_pair >= to_pair) {
        continue;
      }
      const int64_t last = std::min<int64_t>(f.width, px + f.reach_x + 1);
      for (int64_t x = std::max<int64_t>(0, px - f.reach_x) / lanes * lanes; x < last; x += kVecs * lanes) {
        correlate_block<kVecs, kPrior, kUnary>(
            isa, sums + (from_pair - columns.begin[first_column]) * 2 * lanes, from, f, pairs + from_pair, pairs + to_pair, i,
            px, x);
      }
    }
  }
}

template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc sum_of(const acc* values, int count) {
  acc parts[4] = {};
  for (int i = 0; i < count; ++i) {
    parts[i % 4] += values[i];
  }
  return (parts[0] + parts[1]) + (parts[2] + parts[3]);
}

// grad_prior += , grad_unary (H, W) += ; sums is memory.
template <int kVecs, typename acc>
void correlate(
    acc* grad_unary, std::vector<acc>& sums, const GradientFrame<acc>& from, const Frame& f,
    const PairColumns<acc>& columns) {
  const int lanes = f.lanes;
  constexpr int64_t kLine = 64 / sizeof(acc);
  for (int64_t first = 0; first < f.width; first += kStrip) {
    const int64_t last = std::min(f.width, first + kStrip);
    const int64_t count = columns.begin[last] - columns.begin[first];
    if (count == 0) {
      continue;
    }
    // Aligned: vectors across two cache lines take twice as long.
    sums.assign(count * 2 * lanes + kLine, acc(0));
    acc* data = aligned(sums.data());
    simd_call([&, data](auto isa) {
      constexpr int kUsed = isa.bytes == 64 ? kVecs : std::min(kVecs, 2);  // AVX2 and SSE have 16 registers
      if (from.grad_prior && grad_unary) {
        correlate_strip<kUsed, true, true>(isa, data, from, f, columns, first, last);
      } else if (from.grad_prior) {
        correlate_strip<kUsed, true, false>(isa, data, from, f, columns, first, last);
      } else if (grad_unary) {
        correlate_strip<kUsed, false, true>(isa, data, from, f, columns, first, last);
      }
    });
    for (int64_t px = first; grad_unary && px < last; ++px) {
      for (int32_t n = columns.begin[px]; n < columns.begin[px + 1]; ++n, data += 2 * lanes) {
        const auto& pair = columns.pairs[n];
        const int64_t y = pair.row / f.stride;
        if (pair.lower > 0) {
          grad_unary[(y + 1) * f.width + px] += sum_of(data, lanes);
        }
        if (pair.upper > 0) {
          grad_unary[y * f.width + px] += sum_of(data + lanes, lanes);
        }
      }
    }
  }
}

}  // namespace mrf
}  // namespace pypose_ops

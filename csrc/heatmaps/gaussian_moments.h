// The CPU kernels' gradients of a map's blobs, from sums over its rows.
#pragma once

#include <algorithm>
#include <vector>

#include "heatmaps/gaussian_tables.h"

namespace pypose_ops {
namespace heatmaps {

// See blob_gradients.
template <typename acc>
struct Moments {
  acc sums[5] = {};
};

template <typename acc>
AxisSum<acc> axis_sum(const Axis<acc>& axis, int64_t n) {
  acc sum = 0, first = 0, second = 0;
  for (int64_t i = 0; i < n; ++i) {
    const acc value = axis.gaussian(i);
    if (value > 0) {  // u may overflow where the value is 0
      const acc u = axis.offset(i);
      sum += value;
      first += value * u;
      second += value * u * u;
    }
  }
  return AxisSum<acc>::of(axis, sum, first, second);
}

// Which blob each pixel of the row belongs to: the first maximum, or -1 where a clipped sum has no slope.
template <typename acc>
void row_owners(Tables<acc>& tables, const Options& options, int64_t y, acc* row, int32_t* owner) {
  const int64_t width = tables.width;
  std::fill(row, row + width, acc(0));
  std::fill(owner, owner + width, 0);
  for (size_t i = 0; i < tables.blobs.size(); ++i) {
    const acc* tx = tables.row_x(i);
    const acc ty = tables.row_y(i)[y];
    for (int64_t x = 0; x < width; ++x) {
      const acc value = tx[x] * ty;
      if (options.combine == Combine::max) {
        owner[x] = value > row[x] ? static_cast<int32_t>(i) : owner[x];
        row[x] = value > row[x] ? value : row[x];
      } else {
        row[x] += value;
        owner[x] = row[x] > acc(1) ? -1 : 0;
      }
    }
  }
}

// Adds row y's share of blob i's moments. The lanes keep the order of the sums independent of the instruction set.
template <typename T, typename acc = acc_t<T>>
void row_moments(
    const T* grad, const acc* tx, acc ty, const Axis<acc>& ax, acc uy, int64_t width, const int32_t* owner,
    int32_t wanted, Moments<acc>& moments) {
  constexpr int kLanes = 16;
  acc one[kLanes] = {}, ux[kLanes] = {}, uxx[kLanes] = {};
  simd_call([&] {
    for (int64_t base = 0; base < width; base += kLanes) {
      const int64_t n = std::min<int64_t>(kLanes, width - base);
      for (int64_t j = 0; j < n; ++j) {
        const int64_t x = base + j;
        const acc value = tx[x] * ty;
        const bool mine = value > 0 && (!owner || owner[x] == wanted);
        const acc g = mine ? simd::load(grad[x]) * value : acc(0);
        const acc u = mine ? ax.offset(x) : acc(0);
        one[j] += g;
        ux[j] += g * u;
        uxx[j] += g * u * u;
      }
    }
  });
  acc sum = 0, sum_ux = 0, sum_uxx = 0;
  for (int j = 0; j < kLanes; ++j) {
    sum += one[j];
    sum_ux += ux[j];
    sum_uxx += uxx[j];
  }
  const acc shares[5] = {sum, sum_ux, sum_uxx, sum * uy, sum * uy * uy};
  for (int i = 0; i < 5; ++i) {
    moments.sums[i] += shares[i];
  }
}

// Adds row y's share of every blob's moments. row and owner are scratch, one element per column.
template <typename T, typename acc = acc_t<T>>
void add_row_moments(
    const T* grad, Tables<acc>& tables, const Options& options, int64_t y, acc* row, int32_t* owner,
    std::vector<Moments<acc>>& moments) {
  const bool competing = tables.blobs.size() > 1 && options.combine != Combine::sum;
  if (competing) {
    row_owners(tables, options, y, row, owner);
  }
  for (size_t i = 0; i < tables.blobs.size(); ++i) {
    const acc ty = tables.row_y(i)[y];
    if (ty > 0) {
      const int32_t wanted = options.combine == Combine::max ? static_cast<int32_t>(i) : 0;
      row_moments(
          grad, tables.row_x(i), ty, tables.blobs[i].x, tables.blobs[i].y.offset(y), tables.width,
          competing ? owner : nullptr, wanted, moments[i]);
    }
  }
}

// The moments of a map's blobs -> their places in grad_keypoints and grad_sigma, (B, P, K, 2).
template <typename acc>
void write_gradients(
    const Tables<acc>& tables, const std::vector<Moments<acc>>& moments, acc* grad_keypoints, acc* grad_sigma,
    const Options& options, const Shape& shape, int64_t b, int64_t k) {
  for (size_t i = 0; i < tables.blobs.size(); ++i) {
    AxisSum<acc> sum_x, sum_y;
    if (options.normalize == Normalize::sum) {
      sum_x = axis_sum(tables.blobs[i].x, shape.width);
      sum_y = axis_sum(tables.blobs[i].y, shape.height);
    }
    const int64_t at = ((b * shape.people + tables.persons[i]) * shape.joints + k) * 2;
    blob_gradients(
        tables.blobs[i], moments[i].sums, sum_x, sum_y, options.center, grad_keypoints + at, grad_sigma + at);
  }
}

}  // namespace heatmaps
}  // namespace pypose_ops

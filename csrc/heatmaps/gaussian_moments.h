// The CPU kernels' gradients of a map's blobs, from sums over its rows.
#pragma once

#include <algorithm>
#include <vector>

#include "heatmaps/gaussian_tables.h"

namespace pypose_ops {
namespace heatmaps {

// The sums of blob_gradients, kept per column until the last row: each blob has rows of G ty, G ty uy and G ty uy^2 summed
// down the columns. Adding a row of the map is then a plain vector loop without a reduction.
template <typename acc>
class Moments {
 public:
  Moments(size_t blobs, int64_t width) : width_(width), columns_(blobs * 3 * width) {}

  template <typename T>
  void add_row(size_t blob, const T* grad, acc ty, acc uy) {
    acc* one = columns_.data() + blob * 3 * width_;
    acc* first = one + width_;
    acc* second = first + width_;
    const int64_t width = width_;
    simd_call([=] {
      for (int64_t x = 0; x < width; ++x) {
        const acc g = simd::load(grad[x]) * ty;
        one[x] += g;
        first[x] += g * uy;
        second[x] += g * uy * uy;
      }
    });
  }

  void sum_up(size_t blob, const acc* tx, const Axis<acc>& axis, acc (&sums)[5]) const {
    const acc* one = columns_.data() + blob * 3 * width_;
    for (int64_t x = 0; x < width_; ++x) {
      if (tx[x] > 0) {  // u may overflow where the value is 0
        const acc u = axis.offset(x);
        const acc g = one[x] * tx[x];
        sums[0] += g;
        sums[1] += g * u;
        sums[2] += g * u * u;
        sums[3] += one[width_ + x] * tx[x];
        sums[4] += one[2 * width_ + x] * tx[x];
      }
    }
  }

 private:
  int64_t width_;
  std::vector<acc> columns_;  // (blobs, 3, width)
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
    const bool highest = options.combine == Combine::max;
    simd_call([=] {
      for (int64_t x = 0; highest && x < width; ++x) {
        const acc value = tx[x] * ty, before = row[x];
        owner[x] = value > before ? static_cast<int32_t>(i) : owner[x];
        row[x] = value > before ? value : before;
      }
      for (int64_t x = 0; !highest && x < width; ++x) {
        const acc sum = row[x] + tx[x] * ty;
        row[x] = sum;
        owner[x] = sum > acc(1) ? -1 : 0;
      }
    });
  }
}

// Adds row y's share of every blob's moments. row and owner are scratch, one element per column.
template <typename T, typename acc = acc_t<T>>
void add_row_moments(
    const T* grad, Tables<acc>& tables, const Options& options, int64_t y, acc* row, int32_t* owner,
    Moments<acc>& moments) {
  const bool competing = tables.blobs.size() > 1 && options.combine != Combine::sum;
  if (competing) {
    row_owners(tables, options, y, row, owner);
  }
  for (size_t i = 0; i < tables.blobs.size(); ++i) {
    const acc ty = tables.row_y(i)[y];
    if (!(ty > 0)) {
      continue;
    }
    const acc uy = tables.blobs[i].y.offset(y);
    if (competing) {
      const int32_t wanted = options.combine == Combine::max ? static_cast<int32_t>(i) : 0;
      const int64_t width = tables.width;
      simd_call([=] {
        for (int64_t x = 0; x < width; ++x) {
          const acc value = simd::load(grad[x]);  // in any case: AVX2 has no masked reads of half precision
          row[x] = owner[x] == wanted ? value : acc(0);
        }
      });
      moments.add_row(i, row, ty, uy);
    } else {
      moments.add_row(i, grad, ty, uy);
    }
  }
}

// The moments of a map's blobs -> their places in grad_keypoints and grad_sigma, (B, P, K, 2).
template <typename acc>
void write_gradients(
    Tables<acc>& tables, const Moments<acc>& moments, acc* grad_keypoints, acc* grad_sigma,
    const Options& options, const Shape& shape, int64_t b, int64_t k) {
  for (size_t i = 0; i < tables.blobs.size(); ++i) {
    AxisSum<acc> sum_x, sum_y;
    if (options.normalize == Normalization::sum) {
      sum_x = axis_sum(tables.blobs[i].x, shape.width);
      sum_y = axis_sum(tables.blobs[i].y, shape.height);
    }
    acc sums[5] = {};
    moments.sum_up(i, tables.row_x(i), tables.blobs[i].x, sums);
    const int64_t at = ((b * shape.people + tables.persons[i]) * shape.joints + k) * 2;
    blob_gradients(
        tables.blobs[i], sums, sum_x, sum_y, options.center, grad_keypoints + at, grad_sigma + at);
  }
}

}  // namespace heatmaps
}  // namespace pypose_ops

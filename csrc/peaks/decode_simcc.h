// decode_simcc: checks, options and the formulas of one axis, shared by the CPU and CUDA kernels. A row holds the scores of
// the bins of one joint's x or y (Li et al., "SimCC", ECCV 2022).
#pragma once

#include <tuple>

#include "peaks/refine.h"

namespace pypose_ops {
namespace peaks {

constexpr int kMaxLineKernelSize = 127;

template <typename acc>
struct LineTaps {
  int size;
  acc weights[kMaxLineKernelSize];
};

template <typename scalar>
struct SimccArguments {
  using acc = acc_t<scalar>;
  const scalar* rows[2];  // (B, K, Wx), (B, K, Wy)
  const acc* transform;   // (B, 2, 3) or null; transform_stride 0: (2, 3)
  acc* coords;            // (B, K, 2)
  acc* scores;            // (B, K)
  int64_t transform_stride, joints;
  int bins[2];
  bool dark, compat;
  acc split_ratio, max_offset, threshold, missing;
  LineTaps<acc> taps[2];

  PYPOSE_OPS_HOST_DEVICE const scalar* row(int axis, int64_t number) const {
    return rows[axis] + number * bins[axis];
  }

  // Peaks and steps are in bins, the outputs in pixels.
  PYPOSE_OPS_HOST_DEVICE void write(int64_t number, Peak<acc> x, Peak<acc> y, Step<acc> step) const {
    acc score = 0;
    Step<acc> place = {missing, missing};
    if (x.found() && y.found()) {
      score = y.value < x.value ? y.value : x.value;
      step = limited(Step<acc>{step.x / split_ratio, step.y / split_ratio}, max_offset);
      place = {acc(x.index) / split_ratio + step.x, acc(y.index) / split_ratio + step.y};
      if (transform != nullptr) {
        place = transformed(place.x, place.y, transform + number / joints * transform_stride);
      }
    }
    coords[2 * number] = place.x;
    coords[2 * number + 1] = place.y;
    scores[number] = score;
  }
};

// Bin `center` of the row, blurred up to `reach` bins around it, zeros outside of the row.
template <typename scalar, typename acc>
PYPOSE_OPS_HOST_DEVICE acc blurred_bin(const scalar* row, int bins, const LineTaps<acc>& taps, int center, int reach) {
  const int middle = taps.size / 2;
  const int from = center - middle;
  const int left = center < reach ? center : reach;
  const int right = bins - 1 - center < reach ? bins - 1 - center : reach;
  acc sum = 0;
  for (int i = middle - left; i <= middle + right; ++i) {
    sum += taps.weights[i] * static_cast<acc>(row[from + i]);
  }
  return sum;
}

// MMPose repeats the outermost logarithms where the differences leave the row. Else they are moved inside, where there is
// room.
PYPOSE_OPS_HOST_DEVICE bool line_dark_applies(int bins, bool compat) {
  return compat || bins > 2 * kReach;
}

// Where the differences of a peak are taken, and how far the blur reaches there without leaving the row.
struct LineStencil {
  int center, reach;

  PYPOSE_OPS_HOST_DEVICE LineStencil(int peak, int bins, int kernel_size, bool compat)
      : center(compat ? peak : moved_inward(peak, kReach, bins)),
        reach(compat ? kernel_size / 2 : room(center, kReach, bins, kernel_size / 2)) {}
};

PYPOSE_OPS_HOST_DEVICE int clamped(int index, int bins) {
  return index < 0 ? 0 : index < bins ? index : bins - 1;
}

// DARK's Newton step along one axis, from the blurred bins around the stencil's centre, `away` bins from the peak. A bin that
// is not finite among those that they are made of: no step.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc line_step(const acc (&blurred)[kSpan], acc peak, int away, bool compat) {
  acc highest = 0;
  for (int i = 0; i < kSpan; ++i) {
    highest = blurred[i] > highest ? blurred[i] : highest;
  }
  const acc scale = compat ? peak / highest : acc(1);
  const acc low = compat ? acc(1e-3) : acc(1e-10);
  const acc high = compat ? acc(50) : std::numeric_limits<acc>::infinity();
  acc h[kSpan];
  for (int i = 0; i < kSpan; ++i) {
    h[i] = log_blurred(blurred[i] * scale, low, high);
  }
  const acc slope = acc(0.5) * (h[3] - h[1]);
  const acc curvature = acc(0.25) * (h[4] - 2 * h[2] + h[0]) + (compat ? acc(1e-9) : acc(0));
  const acc step = compat || curvature < -least_curvature(h[kReach]) ? acc(away) - slope / curvature : acc(0);
  constexpr acc infinity = std::numeric_limits<acc>::infinity();
  return step < infinity && step > -infinity ? step : acc(0);
}

constexpr const char* kSimcc = "decode_simcc";

inline void check_simcc(
    const Tensor& x, const Tensor& y, double split_ratio, int64_t kernel_x, int64_t kernel_y,
    const std::optional<Tensor>& transform, double threshold) {
  check_threshold(kSimcc, threshold);
  for (const auto& [name, rows] : {std::make_tuple("x", &x), std::make_tuple("y", &y)}) {
    check_dim(kSimcc, name, *rows, 3, "(B, K, bins)");
    check_floating(kSimcc, name, *rows);
    PYPOSE_OPS_CHECK(
        rows->size(2) > 0 && rows->size(2) <= int64_t{1} << 30, kSimcc, ": ", name,
        " must have from 1 to 2^30 bins, got shape ", shape_of(*rows));
  }
  check_same_device(kSimcc, "y", y, "x", x);
  PYPOSE_OPS_CHECK(
      x.scalar_type() == y.scalar_type(), kSimcc, ": y must have the dtype of x, ",
      torch::headeronly::toString(x.scalar_type()), ", got ", torch::headeronly::toString(y.scalar_type()));
  check_size(kSimcc, "y", y, 0, x.size(0));
  check_size(kSimcc, "y", y, 1, x.size(1));
  PYPOSE_OPS_CHECK(
      split_ratio > 0 && split_ratio < std::numeric_limits<double>::infinity(), kSimcc,
      ": split_ratio must be positive and finite, got ", split_ratio);
  check_kernel_size(kSimcc, kernel_x, kMaxLineKernelSize);
  check_kernel_size(kSimcc, kernel_y, kMaxLineKernelSize);
  if (transform.has_value()) {
    check_transform(kSimcc, x, *transform, "x");
  }
}

template <typename acc>
LineTaps<acc> line_taps(int64_t size) {
  double weights[kMaxLineKernelSize];
  gaussian_weights(static_cast<int>(size), std::nullopt, weights);
  LineTaps<acc> taps = {};
  taps.size = static_cast<int>(size);
  for (int i = 0; i < taps.size; ++i) {
    taps.weights[i] = static_cast<acc>(weights[i]);
  }
  return taps;
}

// The inputs as the kernels want them, and the outputs; they own what SimccArguments points to.
struct SimccTensors {
  Tensor x, y;
  std::optional<Tensor> transform;
  Tensor coords, scores;

  SimccTensors(const Tensor& x, const Tensor& y, const std::optional<Tensor>& transform)
      : x(x), y(y), transform(transform) {
    const ScalarType acc = acc_scalar_type(x.scalar_type());
    coords = empty_beside(x, {x.size(0), x.size(1), 2}, acc);
    scores = empty_beside(x, {x.size(0), x.size(1)}, acc);
  }

  template <typename scalar>
  SimccArguments<scalar> arguments(
      double split_ratio, bool dark, bool compat, int64_t kernel_x, int64_t kernel_y, double max_offset,
      double threshold, double missing) {
    using acc = acc_t<scalar>;
    x = as_contiguous(x);
    y = as_contiguous(y);
    transform = as_contiguous(transform, scores.scalar_type());
    SimccArguments<scalar> args = {};
    args.rows[0] = x.template const_data_ptr<scalar>();
    args.rows[1] = y.template const_data_ptr<scalar>();
    if (transform.has_value()) {
      args.transform = transform->template const_data_ptr<acc>();
      args.transform_stride = transform->dim() == 3 ? 6 : 0;
    }
    args.coords = coords.template mutable_data_ptr<acc>();
    args.scores = scores.template mutable_data_ptr<acc>();
    args.joints = x.size(1);
    args.bins[0] = static_cast<int>(x.size(2));
    args.bins[1] = static_cast<int>(y.size(2));
    args.dark = dark;
    args.compat = compat;
    args.split_ratio = static_cast<acc>(split_ratio);
    args.max_offset = static_cast<acc>(max_offset);
    args.threshold = static_cast<acc>(threshold);
    args.missing = static_cast<acc>(missing);
    args.taps[0] = line_taps<acc>(kernel_x);
    args.taps[1] = line_taps<acc>(kernel_y);
    return args;
  }
};

}  // namespace peaks
}  // namespace pypose_ops

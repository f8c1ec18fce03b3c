// Steps from a peak to a place between the pixels: options, checks and formulas that the peak operators share.
#pragma once

#include <cmath>
#include <limits>
#include <optional>
#include <string>

#include <torch/csrc/stable/ops.h>

#include "common/check.h"
#include "common/dispatch.h"

namespace pypose_ops {
namespace peaks {

enum class Refine : int { none, quarter, dark };  // in the order of the names in pypose_ops/peaks.py
constexpr int kRefines = 3;

constexpr int kMaxKernelSize = 63;
constexpr int kReach = 2;  // DARK's differences look this far from the peak, in both axes
constexpr int kSpan = 2 * kReach + 1;

// The blur's weights between kSpan - 1 zeros, so that one pixel is weighted for kSpan neighbouring outputs at once,
// without asking which of them it belongs to.
template <typename acc>
struct Taps {
  int size;
  acc padded[kMaxKernelSize + 2 * (kSpan - 1)];

  POSE_HD acc operator[](int i) const {
    return padded[i + kSpan - 1];
  }
};

template <typename acc>
struct Peak {
  acc value;  // 0: none
  int index;
};

template <typename acc>
struct Step {
  acc x, y;
};

// The column of the flipped twin that lands on column x. With the shift the mirrored map moves right by one pixel (the
// half-pixel error of MSRA's convention, twice) and its column 0 stays.
POSE_HD int mirrored_column(int x, int width, bool shift) {
  return width - 1 - x + (shift && x > 0 ? 1 : 0);
}

template <typename acc>
POSE_HD acc merged(acc value, acc mirrored) {
  return acc(0.5) * (value + mirrored);
}

// One map of a call. A pixel is the merged one: where a flipped twin is given, the mean of the map and the mirrored twin.
template <typename scalar>
struct MapView {
  using acc = acc_t<scalar>;
  const scalar* map;
  const scalar* twin;  // the flipped map of the mirrored joint, or null
  int height, width;
  bool shift;

  POSE_HD acc operator()(int x, int y) const {
    const int row = y * width;
    const acc value = static_cast<acc>(map[row + x]);
    return twin == nullptr ? value
                           : merged(value, static_cast<acc>(twin[row + mirrored_column(x, width, shift)]));
  }
};

// Whether a pixel takes the lead from the peak so far: never one that is not finite, and of equals the first.
template <typename acc>
POSE_HD bool leads(acc value, acc best) {
  return value > best && value < std::numeric_limits<acc>::infinity();
}

// Of two peaks the higher, of equals the one with the lower index.
template <typename acc>
POSE_HD Peak<acc> better(Peak<acc> a, Peak<acc> b) {
  return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}

// A quarter pixel towards the higher neighbour (Newell et al., ECCV 2016), with the borders of MMPose 1.x: each axis
// skips its own first two and last pixels and the first row (column) of the other.
template <typename scalar, typename acc = acc_t<scalar>>
POSE_HD Step<acc> quarter_step(const MapView<scalar>& map, int x, int y) {
  const auto towards = [](acc low, acc high) { return acc(0.25) * (acc(high > low) - acc(high < low)); };
  Step<acc> step = {0, 0};
  if (x > 1 && x < map.width - 1 && y > 0) {
    step.x = towards(map(x - 1, y), map(x + 1, y));
  }
  if (y > 1 && y < map.height - 1 && x > 0) {
    step.y = towards(map(x, y - 1), map(x, y + 1));
  }
  return step;
}

// DARK steps only where all of its differences stay inside the map.
POSE_HD bool dark_applies(int x, int y, int width, int height) {
  return x >= kReach && x < width - kReach && y >= kReach && y < height - kReach;
}

// log of a blurred pixel; NaN where it is not finite. One such pixel in the patch that DARK reads, kernel size + 4 wide and
// high, also where its tap is 0, makes a log NaN and so the step: there is none then.
template <typename acc>
POSE_HD acc log_blurred(acc blurred) {
  const acc floor = acc(1e-10);
  return std::log(blurred < floor ? floor : blurred) + (blurred - blurred);
}

// The Newton step -H^-1 g to the top of the Gaussian whose logs are h (Zhang et al., "Distribution-Aware Coordinate
// Representation", CVPR 2020, eq. 4-8). h is h[y][x] around the peak; only |x| + |y| <= kReach is read, 13 of the 25.
// Beyond the paper: no step where H is not negative definite, the peak then being no maximum of a Gaussian.
template <typename acc>
POSE_HD Step<acc> newton_step(const acc (&h)[kSpan][kSpan]) {
  const acc dx = acc(0.5) * (h[2][3] - h[2][1]);
  const acc dy = acc(0.5) * (h[3][2] - h[1][2]);
  const acc dxx = acc(0.25) * (h[2][4] - 2 * h[2][2] + h[2][0]);
  const acc dyy = acc(0.25) * (h[4][2] - 2 * h[2][2] + h[0][2]);
  const acc dxy = acc(0.25) * (h[3][3] - h[1][3] - h[3][1] + h[1][1]);
  const acc determinant = dxx * dyy - dxy * dxy;
  if (!(dxx < 0 && determinant > 0)) {
    return {0, 0};
  }
  return {(dxy * dy - dyy * dx) / determinant, (dxy * dx - dxx * dy) / determinant};
}

// Never longer than max_offset, and none at all where it is not finite.
template <typename acc>
POSE_HD Step<acc> limited(Step<acc> step, acc max_offset) {
  const acc length = std::sqrt(step.x * step.x + step.y * step.y);
  if (!(length < std::numeric_limits<acc>::infinity())) {
    return {0, 0};
  }
  const acc scale = length > max_offset ? max_offset / length : acc(1);
  return {step.x * scale, step.y * scale};
}

// The peak at pixel `index` after its step, through the map's affine where there is one.
template <typename acc>
POSE_HD Step<acc> placed(int index, int width, Step<acc> step, const acc* transform) {
  const acc x = acc(index % width) + step.x;
  const acc y = acc(index / width) + step.y;
  if (transform == nullptr) {
    return {x, y};
  }
  return {
      transform[0] * x + transform[1] * y + transform[2], transform[3] * x + transform[4] * y + transform[5]};
}

// cv2.getGaussianKernel(size, 0): up to 9 OpenCV uses fixed tables, from 11 on the formula.
template <typename acc>
Taps<acc> gaussian_taps(int size) {
  static constexpr double tables[5][9] = {
      {1},
      {0.25, 0.5, 0.25},
      {0.0625, 0.25, 0.375, 0.25, 0.0625},
      {0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125},
      {4.0 / 256, 13.0 / 256, 30.0 / 256, 51.0 / 256, 60.0 / 256, 51.0 / 256, 30.0 / 256, 13.0 / 256, 4.0 / 256}};
  double weights[kMaxKernelSize];
  double sum = 0;
  const double sigma = 0.3 * ((size - 1) * 0.5 - 1) + 0.8;
  for (int i = 0; i < size; ++i) {
    const double distance = i - size / 2;
    weights[i] = size <= 9 ? tables[size / 2][i] : std::exp(-distance * distance / (2 * sigma * sigma));
    sum += weights[i];
  }
  Taps<acc> taps = {};
  taps.size = size;
  for (int i = 0; i < size; ++i) {
    taps.padded[i + kSpan - 1] = static_cast<acc>(weights[i] / sum);
  }
  return taps;
}

// How to refine, as the kernels take it.
template <typename acc>
struct Refinement {
  Refine refine;
  acc max_offset;
  Taps<acc> taps;
};

struct RefineOptions {
  Refine refine;
  int kernel_size;
  double max_offset;  // infinity: unlimited

  template <typename acc>
  Refinement<acc> as() const {
    return {refine, static_cast<acc>(max_offset), gaussian_taps<acc>(kernel_size)};
  }
};

inline RefineOptions check_refine(
    const char* op, int64_t refine, int64_t kernel_size, const std::optional<double>& max_offset) {
  RefineOptions options;
  options.refine = check_choice<Refine>(op, "refine", refine, kRefines);
  PYPOSE_OPS_CHECK(
      kernel_size >= 1 && kernel_size <= kMaxKernelSize && kernel_size % 2 == 1, op,
      ": kernel_size must be odd and from 1 to ", kMaxKernelSize, ", got ", kernel_size);
  options.kernel_size = static_cast<int>(kernel_size);
  options.max_offset = max_offset.value_or(std::numeric_limits<double>::infinity());
  PYPOSE_OPS_CHECK(
      options.max_offset >= 0, op, ": max_offset must not be negative or NaN, got ", options.max_offset);
  return options;
}

inline void check_maps(const char* op, const Tensor& heatmaps) {
  check_dim(op, "heatmaps", heatmaps, 4, "(B, K, H, W)");
  check_floating(op, "heatmaps", heatmaps);
  const int64_t height = heatmaps.size(2);
  const int64_t width = heatmaps.size(3);
  PYPOSE_OPS_CHECK(
      height > 0 && width > 0, op, ": heatmaps must have H and W of at least 1, got shape ", shape_of(heatmaps));
  constexpr int64_t most = int64_t{1} << 30;  // inside a map 32-bit indices do, a stride added included
  PYPOSE_OPS_CHECK(
      height <= most / width && heatmaps.size(1) <= most, op, ": heatmaps must have at most 2^30 joints, and pixels ",
      "per map, got shape ", shape_of(heatmaps));
}

inline void check_transform(const char* op, const Tensor& heatmaps, const Tensor& transform) {
  check_same_device(op, "transform", transform, "heatmaps", heatmaps);
  check_coordinates(op, "transform", transform);
  const int64_t dim = transform.dim();
  const bool fits = (dim == 2 || (dim == 3 && transform.size(0) == heatmaps.size(0))) &&
      transform.size(dim - 2) == 2 && transform.size(dim - 1) == 3;
  PYPOSE_OPS_CHECK(
      fits, op, ": transform must be (2, 3) or (", heatmaps.size(0), ", 2, 3), got shape ", shape_of(transform));
}

inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// A small tensor as the kernels want it: contiguous and in the arithmetic's dtype.
inline std::optional<Tensor> as_type(const std::optional<Tensor>& tensor, ScalarType type) {
  if (!tensor.has_value()) {
    return std::nullopt;
  }
  return as_contiguous(tensor->scalar_type() == type ? *tensor : torch::stable::to(*tensor, type));
}

}  // namespace peaks
}  // namespace pypose_ops

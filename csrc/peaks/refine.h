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

// In the order of the names in pypose_ops/peaks.py.
enum class Refine : int { none, quarter, parabola, dark, dark_udp, centroid };
constexpr int kRefines = 6;
enum class Parity : int { none, hrnet, mmpose, mmpose0, hf };
constexpr int kParities = 5;
// What lies outside of a map that is blurred: 0; dcb|abcd|cba; cba|abcd|dcb.
enum class Border : int { zeros, reflect101, reflect };

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

// A step and, where a Hessian H of the log of a Gaussian gave it, the Gaussian's covariance -H^-1; else NaN.
template <typename acc>
struct Refined {
  Step<acc> step;
  acc xx, xy, yy;
};

// How to refine, as the kernels take it.
template <typename acc>
struct Refinement {
  Refine refine;
  Border border;
  bool joint_border;  // quarter: HRNet's border rule
  bool definite;      // dark, dark_udp: steps only where H is negative definite
  bool rescale;       // dark_udp: the blurred map gets the height of the map back
  bool edges;         // dark_udp: at the border the border's pixels are repeated
  acc low, high;      // the blurred map is clamped to these before the logarithm
  acc ridge;          // added to the diagonal of H
  acc max_offset;
  Taps<acc> taps;
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

// A quarter pixel towards the higher neighbour (Newell et al., ECCV 2016). MMPose 1.x: each axis skips its own first two
// and last pixels and the first row (column) of the other. HRNet: both skip the first two and last ones of both.
template <typename scalar, typename acc = acc_t<scalar>>
POSE_HD Step<acc> quarter_step(const MapView<scalar>& map, int x, int y, bool joint_border) {
  const auto towards = [](acc low, acc high) { return acc(0.25) * (acc(high > low) - acc(high < low)); };
  const bool inside_x = x > 1 && x < map.width - 1;
  const bool inside_y = y > 1 && y < map.height - 1;
  Step<acc> step = {0, 0};
  if (inside_x && (joint_border ? inside_y : y > 0)) {
    step.x = towards(map(x - 1, y), map(x + 1, y));
  }
  if (inside_y && (joint_border ? inside_x : x > 0)) {
    step.y = towards(map(x, y - 1), map(x, y + 1));
  }
  return step;
}

// To the top of the parabola through three pixels; none where they do not curve down.
template <typename acc>
POSE_HD acc parabola_top(acc before, acc peak, acc after) {
  const acc curvature = before - 2 * peak + after;
  return curvature < 0 ? acc(0.5) * (before - after) / curvature : acc(0);
}

template <typename scalar, typename acc = acc_t<scalar>>
POSE_HD Step<acc> parabola_step(const MapView<scalar>& map, int x, int y) {
  const acc peak = map(x, y);
  Step<acc> step = {0, 0};
  if (x > 0 && x < map.width - 1) {
    step.x = parabola_top(map(x - 1, y), peak, map(x + 1, y));
  }
  if (y > 0 && y < map.height - 1) {
    step.y = parabola_top(map(x, y - 1), peak, map(x, y + 1));
  }
  return step;
}

// To the mean of the pixels of a window, clipped to the map, weighted by what is positive and finite in them.
template <typename scalar, typename acc = acc_t<scalar>>
POSE_HD Step<acc> centroid_step(const MapView<scalar>& map, int x, int y, int radius) {
  acc sum = 0;
  acc sum_x = 0;
  acc sum_y = 0;
  for (int dy = y < radius ? -y : -radius; dy <= radius && y + dy < map.height; ++dy) {
    for (int dx = x < radius ? -x : -radius; dx <= radius && x + dx < map.width; ++dx) {
      const acc value = map(x + dx, y + dy);
      const acc weight = value > 0 && value < std::numeric_limits<acc>::infinity() ? value : acc(0);
      sum += weight;
      sum_x += weight * acc(dx);
      sum_y += weight * acc(dy);
    }
  }
  return {sum_x / sum, sum_y / sum};
}

// The refinements that look at the map as it is.
template <typename scalar, typename acc>
POSE_HD Step<acc> plain_step(const MapView<scalar>& map, const Refinement<acc>& refinement, int x, int y) {
  switch (refinement.refine) {
    case Refine::quarter:
      return quarter_step(map, x, y, refinement.joint_border);
    case Refine::parabola:
      return parabola_step(map, x, y);
    case Refine::centroid:
      return centroid_step(map, x, y, refinement.taps.size / 2);
    default:
      return {0, 0};
  }
}

// DARK steps only where all of its differences stay inside the map.
template <typename acc>
POSE_HD bool dark_applies(const Refinement<acc>& refinement, int x, int y, int width, int height) {
  const int reach = refinement.refine == Refine::dark ? kReach : refinement.edges ? 0 : 1;
  return x >= reach && x < width - reach && y >= reach && y < height - reach;
}

// Which pixel of a line of n stands outside of it; -1: none, a zero.
POSE_HD int outside(int i, int n, Border border) {
  if (border == Border::zeros) {
    return i < 0 || i >= n ? -1 : i;
  }
  const int repeat = border == Border::reflect ? 1 : 0;
  while (i < 0 || i >= n) {
    if (n == 1) {
      return 0;
    }
    i = i < 0 ? -i - repeat : 2 * n - 2 - i + repeat;
  }
  return i;
}

// log of a blurred pixel; NaN where it is not finite. One such pixel in the patch that DARK reads, kernel size + 4 wide and
// high, also where its tap is 0, makes a log NaN and so the step: there is none then.
template <typename acc>
POSE_HD acc log_blurred(acc blurred, acc low, acc high) {
  const acc clamped = blurred < low ? low : blurred > high ? high : blurred;
  return std::log(clamped) + (blurred - blurred);
}

// The slope and the curvature of the logs around a peak.
template <typename acc>
struct Derivatives {
  acc dx, dy, dxx, dyy, dxy;
};

// h[y][x] around the peak; only |x| + |y| <= kReach is read, 13 of the 25.
template <typename acc>
POSE_HD Derivatives<acc> dark_derivatives(const acc (&h)[kSpan][kSpan]) {
  return {
      acc(0.5) * (h[2][3] - h[2][1]), acc(0.5) * (h[3][2] - h[1][2]),
      acc(0.25) * (h[2][4] - 2 * h[2][2] + h[2][0]), acc(0.25) * (h[4][2] - 2 * h[2][2] + h[0][2]),
      acc(0.25) * (h[3][3] - h[1][3] - h[3][1] + h[1][1])};
}

// UDP's narrower differences, of seven pixels; those outside of the map are its border's.
template <typename acc>
POSE_HD Derivatives<acc> udp_derivatives(const acc (&h)[kSpan][kSpan], int x, int y, int width, int height) {
  const int l = x > 0 ? 1 : 2;
  const int r = x < width - 1 ? 3 : 2;
  const int t = y > 0 ? 1 : 2;
  const int b = y < height - 1 ? 3 : 2;
  const acc twice = 2 * h[2][2];
  return {
      acc(0.5) * (h[2][r] - h[2][l]), acc(0.5) * (h[b][2] - h[t][2]), h[2][r] - twice + h[2][l],
      h[b][2] - twice + h[t][2],
      acc(0.5) * (h[b][r] - h[2][r] - h[b][2] + twice - h[2][l] - h[t][2] + h[t][l])};
}

template <typename acc>
POSE_HD Refined<acc> no_covariance(Step<acc> step) {
  constexpr acc nan = std::numeric_limits<acc>::quiet_NaN();
  return {step, nan, nan, nan};
}

// The Newton step -H^-1 g to the top of the Gaussian whose logs are h (Zhang et al., "Distribution-Aware Coordinate
// Representation", CVPR 2020, eq. 4-8; Huang et al., "The Devil is in the Details", CVPR 2020).
// Beyond the papers: no step where H is not negative definite, the peak then being no maximum of a Gaussian.
template <typename acc>
POSE_HD Refined<acc> newton_step(
    const Refinement<acc>& refinement, const acc (&h)[kSpan][kSpan], int x, int y, int width, int height) {
  Derivatives<acc> d =
      refinement.refine == Refine::dark ? dark_derivatives(h) : udp_derivatives(h, x, y, width, height);
  d.dxx += refinement.ridge;
  d.dyy += refinement.ridge;
  const acc determinant = d.dxx * d.dyy - d.dxy * d.dxy;
  const bool maximum = d.dxx < 0 && determinant > 0;
  if (refinement.definite && !maximum) {
    return no_covariance(Step<acc>{0, 0});
  }
  const Step<acc> step = {
      (d.dxy * d.dy - d.dyy * d.dx) / determinant, (d.dxy * d.dx - d.dxx * d.dy) / determinant};
  if (!maximum) {
    return no_covariance(step);
  }
  return {step, -d.dyy / determinant, d.dxy / determinant, -d.dxx / determinant};
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

// cv2.getGaussianKernel(size, 0): up to 9 OpenCV uses fixed tables, from 11 on the formula. With a sigma the formula.
template <typename acc>
Taps<acc> gaussian_taps(int size, std::optional<double> fixed_sigma = std::nullopt) {
  static constexpr double tables[5][9] = {
      {1},
      {0.25, 0.5, 0.25},
      {0.0625, 0.25, 0.375, 0.25, 0.0625},
      {0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125},
      {4.0 / 256, 13.0 / 256, 30.0 / 256, 51.0 / 256, 60.0 / 256, 51.0 / 256, 30.0 / 256, 13.0 / 256, 4.0 / 256}};
  double weights[kMaxKernelSize];
  double sum = 0;
  const bool tabled = size <= 9 && !fixed_sigma.has_value();
  const double sigma = fixed_sigma.value_or(0.3 * ((size - 1) * 0.5 - 1) + 0.8);
  for (int i = 0; i < size; ++i) {
    const double distance = i - size / 2;
    weights[i] = tabled ? tables[size / 2][i] : std::exp(-distance * distance / (2 * sigma * sigma));
    sum += weights[i];
  }
  Taps<acc> taps = {};
  taps.size = size;
  for (int i = 0; i < size; ++i) {
    taps.padded[i + kSpan - 1] = static_cast<acc>(weights[i] / sum);
  }
  return taps;
}

struct RefineOptions {
  Refine refine;
  Parity parity;
  int kernel_size;
  double max_offset;  // infinity: unlimited

  template <typename acc>
  Refinement<acc> as() const {
    const bool clamps = refine == Refine::dark_udp && parity != Parity::none;
    Refinement<acc> refinement = {};
    refinement.refine = refine;
    refinement.border = parity == Parity::hf ? Border::reflect
        : clamps && parity == Parity::mmpose0 ? Border::reflect101
                                              : Border::zeros;
    refinement.joint_border = parity == Parity::hrnet || parity == Parity::mmpose0;
    refinement.definite = parity == Parity::none;
    refinement.rescale = clamps && parity == Parity::mmpose;
    refinement.edges = clamps;
    refinement.low = clamps ? acc(1e-3) : acc(1e-10);
    refinement.high = clamps ? acc(50) : std::numeric_limits<acc>::infinity();
    refinement.ridge = clamps ? acc(1.1920929e-07) : acc(0);
    refinement.max_offset = static_cast<acc>(max_offset);
    refinement.taps = gaussian_taps<acc>(
        kernel_size, parity == Parity::hf ? std::optional<double>(0.8) : std::nullopt);
    return refinement;
  }
};

inline void check_kernel_size(const char* op, int64_t kernel_size, int most) {
  PYPOSE_OPS_CHECK(
      kernel_size >= 1 && kernel_size <= most && kernel_size % 2 == 1, op,
      ": kernel_size must be odd and from 1 to ", most, ", got ", kernel_size);
}

// The longest step; none: infinity.
inline double check_max_offset(const char* op, const std::optional<double>& max_offset) {
  const double limit = max_offset.value_or(std::numeric_limits<double>::infinity());
  PYPOSE_OPS_CHECK(limit >= 0, op, ": max_offset must not be negative or NaN, got ", limit);
  return limit;
}

inline RefineOptions check_refine(
    const char* op, int64_t refine, int64_t parity, int64_t kernel_size, const std::optional<double>& max_offset) {
  RefineOptions options;
  options.refine = check_choice<Refine>(op, "refine", refine, kRefines);
  options.parity = check_choice<Parity>(op, "parity", parity, kParities);
  check_kernel_size(op, kernel_size, kMaxKernelSize);
  options.kernel_size = static_cast<int>(kernel_size);
  options.max_offset = check_max_offset(op, max_offset);
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

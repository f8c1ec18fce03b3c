// decode_heatmaps: checks, options and the formulas of one map's peak, shared by the CPU and CUDA kernels.
//
// A map's pixel is the merged one: where a flipped twin is given, the mean of the map and the mirrored twin.
#pragma once

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include <torch/csrc/stable/ops.h>

#include "common/check.h"
#include "common/dispatch.h"

namespace pypose_ops {
namespace peaks {

enum class Refine : int { none, quarter, dark };
constexpr const char* kRefineNames[] = {"none", "quarter", "dark"};

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

template <typename scalar>
struct Arguments {
  using acc = acc_t<scalar>;
  const scalar* maps;      // (B, K, H, W)
  const scalar* flipped;   // (B, K, H, W) or null
  const acc* transform;    // (B, 2, 3) or null; transform_stride 0: (2, 3)
  acc* coords;             // (B, K, 2)
  acc* scores;             // (B, K)
  int64_t transform_stride;
  int joints, height, width;
  Refine refine;
  bool flip_shift;
  acc max_offset;
  Taps<acc> taps;
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

// One map of a call.
template <typename scalar>
struct MapView {
  using acc = acc_t<scalar>;
  const scalar* map;
  const scalar* twin;  // the flipped map of the mirrored joint, or null
  int height, width;
  bool shift;

  template <typename Index>
  POSE_HD MapView(const Arguments<scalar>& args, const Index& flip_index, int64_t number)
      : height(args.height), width(args.width), shift(args.flip_shift) {
    const int64_t pixels = static_cast<int64_t>(height) * width;
    const int64_t joint = number % args.joints;
    map = args.maps + number * pixels;
    twin = args.flipped == nullptr ? nullptr : args.flipped + (number - joint + flip_index[joint]) * pixels;
  }

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

// log of a blurred pixel; NaN where it is not finite. One such pixel in the patch that DARK reads, kernel size + 4 wide
// and high, also where its tap is 0, makes a log NaN and so the step: there is none then.
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

template <typename scalar, typename acc>
POSE_HD void write_peak(const Arguments<scalar>& args, int64_t map, Peak<acc> peak, Step<acc> step) {
  acc x = -1;
  acc y = -1;
  if (peak.value > 0) {
    step = limited(step, args.max_offset);
    x = acc(peak.index % args.width) + step.x;
    y = acc(peak.index / args.width) + step.y;
    if (args.transform != nullptr) {
      const acc* m = args.transform + map / args.joints * args.transform_stride;
      const acc heatmap_x = x;
      x = m[0] * heatmap_x + m[1] * y + m[2];
      y = m[3] * heatmap_x + m[4] * y + m[5];
    }
  }
  args.coords[2 * map] = x;
  args.coords[2 * map + 1] = y;
  args.scores[map] = peak.value;
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

constexpr const char* kOp = "decode_heatmaps";

struct Options {
  Refine refine;
  int kernel_size;
  bool flip_shift;
  double max_offset;  // infinity: unlimited
};

inline void check_maps(const Tensor& heatmaps) {
  check_dim(kOp, "heatmaps", heatmaps, 4, "(B, K, H, W)");
  check_floating(kOp, "heatmaps", heatmaps);
  const int64_t height = heatmaps.size(2);
  const int64_t width = heatmaps.size(3);
  PYPOSE_OPS_CHECK(
      height > 0 && width > 0, kOp, ": heatmaps must have H and W of at least 1, got shape ", shape_of(heatmaps));
  constexpr int64_t most = int64_t{1} << 30;  // inside a map 32-bit indices do, a stride added included
  PYPOSE_OPS_CHECK(
      height <= most / width && heatmaps.size(1) <= most, kOp, ": heatmaps must have at most 2^30 joints, and pixels ",
      "per map, got shape ", shape_of(heatmaps));
}

inline void check_flipped(
    const Tensor& heatmaps, const Tensor& flipped, const std::optional<std::vector<int64_t>>& flip_index) {
  check_same_device(kOp, "flipped", flipped, "heatmaps", heatmaps);
  PYPOSE_OPS_CHECK(
      flipped.scalar_type() == heatmaps.scalar_type(), kOp, ": flipped must have the dtype of heatmaps, ",
      torch::headeronly::toString(heatmaps.scalar_type()), ", got ",
      torch::headeronly::toString(flipped.scalar_type()));
  check_dim(kOp, "flipped", flipped, 4, "(B, K, H, W)");
  for (int64_t dim = 0; dim < 4; ++dim) {
    check_size(kOp, "flipped", flipped, dim, heatmaps.size(dim));
  }
  PYPOSE_OPS_CHECK(flip_index.has_value(), kOp, ": flip_index is required when flipped is given");
  const int64_t joints = heatmaps.size(1);
  PYPOSE_OPS_CHECK(
      static_cast<int64_t>(flip_index->size()) == joints, kOp, ": flip_index must have one entry for each of the ",
      joints, " joints, got ", flip_index->size());
  std::vector<bool> seen(flip_index->size(), false);
  for (const int64_t joint : *flip_index) {
    PYPOSE_OPS_CHECK(
        joint >= 0 && joint < joints && !seen[static_cast<size_t>(joint)], kOp,
        ": flip_index must be a permutation of the ", joints, " joints, got joint ", joint,
        " out of range or for the second time");
    seen[static_cast<size_t>(joint)] = true;
  }
}

inline void check_transform(const Tensor& heatmaps, const Tensor& transform) {
  check_same_device(kOp, "transform", transform, "heatmaps", heatmaps);
  check_coordinates(kOp, "transform", transform);
  const int64_t dim = transform.dim();
  const bool fits = (dim == 2 || (dim == 3 && transform.size(0) == heatmaps.size(0))) &&
      transform.size(dim - 2) == 2 && transform.size(dim - 1) == 3;
  PYPOSE_OPS_CHECK(
      fits, kOp, ": transform must be (2, 3) or (", heatmaps.size(0), ", 2, 3), got shape ", shape_of(transform));
}

inline Options check_arguments(
    const Tensor& heatmaps, const std::string& refine, int64_t kernel_size, const std::optional<Tensor>& flipped,
    const std::optional<std::vector<int64_t>>& flip_index, bool flip_shift, const std::optional<Tensor>& transform,
    const std::optional<double>& max_offset) {
  check_maps(heatmaps);
  Options options;
  options.refine = parse_choice<Refine>(kOp, "refine", refine, kRefineNames);
  PYPOSE_OPS_CHECK(
      kernel_size >= 1 && kernel_size <= kMaxKernelSize && kernel_size % 2 == 1, kOp,
      ": kernel_size must be odd and from 1 to ", kMaxKernelSize, ", got ", kernel_size);
  options.kernel_size = static_cast<int>(kernel_size);
  if (flipped.has_value()) {
    check_flipped(heatmaps, *flipped, flip_index);
  }
  options.flip_shift = flip_shift;
  if (transform.has_value()) {
    check_transform(heatmaps, *transform);
  }
  options.max_offset = max_offset.value_or(std::numeric_limits<double>::infinity());
  PYPOSE_OPS_CHECK(
      options.max_offset >= 0, kOp, ": max_offset must not be negative or NaN, got ", options.max_offset);
  return options;
}

// The inputs as the kernels want them, contiguous, and the outputs; they own what Arguments points to.
struct Tensors {
  Tensor heatmaps;
  std::optional<Tensor> flipped, transform;
  Tensor coords, scores;
};

inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

inline void make_contiguous(Tensors& tensors) {
  tensors.heatmaps = as_contiguous(tensors.heatmaps);
  if (tensors.flipped.has_value()) {
    tensors.flipped = as_contiguous(*tensors.flipped);
  }
  if (tensors.transform.has_value()) {
    const ScalarType acc = tensors.coords.scalar_type();
    const bool same = tensors.transform->scalar_type() == acc;
    tensors.transform = as_contiguous(same ? *tensors.transform : torch::stable::to(*tensors.transform, acc));
  }
}

inline Tensors allocate(
    const Tensor& heatmaps, const std::optional<Tensor>& flipped, const std::optional<Tensor>& transform) {
  const int64_t batch = heatmaps.size(0);
  const int64_t joints = heatmaps.size(1);
  const ScalarType acc = acc_scalar_type(heatmaps.scalar_type());
  return {
      heatmaps, flipped, transform, torch::stable::new_empty(heatmaps, {batch, joints, 2}, acc),
      torch::stable::new_empty(heatmaps, {batch, joints}, acc)};
}

template <typename scalar>
Arguments<scalar> make_arguments(const Tensors& tensors, const Options& options) {
  using acc = acc_t<scalar>;
  Arguments<scalar> args = {};
  args.maps = tensors.heatmaps.template const_data_ptr<scalar>();
  args.flipped = tensors.flipped.has_value() ? tensors.flipped->template const_data_ptr<scalar>() : nullptr;
  if (tensors.transform.has_value()) {
    args.transform = tensors.transform->template const_data_ptr<acc>();
    args.transform_stride = tensors.transform->dim() == 3 ? 6 : 0;
  }
  args.coords = tensors.coords.template mutable_data_ptr<acc>();
  args.scores = tensors.scores.template mutable_data_ptr<acc>();
  args.joints = static_cast<int>(tensors.heatmaps.size(1));
  args.height = static_cast<int>(tensors.heatmaps.size(2));
  args.width = static_cast<int>(tensors.heatmaps.size(3));
  args.refine = options.refine;
  args.flip_shift = options.flip_shift;
  args.max_offset = static_cast<acc>(options.max_offset);
  args.taps = gaussian_taps<acc>(options.refine == Refine::dark ? options.kernel_size : 1);
  return args;
}

}  // namespace peaks
}  // namespace pypose_ops

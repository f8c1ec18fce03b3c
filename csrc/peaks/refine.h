// The options of the refinements and the checks that the peak operators share.
#pragma once

#include <optional>

#include "common/check.h"
#include "common/tensors.h"
#include "peaks/subpixel.h"

namespace pypose_ops {
namespace peaks {

// The weights of cv2.getGaussianKernel(size, 0): up to 9 OpenCV uses fixed tables, from 11 on the formula. With a sigma the
// formula.
inline void gaussian_weights(int size, std::optional<double> fixed_sigma, double* weights) {
  static constexpr double tables[5][9] = {
      {1},
      {0.25, 0.5, 0.25},
      {0.0625, 0.25, 0.375, 0.25, 0.0625},
      {0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125},
      {4.0 / 256, 13.0 / 256, 30.0 / 256, 51.0 / 256, 60.0 / 256, 51.0 / 256, 30.0 / 256, 13.0 / 256, 4.0 / 256}};
  const bool tabled = size <= 9 && !fixed_sigma.has_value();
  const double sigma = fixed_sigma.value_or(0.3 * ((size - 1) * 0.5 - 1) + 0.8);
  double sum = 0;
  for (int i = 0; i < size; ++i) {
    const double distance = i - size / 2;
    weights[i] = tabled ? tables[size / 2][i] : std::exp(-distance * distance / (2 * sigma * sigma));
    sum += weights[i];
  }
  for (int i = 0; i < size; ++i) {
    weights[i] /= sum;
  }
}

template <typename acc>
Taps<acc> gaussian_taps(int size, std::optional<double> fixed_sigma) {
  double weights[kMaxKernelSize];
  gaussian_weights(size, fixed_sigma, weights);
  Taps<acc> taps = {};
  taps.size = size;
  for (int i = 0; i < size; ++i) {
    taps.padded[i + kSpan - 1] = static_cast<acc>(weights[i]);
  }
  return taps;
}

struct RefineOptions {
  Refine refine;
  Compat compat;
  int kernel_size;
  double max_offset;  // infinity: unlimited

  template <typename acc>
  Refinement<acc> as() const {
    const bool clamps = refine == Refine::dark_udp && compat != Compat::none;
    Refinement<acc> refinement = {};
    refinement.refine = refine;
    refinement.border = compat == Compat::hf ? Border::reflect
        : clamps && compat == Compat::mmpose0 ? Border::reflect101
                                              : Border::zeros;
    refinement.joint_border = compat == Compat::hrnet || compat == Compat::mmpose0;
    refinement.definite = compat == Compat::none;
    refinement.rescale = clamps && compat == Compat::mmpose;
    refinement.edges = clamps;
    refinement.inward = compat == Compat::none;
    refinement.low = clamps ? acc(1e-3) : acc(1e-10);
    refinement.high = clamps ? acc(50) : std::numeric_limits<acc>::infinity();
    refinement.ridge = clamps ? static_cast<acc>(0x1p-23) : acc(0);
    refinement.max_offset = static_cast<acc>(max_offset);
    const bool blurs = refine == Refine::dark || refine == Refine::dark_udp;
    refinement.taps = gaussian_taps<acc>(
        blurs ? kernel_size : 1, compat == Compat::hf ? std::optional<double>(0.8) : std::nullopt);
    refinement.window = kernel_size;
    return refinement;
  }
};

inline void check_kernel_size(const char* op, int64_t kernel_size, int most) {
  PYPOSE_OPS_CHECK(
      kernel_size >= 1 && kernel_size <= most && kernel_size % 2 == 1, op,
      ": kernel_size must be odd and from 1 to ", most, ", got ", kernel_size);
}

// None: any value. Programs of AOTInductor cannot hold an infinite argument.
inline double threshold_of(const std::optional<double>& threshold) {
  return threshold.value_or(-std::numeric_limits<double>::infinity());
}

// What a peak must be higher than.
inline void check_threshold(const char* op, double threshold) {
  PYPOSE_OPS_CHECK(threshold == threshold, op, ": threshold must not be NaN");
}

// The longest step; none: infinity.
inline double check_max_offset(const char* op, const std::optional<double>& max_offset) {
  const double limit = max_offset.value_or(std::numeric_limits<double>::infinity());
  PYPOSE_OPS_CHECK(limit >= 0, op, ": max_offset must not be negative or NaN, got ", limit);
  return limit;
}

inline RefineOptions check_refine(
    const char* op, int64_t refine, int64_t compat, int64_t kernel_size, const std::optional<double>& max_offset) {
  RefineOptions options;
  options.refine = check_choice<Refine>(op, "refine", refine, kRefines);
  options.compat = check_choice<Compat>(op, "compat", compat, kCompats);
  if (options.refine == Refine::centroid) {
    PYPOSE_OPS_CHECK(
        kernel_size >= 1 && kernel_size <= kMaxKernelSize, op, ": kernel_size must be from 1 to ", kMaxKernelSize,
        ", got ", kernel_size);
  } else {
    check_kernel_size(op, kernel_size, kMaxKernelSize);
  }
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

inline void check_transform(
    const char* op, const Tensor& maps, const Tensor& transform, const char* maps_name = "heatmaps") {
  check_same_device(op, "transform", transform, maps_name, maps);
  check_coordinates(op, "transform", transform);
  const int64_t dim = transform.dim();
  const bool fits = (dim == 2 || (dim == 3 && transform.size(0) == maps.size(0))) &&
      transform.size(dim - 2) == 2 && transform.size(dim - 1) == 3;
  PYPOSE_OPS_CHECK(
      fits, op, ": transform must be (2, 3) or (", maps.size(0), ", 2, 3), got shape ", shape_of(transform));
}

}  // namespace peaks
}  // namespace pypose_ops

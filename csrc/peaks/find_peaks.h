// find_peaks: checks and the order of peaks, shared by the CPU and CUDA kernels.
//
// Equal pixels within `radius` of one another (Chebyshev distance) belong to one plateau. A plateau is a peak where its
// value is above the threshold and no pixel within `radius` of any of its pixels is higher; its place is its first pixel
// in row-major order. Most plateaus are single pixels. Pixels that are not finite are lower than all others.
#pragma once

#include <algorithm>

#include "peaks/refine.h"

namespace pypose_ops {
namespace peaks {

template <typename scalar>
struct FindArguments {
  using acc = acc_t<scalar>;
  const scalar* maps;      // (B, K, H, W)
  const acc* thresholds;   // (K,) or null
  const acc* transform;    // (B, 2, 3) or null; transform_stride 0: (2, 3)
  acc* coords;             // (B, K, M, 2)
  acc* scores;             // (B, K, M)
  int64_t* counts;         // (B, K): of all peaks, also of those without a place
  int64_t* pixels;         // (B, K, M, 2) or null
  int64_t transform_stride;
  int joints, height, width, radius, max_peaks;
  acc threshold, missing;
  Refinement<acc> refinement;

  PYPOSE_OPS_HOST_DEVICE MapView<scalar> view(int64_t number) const {
    return {maps + number * (static_cast<int64_t>(height) * width), nullptr, height, width, false};
  }

  PYPOSE_OPS_HOST_DEVICE acc threshold_of(int64_t number) const {
    return thresholds == nullptr ? threshold : thresholds[number % joints];
  }

  PYPOSE_OPS_HOST_DEVICE void write(int64_t number, int rank, Peak<acc> peak, Step<acc> step) const {
    const acc* m = transform == nullptr ? nullptr : transform + number / joints * transform_stride;
    const Step<acc> place = placed(peak.index, width, step, m);
    put(number * max_peaks + rank, peak.value, place, peak.index % width, peak.index / width);
  }

  PYPOSE_OPS_HOST_DEVICE void write_none(int64_t number, int rank) const {
    put(number * max_peaks + rank, 0, {missing, missing}, -1, -1);
  }

  // From this rank on.
  void write_none_from(int64_t number, int rank) const {
    const int64_t from = number * max_peaks + rank;
    const int64_t end = (number + 1) * max_peaks;
    std::fill(scores + from, scores + end, acc(0));
    std::fill(coords + 2 * from, coords + 2 * end, missing);
    if (pixels != nullptr) {
      std::fill(pixels + 2 * from, pixels + 2 * end, int64_t{-1});
    }
  }

 private:
  PYPOSE_OPS_HOST_DEVICE void put(int64_t slot, acc score, Step<acc> place, int x, int y) const {
    scores[slot] = score;
    coords[2 * slot] = place.x;
    coords[2 * slot + 1] = place.y;
    if (pixels != nullptr) {
      pixels[2 * slot] = x;
      pixels[2 * slot + 1] = y;
    }
  }
};

// What is not finite, as the lowest pixel. Selects only: loops over it vectorise.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc finite_or_lowest(acc value) {
  constexpr acc infinity = std::numeric_limits<acc>::infinity();
  return value < infinity ? value : -infinity;
}

// The order of the output: by falling score, then by index. No two peaks are equal in it.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE bool before(acc value, int index, acc other_value, int other_index) {
  return value > other_value || (value == other_value && index < other_index);
}

// The window of a pixel, clipped to the map.
struct Window {
  int left, right, top, bottom;  // inclusive

  PYPOSE_OPS_HOST_DEVICE Window(int x, int y, int radius, int width, int height)
      : left(x < radius ? 0 : x - radius), right(width - 1 - x < radius ? width - 1 : x + radius),
        top(y < radius ? 0 : y - radius), bottom(height - 1 - y < radius ? height - 1 : y + radius) {}
};

constexpr const char* kFindPeaks = "find_peaks";
constexpr int64_t kMaxRadius = 64;
constexpr int64_t kMaxPeaks = 1024;

inline RefineOptions check_find_peaks(
    const Tensor& heatmaps, const std::optional<Tensor>& thresholds, double threshold, int64_t radius,
    int64_t max_peaks, int64_t refine, int64_t kernel_size, const std::optional<double>& max_offset,
    const std::optional<Tensor>& transform) {
  check_maps(kFindPeaks, heatmaps);
  if (thresholds.has_value()) {
    check_same_device(kFindPeaks, "threshold", *thresholds, "heatmaps", heatmaps);
    check_coordinates(kFindPeaks, "threshold", *thresholds);
    PYPOSE_OPS_CHECK(
        thresholds->dim() == 1 && thresholds->size(0) == heatmaps.size(1), kFindPeaks,
        ": threshold must be a number or (K,), one for each of the ", heatmaps.size(1), " joints, got shape ",
        shape_of(*thresholds));
  }
  check_threshold(kFindPeaks, threshold);
  PYPOSE_OPS_CHECK(
      radius >= 1 && radius <= kMaxRadius, kFindPeaks, ": radius must be from 1 to ", kMaxRadius, ", got ", radius);
  PYPOSE_OPS_CHECK(
      max_peaks >= 1 && max_peaks <= kMaxPeaks, kFindPeaks, ": max_peaks must be from 1 to ", kMaxPeaks, ", got ",
      max_peaks);
  if (transform.has_value()) {
    check_transform(kFindPeaks, heatmaps, *transform);
  }
  return check_refine(kFindPeaks, refine, 0, kernel_size, max_offset);
}

// The inputs as the kernels want them, and the outputs; they own what FindArguments points to.
struct FindTensors {
  Tensor heatmaps;
  std::optional<Tensor> thresholds, transform;
  Tensor coords, scores, counts, pixels;

  FindTensors(
      const Tensor& heatmaps, const std::optional<Tensor>& thresholds, const std::optional<Tensor>& transform,
      int64_t max_peaks, bool with_pixels)
      : heatmaps(heatmaps), thresholds(thresholds), transform(transform) {
    const int64_t batch = heatmaps.size(0);
    const int64_t joints = heatmaps.size(1);
    const ScalarType acc = acc_scalar_type(heatmaps.scalar_type());
    coords = empty_beside(heatmaps, {batch, joints, max_peaks, 2}, acc);
    scores = empty_beside(heatmaps, {batch, joints, max_peaks}, acc);
    counts = empty_beside(heatmaps, {batch, joints}, ScalarType::Long);
    pixels = with_pixels ? empty_beside(heatmaps, {batch, joints, max_peaks, 2}, ScalarType::Long)
                         : empty_beside(heatmaps, {0}, ScalarType::Long);
  }

  void make_contiguous() {
    heatmaps = as_contiguous(heatmaps);
    transform = as_contiguous(transform, scores.scalar_type());
    thresholds = as_contiguous(thresholds, scores.scalar_type());
  }

  template <typename scalar>
  FindArguments<scalar> arguments(
      double threshold, int64_t radius, int64_t max_peaks, const RefineOptions& options, double missing) const {
    using acc = acc_t<scalar>;
    FindArguments<scalar> args = {};
    args.maps = heatmaps.template const_data_ptr<scalar>();
    args.thresholds = thresholds.has_value() ? thresholds->template const_data_ptr<acc>() : nullptr;
    if (transform.has_value()) {
      args.transform = transform->template const_data_ptr<acc>();
      args.transform_stride = transform->dim() == 3 ? 6 : 0;
    }
    args.coords = coords.template mutable_data_ptr<acc>();
    args.scores = scores.template mutable_data_ptr<acc>();
    args.counts = counts.template mutable_data_ptr<int64_t>();
    args.pixels = pixels.dim() == 4 ? pixels.template mutable_data_ptr<int64_t>() : nullptr;
    args.joints = static_cast<int>(heatmaps.size(1));
    args.height = static_cast<int>(heatmaps.size(2));
    args.width = static_cast<int>(heatmaps.size(3));
    args.radius = static_cast<int>(radius);
    args.max_peaks = static_cast<int>(max_peaks);
    args.threshold = static_cast<acc>(threshold);
    args.missing = static_cast<acc>(missing);
    args.refinement = options.as<acc>();
    return args;
  }
};

}  // namespace peaks
}  // namespace pypose_ops

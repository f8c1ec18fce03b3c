// simcc_labels: checks and the formulas of one bin, shared by the CPU and CUDA kernels.
#pragma once

#include "heatmaps/gaussian_heatmaps.h"

namespace pypose_ops {
namespace heatmaps {

enum class LabelProfile : int { gaussian, one_hot };
enum class LabelNormalize : int { peak, density };

struct LabelOptions {
  LabelProfile profile;
  Center center;
  double sigma[2];  // x, y, in bins
  double factor[2];
  double ratio;     // bins per pixel
  double smoothing;
};

struct LabelShape {
  int64_t batch, joints, bins[2];  // bins of x, of y
};

POSE_HD float round_half_even(float v) {
  return ::rintf(v);
}
POSE_HD double round_half_even(double v) {
  return ::rint(v);
}

// One axis of one keypoint. Bins are written as exp(-0.5 ((i - center) / sigma)^2) * factor, or on and off values.
template <typename acc>
struct Label {
  acc center, sigma, factor;
  acc hit, miss;  // of one_hot
  bool drawn;

  POSE_HD acc gaussian(int32_t i) const {
    const acc u = (static_cast<acc>(i) - center) / sigma;
    const acc exponent = acc(-0.5) * u * u;
#ifdef __CUDA_ARCH__
    return ::exp(exponent) * factor;
#else
    return simd::exp(exponent) * factor;
#endif
  }
  POSE_HD acc one_hot(int32_t i) const {
    return static_cast<acc>(i) == center ? hit : miss;
  }
};

// A keypoint that is invisible or not finite draws nothing, and neither does a one-hot label outside of its bins.
template <typename acc>
POSE_HD Label<acc> label_of(
    const People<acc>& people, const LabelOptions& options, const LabelShape& shape, int64_t b, int64_t k, int axis) {
  const acc huge = std::numeric_limits<acc>::max();
  const int64_t* ks = people.keypoint_stride;
  const int64_t* vs = people.visible_stride;
  const acc* keypoint = people.keypoints + b * ks[0] + k * ks[2];
  const acc x = keypoint[0];
  const acc y = keypoint[ks[3]];
  Label<acc> label{};
  label.drawn = x >= -huge && x <= huge && y >= -huge && y <= huge;
  label.drawn = label.drawn && (!people.visible || people.visible[b * vs[0] + k * vs[2]]);
  const acc position = (axis == 0 ? x : y) * static_cast<acc>(options.ratio);
  const bool hard = options.profile == LabelProfile::one_hot;
  label.center = hard || options.center == Center::rounded ? round_half_even(position) : position;
  label.sigma = static_cast<acc>(options.sigma[axis]);
  label.factor = static_cast<acc>(options.factor[axis]);
  if (hard) {
    const int64_t others = shape.bins[axis] - 1;
    label.hit = acc(1) - static_cast<acc>(options.smoothing);
    label.miss = static_cast<acc>(options.smoothing) / static_cast<acc>(others > 0 ? others : 1);
    label.drawn = label.drawn && label.center >= 0 && label.center < static_cast<acc>(shape.bins[axis]);
  }
  return label;
}

inline LabelOptions check_label_options(
    const char* op, double sigma_x, double sigma_y, double ratio, int64_t profile, int64_t center, int64_t normalize,
    double smoothing) {
  for (const double sigma : {sigma_x, sigma_y}) {
    PYPOSE_OPS_CHECK(sigma > 0 && std::isfinite(sigma), op, ": sigma must be positive and finite, got ", sigma);
  }
  PYPOSE_OPS_CHECK(ratio > 0 && std::isfinite(ratio), op, ": split_ratio must be positive and finite, got ", ratio);
  PYPOSE_OPS_CHECK(smoothing >= 0 && smoothing < 1, op, ": smoothing must be in [0, 1), got ", smoothing);
  LabelOptions options{};
  options.profile = check_choice<LabelProfile>(op, "profile", profile, 2);
  options.center = check_choice<Center>(op, "center", center, 2);
  const bool density = check_choice<LabelNormalize>(op, "normalize", normalize, 2) == LabelNormalize::density;
  constexpr double kRootTwoPi = 2.5066282746310002;
  const double sigmas[2] = {sigma_x, sigma_y};
  for (int axis = 0; axis < 2; ++axis) {
    options.sigma[axis] = sigmas[axis];
    options.factor[axis] = density ? 1 / (sigmas[axis] * kRootTwoPi) : 1;
  }
  options.ratio = ratio;
  options.smoothing = smoothing;
  return options;
}

inline LabelShape check_labels(
    const char* op, const Tensor& keypoints, const std::optional<Tensor>& visible, int64_t bins_x, int64_t bins_y) {
  check_dim(op, "keypoints", keypoints, 3, "(B, K, 2)");
  PYPOSE_OPS_CHECK(
      bins_x > 0 && bins_y > 0, op, ": size * split_ratio must leave bins in both axes, got ", bins_x, " and ", bins_y);
  const Shape shape = check_people(op, keypoints, std::nullopt, visible, bins_y, bins_x);
  return {shape.batch, shape.joints, {bins_x, bins_y}};
}

}  // namespace heatmaps
}  // namespace pypose_ops

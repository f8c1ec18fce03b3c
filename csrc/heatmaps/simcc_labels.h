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
  double sigma[2];  // x, y, in bins; used where no sigma tensor was given
  bool density;
  double ratio;     // bins per pixel
  double smoothing;
};

struct LabelShape {
  int64_t batch, joints, bins[2];  // bins of x, of y
};

PYPOSE_OPS_HOST_DEVICE float round_half_even(float v) {
  return ::rintf(v);
}
PYPOSE_OPS_HOST_DEVICE double round_half_even(double v) {
  return ::rint(v);
}

// One axis of one keypoint. Bins are written as exp(-0.5 ((i - center) / sigma)^2) * factor, or on and off values.
template <typename acc>
struct Label {
  acc center, sigma, factor;
  acc hit, miss;  // of one_hot
  bool drawn;

  PYPOSE_OPS_HOST_DEVICE acc offset(int32_t i) const {
    return (static_cast<acc>(i) - center) / sigma;
  }
  // With its top at 1.
  PYPOSE_OPS_HOST_DEVICE acc peak(int32_t i) const {
    const acc u = offset(i);
    const acc exponent = acc(-0.5) * u * u;
    const acc value = exponential(exponent);
    return value > 0 ? value : acc(0);
  }
  PYPOSE_OPS_HOST_DEVICE acc gaussian(int32_t i) const {
    const acc value = peak(i);
    return value > 0 ? value * factor : acc(0);  // the density of a subnormal sigma is infinite
  }
  PYPOSE_OPS_HOST_DEVICE acc one_hot(int32_t i) const {
    return static_cast<acc>(i) == center ? hit : miss;
  }
};

// A keypoint that is invisible or not finite, or one of whose sigmas is not a positive finite number, draws nothing, and
// neither does a one-hot label outside of its bins.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE Label<acc> label_of(
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
  acc sigmas[2] = {static_cast<acc>(options.sigma[0]), static_cast<acc>(options.sigma[1])};
  if (people.sigma) {
    const int64_t* ss = people.sigma_stride;
    const acc* sigma = people.sigma + b * ss[0] + k * ss[2];
    sigmas[0] = sigma[0];
    sigmas[1] = sigma[ss[3]];
    label.drawn = label.drawn && sigmas[0] > 0 && sigmas[0] <= huge && sigmas[1] > 0 && sigmas[1] <= huge;
  }
  label.center = hard || options.center == Center::rounded ? round_half_even(position) : position;
  constexpr double kRootTwoPi = 2.5066282746310002;
  label.sigma = sigmas[axis];
  label.factor = options.density ? acc(1) / (label.sigma * static_cast<acc>(kRootTwoPi)) : acc(1);
  if (hard) {
    const int64_t others = shape.bins[axis] - 1;
    label.hit = acc(1) - static_cast<acc>(options.smoothing);
    label.miss = static_cast<acc>(options.smoothing) / static_cast<acc>(others > 0 ? others : 1);
    label.drawn = label.drawn && label.center >= 0 && label.center < static_cast<acc>(shape.bins[axis]);
  }
  return label;
}

inline LabelOptions check_label_options(
    const char* op, bool has_sigma_tensor, double sigma_x, double sigma_y, double ratio, int64_t profile,
    int64_t center, int64_t normalize, double smoothing) {
  for (const double sigma : {sigma_x, sigma_y}) {
    PYPOSE_OPS_CHECK(
        has_sigma_tensor || (sigma > 0 && std::isfinite(sigma)), op, ": sigma must be positive and finite, got ",
        sigma);
  }
  PYPOSE_OPS_CHECK(ratio > 0 && std::isfinite(ratio), op, ": split_ratio must be positive and finite, got ", ratio);
  PYPOSE_OPS_CHECK(smoothing >= 0 && smoothing <= 1, op, ": smoothing must be in [0, 1], got ", smoothing);
  LabelOptions options{};
  options.profile = check_choice<LabelProfile>(op, "profile", profile, 2);
  options.center = check_choice<Center>(op, "center", center, 2);
  options.density = check_choice<LabelNormalize>(op, "normalize", normalize, 2) == LabelNormalize::density;
  options.sigma[0] = sigma_x;
  options.sigma[1] = sigma_y;
  options.ratio = ratio;
  options.smoothing = smoothing;
  return options;
}

inline LabelShape check_labels(
    const char* op, const Tensor& keypoints, const std::optional<Tensor>& sigma, const std::optional<Tensor>& visible,
    int64_t bins_x, int64_t bins_y) {
  check_dim(op, "keypoints", keypoints, 3, "(B, K, 2)");
  PYPOSE_OPS_CHECK(
      bins_x > 0 && bins_y > 0, op, ": size * split_ratio must leave bins in both axes, got ", bins_x, " and ", bins_y);
  const Shape shape = check_people(op, keypoints, sigma, visible, bins_y, bins_x);
  return {shape.batch, shape.joints, {bins_x, bins_y}};
}

// Sums of G v u and of G v u^2 (of a density: G v (u^2 - 1)) over a label's bins, v its value with the top at 1, u the
// distance from its centre in sigmas, G the incoming gradient -> gradients of one axis of the keypoint and of its sigma.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE void label_gradients(
    const Label<acc>& label, const LabelOptions& options, acc first, acc second, acc& grad_keypoint, acc& grad_sigma) {
  const bool exact = options.center == Center::exact;
  const acc huge = std::numeric_limits<acc>::max();
  const acc factor = label.factor < huge ? label.factor : huge;  // infinity times 0 would be NaN
  grad_keypoint = exact ? factor * first / label.sigma * static_cast<acc>(options.ratio) : acc(0);
  grad_sigma = factor * second / label.sigma;
}

inline LabelShape check_label_backward(
    const char* op, const Tensor& grad_x, const Tensor& grad_y, const Tensor& keypoints,
    const std::optional<Tensor>& sigma, const std::optional<Tensor>& visible) {
  check_dim(op, "grad_x", grad_x, 3, "(B, K, bins)");
  check_dim(op, "grad_y", grad_y, 3, "(B, K, bins)");
  check_floating(op, "grad_x", grad_x);
  PYPOSE_OPS_CHECK(grad_x.scalar_type() == grad_y.scalar_type(), op, ": grad_y must have the dtype of grad_x");
  const LabelShape shape = check_labels(op, keypoints, sigma, visible, grad_x.size(2), grad_y.size(2));
  for (const Tensor* grad : {&grad_x, &grad_y}) {
    const char* name = grad == &grad_x ? "grad_x" : "grad_y";
    check_same_device(op, name, *grad, "keypoints", keypoints);
    check_size(op, name, *grad, 0, shape.batch);
    check_size(op, name, *grad, 1, shape.joints);
  }
  return shape;
}

}  // namespace heatmaps
}  // namespace pypose_ops

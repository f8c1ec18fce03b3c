// oks and oks_nms: checks and the formula of object keypoint similarity, shared by the CPU and CUDA kernels.
//
// OKS of a predicted and an annotated person: the mean over the annotated joints of exp(-e),
//   e = d^2 / (2 (2 sigma)^2 (area + epsilon)),
// with d the distance of the joints (pycocotools; it writes k for 2 sigma).
#pragma once

#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "common/check.h"
#include "common/dispatch.h"
#include "common/math.h"
#include "common/tensors.h"

namespace pypose_ops {
namespace grouping {

constexpr double kAreaEpsilon = 2.220446049250313e-16;  // numpy.spacing(1), as in pycocotools

struct OksShape {
  int64_t batch, preds, targets, joints;

  PYPOSE_OPS_HOST_DEVICE int64_t pairs() const {
    return batch * preds * targets;
  }
};

// Contiguous arrays.
template <typename acc>
struct OksInput {
  const acc* pred;      // (B, D, K, 2)
  const acc* target;    // (B, G, K, 2)
  const acc* area;      // (B, G)
  const bool* visible;  // (B, G, K), null: all
  const acc* boxes;     // (B, G, 4), null: none
};

// Areas that are not positive count as 0.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc usable_area(acc area) {
  return area > 0 ? area : acc(0);
}

// 2 (2 sigma)^2, once per joint: in double, then in the arithmetic's type.
template <typename acc>
acc sigma_factor(double sigma) {
  return static_cast<acc>(8 * sigma * sigma);
}

// 1 / (2 (2 sigma)^2 (area + epsilon)), the factor of d^2.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc oks_scale(acc sigma_factor, acc area) {
  return acc(1) / (sigma_factor * (area + static_cast<acc>(kAreaEpsilon)));
}

// exp(-e); NaN counts as no similarity.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc similarity(acc e) {
  const acc value = exponential(-e);
  return value >= 0 ? value : acc(0);
}

// How far p is from [low, high], with its sign; of an interval turned round, low comes first. NaN stays NaN.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc offset_from(acc p, acc low, acc high) {
  const acc nearest = p < low ? low : (p > high ? high : p);
  return p - nearest;
}

template <typename acc>
struct Interval {
  acc low, high;
};

// What a predicted joint is compared with: an annotated joint, or the doubled box of a person without any.
template <typename acc>
struct Place {
  Interval<acc> x, y;
  bool counted;
};

// Joints of annotated person g (over the whole batch) that are visible and finite.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE bool is_counted(const OksInput<acc>& in, const OksShape& shape, int64_t g, int64_t k) {
  const int64_t joint = g * shape.joints + k;
  return is_finite(in.target[2 * joint]) && is_finite(in.target[2 * joint + 1]) &&
      (in.visible == nullptr || in.visible[joint]);
}

template <typename acc>
PYPOSE_OPS_HOST_DEVICE int64_t count_joints(const OksInput<acc>& in, const OksShape& shape, int64_t g) {
  int64_t count = 0;
  for (int64_t k = 0; k < shape.joints; ++k) {
    count += is_counted(in, shape, g, k) ? 1 : 0;
  }
  return count;
}

// count: joints of g that are counted.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE
Place<acc> place_of(const OksInput<acc>& in, const OksShape& shape, int64_t g, int64_t k, int64_t count) {
  if (count == 0 && in.boxes != nullptr) {
    const acc* box = in.boxes + 4 * g;
    const acc width = box[2] - box[0];
    const acc height = box[3] - box[1];
    const Interval<acc> x{box[0] - width, box[2] + width}, y{box[1] - height, box[3] + height};
    // NaN would be no distance at all: a box with NaN is similar to nothing.
    return {x, y, x.low == x.low && x.high == x.high && y.low == y.low && y.high == y.high};
  }
  if (!is_counted(in, shape, g, k)) {
    return {{0, 0}, {0, 0}, false};
  }
  const acc* joint = in.target + 2 * (g * shape.joints + k);
  return {{joint[0], joint[0]}, {joint[1], joint[1]}, true};
}

// The number that the sum over joints is divided by.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc oks_divisor(const OksShape& shape, int64_t count) {
  return static_cast<acc>(count > 0 ? count : (shape.joints > 0 ? shape.joints : 1));
}

inline void check_sigmas(const char* op, const std::vector<double>& sigmas, int64_t joints) {
  PYPOSE_OPS_CHECK(
      static_cast<int64_t>(sigmas.size()) == joints, op, ": sigmas must have one value for each of ", joints,
      " joints, got ", sigmas.size());
  for (const double sigma : sigmas) {
    PYPOSE_OPS_CHECK(sigma > 0 && std::isfinite(sigma), op, ": sigmas must be positive and finite, got ", sigma);
  }
}

inline void check_like(
    const char* op, const char* name, const Tensor& tensor, const char* layout, const std::vector<int64_t>& sizes,
    const char* other_name, const Tensor& other) {
  check_dim(op, name, tensor, static_cast<int64_t>(sizes.size()), layout);
  for (size_t d = 0; d < sizes.size(); ++d) {
    check_size(op, name, tensor, static_cast<int64_t>(d), sizes[d]);
  }
  check_same_device(op, name, tensor, other_name, other);
}

inline void check_coordinates_like(const char* op, const char* name, const Tensor& tensor, const Tensor& other) {
  check_coordinates(op, name, tensor);
  PYPOSE_OPS_CHECK(
      tensor.scalar_type() == other.scalar_type(), op, ": ", name, " must be ",
      torch::headeronly::toString(other.scalar_type()), " like the keypoints, got ",
      torch::headeronly::toString(tensor.scalar_type()));
}

inline void check_visible(const char* op, const Tensor& visible) {
  PYPOSE_OPS_CHECK(
      visible.scalar_type() == ScalarType::Bool, op, ": visible must be bool, got ",
      torch::headeronly::toString(visible.scalar_type()));
}

inline OksShape check_oks(
    const char* op, const Tensor& pred, const Tensor& target, const Tensor& area,
    const std::optional<Tensor>& visible, const std::optional<Tensor>& boxes, const std::vector<double>& sigmas) {
  PYPOSE_OPS_CHECK(
      pred.dim() == 4 && pred.size(3) == 2, op, ": pred must be (B, D, K, 2), got shape ", shape_of(pred));
  PYPOSE_OPS_CHECK(
      target.dim() == 4 && target.size(3) == 2, op, ": target must be (B, G, K, 2), got shape ", shape_of(target));
  check_coordinates(op, "pred", pred);
  check_coordinates_like(op, "target", target, pred);
  check_same_device(op, "target", target, "pred", pred);
  check_size(op, "target", target, 0, pred.size(0));
  check_size(op, "target", target, 2, pred.size(2));
  const int64_t batch = pred.size(0);
  const int64_t targets = target.size(1);
  const int64_t joints = pred.size(2);
  check_like(op, "area", area, "(B, G)", {batch, targets}, "pred", pred);
  check_coordinates_like(op, "area", area, pred);
  if (visible) {
    check_like(op, "visible", *visible, "(B, G, K)", {batch, targets, joints}, "pred", pred);
    check_visible(op, *visible);
  }
  if (boxes) {
    check_like(op, "boxes", *boxes, "(B, G, 4)", {batch, targets, 4}, "pred", pred);
    check_coordinates_like(op, "boxes", *boxes, pred);
  }
  check_sigmas(op, sigmas, joints);
  return {batch, pred.size(1), targets, joints};
}

struct OksTensors {
  Tensor pred, target, area;
  std::optional<Tensor> visible, boxes;

  OksTensors(
      const Tensor& pred, const Tensor& target, const Tensor& area, const std::optional<Tensor>& visible,
      const std::optional<Tensor>& boxes)
      : pred(as_contiguous(pred)),
        target(as_contiguous(target)),
        area(as_contiguous(area)),
        visible(as_contiguous(visible)),
        boxes(as_contiguous(boxes)) {}

  template <typename acc>
  OksInput<acc> view() const {
    return {
        pred.const_data_ptr<acc>(), target.const_data_ptr<acc>(), area.const_data_ptr<acc>(),
        visible ? visible->const_data_ptr<bool>() : nullptr, boxes ? boxes->const_data_ptr<acc>() : nullptr};
  }
};

// oks_nms: people of one image against each other. The area is the mean of the two.
struct NmsShape {
  int64_t batch, people, joints;
};

struct NmsOptions {
  double threshold;
  bool soft;
  int64_t max_people;
};

// What a hard or soft non-maximum suppression leaves of a score beside a better person.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc score_beside(acc score, acc oks, const NmsOptions& options) {
  const acc threshold = static_cast<acc>(options.threshold);
  if (options.soft) {
    return score * exponential(-oks * oks / threshold);
  }
  return oks <= threshold ? score : -std::numeric_limits<acc>::infinity();
}

inline NmsShape check_nms(
    const char* op, const Tensor& keypoints, const Tensor& scores, const Tensor& area,
    const std::optional<Tensor>& visible, const std::vector<double>& sigmas, double threshold, int64_t max_people) {
  PYPOSE_OPS_CHECK(
      keypoints.dim() == 4 && keypoints.size(3) == 2, op, ": keypoints must be (B, N, K, 2), got shape ",
      shape_of(keypoints));
  check_coordinates(op, "keypoints", keypoints);
  const NmsShape shape{keypoints.size(0), keypoints.size(1), keypoints.size(2)};
  check_like(op, "scores", scores, "(B, N)", {shape.batch, shape.people}, "keypoints", keypoints);
  check_coordinates_like(op, "scores", scores, keypoints);
  check_like(op, "area", area, "(B, N)", {shape.batch, shape.people}, "keypoints", keypoints);
  check_coordinates_like(op, "area", area, keypoints);
  if (visible) {
    check_like(
        op, "visible", *visible, "(B, N, K)", {shape.batch, shape.people, shape.joints}, "keypoints", keypoints);
    check_visible(op, *visible);
  }
  check_sigmas(op, sigmas, shape.joints);
  PYPOSE_OPS_CHECK(
      threshold > 0 && std::isfinite(threshold), op, ": threshold must be positive and finite, got ", threshold);
  PYPOSE_OPS_CHECK(max_people >= 0, op, ": max_people must not be negative, got ", max_people);
  return shape;
}

}  // namespace grouping
}  // namespace pypose_ops

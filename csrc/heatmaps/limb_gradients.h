// _part_affinity_fields_backward: checks and the formulas of one limb, shared by the CPU and CUDA kernels.
//
// A limb draws w u: u its direction, w the weight at distance r from its nearest point, which lies at the fraction t of
// the way from its start to its end. Moving an end turns u, and changes w by the share of that end in r. A band's w is a
// step, without a slope; only u moves. The linear profile has steps at the ends of a limb, and a slope between.
#pragma once

#include "heatmaps/limbs.h"

namespace pypose_ops {
namespace heatmaps {

PYPOSE_OPS_HOST_DEVICE constexpr bool has_slope(LimbProfile profile) {
  return is_soft(profile) || profile == LimbProfile::linear;
}

// Sums over the pixels of a limb, G the gradient of its own vector there: w G, and (G u) times the slopes of w to the start
// and to the end.
constexpr int kLimbMoments = 6;

template <LimbProfile profile, typename acc>
PYPOSE_OPS_HOST_DEVICE void limb_moments(
    const Limb<acc>& limb, acc radius, int32_t x, int32_t y, acc grad_x, acc grad_y, acc (&moments)[kLimbMoments]) {
  const acc weight = limb_weight<profile>(limb, radius, x, y);
  moments[0] = weight * grad_x;
  moments[1] = weight * grad_y;
  if constexpr (!has_slope(profile)) {
    moments[2] = moments[3] = moments[4] = moments[5] = 0;
  } else if constexpr (profile == LimbProfile::linear) {
    const acc dx = static_cast<acc>(x) - limb.x;
    const acc dy = static_cast<acc>(y) - limb.y;
    const acc across = dx * limb.along_y - dy * limb.along_x;
    const acc t = (dx * limb.along_x + dy * limb.along_y) / limb.length;
    const acc side = across > 0 ? acc(1) : (across < 0 ? acc(-1) : acc(0));
    const acc slope = side / radius * (grad_x * limb.along_x + grad_y * limb.along_y);
    const acc steep = limb_covers<profile>(limb, radius, x, y) ? slope : acc(0);
    moments[2] = steep * limb.along_y * (acc(1) - t);
    moments[3] = -steep * limb.along_x * (acc(1) - t);
    moments[4] = steep * limb.along_y * t;
    moments[5] = -steep * limb.along_x * t;
  } else {
    const acc dx = static_cast<acc>(x) - limb.x;
    const acc dy = static_cast<acc>(y) - limb.y;
    const acc projected = dx * limb.along_x + dy * limb.along_y;
    acc along = projected;
    if constexpr (profile == LimbProfile::sleap) {
      along = limb.length < acc(1) ? along * limb.length * limb.length : along;
    }
    const acc nearest = along > 0 ? (along < limb.length ? along : limb.length) : acc(0);
    const acc t = nearest / limb.length;
    // The vector r by its parts along and across: of a limb whose ends are far away, dx - nearest u would leave nothing.
    const acc beyond = projected - nearest;
    const acc across = dx * limb.along_y - dy * limb.along_x;
    const acc rx = beyond * limb.along_x + across * limb.along_y;
    const acc ry = beyond * limb.along_y - across * limb.along_x;
    const acc slope = acc(2) * weight / (radius * radius) * (grad_x * limb.along_x + grad_y * limb.along_y);
    if constexpr (profile == LimbProfile::sleap) {
      // Of a limb that sleap counts as one pixel long, r is not perpendicular to it: t counts too.
      const acc inside = along > 0 ? (along < limb.length ? acc(1) : acc(0)) : acc(0);
      const acc shortened = limb.length < acc(1) ? inside : acc(0);
      const acc lever = shortened * beyond * limb.length;
      const acc steep = slope * (rx * rx + ry * ry);
      moments[2] = steep * (rx * (acc(1) - t) - lever * (limb.length * limb.along_x + dx));
      moments[3] = steep * (ry * (acc(1) - t) - lever * (limb.length * limb.along_y + dy));
      moments[4] = steep * (rx * t + lever * dx);
      moments[5] = steep * (ry * t + lever * dy);
    } else {
      moments[2] = slope * (rx * (acc(1) - t));
      moments[3] = slope * (ry * (acc(1) - t));
      moments[4] = slope * (rx * t);
      moments[5] = slope * (ry * t);
    }
  }
}

// -> gradients of the limb's start (x, y) and end (x, y).
template <typename acc>
PYPOSE_OPS_HOST_DEVICE void end_gradients(const Limb<acc>& limb, const acc (&moments)[kLimbMoments], acc* grad_ends) {
  const acc turn = (moments[1] * limb.along_x - moments[0] * limb.along_y) / limb.length;
  grad_ends[0] = moments[2] + turn * limb.along_y;
  grad_ends[1] = moments[3] - turn * limb.along_x;
  grad_ends[2] = moments[4] - turn * limb.along_y;
  grad_ends[3] = moments[5] + turn * limb.along_x;
}

// The gradient of joint k of one person from those of the ends of its limbs, grad_ends (L, 4).
template <typename acc>
PYPOSE_OPS_HOST_DEVICE void gather_ends(const acc* grad_ends, const LimbList& limbs, int64_t k, acc* grad_keypoint) {
  acc x = 0, y = 0;
  for (int32_t l = 0; l < limbs.count; ++l) {
    const acc* ends = grad_ends + 4 * l;
    x += (limbs.from[l] == k ? ends[0] : acc(0)) + (limbs.to[l] == k ? ends[2] : acc(0));
    y += (limbs.from[l] == k ? ends[1] : acc(0)) + (limbs.to[l] == k ? ends[3] : acc(0));
  }
  grad_keypoint[0] = x;
  grad_keypoint[1] = y;
}

inline Shape check_field_backward(
    const char* op, const Tensor& grad, const Tensor& keypoints, const std::optional<Tensor>& visible, int64_t limbs) {
  check_dim(op, "grad", grad, 4, "(B, 2 L, H, W)");
  check_floating(op, "grad", grad);
  check_same_device(op, "grad", grad, "keypoints", keypoints);
  const Shape shape = check_people(op, keypoints, std::nullopt, visible, grad.size(2), grad.size(3));
  check_size(op, "grad", grad, 0, shape.batch);
  check_size(op, "grad", grad, 1, 2 * limbs);
  return shape;
}

}  // namespace heatmaps
}  // namespace pypose_ops

// part_affinity_fields and limb_masks: checks, options and the formulas of one limb, shared by the CPU and CUDA kernels.
#pragma once

#include <vector>

#include "common/outputs.h"
#include "heatmaps/gaussian_heatmaps.h"

namespace pypose_ops {
namespace heatmaps {

// What a limb weighs at a pixel; capsule is the mask's.
enum class LimbProfile : int { band, openpose, trt_pose, sleap, linear, capsule };
enum class LimbCombine : int { mean, sum, last };

struct LimbOptions {
  LimbProfile profile;
  LimbCombine combine;
  double radius;  // of a band or capsule; the soft profiles' sigma
};

// By value in kernel parameters, which hold 4 KiB.
constexpr int kMaxLimbs = 256;
struct LimbList {
  int32_t count;
  int16_t from[kMaxLimbs], to[kMaxLimbs];
};

// Further out float32 no longer knows where a limb passes.
constexpr double kFarthest = 1e6;
// A shorter limb has no direction.
constexpr double kShortest = 1e-6;

template <typename acc>
struct Limb {
  acc x, y;                          // where it begins
  acc span_x, span_y;                // from there to its end
  acc along_x, along_y;              // its direction, a unit vector
  acc length;
  int32_t left, right, top, bottom;  // the pixels it may reach: [left, right) x [top, bottom)
  bool present;                      // counts in a soft profile's mean
  bool drawn;                        // reaches into the map
};

PYPOSE_OPS_HOST_DEVICE constexpr bool is_soft(LimbProfile profile) {
  return profile == LimbProfile::trt_pose || profile == LimbProfile::sleap;
}

// How far from the limb its weight is not 0 in acc's arithmetic.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc reach_of(const LimbOptions& options) {
  const acc radius = static_cast<acc>(options.radius);
  const acc exponent = sizeof(acc) == 8 ? acc(746) : acc(88);  // e^-exponent is 0
  if (options.profile == LimbProfile::trt_pose) {
    return ::sqrt(exponent) * radius;
  }
  return options.profile == LimbProfile::sleap ? ::sqrt(::sqrt(acc(2) * exponent) * radius) : radius;
}

template <typename acc>
PYPOSE_OPS_HOST_DEVICE
void limb_range(const LimbOptions& options, acc a, acc b, int64_t size, int32_t& first, int32_t& end) {
  const acc reach = reach_of<acc>(options);
  acc low = (a < b ? a : b) - reach;
  acc high = (a < b ? b : a) + reach;
  if (options.profile == LimbProfile::openpose) {  // rounded, and without its last pixel
    low = ::round(low);
    high = ::round(high) - acc(1);
  }
  pixel_range(low, high, size, first, end);
}

template <typename acc>
PYPOSE_OPS_HOST_DEVICE bool limb_end(const People<acc>& people, int64_t b, int64_t p, int64_t k, acc& x, acc& y) {
  const acc farthest = static_cast<acc>(kFarthest);
  const acc* keypoint =
      people.keypoints + b * people.keypoint_stride[0] + p * people.keypoint_stride[1] + k * people.keypoint_stride[2];
  x = keypoint[0];
  y = keypoint[people.keypoint_stride[3]];
  const bool near = x >= -farthest && x <= farthest && y >= -farthest && y <= farthest;
  const int64_t* vs = people.visible_stride;
  return near && (!people.visible || people.visible[b * vs[0] + p * vs[1] + k * vs[2]]);
}

template <typename acc>
PYPOSE_OPS_HOST_DEVICE Limb<acc> limb_of(
    const People<acc>& people, const LimbOptions& options, const Shape& shape, int64_t from, int64_t to, int64_t b,
    int64_t p) {
  Limb<acc> limb{};
  acc end_x, end_y;
  if (!limb_end(people, b, p, from, limb.x, limb.y) || !limb_end(people, b, p, to, end_x, end_y)) {
    return limb;
  }
  const acc x = limb.span_x = end_x - limb.x;
  const acc y = limb.span_y = end_y - limb.y;
  limb.length = ::sqrt(x * x + y * y);
  limb.present = true;
  if (limb.length >= static_cast<acc>(kShortest)) {
    limb.along_x = x / limb.length;
    limb.along_y = y / limb.length;
  } else {  // a capsule becomes a disc
    limb.along_x = 1;
    limb.present = options.profile == LimbProfile::capsule;
  }
  limb_range(options, limb.x, end_x, shape.width, limb.left, limb.right);
  limb_range(options, limb.y, end_y, shape.height, limb.top, limb.bottom);
  limb.drawn = limb.present && limb.left < limb.right && limb.top < limb.bottom;
  return limb;
}

// Whether pixel (x, y), one of those in the limb's range, counts as covered. The soft profiles have no edge.
template <LimbProfile profile, typename acc>
PYPOSE_OPS_HOST_DEVICE bool limb_covers(const Limb<acc>& limb, acc radius, int32_t x, int32_t y) {
  if constexpr (is_soft(profile)) {
    return false;
  }
  const acc dx = static_cast<acc>(x) - limb.x;
  const acc dy = static_cast<acc>(y) - limb.y;
  const acc across = dx * limb.along_y - dy * limb.along_x;
  bool covers = across <= radius && across >= -radius;
  if constexpr (profile == LimbProfile::linear) {
    // By the vector to its end: the unit vector's rounding would tell pixels at the ends of a diagonal limb apart.
    const acc along = dx * limb.span_x + dy * limb.span_y;
    covers = covers & (along >= 0) & (along <= limb.span_x * limb.span_x + limb.span_y * limb.span_y);
  }
  return covers;
}

template <typename acc>
PYPOSE_OPS_HOST_DEVICE bool limb_covers(const Limb<acc>& limb, const LimbOptions& options, int32_t x, int32_t y) {
  const acc radius = static_cast<acc>(options.radius);
  if (is_soft(options.profile)) {
    return false;
  }
  return options.profile == LimbProfile::linear ? limb_covers<LimbProfile::linear>(limb, radius, x, y)
                                                : limb_covers<LimbProfile::band>(limb, radius, x, y);
}

// The weight at pixel (x, y), one of those in the limb's range.
template <LimbProfile profile, typename acc>
PYPOSE_OPS_HOST_DEVICE acc limb_weight(const Limb<acc>& limb, acc radius, int32_t x, int32_t y) {
  const acc dx = static_cast<acc>(x) - limb.x;
  const acc dy = static_cast<acc>(y) - limb.y;
  const acc across = dx * limb.along_y - dy * limb.along_x;
  if constexpr (profile == LimbProfile::band || profile == LimbProfile::openpose) {
    return limb_covers<profile>(limb, radius, x, y) ? acc(1) : acc(0);
  } else if constexpr (profile == LimbProfile::linear) {
    const acc distance = across < 0 ? -across : across;
    return limb_covers<profile>(limb, radius, x, y) ? acc(1) - distance / radius : acc(0);
  } else {
    // To the nearest point of the limb; sleap counts a limb shorter than a pixel as one pixel long here.
    acc along = dx * limb.along_x + dy * limb.along_y;
    if constexpr (profile == LimbProfile::sleap) {
      along = limb.length < acc(1) ? along * limb.length * limb.length : along;
    }
    const acc nearest = along > 0 ? (along < limb.length ? along : limb.length) : acc(0);
    const acc beyond = dx * limb.along_x + dy * limb.along_y - nearest;
    if constexpr (profile == LimbProfile::capsule) {
      return beyond * beyond + across * across <= radius * radius ? acc(1) : acc(0);
    }
    acc exponent;
    if constexpr (profile == LimbProfile::trt_pose) {
      const acc u = beyond / radius;
      const acc v = across / radius;
      exponent = -(u * u + v * v);
    } else {
      const acc u = (beyond * beyond + across * across) / radius;
      exponent = acc(-0.5) * u * u;
    }
    return exponential(exponent);
  }
}

inline LimbList check_limbs(const char* op, const std::vector<int64_t>& limbs, int64_t joints) {
  PYPOSE_OPS_CHECK(limbs.size() % 2 == 0, op, ": limbs must be pairs of joints, got ", limbs.size(), " numbers");
  PYPOSE_OPS_CHECK(
      limbs.size() <= 2 * kMaxLimbs, op, ": limbs must be at most ", kMaxLimbs, " pairs, got ", limbs.size() / 2);
  PYPOSE_OPS_CHECK(joints <= 32767, op, ": keypoints must have at most 32767 joints, got ", joints);
  LimbList list{};
  list.count = static_cast<int32_t>(limbs.size() / 2);
  for (const int64_t joint : limbs) {
    PYPOSE_OPS_CHECK(
        joint >= 0 && joint < joints, op, ": limbs must be joints from 0 to ", joints - 1, ", got ", joint);
  }
  for (int32_t l = 0; l < list.count; ++l) {
    list.from[l] = static_cast<int16_t>(limbs[2 * l]);
    list.to[l] = static_cast<int16_t>(limbs[2 * l + 1]);
  }
  return list;
}

// The arguments of both operators, checked, and the maps to draw: (B, channels * L, H, W), 2 channels for fields (x, then
// y, a map apart) and 1 for masks.
struct LimbMaps {
  LimbMaps(
      const char* op, const std::optional<Tensor>& given, int channels, const Tensor& keypoints,
      const std::vector<int64_t>& limbs,
      const std::optional<Tensor>& visible, int64_t height, int64_t width, ScalarType dtype)
      : shape(check_people(op, keypoints, std::nullopt, visible, height, width)),
        limbs(check_limbs(op, limbs, shape.joints)),
        out(maps_of(op, given, channels, keypoints, dtype)) {}

  Shape shape;
  LimbList limbs;
  Tensor out;

 private:
  Tensor maps_of(
      const char* op, const std::optional<Tensor>& given, int channels, const Tensor& keypoints,
      ScalarType dtype) const {
    check_map_type(op, dtype);
    return output_of(
        op, given, keypoints, {shape.batch, channels * limbs.count, shape.height, shape.width}, dtype);
  }
};

inline void check_limb_radius(const char* op, double radius) {
  PYPOSE_OPS_CHECK(
      radius >= kShortest && radius <= kFarthest, op, ": limb_radius must be positive, from ", kShortest, " to ",
      kFarthest, ", got ", radius);
}

inline LimbOptions check_limb_options(const char* op, double radius, int64_t profile, int64_t combine) {
  check_limb_radius(op, radius);
  const LimbOptions options{
      check_choice<LimbProfile>(op, "profile", profile, 5), check_choice<LimbCombine>(op, "combine", combine, 3),
      radius};
  PYPOSE_OPS_CHECK(
      options.combine != LimbCombine::last || !is_soft(options.profile), op,
      ": combine must be mean or sum with the profiles trt_pose and sleap, which have no edge, got last");
  return options;
}

inline LimbOptions check_mask_options(const char* op, double radius) {
  check_limb_radius(op, radius);
  return {LimbProfile::capsule, LimbCombine::sum, radius};
}

}  // namespace heatmaps
}  // namespace pypose_ops

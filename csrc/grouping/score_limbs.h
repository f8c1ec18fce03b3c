// score_limbs: checks, options and the rules of the line integral, shared by the CPU and CUDA kernels.
//
// A candidate limb from (ax, ay) to (bx, by) is sampled at n points a + t (b - a); the part affinity field at the
// nearest pixel is projected on the limb's direction. The rules differ in the points and in what they make of the
// projections:
//   openpose   t = l / n (the end is not sampled), points clamped to the map; the mean of the projections above the
//              threshold, when they are more than `fraction` of all; very short limbs pass with a fixed score
//   trt_pose   t = l / (n - 1); points outside of the map add nothing; the mean of all; direction + 1e-5 in the length
//   trapezoid  t = l / (n - 1), points clamped to the map; the integral by the trapezoid rule over the length
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "common/dispatch.h"
#include "common/math.h"
#include "common/tensors.h"
#include "grouping/peak_counts.h"

namespace pypose_ops {
namespace grouping {

enum class Rule : int { openpose, trt_pose, trapezoid };

struct LimbOptions {
  Rule rule;
  int32_t samples;  // 0: as many as OpenPose takes for the limb's length
  double threshold, fraction;
};

struct LimbShape {
  int64_t batch, joints, peaks, limbs, channels, height, width;

  PYPOSE_OPS_HOST_DEVICE int64_t pairs() const {
    return peaks * peaks;
  }
};

// OpenPose lets two joints that nearly coincide be a limb: shorter than this share of the map's size, it scores this.
constexpr double kShortLimb = 1.0 / 150;
constexpr double kShortLimbScore = 0.05 + 1e-6;
constexpr double kTrtPoseEpsilon = 1e-5;
constexpr int kMaxSamples = 1024;

template <typename acc>
struct Limb {
  acc dx, dy;  // from one sample to the next
  acc ux, uy;  // what the field is projected on
  acc length;
  acc samples;
  bool scored;  // false: no direction, or endless
};

// OpenPose: round(sqrt(5 max(|dx|, |dy|))), from 5 to 25.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc openpose_samples(acc dx, acc dy) {
  const acc x = dx < 0 ? -dx : dx;
  const acc y = dy < 0 ? -dy : dy;
  const acc count = round_half_up(::sqrt(acc(5) * (x > y ? x : y)));
  const acc enough = count > acc(5) ? count : acc(5);
  return enough < acc(25) ? enough : acc(25);
}

// Without branches on the coordinates, as all below: the CPU kernel runs these in loops that become vector code.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE Limb<acc> limb_between(acc ax, acc ay, acc bx, acc by, Rule rule, int32_t samples) {
  Limb<acc> limb;
  const acc dx = bx - ax;
  const acc dy = by - ay;
  limb.length = ::sqrt(dx * dx + dy * dy);
  const acc divisor = rule == Rule::trt_pose ? limb.length + static_cast<acc>(kTrtPoseEpsilon) : limb.length;
  limb.scored = (divisor > acc(1e-6)) & (divisor <= std::numeric_limits<acc>::max());
  const acc usable = limb.scored ? divisor : acc(1);
  limb.ux = dx / usable;
  limb.uy = dy / usable;
  limb.samples = samples > 0 ? static_cast<acc>(samples) : openpose_samples(dx, dy);
  const acc step = acc(1) / (rule == Rule::openpose ? limb.samples : limb.samples - 1);
  limb.dx = dx * step;
  limb.dy = dy * step;
  return limb;
}

// v rounded and clamped to 0 ... last; NaN is 0.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE int32_t nearest_pixel(acc v, acc last) {
  const acc rounded = round_half_up(v);
  const acc low = rounded > 0 ? rounded : acc(0);
  return static_cast<int32_t>(low < last ? low : last);
}

template <typename acc>
PYPOSE_OPS_HOST_DEVICE bool outside(acc v, acc last) {
  const acc rounded = round_half_up(v);
  return !(rounded >= 0 && rounded <= last);
}

// Minus infinity: these two are no limb. counted: samples above the threshold, of rule openpose.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc limb_score(
    acc sum, acc counted, acc samples, acc length, bool scored, Rule rule, acc fraction, acc short_limb) {
  constexpr acc kNever = -std::numeric_limits<acc>::infinity();
  acc score;
  if (rule == Rule::openpose) {
    const acc otherwise = length < short_limb ? static_cast<acc>(kShortLimbScore) : kNever;
    const acc divisor = counted > 0 ? counted : acc(1);
    score = ((counted > fraction * samples) & (counted > 0)) ? sum / divisor : otherwise;
  } else {
    score = sum / (rule == Rule::trt_pose ? samples : samples - 1);
  }
  return (scored & (score > kNever)) ? score : kNever;  // NaN is no limb either
}

template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc short_limb_length(const LimbShape& shape) {
  return ::sqrt(static_cast<acc>(shape.width) * static_cast<acc>(shape.height)) * static_cast<acc>(kShortLimb);
}

PYPOSE_OPS_HOST_DEVICE int64_t usable_count(int64_t count, int64_t peaks) {
  return count < 0 ? 0 : (count < peaks ? count : peaks);
}

// limbs: pairs of joints; every one needs to be within 0 ... joints - 1.
inline void check_limbs(const char* op, const std::vector<int64_t>& limbs, int64_t joints) {
  PYPOSE_OPS_CHECK(limbs.size() % 2 == 0, op, ": limbs must be pairs of joints, got ", limbs.size(), " numbers");
  for (size_t i = 0; i < limbs.size(); i += 2) {
    PYPOSE_OPS_CHECK(
        limbs[i] >= 0 && limbs[i] < joints && limbs[i + 1] >= 0 && limbs[i + 1] < joints && limbs[i] != limbs[i + 1],
        op, ": limbs must be pairs of two joints from 0 to ", joints - 1, ", got (", limbs[i], ", ", limbs[i + 1],
        ")");
  }
}

inline LimbShape check_score_limbs(
    const Tensor& pafs, const Tensor& coords, const Tensor& counts, const std::vector<int64_t>& limbs,
    const std::vector<int64_t>& channels, const LimbOptions& options) {
  constexpr const char* op = "score_limbs";
  check_dim(op, "pafs", pafs, 4, "(B, C, H, W)");
  check_floating(op, "pafs", pafs);
  PYPOSE_OPS_CHECK(
      coords.dim() == 4 && coords.size(3) == 2, op, ": peaks.coords must be (B, K, M, 2), got shape ",
      shape_of(coords));
  check_coordinates(op, "peaks.coords", coords);
  check_size(op, "peaks.coords", coords, 0, pafs.size(0));
  check_same_device(op, "peaks.coords", coords, "pafs", pafs);
  check_counts(op, counts, "peaks.coords", coords);
  check_limbs(op, limbs, coords.size(1));
  PYPOSE_OPS_CHECK(
      channels.size() == limbs.size(), op, ": channels must be two for each of ", limbs.size() / 2, " limbs, got ",
      channels.size());
  for (const int64_t channel : channels) {
    PYPOSE_OPS_CHECK(
        channel >= 0 && channel < pafs.size(1), op, ": channels must be from 0 to ", pafs.size(1) - 1,
        ", the channels of pafs, got ", channel);
  }
  const int32_t fewest = options.rule == Rule::openpose ? 1 : 2;
  PYPOSE_OPS_CHECK(
      (options.samples == 0 && options.rule == Rule::openpose) ||
          (options.samples >= fewest && options.samples <= kMaxSamples),
      op, ": samples must be from ", fewest, " to ", kMaxSamples, " for this rule, got ", options.samples);
  const int64_t limb_count = static_cast<int64_t>(limbs.size()) / 2;
  PYPOSE_OPS_CHECK(
      limb_count == 0 || (pafs.size(2) > 0 && pafs.size(3) > 0), op, ": pafs must not be empty maps, got shape ",
      shape_of(pafs));
  PYPOSE_OPS_CHECK(
      pafs.size(2) <= (int64_t(1) << 30) / std::max<int64_t>(1, pafs.size(3)), op,
      ": pafs must have at most 2^30 pixels a map, got shape ", shape_of(pafs));
  return {pafs.size(0), coords.size(1), coords.size(2), limb_count, pafs.size(1), pafs.size(2), pafs.size(3)};
}

inline LimbOptions limb_options(int64_t rule, int64_t samples, double threshold, double fraction) {
  constexpr const char* op = "score_limbs";
  PYPOSE_OPS_CHECK(
      samples >= 0 && samples <= kMaxSamples, op, ": samples must be from 0 to ", kMaxSamples, ", got ", samples);
  PYPOSE_OPS_CHECK(std::isfinite(threshold), op, ": threshold must be finite, got ", threshold);
  PYPOSE_OPS_CHECK(fraction >= 0 && fraction <= 1, op, ": fraction must be from 0 to 1, got ", fraction);
  return {check_choice<Rule>(op, "rule", rule, 3), static_cast<int32_t>(samples), threshold, fraction};
}

// Everything contiguous; coordinates in the arithmetic's dtype.
struct LimbTensors {
  Tensor pafs, coords, counts;

  LimbTensors(const Tensor& pafs, const Tensor& coords, const Tensor& counts)
      : pafs(as_contiguous(pafs)),
        coords(as_contiguous(coords, acc_scalar_type(pafs.scalar_type()))),
        counts(as_contiguous(counts)) {}
};

}  // namespace grouping
}  // namespace pypose_ops

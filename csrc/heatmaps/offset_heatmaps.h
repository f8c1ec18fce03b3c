// offset_heatmaps: checks and the formulas of one keypoint at one pixel, shared by the CPU and CUDA kernels.
#pragma once

#include "heatmaps/gaussian_heatmaps.h"

namespace pypose_ops {
namespace heatmaps {

// Whose offset a pixel holds where several people share a map.
enum class Winner : int { nearest, last };

// Keypoints further out draw nothing: float32 no longer tells their pixels apart.
constexpr double kFarthestOffset = 1e6;

template <typename acc>
struct OffsetPixel {
  acc inside;
  acc x, y;      // offset in pixels; the maps hold it in radii
  acc distance;  // of the person it belongs to, squared, in pixels
};

template <typename acc>
PYPOSE_OPS_HOST_DEVICE OffsetPixel<acc> empty_pixel() {
  return {0, 0, 0, std::numeric_limits<acc>::infinity()};
}

// Squared, in pixels: exact for keypoints on and halfway between pixels, so that people as far as one another tie however
// a compiler fuses the sum. In radii they would not.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc square_distance(acc x, acc y) {
  return x * x + y * y;
}

// One person after the other; x and y are the offset to the keypoint in pixels.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE void add_offset(OffsetPixel<acc>& pixel, acc x, acc y, acc radius, Winner winner) {
  const acc distance = square_distance(x, y);
  const bool wins = winner == Winner::last || distance < pixel.distance;
  pixel.inside = distance <= radius * radius ? acc(1) : pixel.inside;
  pixel.x = wins ? x : pixel.x;
  pixel.y = wins ? y : pixel.y;
  pixel.distance = wins ? distance : pixel.distance;
}

template <typename acc>
struct Point {
  acc x, y;
  bool drawn;
};

template <typename acc>
PYPOSE_OPS_HOST_DEVICE Point<acc> point_of(const People<acc>& people, int64_t b, int64_t p, int64_t k) {
  const acc farthest = static_cast<acc>(kFarthestOffset);
  const int64_t* ks = people.keypoint_stride;
  const int64_t* vs = people.visible_stride;
  const acc* keypoint = people.keypoints + b * ks[0] + p * ks[1] + k * ks[2];
  const acc x = keypoint[0];
  const acc y = keypoint[ks[3]];
  const bool near = x >= -farthest && x <= farthest && y >= -farthest && y <= farthest;
  return {x, y, near && (!people.visible || people.visible[b * vs[0] + p * vs[1] + k * vs[2]])};
}

inline void check_radius(const char* op, double radius) {
  PYPOSE_OPS_CHECK(
      radius >= 1e-3 && radius <= kFarthestOffset, op, ": radius must be from 0.001 to ", kFarthestOffset, ", got ",
      radius);
}

inline Shape check_offset_backward(
    const char* op, const Tensor& grad, const Tensor& keypoints, const std::optional<Tensor>& visible) {
  check_dim(op, "grad", grad, 4, "(B, 3 K, H, W)");
  check_floating(op, "grad", grad);
  check_same_device(op, "grad", grad, "keypoints", keypoints);
  const Shape shape = check_people(op, keypoints, std::nullopt, visible, grad.size(2), grad.size(3));
  check_size(op, "grad", grad, 0, shape.batch);
  check_size(op, "grad", grad, 1, 3 * shape.joints);
  return shape;
}

}  // namespace heatmaps
}  // namespace pypose_ops

// box_vote: checks and formulas shared by the CPU and CUDA kernels.
//
// A map is the 2-D prefix sum of an array that holds each box's weight at four signed corners. The sums run in 64-bit
// integers, in units of a power of two that leaves room for all of them: adding is then exact in any order, so atomics
// are deterministic and what one corner adds the next one takes away to the last bit.
#pragma once

#include <cmath>
#include <optional>
#include <vector>

#include "common/check.h"
#include "common/math.h"
#include "common/tensors.h"

namespace pypose_ops {
namespace patches {

constexpr int64_t kMaxMapSide = int64_t(1) << 30;

struct VoteShape {
  int64_t batch, boxes, maps, height, width;

  PYPOSE_OPS_HOST_DEVICE int64_t pixels() const {
    return height * width;
  }
};

// Pixels [first, end) whose centres lie in [low, high]; none where one of the two is NaN.
struct Pixels {
  int64_t first, end;

  template <typename acc>
  static PYPOSE_OPS_HOST_DEVICE Pixels of(acc low, acc high, int64_t size) {
    if (!(low <= high)) {
      return {0, 0};
    }
    const acc limit = static_cast<acc>(size);
    const acc from = ::ceil(low), to = ::floor(high) + acc(1);
    const int64_t first = from > acc(0) ? (from < limit ? static_cast<int64_t>(from) : size) : 0;
    const int64_t end = to < limit ? (to > acc(0) ? static_cast<int64_t>(to) : 0) : size;
    return {first, end > first ? end : first};
  }
};

struct PixelBox {
  Pixels x, y;

  template <typename acc>
  static PYPOSE_OPS_HOST_DEVICE PixelBox of(const acc* box, const VoteShape& shape) {
    return {Pixels::of(box[0], box[2], shape.width), Pixels::of(box[1], box[3], shape.height)};
  }
  PYPOSE_OPS_HOST_DEVICE bool empty() const {
    return x.first >= x.end || y.first >= y.end;
  }
};

// add(y, x, sign) for the corners that lie in the map.
template <typename Add>
PYPOSE_OPS_HOST_DEVICE void for_corners(const PixelBox& box, const VoteShape& shape, const Add& add) {
  add(box.y.first, box.x.first, 1);
  if (box.x.end < shape.width) {
    add(box.y.first, box.x.end, -1);
  }
  if (box.y.end < shape.height) {
    add(box.y.end, box.x.first, -1);
  }
  if (box.x.end < shape.width && box.y.end < shape.height) {
    add(box.y.end, box.x.end, 1);
  }
}

// Weights are counted in units of 2^-exponent: the sum of all boxes' is below 2^62.
PYPOSE_OPS_HOST_DEVICE int32_t unit_exponent(double largest, int64_t boxes) {
  int for_one = 0, for_all = 0;
  ::frexp(largest, &for_one);
  ::frexp(static_cast<double>(boxes), &for_all);
  return 62 - for_one - for_all;
}
PYPOSE_OPS_HOST_DEVICE int64_t units_of(double weight, int32_t exponent) {
  return ::llrint(::ldexp(weight, exponent));
}
PYPOSE_OPS_HOST_DEVICE double from_units(int64_t units, int32_t exponent) {
  return ::ldexp(static_cast<double>(units), -exponent);
}

inline VoteShape check_vote(const char* op, const Tensor& boxes, int64_t maps, int64_t height, int64_t width) {
  PYPOSE_OPS_CHECK(
      (boxes.dim() == 2 || boxes.dim() == 3) && boxes.size(boxes.dim() - 1) == 4, op,
      ": boxes must be (P, 4) or (B, P, 4), got shape ", shape_of(boxes));
  check_coordinates(op, "boxes", boxes);
  PYPOSE_OPS_CHECK(
      height > 0 && width > 0 && height <= kMaxMapSide && width <= kMaxMapSide, op, ": size must be from 1 to ",
      kMaxMapSide, " a side, got (", height, ", ", width, ")");
  const bool batched = boxes.dim() == 3;
  return {batched ? boxes.size(0) : 1, boxes.size(boxes.dim() - 2), maps, height, width};
}

inline VoteShape check_vote(const char* op, const Tensor& boxes, const Tensor& weights, int64_t height, int64_t width) {
  const int64_t dims = weights.dim();
  PYPOSE_OPS_CHECK(
      dims == boxes.dim() && dims >= 2, op, ": weights must be (P, K) or (B, P, K) as boxes (P, 4) or (B, P, 4), got shape ",
      shape_of(weights));
  check_floating(op, "weights", weights);
  check_same_device(op, "weights", weights, "boxes", boxes);
  const VoteShape shape = check_vote(op, boxes, weights.size(dims - 1), height, width);
  for (int64_t d = 0; d < dims - 1; ++d) {
    check_size(op, "weights", weights, d, boxes.size(d));
  }
  return shape;
}

inline VoteShape check_vote_backward(const char* op, const Tensor& grad, const Tensor& boxes) {
  PYPOSE_OPS_CHECK(
      grad.dim() == boxes.dim() + 1, op, ": grad must be (K, H, W) or (B, K, H, W), got shape ", shape_of(grad));
  check_floating(op, "grad", grad);
  check_same_device(op, "grad", grad, "boxes", boxes);
  const int64_t dims = grad.dim();
  const VoteShape shape = check_vote(op, boxes, grad.size(dims - 3), grad.size(dims - 2), grad.size(dims - 1));
  if (dims == 4) {
    check_size(op, "grad", grad, 0, shape.batch);
  }
  return shape;
}

// (B, P, K) without B where the boxes have none; the same for (B, K, H, W).
inline std::vector<int64_t> sizes_like(const Tensor& boxes, int64_t batch, std::vector<int64_t> rest) {
  if (boxes.dim() == 3) {
    rest.insert(rest.begin(), batch);
  }
  return rest;
}

}  // namespace patches
}  // namespace pypose_ops

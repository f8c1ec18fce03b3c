// _gaussian_targets: what the codecs of pypose_ops.codecs encode, in one call on the host. With a few joints every pass
// through the dispatcher costs as much as the drawing.
#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/library.h>

#include "heatmaps/gaussian_heatmaps.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

// What a codec does before it draws.
struct Placement {
  double ratio_x, ratio_y;  // input pixels to pixels of the map
  bool down;                // to the pixel below
  double reach;             // joints farther outside of the map have weight 0
  int64_t height, width;
};

// visible (null: all) counts from 0.5 on, and is the weight, up to 1. Joints that draw nothing become NaN.
template <typename T>
void place_joints(
    const Tensor& at, const Tensor& weights, const Tensor& keypoints, const double* visible, const Placement& to) {
  const T* from = keypoints.const_data_ptr<T>();
  T* placed = at.mutable_data_ptr<T>();
  T* weight = weights.mutable_data_ptr<T>();
  const T ratio_x = static_cast<T>(to.ratio_x);
  const T ratio_y = static_cast<T>(to.ratio_y);
  const T low = static_cast<T>(-to.reach);
  const T last_x = static_cast<T>(static_cast<double>(to.width - 1) + to.reach);
  const T last_y = static_cast<T>(static_cast<double>(to.height - 1) + to.reach);
  const int64_t joints = weights.numel();
  for (int64_t i = 0; i < joints; ++i) {
    T x = from[2 * i] * ratio_x;
    T y = from[2 * i + 1] * ratio_y;
    if (to.down) {
      x = std::floor(x);
      y = std::floor(y);
    }
    const bool inside = x >= low && x <= last_x && y >= low && y <= last_y;
    const bool known = inside && (visible == nullptr || visible[i] >= 0.5);
    placed[2 * i] = known ? x : std::numeric_limits<T>::quiet_NaN();
    placed[2 * i + 1] = known ? y : std::numeric_limits<T>::quiet_NaN();
    weight[i] = !known ? T(0) : visible == nullptr ? T(1) : static_cast<T>(std::min(visible[i], 1.0));
  }
}

template <typename T>
std::vector<double> copied(const Tensor& values) {
  const T* first = values.const_data_ptr<T>();
  return {first, first + values.numel()};
}

// A conversion of the tensor would be another pass through the dispatcher.
std::vector<double> as_doubles(const Tensor& visible) {
  const Tensor dense = as_contiguous(visible);
  switch (dense.scalar_type()) {
    case ScalarType::Float:
      return copied<float>(dense);
    case ScalarType::Bool:
      return copied<bool>(dense);
    case ScalarType::Long:
      return copied<int64_t>(dense);
    default:
      return copied<double>(as_type(dense, ScalarType::Double));
  }
}

std::tuple<Tensor, Tensor> gaussian_targets_cpu(
    const Tensor& keypoints, const std::optional<Tensor>& visible, double ratio_x, double ratio_y, bool down,
    double reach, double sigma, int64_t height, int64_t width, int64_t center, std::optional<double> truncate,
    double scale, ScalarType dtype) {
  constexpr const char* op = "gaussian_heatmaps";
  check_coordinates(op, "keypoints", keypoints);
  const Tensor dense = as_contiguous(keypoints);
  check_size(op, "keypoints", keypoints, keypoints.dim() - 1, 2);
  const Tensor weights = empty_beside(keypoints, keypoints.sizes().slice(0, keypoints.dim() - 1));
  std::vector<double> seen;
  if (visible) {
    PYPOSE_OPS_CHECK(
        visible->numel() == weights.numel(), op, ": visible must be of the shape of keypoints, got ", shape_of(*visible));
    seen = as_doubles(*visible);
  }
  const Tensor at = empty_beside(keypoints, keypoints.sizes());
  const Placement to{ratio_x, ratio_y, down, reach, height, width};
  const double* counts = visible ? seen.data() : nullptr;
  if (keypoints.scalar_type() == ScalarType::Double) {
    place_joints<double>(at, weights, dense, counts, to);
  } else {
    place_joints<float>(at, weights, dense, counts, to);
  }
  return {draw_gaussians(at, sigma, height, width, center, truncate, scale, dtype), weights};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "_gaussian_targets(Tensor keypoints, Tensor? visible, float ratio_x, float ratio_y, bool down, float reach, "
      "float sigma, SymInt height, SymInt width, int center, float? truncate, float scale, ScalarType dtype) -> "
      "(Tensor maps, Tensor weights)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("_gaussian_targets", TORCH_BOX(&gaussian_targets_cpu));
}

}  // namespace pypose_ops

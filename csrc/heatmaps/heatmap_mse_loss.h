// heatmap_mse_loss: checks, shapes and what a map weighs, shared by the CPU and CUDA kernels.
#pragma once

#include <vector>

#include "heatmaps/gaussian_heatmaps.h"

namespace pypose_ops {
namespace heatmaps {

struct LossShape {
  Shape target;    // one target for all stages
  int64_t stages;  // 1 where pred is (B, K, H, W)
  bool crowd;      // keypoints have a people axis

  // Where map (s, b, k) begins in pred, in maps.
  PYPOSE_OPS_HOST_DEVICE int64_t index(int64_t s, int64_t b, int64_t k) const {
    return (s * target.batch + b) * target.joints + k;
  }
  int64_t maps() const {
    return stages * target.maps();
  }
};

// One value per predicted map, as a strided view.
template <typename acc>
struct PerMap {
  const acc* values;  // null: 1 everywhere
  int64_t stride[3];  // stage, item, joint

  PYPOSE_OPS_HOST_DEVICE acc at(int64_t s, int64_t b, int64_t k) const {
    return values ? values[s * stride[0] + b * stride[1] + k * stride[2]] : acc(1);
  }
};

template <typename acc>
PerMap<acc> per_map(const std::optional<Tensor>& tensor) {
  PerMap<acc> out{};
  if (tensor) {
    const int64_t skipped = 3 - tensor->dim();  // no stage axis: stride 0
    out.values = tensor->const_data_ptr<acc>();
    for (int64_t d = skipped; d < 3; ++d) {
      out.stride[d] = tensor->stride(d - skipped);
    }
  }
  return out;
}

// Whether map (b, k) has a target at all. The map of a keypoint that is not drawn has none; with a people axis a map
// without people is a target of zeros.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE
bool has_target(const People<acc>& people, const Options& options, const LossShape& shape, int64_t b, int64_t k) {
  return shape.crowd || blob_of(people, options, b, 0, k).drawn;
}

// Weights that are not positive finite numbers count as 0.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc weight_of(const PerMap<acc>& weights, int64_t s, int64_t b, int64_t k) {
  const acc weight = weights.at(s, b, k);
  return weight > 0 && weight <= std::numeric_limits<acc>::max() ? weight : acc(0);
}

inline LossShape check_loss(
    const char* op, const Tensor& pred, const Tensor& keypoints, const std::optional<Tensor>& sigma,
    const std::optional<Tensor>& weight, const std::optional<Tensor>& visible) {
  const int64_t dims = pred.dim();
  PYPOSE_OPS_CHECK(
      dims == 4 || dims == 5, op, ": pred must be (B, K, H, W) or (S, B, K, H, W), got shape ", shape_of(pred));
  check_floating(op, "pred", pred);
  check_same_device(op, "keypoints", keypoints, "pred", pred);
  const Shape target = check_people(op, keypoints, sigma, visible, pred.size(dims - 2), pred.size(dims - 1));
  check_size(op, "pred", pred, dims - 4, target.batch);
  check_size(op, "pred", pred, dims - 3, target.joints);
  if (weight) {
    check_dim(op, "weight", *weight, dims - 2, "expanded to the shape of pred without its last two axes");
    check_same_device(op, "weight", *weight, "pred", pred);
    PYPOSE_OPS_CHECK(
        weight->scalar_type() == acc_scalar_type(pred.scalar_type()), op,
        ": weight must be in the arithmetic's dtype, got ", torch::headeronly::toString(weight->scalar_type()));
    for (int64_t d = 0; d < dims - 2; ++d) {
      check_size(op, "weight", *weight, d, pred.size(d));
    }
  }
  return {target, dims == 5 ? pred.size(0) : 1, keypoints.dim() == 4};
}

inline void check_loss_gradient(const char* op, const Tensor& grad, const Tensor& pred) {
  check_dim(op, "grad", grad, pred.dim() - 2, "(B, K) or (S, B, K)");
  check_same_device(op, "grad", grad, "pred", pred);
  PYPOSE_OPS_CHECK(
      grad.scalar_type() == acc_scalar_type(pred.scalar_type()), op, ": grad must have the loss' dtype, got ",
      torch::headeronly::toString(grad.scalar_type()));
  for (int64_t d = 0; d < grad.dim(); ++d) {
    check_size(op, "grad", grad, d, pred.size(d));
  }
}

// (B, K), or (S, B, K) where pred has stages.
inline Tensor new_losses(const Tensor& pred) {
  const ScalarType type = acc_scalar_type(pred.scalar_type());
  return pred.dim() == 5 ? empty_beside(pred, {pred.size(0), pred.size(1), pred.size(2)}, type)
                         : empty_beside(pred, {pred.size(0), pred.size(1)}, type);
}

// Of pred's shape, or nothing where no gradient is wanted.
inline Tensor new_pred_gradient(const Tensor& pred, bool wanted) {
  return wanted ? empty_beside(pred, pred.sizes()) : empty_beside(pred, {0});
}

// (B, P, K, 2), or nothing where no gradient is wanted.
inline Tensor new_target_gradient(const Tensor& keypoints, const LossShape& shape, ScalarType type, bool wanted) {
  const Shape& target = shape.target;
  return wanted ? zeros_beside(keypoints, {target.batch, target.people, target.joints, 2}, type)
                : empty_beside(keypoints, {0}, type);
}

}  // namespace heatmaps
}  // namespace pypose_ops

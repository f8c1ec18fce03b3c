#include "heatmaps/limb_chunks.cuh"

namespace pypose_ops {
namespace {

using namespace heatmaps;

Tensor limb_masks_cuda(
    const Tensor& keypoints, std::vector<int64_t> limbs, double limb_radius, const std::optional<Tensor>& visible,
    int64_t height, int64_t width, ScalarType dtype) {
  constexpr const char* op = "limb_masks";
  return limb_maps_cuda<1>(op, keypoints, limbs, check_mask_options(op, limb_radius), visible, height, width, dtype);
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("limb_masks", TORCH_BOX(&limb_masks_cuda));
}

}  // namespace pypose_ops

#include "heatmaps/limb_chunks.cuh"

namespace pypose_ops {
namespace {

using namespace heatmaps;

Tensor limb_masks_cuda(
    const std::optional<Tensor>& given, const Tensor& keypoints, std::vector<int64_t> limbs, double limb_radius, const std::optional<Tensor>& visible,
    int64_t height, int64_t width, ScalarType dtype) {
  constexpr const char* op = "limb_masks";
  return limb_maps_cuda<1>(op, given, keypoints, limbs, check_mask_options(op, limb_radius), visible, height, width, dtype);
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  using Op = Drawn<&limb_masks_cuda>;
  m.impl("limb_masks", TORCH_BOX(&Op::returned));
  m.impl("limb_masks.out", TORCH_BOX(&Op::into));
}

}  // namespace pypose_ops

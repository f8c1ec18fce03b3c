#include <torch/csrc/stable/library.h>

#include "heatmaps/limb_rows.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

Tensor limb_masks_cpu(
    const Tensor& keypoints, std::vector<int64_t> limbs, double limb_radius, const std::optional<Tensor>& visible,
    int64_t height, int64_t width, ScalarType dtype) {
  constexpr const char* op = "limb_masks";
  return limb_maps_cpu<1>(op, keypoints, limbs, check_mask_options(op, limb_radius), visible, height, width, dtype);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "limb_masks(Tensor keypoints, int[] limbs, float limb_radius, Tensor? visible, SymInt height, SymInt width, "
      "ScalarType dtype) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("limb_masks", TORCH_BOX(&limb_masks_cpu));
}

}  // namespace pypose_ops

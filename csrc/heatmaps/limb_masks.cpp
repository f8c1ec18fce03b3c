#include <torch/csrc/stable/library.h>

#include "heatmaps/limb_rows.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

Tensor limb_masks_cpu(
    const std::optional<Tensor>& given, const Tensor& keypoints, std::vector<int64_t> limbs, double limb_radius, const std::optional<Tensor>& visible,
    int64_t height, int64_t width, ScalarType dtype) {
  constexpr const char* op = "limb_masks";
  return limb_maps_cpu<1>(op, given, keypoints, limbs, check_mask_options(op, limb_radius), visible, height, width, dtype);
}

}  // namespace

#define PYPOSE_OPS_ARGUMENTS \
  "Tensor keypoints, int[] limbs, float limb_radius, Tensor? visible, SymInt height, SymInt width, " \
  "ScalarType dtype"

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def("limb_masks(" PYPOSE_OPS_ARGUMENTS ") -> Tensor");
  m.def("limb_masks.out(Tensor(a!) out, " PYPOSE_OPS_ARGUMENTS ") -> ()");
}
#undef PYPOSE_OPS_ARGUMENTS

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  using Op = Drawn<&limb_masks_cpu>;
  m.impl("limb_masks", TORCH_BOX(&Op::returned));
  m.impl("limb_masks.out", TORCH_BOX(&Op::into));
}

}  // namespace pypose_ops

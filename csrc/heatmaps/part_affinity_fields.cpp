#include <torch/csrc/stable/library.h>

#include "heatmaps/limb_rows.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

Tensor part_affinity_fields_cpu(
    const Tensor& keypoints, std::vector<int64_t> limbs, double limb_radius, const std::optional<Tensor>& visible,
    int64_t height, int64_t width, int64_t profile, int64_t combine, ScalarType dtype) {
  constexpr const char* op = "part_affinity_fields";
  return limb_maps_cpu<2>(
      op, keypoints, limbs, check_limb_options(op, limb_radius, profile, combine), visible, height, width, dtype);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "part_affinity_fields(Tensor keypoints, int[] limbs, float limb_radius, Tensor? visible, SymInt height, SymInt width, int profile, "
      "int combine, ScalarType dtype) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("part_affinity_fields", TORCH_BOX(&part_affinity_fields_cpu));
}

}  // namespace pypose_ops

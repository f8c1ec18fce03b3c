#include <torch/csrc/stable/library.h>

#include "heatmaps/limb_rows.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

Tensor part_affinity_fields_cpu(
    const std::optional<Tensor>& given, const Tensor& keypoints, std::vector<int64_t> limbs, double limb_radius, const std::optional<Tensor>& visible,
    int64_t height, int64_t width, int64_t profile, int64_t combine, ScalarType dtype) {
  constexpr const char* op = "part_affinity_fields";
  return limb_maps_cpu<2>(
      op, given, keypoints, limbs, check_limb_options(op, limb_radius, profile, combine), visible, height, width, dtype);
}

}  // namespace

#define PYPOSE_OPS_ARGUMENTS \
  "Tensor keypoints, int[] limbs, float limb_radius, Tensor? visible, SymInt height, SymInt width, int " \
  "profile, int combine, ScalarType dtype"

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def("part_affinity_fields(" PYPOSE_OPS_ARGUMENTS ") -> Tensor");
  m.def("part_affinity_fields.out(Tensor(a!) out, " PYPOSE_OPS_ARGUMENTS ") -> ()");
}
#undef PYPOSE_OPS_ARGUMENTS

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  using Op = Drawn<&part_affinity_fields_cpu>;
  m.impl("part_affinity_fields", TORCH_BOX(&Op::returned));
  m.impl("part_affinity_fields.out", TORCH_BOX(&Op::into));
}

}  // namespace pypose_ops

#include "heatmaps/limb_chunks.cuh"

namespace pypose_ops {
namespace {

using namespace heatmaps;

Tensor part_affinity_fields_cuda(
    const std::optional<Tensor>& given, const Tensor& keypoints, std::vector<int64_t> limbs, double limb_radius, const std::optional<Tensor>& visible,
    int64_t height, int64_t width, int64_t profile, int64_t combine, ScalarType dtype) {
  constexpr const char* op = "part_affinity_fields";
  return limb_maps_cuda<2>(
      op, given, keypoints, limbs, check_limb_options(op, limb_radius, profile, combine), visible, height, width, dtype);
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  using Op = Drawn<&part_affinity_fields_cuda>;
  m.impl("part_affinity_fields", TORCH_BOX(&Op::returned));
  m.impl("part_affinity_fields.out", TORCH_BOX(&Op::into));
}

}  // namespace pypose_ops

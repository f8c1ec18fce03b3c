#include <torch/csrc/stable/library.h>

#include "heatmaps/limb_rows.h"
#include "heatmaps/limbs.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

template <typename T>
void launch_draw(
    const Tensor& out, const PeopleTensors& people, const LimbList& limbs, const LimbOptions& options,
    const Shape& shape) {
  draw_all_limbs(out.mutable_data_ptr<T>(), 1, people.view<acc_t<T>>(), limbs, options, shape);
}

Tensor limb_masks_cpu(
    const Tensor& keypoints, std::vector<int64_t> limbs, double limb_width, const std::optional<Tensor>& visible,
    int64_t height, int64_t width, ScalarType dtype) {
  constexpr const char* op = "limb_masks";
  const Shape shape = check_people(op, keypoints, std::nullopt, visible, height, width);
  const LimbList list = check_limbs(op, limbs, shape.joints);
  const LimbOptions options = check_mask_options(op, limb_width);
  check_map_type(op, dtype);
  Tensor out = torch::stable::new_empty(keypoints, {shape.batch, list.count, height, width}, dtype);
  if (out.numel() == 0) {
    return out;
  }
  const PeopleTensors people(keypoints, std::nullopt, visible, acc_scalar_type(dtype));
  PYPOSE_OPS_DISPATCH_FLOATING(dtype, op, [&] { launch_draw<scalar_t>(out, people, list, options, shape); });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "limb_masks(Tensor keypoints, int[] limbs, float limb_width, Tensor? visible, SymInt height, SymInt width, "
      "ScalarType dtype) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("limb_masks", TORCH_BOX(&limb_masks_cpu));
}

}  // namespace pypose_ops

#include "common/cuda.cuh"
#include "heatmaps/limb_chunks.cuh"
#include "heatmaps/limbs.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

template <typename T>
void launch_draw(
    const char* op, const Tensor& out, const PeopleTensors& people, const LimbList& limbs, const LimbOptions& options,
    const Shape& shape, cudaStream_t stream) {
  launch_limbs<T, 1>(op, out, people, limbs, options, shape, stream);
}

Tensor limb_masks_cuda(
    const Tensor& keypoints, std::vector<int64_t> limbs, double limb_width, const std::optional<Tensor>& visible,
    int64_t height, int64_t width, ScalarType dtype) {
  constexpr const char* op = "limb_masks";
  const Shape shape = check_people(op, keypoints, std::nullopt, visible, height, width);
  const LimbList list = check_limbs(op, limbs, shape.joints);
  const LimbOptions options = check_mask_options(op, limb_width);
  check_map_type(op, dtype);
  const DeviceGuard guard(keypoints.get_device_index());
  Tensor out = torch::stable::new_empty(keypoints, {shape.batch, list.count, height, width}, dtype);
  if (out.numel() == 0) {
    return out;
  }
  const PeopleTensors people(keypoints, std::nullopt, visible, acc_scalar_type(dtype));
  const cudaStream_t stream = current_stream(keypoints);
  PYPOSE_OPS_DISPATCH_FLOATING(
      dtype, op, [&] { launch_draw<scalar_t>(op, out, people, list, options, shape, stream); });
  return out;
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("limb_masks", TORCH_BOX(&limb_masks_cuda));
}

}  // namespace pypose_ops

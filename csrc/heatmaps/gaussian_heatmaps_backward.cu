#include <tuple>

#include "common/cuda.cuh"
#include "heatmaps/gaussian_gradients.cuh"
#include "heatmaps/gaussian_heatmaps.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

// The gradient that came in, (B, K, H, W).
template <typename T>
struct MapGradient {
  using acc = acc_t<T>;
  const T* grad;

  __device__ acc operator()(const Map<acc>& map, acc, int32_t x, int32_t y) const {
    const Shape& shape = map.shape;
    return static_cast<acc>(grad[((map.b * shape.joints + map.k) * shape.height + y) * shape.width + x]);
  }
};

std::tuple<Tensor, Tensor> gaussian_heatmaps_backward_cuda(
    const Tensor& grad, const Tensor& keypoints, const std::optional<Tensor>& sigma, double sigma_value,
    const std::optional<Tensor>& visible, int64_t center, std::optional<double> truncate, int64_t combine,
    int64_t normalize) {
  constexpr const char* op = "_gaussian_heatmaps_backward";
  const Shape shape = check_backward(op, grad, keypoints, sigma, visible);
  const Options options = check_options(op, 0, center, truncate, combine, normalize, sigma_value, !!sigma);
  const ScalarType acc_type = acc_scalar_type(grad.scalar_type());
  const DeviceGuard guard(keypoints.get_device_index());
  const std::array<int64_t, 4> sizes{shape.batch, shape.people, shape.joints, 2};
  Tensor grad_keypoints = empty_beside(keypoints, sizes, acc_type);
  Tensor grad_sigma = empty_beside(keypoints, sizes, acc_type);
  if (grad_keypoints.numel() == 0) {
    return {grad_keypoints, grad_sigma};
  }
  const PeopleTensors people(keypoints, sigma, visible, acc_type);
  const Tensor dense = as_contiguous(grad);
  const cudaStream_t stream = current_stream(keypoints);
  PYPOSE_OPS_DISPATCH_FLOATING(grad.scalar_type(), op, [&] {
    launch_keypoint_gradients<acc_t<scalar_t>>(
        op, MapGradient<scalar_t>{dense.const_data_ptr<scalar_t>()}, grad_keypoints, grad_sigma, people, options,
        shape, stream);
  });
  return {grad_keypoints, grad_sigma};
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("_gaussian_heatmaps_backward", TORCH_BOX(&gaussian_heatmaps_backward_cuda));
}

}  // namespace pypose_ops

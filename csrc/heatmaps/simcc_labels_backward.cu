#include <tuple>

#include "common/cuda.cuh"
#include "heatmaps/gaussian_render.cuh"
#include "heatmaps/simcc_labels.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

// One block owns one keypoint and gathers its gradient from its two labels. The gradients are (B, K, 2).
template <typename T>
__global__ void __launch_bounds__(kThreads) label_gradients_kernel(
    const T* __restrict__ grad_x, const T* __restrict__ grad_y, acc_t<T>* __restrict__ grad_keypoints,
    acc_t<T>* __restrict__ grad_sigma, const People<acc_t<T>> people, const LabelOptions options,
    const LabelShape shape) {
  using acc = acc_t<T>;
  const int64_t keypoint = blockIdx.x;
  acc sums[4] = {};
  Label<acc> labels[2];
#pragma unroll
  for (int axis = 0; axis < 2; ++axis) {
    labels[axis] = label_of(people, options, shape, keypoint / shape.joints, keypoint % shape.joints, axis);
    const Label<acc>& label = labels[axis];
    const int32_t bins = static_cast<int32_t>(shape.bins[axis]);
    const T* grad = (axis == 0 ? grad_x : grad_y) + keypoint * bins;
    for (int32_t i = threadIdx.x; label.drawn && i < bins; i += kThreads) {
      const acc value = label.peak(i);
      if (value > 0) {  // u may overflow where the value is 0
        const acc u = label.offset(i);
        const acc g = static_cast<acc>(grad[i]) * value;
        sums[2 * axis] += g * u;
        sums[2 * axis + 1] += g * (u * u - (options.density ? acc(1) : acc(0)));
      }
    }
  }
  block_sum<kThreads>(sums);
  if (threadIdx.x < 2) {
    // Selected, not indexed: an index known only at run time would put the arrays into local memory.
    const bool is_x = threadIdx.x == 0;
    const Label<acc> label = is_x ? labels[0] : labels[1];
    acc point = 0, sigma = 0;
    if (label.drawn) {
      label_gradients(label, options, is_x ? sums[0] : sums[2], is_x ? sums[1] : sums[3], point, sigma);
    }
    grad_keypoints[2 * keypoint + threadIdx.x] = point;
    grad_sigma[2 * keypoint + threadIdx.x] = sigma;
  }
}

template <typename T>
void launch_backward(
    const char* op, const Tensor& grad_x, const Tensor& grad_y, const Tensor& grad_keypoints, const Tensor& grad_sigma,
    const PeopleTensors& people, const LabelOptions& options, const LabelShape& shape, cudaStream_t stream) {
  using acc = acc_t<T>;
  launch(
      op, label_gradients_kernel<T>, shape.batch * shape.joints, kThreads, 0, stream, grad_x.const_data_ptr<T>(),
      grad_y.const_data_ptr<T>(), grad_keypoints.mutable_data_ptr<acc>(), grad_sigma.mutable_data_ptr<acc>(),
      people.view<acc>(), options, shape);
}

std::tuple<Tensor, Tensor> simcc_labels_backward_cuda(
    const Tensor& grad_x, const Tensor& grad_y, const Tensor& keypoints, const std::optional<Tensor>& sigma,
    double sigma_x, double sigma_y, const std::optional<Tensor>& visible, double ratio, int64_t center,
    int64_t normalize) {
  constexpr const char* op = "_simcc_labels_backward";
  const LabelShape shape = check_label_backward(op, grad_x, grad_y, keypoints, sigma, visible);
  const LabelOptions options =
      check_label_options(op, sigma.has_value(), sigma_x, sigma_y, ratio, 0, center, normalize, 0);
  const ScalarType acc_type = acc_scalar_type(grad_x.scalar_type());
  const DeviceGuard guard(keypoints.get_device_index());
  Tensor grad_keypoints = empty_beside(keypoints, {shape.batch, shape.joints, 2}, acc_type);
  Tensor grad_sigma = empty_beside(keypoints, {shape.batch, shape.joints, 2}, acc_type);
  if (grad_keypoints.numel() == 0) {
    return {grad_keypoints, grad_sigma};
  }
  const PeopleTensors people(keypoints, sigma, visible, acc_type);
  const Tensor dense_x = as_contiguous(grad_x), dense_y = as_contiguous(grad_y);
  const cudaStream_t stream = current_stream(keypoints);
  PYPOSE_OPS_DISPATCH_FLOATING(grad_x.scalar_type(), op, [&] {
    launch_backward<scalar_t>(op, dense_x, dense_y, grad_keypoints, grad_sigma, people, options, shape, stream);
  });
  return {grad_keypoints, grad_sigma};
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("_simcc_labels_backward", TORCH_BOX(&simcc_labels_backward_cuda));
}

}  // namespace pypose_ops

#include "heatmaps/simcc_labels.h"

#include <tuple>

#include "common/cuda.cuh"
#include "common/outputs.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

constexpr int kThreads = 128;

// One block draws both labels of one keypoint.
template <typename T>
__global__ void __launch_bounds__(kThreads) simcc_labels_kernel(
    T* __restrict__ x, T* __restrict__ y, const People<acc_t<T>> people, const LabelOptions options,
    const LabelShape shape) {
  const int64_t b = blockIdx.x / shape.joints;
  const int64_t k = blockIdx.x % shape.joints;
#pragma unroll
  for (int axis = 0; axis < 2; ++axis) {
    const Label<acc_t<T>> label = label_of(people, options, shape, b, k, axis);
    const int32_t bins = static_cast<int32_t>(shape.bins[axis]);
    T* row = (axis == 0 ? x : y) + static_cast<int64_t>(blockIdx.x) * bins;
    for (int32_t i = threadIdx.x; i < bins; i += kThreads) {
      acc_t<T> value = 0;
      if (label.drawn) {
        value = options.profile == LabelProfile::gaussian ? label.gaussian(i) : label.one_hot(i);
      }
      row[i] = static_cast<T>(value);
    }
  }
}

template <typename T>
void launch_draw(
    const Tensor& x, const Tensor& y, const PeopleTensors& people, const LabelOptions& options,
    const LabelShape& shape, cudaStream_t stream) {
  launch(
      "simcc_labels", simcc_labels_kernel<T>, shape.batch * shape.joints, kThreads, 0, stream, x.mutable_data_ptr<T>(),
      y.mutable_data_ptr<T>(), people.view<acc_t<T>>(), options, shape);
}

std::tuple<Tensor, Tensor> simcc_labels_cuda(
    const std::optional<Tensor>& given_x, const std::optional<Tensor>& given_y, const Tensor& keypoints,
    const std::optional<Tensor>& sigma, double sigma_x, double sigma_y, const std::optional<Tensor>& visible,
    int64_t bins_x, int64_t bins_y, double ratio, int64_t profile, int64_t center, int64_t normalize, double smoothing,
    ScalarType dtype) {
  constexpr const char* op = "simcc_labels";
  const LabelShape shape = check_labels(op, keypoints, sigma, visible, bins_x, bins_y);
  const LabelOptions options =
      check_label_options(op, sigma.has_value(), sigma_x, sigma_y, ratio, profile, center, normalize, smoothing);
  check_map_type(op, dtype);
  const DeviceGuard guard(keypoints.get_device_index());
  const Tensor x = output_of(op, given_x, keypoints, {shape.batch, shape.joints, bins_x}, dtype);
  const Tensor y = output_of(op, given_y, keypoints, {shape.batch, shape.joints, bins_y}, dtype);
  if (x.numel() == 0) {
    return {x, y};
  }
  const PeopleTensors people(keypoints, sigma, visible, acc_scalar_type(dtype));
  const cudaStream_t stream = current_stream(keypoints);
  PYPOSE_OPS_DISPATCH_FLOATING(dtype, op, [&] { launch_draw<scalar_t>(x, y, people, options, shape, stream); });
  return {x, y};
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  using Op = Drawn<&simcc_labels_cuda>;
  m.impl("simcc_labels", TORCH_BOX(&Op::returned));
  m.impl("simcc_labels.out", TORCH_BOX(&Op::into));
}

}  // namespace pypose_ops

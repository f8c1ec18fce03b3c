#include "common/cuda.cuh"
#include "heatmaps/gaussian_render.cuh"
#include "heatmaps/offset_heatmaps.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

// Whether the pixel holds the offset of person p, at `distance` from it, and not another's.
template <typename acc>
__device__ bool owns(
    const People<acc>& people, const Shape& shape, Winner winner, int64_t b, int64_t p, int64_t k,
    acc distance, int32_t x, int32_t y) {
  for (int64_t other = 0; other < shape.people; ++other) {
    const Point<acc> point = point_of(people, b, other, k);
    if (other == p || !point.drawn) {
      continue;
    }
    if (winner == Winner::last) {
      if (other > p) {
        return false;
      }
      continue;
    }
    const acc rival = square_distance(point.x - static_cast<acc>(x), point.y - static_cast<acc>(y));
    if (other < p ? rival <= distance : rival < distance) {  // of equals the first
      return false;
    }
  }
  return true;
}

// One block owns one keypoint (b, p, k) and gathers its gradient from the pixels that hold its offset.
template <typename T>
__global__ void PYPOSE_OPS_BOUNDS_BEFORE_90(kThreads, 4) offset_gradients_kernel(
    const T* __restrict__ grad, acc_t<T>* __restrict__ grad_keypoints, const People<acc_t<T>> people,
    const acc_t<T> radius, const Winner winner, const Shape shape) {
  using acc = acc_t<T>;
  const int64_t k = blockIdx.x % shape.joints;
  const int64_t p = blockIdx.x / shape.joints % shape.people;
  const int64_t b = blockIdx.x / shape.joints / shape.people;
  const Point<acc> point = point_of(people, b, p, k);
  const T* maps = grad + ((b * shape.joints + k) * 3 + 1) * shape.pixels();
  acc sums[2] = {};
  if (point.drawn) {  // the same for all threads
    for (int64_t i = threadIdx.x; i < shape.pixels(); i += kThreads) {
      const int32_t x = static_cast<int32_t>(i % shape.width);
      const int32_t y = static_cast<int32_t>(i / shape.width);
      const acc own = square_distance(point.x - static_cast<acc>(x), point.y - static_cast<acc>(y));
      if (shape.people == 1 || owns(people, shape, winner, b, p, k, own, x, y)) {
        sums[0] += static_cast<acc>(maps[i]);
        sums[1] += static_cast<acc>(maps[shape.pixels() + i]);
      }
    }
  }
  block_sum<kThreads>(sums);
  if (threadIdx.x == 0) {
    grad_keypoints[static_cast<int64_t>(blockIdx.x) * 2] = sums[0] / radius;
    grad_keypoints[static_cast<int64_t>(blockIdx.x) * 2 + 1] = sums[1] / radius;
  }
}

template <typename T>
void launch_backward(
    const char* op, const Tensor& grad, const Tensor& grad_keypoints, const PeopleTensors& people, double radius,
    Winner winner, const Shape& shape, cudaStream_t stream) {
  using acc = acc_t<T>;
  launch(
      op, offset_gradients_kernel<T>, shape.maps() * shape.people, kThreads, 0, stream, grad.const_data_ptr<T>(),
      grad_keypoints.mutable_data_ptr<acc>(), people.view<acc>(), radius, winner, shape);
}

Tensor offset_heatmaps_backward_cuda(
    const Tensor& grad, const Tensor& keypoints, double radius, const std::optional<Tensor>& visible, int64_t combine) {
  constexpr const char* op = "_offset_heatmaps_backward";
  const Shape shape = check_offset_backward(op, grad, keypoints, visible);
  check_radius(op, radius);
  const Winner winner = check_choice<Winner>(op, "combine", combine, 2);
  const ScalarType acc_type = acc_scalar_type(grad.scalar_type());
  const DeviceGuard guard(keypoints.get_device_index());
  Tensor grad_keypoints = empty_beside(keypoints, {shape.batch, shape.people, shape.joints, 2}, acc_type);
  if (grad_keypoints.numel() == 0) {
    return grad_keypoints;
  }
  const PeopleTensors people(keypoints, std::nullopt, visible, acc_type);
  const Tensor dense = as_contiguous(grad);
  const cudaStream_t stream = current_stream(keypoints);
  PYPOSE_OPS_DISPATCH_FLOATING(grad.scalar_type(), op, [&] {
    launch_backward<scalar_t>(op, dense, grad_keypoints, people, radius, winner, shape, stream);
  });
  return grad_keypoints;
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("_offset_heatmaps_backward", TORCH_BOX(&offset_heatmaps_backward_cuda));
}

}  // namespace pypose_ops

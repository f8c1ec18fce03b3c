#include "common/cuda.cuh"
#include "heatmaps/gaussian_render.cuh"
#include "heatmaps/limb_gradients.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

template <bool soft, typename acc>
__device__ __forceinline__ void moments_at(
    const Limb<acc>& limb, const LimbOptions& options, int32_t x, int32_t y, acc grad_x, acc grad_y,
    acc (&moments)[kLimbMoments]) {
  const acc radius = static_cast<acc>(options.radius);
  if constexpr (soft) {
    if (options.profile == LimbProfile::trt_pose) {
      limb_moments<LimbProfile::trt_pose>(limb, radius, x, y, grad_x, grad_y, moments);
    } else {
      limb_moments<LimbProfile::sleap>(limb, radius, x, y, grad_x, grad_y, moments);
    }
  } else if (options.profile == LimbProfile::linear) {
    limb_moments<LimbProfile::linear>(limb, radius, x, y, grad_x, grad_y, moments);
  } else {
    limb_moments<LimbProfile::band>(limb, radius, x, y, grad_x, grad_y, moments);
  }
}

// How many people, from the given one on, share the pixel: all, or those whose limb covers it.
template <bool soft, typename acc>
__device__ acc people_at(
    const People<acc>& people, const LimbOptions& options, const Shape& shape, int from, int to, int64_t b, int32_t x,
    int32_t y, int64_t first) {
  acc count = 0;
  for (int64_t p = first; p < shape.people; ++p) {
    const Limb<acc> limb = limb_of(people, options, shape, from, to, b, p);
    if constexpr (soft) {
      count += limb.present ? acc(1) : acc(0);
    } else if (limb.drawn && x >= limb.left && x < limb.right && y >= limb.top && y < limb.bottom) {
      count += limb_covers(limb, options, x, y) ? acc(1) : acc(0);
    }
  }
  return count;
}

// One block owns one limb (b, p, l) and gathers the gradients of its two ends from the pixels that it reaches: no atomics,
// the same bits every time. Where people share a pixel, it counts them again. soft: of the soft profiles; one kernel for
// all would need more registers.
template <typename T, bool soft>
__global__ void __launch_bounds__(kThreads) limb_gradients_kernel(
    const T* __restrict__ grad, acc_t<T>* __restrict__ grad_ends, const People<acc_t<T>> people, const LimbList limbs,
    const LimbOptions options, const Shape shape) {
  using acc = acc_t<T>;
  const int l = static_cast<int>(blockIdx.x % limbs.count);
  const int64_t p = blockIdx.x / limbs.count % shape.people;
  const int64_t b = blockIdx.x / limbs.count / shape.people;
  const int from = limbs.from[l], to = limbs.to[l];
  acc* out = grad_ends + static_cast<int64_t>(blockIdx.x) * 4;
  const Limb<acc> limb = limb_of(people, options, shape, from, to, b, p);
  if (!limb.drawn) {  // the same for all threads
    if (threadIdx.x < 4) {
      out[threadIdx.x] = 0;
    }
    return;
  }
  const T* map = grad + (b * limbs.count + l) * 2 * shape.pixels();
  acc everybody = 1;
  if constexpr (soft) {
    if (options.combine == LimbCombine::mean) {
      everybody = people_at<true>(people, options, shape, from, to, b, 0, 0, 0);
    }
  }
  const int64_t columns = limb.right - limb.left;
  const int64_t pixels = columns * (limb.bottom - limb.top);
  acc sums[kLimbMoments] = {};
  for (int64_t i = threadIdx.x; i < pixels; i += kThreads) {
    const int32_t x = limb.left + static_cast<int32_t>(i % columns);
    const int32_t y = limb.top + static_cast<int32_t>(i / columns);
    acc share = everybody;
    if constexpr (!soft) {
      if (options.combine != LimbCombine::sum) {
        const bool last = options.combine == LimbCombine::last;
        share = people_at<false>(people, options, shape, from, to, b, x, y, last ? p + 1 : 0);
        if (last && share > acc(0)) {
          continue;  // they are on top
        }
      }
    }
    share = share > acc(1) ? share : acc(1);
    const T* at = map + y * shape.width + x;
    acc moments[kLimbMoments];
    moments_at<soft>(
        limb, options, x, y, static_cast<acc>(at[0]) / share, static_cast<acc>(at[shape.pixels()]) / share, moments);
#pragma unroll
    for (int j = 0; j < kLimbMoments; ++j) {
      sums[j] += moments[j];
    }
  }
  block_sum<kThreads>(sums);
  if (threadIdx.x == 0) {
    end_gradients(limb, sums, out);
  }
}

// One thread per keypoint.
template <typename acc>
__global__ void __launch_bounds__(kThreads) gather_ends_kernel(
    const acc* __restrict__ grad_ends, acc* __restrict__ grad_keypoints, const LimbList limbs, const int64_t joints,
    const int64_t keypoints) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < keypoints) {
    gather_ends(grad_ends + i / joints * limbs.count * 4, limbs, i % joints, grad_keypoints + 2 * i);
  }
}

template <typename T>
void launch_backward(
    const char* op, const Tensor& grad, const Tensor& grad_ends, const Tensor& grad_keypoints,
    const PeopleTensors& people, const LimbList& limbs, const LimbOptions& options, const Shape& shape,
    cudaStream_t stream) {
  using acc = acc_t<T>;
  const int64_t keypoints = shape.batch * shape.people * shape.joints;
  launch(
      op, is_soft(options.profile) ? limb_gradients_kernel<T, true> : limb_gradients_kernel<T, false>,
      shape.batch * shape.people * limbs.count, kThreads, 0, stream, grad.const_data_ptr<T>(),
      grad_ends.mutable_data_ptr<acc>(), people.view<acc>(), limbs, options, shape);
  launch(
      op, gather_ends_kernel<acc>, ceil_div(keypoints, kThreads), kThreads, 0, stream, grad_ends.const_data_ptr<acc>(),
      grad_keypoints.mutable_data_ptr<acc>(), limbs, shape.joints, keypoints);
}

Tensor part_affinity_fields_backward_cuda(
    const Tensor& grad, const Tensor& keypoints, std::vector<int64_t> limbs, double limb_radius,
    const std::optional<Tensor>& visible, int64_t profile, int64_t combine) {
  constexpr const char* op = "_part_affinity_fields_backward";
  const Shape shape = check_field_backward(op, grad, keypoints, visible, static_cast<int64_t>(limbs.size() / 2));
  const LimbList list = check_limbs(op, limbs, shape.joints);
  const LimbOptions options = check_limb_options(op, limb_radius, profile, combine);
  const ScalarType acc_type = acc_scalar_type(grad.scalar_type());
  const DeviceGuard guard(keypoints.get_device_index());
  const std::array<int64_t, 4> sizes{shape.batch, shape.people, shape.joints, 2};
  if (shape.batch * shape.people * shape.joints == 0 || list.count == 0) {
    return zeros_beside(keypoints, sizes, acc_type);
  }
  Tensor grad_keypoints = empty_beside(keypoints, sizes, acc_type);
  const Tensor grad_ends = empty_beside(keypoints, {shape.batch, shape.people, list.count, 4}, acc_type);
  const PeopleTensors people(keypoints, std::nullopt, visible, acc_type);
  const Tensor dense = as_contiguous(grad);
  const cudaStream_t stream = current_stream(keypoints);
  PYPOSE_OPS_DISPATCH_FLOATING(grad.scalar_type(), op, [&] {
    launch_backward<scalar_t>(op, dense, grad_ends, grad_keypoints, people, list, options, shape, stream);
  });
  return grad_keypoints;
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("_part_affinity_fields_backward", TORCH_BOX(&part_affinity_fields_backward_cuda));
}

}  // namespace pypose_ops

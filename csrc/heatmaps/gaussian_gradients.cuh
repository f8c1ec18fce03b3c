// The CUDA kernels that turn the gradient of a map into the gradients of the keypoints and sigmas drawn in it.
#pragma once

#include <optional>

#include "common/cuda.cuh"
#include "heatmaps/gaussian_heatmaps.h"
#include "heatmaps/gaussian_render.cuh"

namespace pypose_ops {
namespace heatmaps {

// Sum normalisation only: one warp per axis of a blob. sums is (B, P, K, 2).
template <typename acc>
__global__ void __launch_bounds__(kThreads)
    axis_sums_kernel(AxisSum<acc>* __restrict__ sums, const People<acc> people, const Options options, const Shape shape) {
  const int64_t index = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kWarpSize;
  if (index >= shape.maps() * shape.people * 2) {
    return;
  }
  const int64_t k = index / 2 % shape.joints;
  const int64_t p = index / 2 / shape.joints % shape.people;
  const int64_t b = index / 2 / shape.joints / shape.people;
  const Blob<acc> blob = blob_of(people, options, b, p, k);
  const bool is_x = index % 2 == 0;
  const Axis<acc> axis{
      is_x ? blob.x.center : blob.y.center, is_x ? blob.x.sigma : blob.y.sigma, is_x ? blob.x.reach : blob.y.reach};
  const int32_t n = static_cast<int32_t>(is_x ? shape.width : shape.height);
  acc moments[3] = {};
  for (int32_t i = threadIdx.x % kWarpSize; blob.drawn && i < n; i += kWarpSize) {
    const acc value = axis.gaussian(i);
    if (value > 0) {  // u may overflow where the value is 0
      const acc u = axis.offset(i);
      moments[0] += value;
      moments[1] += value * u;
      moments[2] += value * u * u;
    }
  }
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    moments[i] = warp_sum(moments[i]);
  }
  if (threadIdx.x % kWarpSize == 0) {
    sums[index] = AxisSum<acc>::of(axis, moments[0], moments[1], moments[2]);
  }
}

// A map's blobs as the kernel below sees them: sums is null for peak normalisation.
template <typename acc>
struct Map {
  const People<acc>& people;
  const Options& options;
  const Shape& shape;
  const AxisSum<acc>* sums;
  int64_t b, k;

  __device__ AxisSum<acc> axis_sum(int64_t p, int axis) const {
    return sums ? sums[((b * shape.people + p) * shape.joints + k) * 2 + axis] : AxisSum<acc>{};
  }
  __device__ acc value(const Blob<acc>& blob, int64_t p, int32_t x, int32_t y) const {
    return (blob.x.gaussian(x) * axis_sum(p, 0).factor) * (blob.y.gaussian(y) * axis_sum(p, 1).factor);
  }

  // What all people together draw.
  __device__ acc drawn(int32_t x, int32_t y) const {
    acc total = 0;
    for (int64_t p = 0; p < shape.people; ++p) {
      const Blob<acc> blob = blob_of(people, options, b, p, k);
      const acc own = blob.drawn ? value(blob, p, x, y) : acc(0);
      total = options.combine == Combine::max ? (own > total ? own : total) : total + own;
    }
    return options.combine == Combine::sum_clip && total > acc(1) ? acc(1) : total;
  }

  // Whether pixel (x, y), where person p draws `value`, passes its gradient on to p.
  __device__ bool owns(int64_t p, acc value, int32_t x, int32_t y) const {
    acc total = 0;
    for (int64_t other = 0; other < shape.people; ++other) {
      const Blob<acc> rival = blob_of(people, options, b, other, k);
      const acc drawn = rival.drawn ? this->value(rival, other, x, y) : acc(0);
      total += drawn;
      // The first of equal maxima wins.
      if (options.combine == Combine::max && (other < p ? drawn >= value : drawn > value)) {
        return false;
      }
    }
    return options.combine != Combine::sum_clip || total <= acc(1);
  }
};

// Further from a centre than so many sigmas a Gaussian is 0, but for subnormal numbers.
template <typename acc>
constexpr acc kFarthestSigma = sizeof(acc) == 8 ? acc(38.7) : acc(13.3);

template <typename acc>
__device__ __forceinline__ void reached_pixels(const Axis<acc>& axis, int64_t size, int32_t& first, int32_t& end) {
  const acc far = kFarthestSigma<acc> * axis.sigma;
  const acc reach = axis.reach < far ? axis.reach : far;
  pixel_range(axis.center - reach, axis.center + reach, size, first, end);
}

// One block owns one keypoint (b, p, k) and gathers its gradient from the pixels that it reaches: no atomics, the same
// bits every time. Where people compete, each pixel that the keypoint reaches checks again which of them won.
// source(map, value, x, y) is the gradient of the map's pixel (x, y), where
// the keypoint draws `value`.
template <typename acc, typename Source>
__global__ void __launch_bounds__(kThreads, kMinGradientBlocks<acc>) keypoint_gradients_kernel(
    const Source source, acc* __restrict__ grad_keypoints, acc* __restrict__ grad_sigma,
    const AxisSum<acc>* __restrict__ sums, const People<acc> people, const Options options, const Shape shape) {
  const int64_t k = blockIdx.x % shape.joints;
  const int64_t p = blockIdx.x / shape.joints % shape.people;
  const int64_t b = blockIdx.x / shape.joints / shape.people;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * 2;
  const Blob<acc> blob = blob_of(people, options, b, p, k);
  if (!blob.drawn) {  // the same for all threads
    if (threadIdx.x < 2) {
      grad_keypoints[at + threadIdx.x] = 0;
      grad_sigma[at + threadIdx.x] = 0;
    }
    return;
  }
  const Map<acc> map{people, options, shape, sums, b, k};
  const bool competing = shape.people > 1 && options.combine != Combine::sum;
  acc moments[5] = {};
  int32_t left, right, top, bottom;
  reached_pixels(blob.x, shape.width, left, right);
  reached_pixels(blob.y, shape.height, top, bottom);
  // 32-bit positions, stepped rather than divided: a division per pixel would cost more than the exponentials.
  const int32_t width = right > left ? right - left : 1;
  const int32_t step_x = kThreads % width;
  const int32_t step_y = kThreads / width;
  int32_t x = left + static_cast<int32_t>(threadIdx.x) % width;
  int32_t y = top + static_cast<int32_t>(threadIdx.x) / width;
  for (; right > left && y < bottom; x += step_x, y += step_y) {
    if (x >= right) {
      x -= width;
      if (++y >= bottom) {
        break;
      }
    }
    const acc value = map.value(blob, p, x, y);
    if (value > 0 && (!competing || map.owns(p, value, x, y))) {
      const acc g = source(map, value, x, y) * value;
      const acc ux = blob.x.offset(x);
      const acc uy = blob.y.offset(y);
      moments[0] += g;
      moments[1] += g * ux;
      moments[2] += g * ux * ux;
      moments[3] += g * uy;
      moments[4] += g * uy * uy;
    }
  }
  block_sum<kThreads>(moments);
  if (threadIdx.x == 0) {
    blob_gradients(
        blob, moments, map.axis_sum(p, 0), map.axis_sum(p, 1), options.center, grad_keypoints + at, grad_sigma + at);
  }
}

template <typename acc, typename Source>
void launch_keypoint_gradients(
    const char* op, const Source& source, const Tensor& grad_keypoints, const Tensor& grad_sigma,
    const PeopleTensors& tensors, const Options& options, const Shape& shape, cudaStream_t stream) {
  const People<acc> people = tensors.view<acc>();
  const int64_t blobs = shape.maps() * shape.people;
  std::optional<Tensor> scratch;
  AxisSum<acc>* sums = nullptr;
  if (options.normalize == Normalization::sum) {
    static_assert(sizeof(AxisSum<acc>) == 3 * sizeof(acc), "three values per axis");
    scratch = empty_beside(grad_keypoints, {blobs, 2, 3});
    sums = static_cast<AxisSum<acc>*>(scratch->mutable_data_ptr());
    launch(op, axis_sums_kernel<acc>, ceil_div(blobs * 2, kWarps), kThreads, 0, stream, sums, people, options, shape);
  }
  launch(
      op, keypoint_gradients_kernel<acc, Source>, blobs, kThreads, 0, stream, source,
      grad_keypoints.mutable_data_ptr<acc>(), grad_sigma.mutable_data_ptr<acc>(), sums, people, options, shape);
}

}  // namespace heatmaps
}  // namespace pypose_ops

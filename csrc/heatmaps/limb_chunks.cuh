// The CUDA kernel of part_affinity_fields and limb_masks.
#pragma once

#include "common/cuda.cuh"
#include "heatmaps/gaussian_render.cuh"
#include "heatmaps/limbs.h"

namespace pypose_ops {
namespace heatmaps {

template <typename acc>
__device__ __forceinline__ acc limb_weight(const Limb<acc>& limb, const LimbOptions& options, int32_t x, int32_t y) {
  const acc radius = static_cast<acc>(options.radius);
  switch (options.profile) {
    case LimbProfile::band:
    case LimbProfile::openpose:  // they differ in the limb's range
      return limb_weight<LimbProfile::band>(limb, radius, x, y);
    case LimbProfile::trt_pose:
      return limb_weight<LimbProfile::trt_pose>(limb, radius, x, y);
    case LimbProfile::sleap:
      return limb_weight<LimbProfile::sleap>(limb, radius, x, y);
    case LimbProfile::linear:
      return limb_weight<LimbProfile::linear>(limb, radius, x, y);
    case LimbProfile::capsule:
      return limb_weight<LimbProfile::capsule>(limb, radius, x, y);
  }
  return 0;
}

// One thread's pixels: kVec of one row.
template <int kVec, typename acc>
struct LimbPixels {
  acc x[kVec], y[kVec], people[kVec];

  __device__ __forceinline__ void add(
      const Limb<acc>& limb, const LimbOptions& options, int32_t column, int32_t row) {
    if (!limb.drawn || row < limb.top || row >= limb.bottom || column + kVec <= limb.left || column >= limb.right) {
      return;
    }
#pragma unroll
    for (int v = 0; v < kVec; ++v) {
      const int32_t at = column + v;
      if (at >= limb.left && at < limb.right) {
        const acc weight = limb_weight(limb, options, at, row);
        if (options.profile == LimbProfile::capsule) {
          x[v] = weight > x[v] ? weight : x[v];
        } else if (options.combine == LimbCombine::last) {
          const bool covers = limb_covers(limb, options, at, row);
          x[v] = covers ? weight * limb.along_x : x[v];
          y[v] = covers ? weight * limb.along_y : y[v];
        } else {
          x[v] += weight * limb.along_x;
          y[v] += weight * limb.along_y;
          people[v] += limb_covers(limb, options, at, row) ? acc(1) : acc(0);
        }
      }
    }
  }

  // How many people the sums are divided by.
  __device__ __forceinline__ acc divisor(int v, const LimbOptions& options, int present) const {
    const acc count = is_soft(options.profile) ? static_cast<acc>(present) : people[v];
    return options.combine == LimbCombine::mean && count > acc(1) ? count : acc(1);
  }
};

// out is (B, L, channels, H, W), channels 2 for fields and 1 for masks. One block draws kThreads packs of one limb's
// map; every thread holds its pack in registers while the people pass through shared memory, a tile at a time.
template <typename T, int channels, int kVec>
__global__ void __launch_bounds__(kThreads, 2) limbs_kernel(
    T* __restrict__ out, const People<acc_t<T>> people, const LimbList limbs, const LimbOptions options,
    const Shape shape, const int64_t chunks) {
  using acc = acc_t<T>;
  __shared__ Limb<acc> tile[kMaxTile];
  const int64_t map = blockIdx.x / chunks;
  const int64_t b = map / limbs.count;
  const int l = static_cast<int>(map % limbs.count);
  const int64_t pixel = ((blockIdx.x % chunks) * kThreads + threadIdx.x) * kVec;
  const int32_t row = static_cast<int32_t>(pixel / shape.width);
  const int32_t column = static_cast<int32_t>(pixel % shape.width);
  LimbPixels<kVec, acc> values{};
  int present = 0;
  for (int64_t begin = 0; begin < shape.people; begin += kMaxTile) {
    const int count = static_cast<int>(shape.people - begin < kMaxTile ? shape.people - begin : kMaxTile);
    if (begin > 0) {
      __syncthreads();
    }
    if (static_cast<int>(threadIdx.x) < count) {
      tile[threadIdx.x] = limb_of(people, options, shape, limbs.from[l], limbs.to[l], b, begin + threadIdx.x);
    }
    __syncthreads();
    for (int q = 0; q < count; ++q) {
      present += tile[q].present;
      values.add(tile[q], options, column, row);
    }
  }
  if (pixel >= shape.pixels()) {
    return;
  }
  T* target = out + map * channels * shape.pixels() + pixel;
  Pack<T, kVec> pack;
#pragma unroll
  for (int v = 0; v < kVec; ++v) {
    pack.v[v] = static_cast<T>(values.x[v] / values.divisor(v, options, present));
  }
  store_pack(target, pack);
  if constexpr (channels == 2) {
#pragma unroll
    for (int v = 0; v < kVec; ++v) {
      pack.v[v] = static_cast<T>(values.y[v] / values.divisor(v, options, present));
    }
    store_pack(target + shape.pixels(), pack);
  }
}

template <int channels, int kVec, typename T>
void launch_limbs_vec(
    const char* op, T* out, const PeopleTensors& people, const LimbList& limbs, const LimbOptions& options,
    const Shape& shape, cudaStream_t stream) {
  const int64_t chunks = ceil_div(shape.pixels(), kThreads * kVec);
  launch(
      op, limbs_kernel<T, channels, kVec>, shape.batch * limbs.count * chunks, kThreads, 0, stream, out,
      people.view<acc_t<T>>(), limbs, options, shape, chunks);
}

template <int channels, typename T>
void launch_limbs(
    const char* op, T* out, const PeopleTensors& people, const LimbList& limbs, const LimbOptions& options,
    const Shape& shape, cudaStream_t stream) {
  with_pack_width<T>(pack_width<T>(shape.width), [&](auto width) {
    launch_limbs_vec<channels, width>(op, out, people, limbs, options, shape, stream);
  });
}

template <int channels>
Tensor limb_maps_cuda(
    const char* op, const std::optional<Tensor>& given, const Tensor& keypoints, const std::vector<int64_t>& limbs,
    const LimbOptions& options,
    const std::optional<Tensor>& visible, int64_t height, int64_t width, ScalarType dtype) {
  const DeviceGuard guard(keypoints.get_device_index());
  LimbMaps maps(op, given, channels, keypoints, limbs, visible, height, width, dtype);
  if (maps.out.numel() == 0) {
    return maps.out;
  }
  const PeopleTensors people(keypoints, std::nullopt, visible, acc_scalar_type(dtype));
  const cudaStream_t stream = current_stream(keypoints);
  PYPOSE_OPS_DISPATCH_FLOATING(dtype, "limbs", [&] {
    launch_limbs<channels>(op, maps.out.mutable_data_ptr<scalar_t>(), people, maps.limbs, options, maps.shape, stream);
  });
  return maps.out;
}

}  // namespace heatmaps
}  // namespace pypose_ops

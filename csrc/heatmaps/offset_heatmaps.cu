#include "heatmaps/offset_heatmaps.h"

#include "common/cuda.cuh"
#include "common/outputs.h"
#include "heatmaps/gaussian_render.cuh"

namespace pypose_ops {
namespace {

using namespace heatmaps;

// out is (B, K, 3, H, W). One block draws kThreads packs of kVec pixels of one joint's three maps; every thread holds its
// pack while the people pass through shared memory, a tile at a time.
template <typename T, int kVec>
__global__ void __launch_bounds__(kThreads) offset_heatmaps_kernel(
    T* __restrict__ out, const People<acc_t<T>> people, const acc_t<T> radius, const Winner winner, const Shape shape,
    const int64_t chunks) {
  using acc = acc_t<T>;
  __shared__ Point<acc> tile[kMaxTile];
  const int64_t map = blockIdx.x / chunks;
  const int64_t pixel = ((blockIdx.x % chunks) * kThreads + threadIdx.x) * kVec;
  const int32_t row = static_cast<int32_t>(pixel / shape.width);
  const int32_t column = static_cast<int32_t>(pixel % shape.width);
  OffsetPixel<acc> values[kVec];
#pragma unroll
  for (int v = 0; v < kVec; ++v) {
    values[v] = empty_pixel<acc>();
  }
  for (int64_t begin = 0; begin < shape.people; begin += kMaxTile) {
    const int count = static_cast<int>(shape.people - begin < kMaxTile ? shape.people - begin : kMaxTile);
    if (begin > 0) {
      __syncthreads();
    }
    if (static_cast<int>(threadIdx.x) < count) {
      tile[threadIdx.x] = point_of(people, map / shape.joints, begin + threadIdx.x, map % shape.joints);
    }
    __syncthreads();
    for (int q = 0; q < count; ++q) {
      if (tile[q].drawn) {
        const acc down = tile[q].y - static_cast<acc>(row);
#pragma unroll
        for (int v = 0; v < kVec; ++v) {
          add_offset(values[v], tile[q].x - static_cast<acc>(column + v), down, radius, winner);
        }
      }
    }
  }
  if (pixel >= shape.pixels()) {
    return;
  }
  T* target = out + 3 * map * shape.pixels() + pixel;
  Pack<T, kVec> packs[3];
#pragma unroll
  for (int v = 0; v < kVec; ++v) {
    packs[0].v[v] = static_cast<T>(values[v].inside);
    packs[1].v[v] = static_cast<T>(values[v].x / radius);
    packs[2].v[v] = static_cast<T>(values[v].y / radius);
  }
#pragma unroll
  for (int channel = 0; channel < 3; ++channel) {
    store_pack(target + channel * shape.pixels(), packs[channel]);
  }
}

template <typename T, int kVec>
void launch_draw(
    const Tensor& out, const PeopleTensors& people, double radius, Winner winner, const Shape& shape,
    cudaStream_t stream) {
  const int64_t chunks = ceil_div(shape.pixels(), kThreads * kVec);
  launch(
      "offset_heatmaps", offset_heatmaps_kernel<T, kVec>, shape.maps() * chunks, kThreads, 0, stream,
      out.mutable_data_ptr<T>(), people.view<acc_t<T>>(), radius, winner, shape, chunks);
}

template <typename T>
void launch_draw_vec(
    const Tensor& out, const PeopleTensors& people, double radius, Winner winner, const Shape& shape,
    cudaStream_t stream) {
  with_pack_width<T>(pack_width<T>(shape.width), [&](auto width) {
    launch_draw<T, width>(out, people, radius, winner, shape, stream);
  });
}

Tensor offset_heatmaps_cuda(
    const std::optional<Tensor>& given, const Tensor& keypoints, double radius, const std::optional<Tensor>& visible, int64_t height, int64_t width,
    int64_t combine, ScalarType dtype) {
  constexpr const char* op = "offset_heatmaps";
  const Shape shape = check_people(op, keypoints, std::nullopt, visible, height, width);
  check_radius(op, radius);
  const Winner winner = check_choice<Winner>(op, "combine", combine, 2);
  check_map_type(op, dtype);
  const DeviceGuard guard(keypoints.get_device_index());
  const Tensor out = output_of(op, given, keypoints, {shape.batch, 3 * shape.joints, height, width}, dtype);
  if (out.numel() == 0) {
    return out;
  }
  const PeopleTensors people(keypoints, std::nullopt, visible, acc_scalar_type(dtype));
  const cudaStream_t stream = current_stream(keypoints);
  PYPOSE_OPS_DISPATCH_FLOATING(
      dtype, op, [&] { launch_draw_vec<scalar_t>(out, people, radius, winner, shape, stream); });
  return out;
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  using Op = Drawn<&offset_heatmaps_cuda>;
  m.impl("offset_heatmaps", TORCH_BOX(&Op::returned));
  m.impl("offset_heatmaps.out", TORCH_BOX(&Op::into));
}

}  // namespace pypose_ops

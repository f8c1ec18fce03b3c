// soft_argmax on CUDA: one kernel, one block per map; the sums find the map in the cache, where the maximum left it.
#include "peaks/soft_argmax.h"

#include <tuple>

#include "common/cuda.cuh"
#include "peaks/refine_cuda.cuh"

namespace pypose_ops {
namespace {

using namespace peaks;

constexpr int kBlock = 128;
constexpr int kWarps = kBlock / kWarpSize;

// visit(x, y, pixel) for this thread's share of a region, without a division per pixel.
template <typename scalar, typename Visit>
__device__ void for_each_pixel(const scalar* __restrict__ map, int map_width, const Region& region, const Visit& visit) {
  const int count = region.width * region.height;
  const int step_y = kBlock / region.width;
  const int step_x = kBlock - step_y * region.width;
  int y = static_cast<int>(threadIdx.x) / region.width;
  int x = static_cast<int>(threadIdx.x) - y * region.width;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kBlock) {
    visit(region.left + x, region.top + y, map[(region.top + y) * map_width + region.left + x]);
    x += step_x;
    y += step_y;
    if (x >= region.width) {
      x -= region.width;
      ++y;
    }
  }
}

// The highest finite pixel of the block's map, the first of equals.
template <typename scalar, typename acc>
__device__ Peak<acc> block_peak(const scalar* __restrict__ map, int pixels, Peak<acc>* peaks_of_warps) {
  Peak<acc> peak = no_peak(-std::numeric_limits<acc>::infinity());
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < pixels; i += kBlock) {
    consider(peak, static_cast<acc>(map[i]), i);
  }
  peak = warp_peak(peak);
  if (threadIdx.x % kWarpSize == 0) {
    peaks_of_warps[threadIdx.x / kWarpSize] = peak;
  }
  __syncthreads();
  for (int warp = 0; warp < kWarps; ++warp) {
    peak = better(peak, peaks_of_warps[warp]);
  }
  return peak;
}

template <typename scalar>
__global__ void __launch_bounds__(kBlock, 4) soft_argmax_kernel(const SoftArguments<scalar> args) {
  using acc = acc_t<scalar>;
  __shared__ Peak<acc> peaks_of_warps[kWarps];
  __shared__ Moments<acc> moments_of_warps[kWarps];
  const int64_t number = blockIdx.x;
  const int pixels = args.height * args.width;
  const scalar* map = args.maps + number * pixels;
  const Peak<acc> peak = block_peak<scalar>(map, pixels, peaks_of_warps);
  if (!peak.found()) {
    if (threadIdx.x == 0) {
      write_soft(args, number, Peak<acc>{0, 0}, Moments<acc>{0, 0, 0, 0, 0});
    }
    return;
  }
  const int peak_x = peak.index % args.width;
  const int peak_y = peak.index / args.width;
  const Region region(args.window, peak_x, peak_y, args.width, args.height);
  Moments<acc> moments = {0, 0, 0, 0, 0};
  for_each_pixel(map, args.width, region, [&](int x, int y, scalar pixel) {
    const acc weight = exp(log_weight(static_cast<acc>(pixel), peak.value, args.temperature));
    const acc dx = acc(x - peak_x);
    const acc dy = acc(y - peak_y);
    moments.sum += weight;
    moments.x += weight * dx;
    moments.y += weight * dy;
    moments.xx += weight * dx * dx;
    moments.yy += weight * dy * dy;
  });
  const auto add = [](acc a, acc b) { return a + b; };
  moments = {
      warp_reduce(moments.sum, add), warp_reduce(moments.x, add), warp_reduce(moments.y, add),
      warp_reduce(moments.xx, add), warp_reduce(moments.yy, add)};
  if (threadIdx.x % kWarpSize == 0) {
    moments_of_warps[threadIdx.x / kWarpSize] = moments;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < kWarps; ++warp) {
      const Moments<acc>& other = moments_of_warps[warp];
      moments = {
          moments.sum + other.sum, moments.x + other.x, moments.y + other.y, moments.xx + other.xx,
          moments.yy + other.yy};
    }
    write_soft(args, number, peak, moments);
  }
}

template <typename scalar>
void launch_soft_argmax(const SoftArguments<scalar>& args, const Tensor& heatmaps, int64_t maps) {
  launch(
      soft_argmax_kernel<scalar>, dim3(static_cast<unsigned>(maps)), dim3(kBlock), 0, current_stream(heatmaps), args);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> soft_argmax_cuda(
    const Tensor& heatmaps, double temperature, int64_t window, std::optional<double> missing_or_nan) {
  const double missing = missing_or_nan.value_or(std::numeric_limits<double>::quiet_NaN());
  check_soft(heatmaps, temperature, window);
  const DeviceGuard guard(heatmaps.get_device_index());
  SoftTensors tensors(heatmaps);
  const int64_t maps = tensors.index.numel();
  PYPOSE_OPS_CHECK(maps <= kMaxGridX, kSoft, ": heatmaps must be at most ", kMaxGridX, " maps, got ", maps);
  if (maps > 0) {
    PYPOSE_OPS_DISPATCH_FLOATING(heatmaps.scalar_type(), kSoft, [&] {
      launch_soft_argmax(tensors.arguments<scalar_t>(temperature, window, missing), heatmaps, maps);
    });
  }
  return {tensors.coords, tensors.variance, tensors.stats, tensors.index};
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("soft_argmax", TORCH_BOX(&soft_argmax_cuda));
}

}  // namespace pypose_ops

// soft_argmax on CUDA: one kernel, one block per map; the sums find the map in the cache, where the maximum left it.
#include "peaks/soft_argmax.h"

#include <tuple>

#include "common/cuda.cuh"
#include "peaks/refine_cuda.cuh"

namespace pypose_ops {
namespace {

using namespace peaks;

constexpr int kSoftBlock = 128;

// visit(x, y, pixel) for this thread's share of a region, kVec neighbours at a time, without a division per pixel.
template <int kVec, typename scalar, typename Visit>
__device__ __forceinline__ void for_each_pixel(
    const scalar* __restrict__ map, int map_width, const Region& region, const Visit& visit) {
  const int packs = region.width * region.height / kVec;
  const int step_y = kSoftBlock * kVec / region.width;
  const int step_x = kSoftBlock * kVec - step_y * region.width;
  int y = static_cast<int>(threadIdx.x) * kVec / region.width;
  int x = static_cast<int>(threadIdx.x) * kVec - y * region.width;
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x); i < packs; i += kSoftBlock) {
    const auto pack = load_pack<kVec>(map + (region.top + y) * map_width + region.left + x);
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      visit(region.left + x + j, region.top + y, pack.v[j]);
    }
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
__device__ Peak<acc> block_peak(const scalar* __restrict__ map, int pixels) {
  Peak<acc> peak = no_peak(-std::numeric_limits<acc>::infinity());
  scan(peak, map, pixels, static_cast<int>(threadIdx.x), kSoftBlock);
  return block_best<kSoftBlock>(peak);
}

template <typename scalar>
__global__ void __launch_bounds__(kSoftBlock, 4) soft_argmax_kernel(const SoftArguments<scalar> args) {
  using acc = acc_t<scalar>;
  const int64_t number = blockIdx.x;
  const int pixels = args.height * args.width;
  const scalar* map = args.maps + number * pixels;
  const Peak<acc> peak = block_peak<scalar, acc>(map, pixels);
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
  const auto add = [&](int x, int y, scalar pixel) {
    const acc weight = exp(log_weight(static_cast<acc>(pixel), peak.value, args.temperature));
    const acc dx = acc(x - peak_x);
    const acc dy = acc(y - peak_y);
    moments.sum += weight;
    moments.x += weight * dx;
    moments.y += weight * dy;
    moments.xx += weight * dx * dx;
    moments.yy += weight * dy * dy;
  };
  if (region.width == args.width && args.width % kPack<scalar> == 0 && reinterpret_cast<uintptr_t>(map) % kPackBytes == 0) {
    for_each_pixel<kPack<scalar>>(map, args.width, region, add);
  } else {
    for_each_pixel<1>(map, args.width, region, add);
  }
  acc sums[5] = {moments.sum, moments.x, moments.y, moments.xx, moments.yy};
  block_sum<kSoftBlock>(sums);
  if (threadIdx.x == 0) {
    write_soft(args, number, peak, Moments<acc>{sums[0], sums[1], sums[2], sums[3], sums[4]});
  }
}

template <typename scalar>
void launch_soft_argmax(const SoftArguments<scalar>& args, const Tensor& heatmaps, int64_t maps) {
  launch(kSoft, soft_argmax_kernel<scalar>, maps, kSoftBlock, 0, current_stream(heatmaps), args);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> soft_argmax_cuda(
    const Tensor& heatmaps, double temperature, int64_t window, std::optional<double> missing_or_nan) {
  const double missing = missing_or_nan.value_or(std::numeric_limits<double>::quiet_NaN());
  check_soft(heatmaps, temperature, window);
  const DeviceGuard guard(heatmaps.get_device_index());
  SoftTensors tensors(heatmaps);
  const int64_t maps = tensors.index.numel();
  PYPOSE_OPS_CHECK(maps <= kMaxBlocks, kSoft, ": heatmaps must be at most ", kMaxBlocks, " maps, got ", maps);
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

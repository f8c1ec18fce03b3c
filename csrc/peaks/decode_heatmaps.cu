// decode_heatmaps on CUDA: one kernel, one block per map, one pass over the pixels.
#include "peaks/decode_heatmaps.h"

#include <tuple>

#include "common/cuda.cuh"
#include "peaks/refine_cuda.cuh"

namespace pypose_ops {
namespace {

using namespace peaks;

constexpr int kSmallBlock = 128;
constexpr int kLargeBlock = 512;
constexpr int kLargeMap = 1 << 14;  // pixels from which on the larger block is used

// Block b decodes map b of the (B * K, H, W). All threads look for the peak, warp 0 refines it. With the second launch
// bound ptxas takes the registers it needs (48); left alone it stops at 32 and spills in the half-precision kernels.
template <typename scalar>
__global__ void __launch_bounds__(kLargeBlock, 2)
    decode_heatmaps_kernel(const Arguments<scalar> args, const FlipIndex flip_index) {
  using acc = acc_t<scalar>;
  __shared__ Peak<acc> peaks_of_warps[kLargeBlock / kWarpSize];
  __shared__ Scratch<acc> scratch;
  const int64_t number = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int warps = static_cast<int>(blockDim.x) / kWarpSize;
  const MapView<scalar> map = args.view(flip_index, number);

  // 1. The peak: of a thread, of a warp, of the block.
  Peak<acc> peak = warp_best(thread_peak(map, args.threshold));
  if (lane == 0) {
    peaks_of_warps[warp] = peak;
  }
  __syncthreads();
  if (warp > 0) {
    return;
  }
  peak = warp_best(lane < warps ? peaks_of_warps[lane] : peak);

  // 2. The step from there; every lane of warp 0 has the same peak.
  const Refined<acc> result = peak.found() ? refined(map, args.refinement, peak.index, lane, scratch)
                                            : no_covariance(Step<acc>{0, 0});
  if (lane == 0) {
    write_peak(args, number, peak, result);
  }
}

template <typename scalar>
void launch_decode_heatmaps(
    const Tensors& tensors, const RefineOptions& options, const FlipIndex& flip_index, bool flip_shift,
    double threshold, double missing) {
  Arguments<scalar> args = make_arguments<scalar>(tensors, flip_shift, threshold, missing);
  args.refinement = options.as<acc_t<scalar>>();
  const int threads = args.height * args.width < kLargeMap ? kSmallBlock : kLargeBlock;
  launch(
      kOp, decode_heatmaps_kernel<scalar>, tensors.scores.numel(), threads, 0, current_stream(tensors.heatmaps), args,
      flip_index);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> decode_heatmaps_cuda(
    const Tensor& heatmaps, int64_t refine, int64_t compat, int64_t kernel_size, const std::optional<Tensor>& flipped,
    const std::optional<std::vector<int64_t>>& flip_index, bool flip_shift, const std::optional<Tensor>& transform,
    std::optional<double> max_offset, std::optional<double> threshold_or_none, std::optional<double> missing_or_nan, bool covariance, bool pixels) {
  const double missing = missing_or_nan.value_or(std::numeric_limits<double>::quiet_NaN());
  const double threshold = threshold_of(threshold_or_none);
  const RefineOptions options =
      check_arguments(heatmaps, refine, compat, kernel_size, flipped, flip_index, transform, max_offset, threshold);
  const FlipIndex index = flip_index_of(flip_index);
  const DeviceGuard guard(heatmaps.get_device_index());
  Tensors tensors = allocate(heatmaps, flipped, transform, covariance, pixels);
  const int64_t maps = tensors.scores.numel();
  PYPOSE_OPS_CHECK(maps <= kMaxBlocks, kOp, ": heatmaps must be at most ", kMaxBlocks, " maps, got ", maps);
  if (maps > 0) {
    make_contiguous(tensors);
    PYPOSE_OPS_DISPATCH_FLOATING(
        heatmaps.scalar_type(), "decode_heatmaps",
        [&] { launch_decode_heatmaps<scalar_t>(tensors, options, index, flip_shift, threshold, missing); });
  }
  return {tensors.coords, tensors.scores, tensors.covariance, tensors.pixels};
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("decode_heatmaps", TORCH_BOX(&decode_heatmaps_cuda));
}

}  // namespace pypose_ops

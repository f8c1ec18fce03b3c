// decode_simcc on CUDA: one kernel, one block per joint, one warp per axis.
#include "peaks/decode_simcc.h"

#include <tuple>

#include "common/cuda.cuh"
#include "peaks/refine_cuda.cuh"

namespace pypose_ops {
namespace {

using namespace peaks;

constexpr int kSimccBlock = 2 * kWarpSize;

template <typename scalar>
__global__ void __launch_bounds__(kSimccBlock) decode_simcc_kernel(const SimccArguments<scalar> args) {
  using acc = acc_t<scalar>;
  __shared__ Peak<acc> peaks_of_axes[2];
  __shared__ acc steps[2];
  __shared__ acc blurred[2][kSpan];
  const int64_t number = blockIdx.x;
  const int axis = static_cast<int>(threadIdx.x) / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int bins = args.bins[axis];
  const scalar* __restrict__ row = args.row(axis, number);

  Peak<acc> peak = no_peak(args.threshold);
  scan(peak, row, bins, lane, kWarpSize);
  peak = warp_best(peak);
  acc step = 0;
  if (args.dark && peak.found() && line_dark_applies(bins, args.compat)) {
    const LineStencil stencil(peak.index, bins, args.taps[axis].size, args.compat);
    if (lane < kSpan) {
      blurred[axis][lane] =
          blurred_bin(row, bins, args.taps[axis], clamped(stencil.center + lane - kReach, bins), stencil.reach);
    }
    __syncwarp();
    step = line_step(blurred[axis], peak.value, stencil.center - peak.index, args.compat);
  }
  if (lane == 0) {
    peaks_of_axes[axis] = peak;
    steps[axis] = step;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    args.write(number, peaks_of_axes[0], peaks_of_axes[1], {steps[0], steps[1]});
  }
}

template <typename scalar>
void launch_decode_simcc(const SimccArguments<scalar>& args, const Tensor& x, int64_t count) {
  launch(kSimcc, decode_simcc_kernel<scalar>, count, kSimccBlock, 0, current_stream(x), args);
}

std::tuple<Tensor, Tensor> decode_simcc_cuda(
    const Tensor& x, const Tensor& y, double split_ratio, bool dark, bool compat, int64_t kernel_x, int64_t kernel_y,
    std::optional<double> max_offset, const std::optional<Tensor>& transform, std::optional<double> threshold_or_none,
    std::optional<double> missing_or_nan) {
  const double missing = missing_or_nan.value_or(std::numeric_limits<double>::quiet_NaN());
  const double threshold = threshold_of(threshold_or_none);
  check_simcc(x, y, split_ratio, kernel_x, kernel_y, transform, threshold);
  const double limit = check_max_offset(kSimcc, max_offset);
  const DeviceGuard guard(x.get_device_index());
  SimccTensors tensors(x, y, transform);
  const int64_t count = tensors.scores.numel();
  PYPOSE_OPS_CHECK(count <= kMaxBlocks, kSimcc, ": x must be at most ", kMaxBlocks, " rows, got ", count);
  if (count > 0) {
    PYPOSE_OPS_DISPATCH_FLOATING(x.scalar_type(), kSimcc, [&] {
      launch_decode_simcc(
          tensors.arguments<scalar_t>(split_ratio, dark, compat, kernel_x, kernel_y, limit, threshold, missing), x,
          count);
    });
  }
  return {tensors.coords, tensors.scores};
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("decode_simcc", TORCH_BOX(&decode_simcc_cuda));
}

}  // namespace pypose_ops

// decode_heatmaps of maps with offsets on CUDA: one kernel, one block per map, a tile of the class map at a time.
#include "peaks/decode_offsets.h"

#include <tuple>

#include "common/cuda.cuh"
#include "peaks/refine_cuda.cuh"

namespace pypose_ops {
namespace {

using namespace peaks;

constexpr int kBlock = 256;
constexpr int kTile = 32;  // pixels a side

// Block b decodes joint b. Dynamic shared memory: the tile and the rows that its blur needs above and below, blurred along
// the rows.
template <typename scalar>
__global__ void __launch_bounds__(kBlock)
    decode_offsets_kernel(const Arguments<scalar> args, const Offsets<scalar> offsets, const FlipIndex flip_index) {
  using acc = acc_t<scalar>;
  acc* const across = dynamic_shared<acc>();
  const int64_t number = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  const MapView<scalar> map = args.view(flip_index, number);
  const Taps<acc>& taps = args.refinement.taps;
  const int reach = taps.size / 2;
  const int rows = kTile + 2 * reach;

  // Without a blur pixels that are not finite never win; a blur counts them as 0.
  Peak<acc> peak = taps.size == 1 ? thread_peak(map, args.threshold) : no_peak(args.threshold);
  for (int top = 0; taps.size > 1 && top < map.height; top += kTile) {
    for (int left = 0; left < map.width; left += kTile) {
      __syncthreads();
      for (int i = thread; i < rows * kTile; i += kBlock) {
        const int x = left + i % kTile;
        const int y = outside(top + i / kTile - reach, map.height, Border::reflect101);
        acc sum = 0;
        for (int tap = 0; x < map.width && tap < taps.size; ++tap) {
          sum += taps[tap] * finite_or_zero(map(outside(x + tap - reach, map.width, Border::reflect101), y));
        }
        across[i] = sum;
      }
      __syncthreads();
      for (int i = thread; i < kTile * kTile; i += kBlock) {
        const int x = left + i % kTile;
        const int y = top + i / kTile;
        if (x < map.width && y < map.height) {
          acc sum = 0;
          for (int tap = 0; tap < taps.size; ++tap) {
            sum += taps[tap] * across[i + tap * kTile];
          }
          peak = better(
              peak, leads(sum, args.threshold) ? Peak<acc>{sum, y * map.width + x} : no_peak(args.threshold));
        }
      }
    }
  }
  peak = block_best<kBlock>(peak);
  if (thread == 0) {
    const Step<acc> step =
        peak.found() ? offset_step(args, offsets, flip_index, number, peak.index) : Step<acc>{0, 0};
    write_peak(args, number, peak, no_covariance(step));
  }
}

template <typename scalar>
void launch_decode_offsets(
    const Tensors& tensors, const RefineOptions& options, const std::optional<Tensor>& offsets,
    const std::optional<Tensor>& flipped_offsets, double radius, bool flip_shift, const FlipIndex& flip_index,
    double threshold, double missing) {
  using acc = acc_t<scalar>;
  Arguments<scalar> args = make_arguments<scalar>(tensors, flip_shift, threshold, missing);
  args.refinement = options.as<acc>();
  const size_t shared_bytes = (kTile + options.kernel_size - 1) * kTile * sizeof(acc);
  launch(
      kOp, decode_offsets_kernel<scalar>, tensors.scores.numel(), kBlock, shared_bytes,
      current_stream(tensors.heatmaps), args, make_offsets(args, offsets, flipped_offsets, radius), flip_index);
}

std::tuple<Tensor, Tensor, Tensor> decode_offsets_cuda(
    const Tensor& heatmaps, const std::optional<Tensor>& offsets, std::optional<int64_t> kernel_size, double radius,
    const std::optional<Tensor>& flipped, const std::optional<Tensor>& flipped_offsets,
    const std::optional<std::vector<int64_t>>& flip_index, bool flip_shift, const std::optional<Tensor>& transform,
    std::optional<double> max_offset, std::optional<double> threshold_or_none, std::optional<double> missing_or_nan, bool pixels) {
  const double missing = missing_or_nan.value_or(std::numeric_limits<double>::quiet_NaN());
  const double threshold = threshold_of(threshold_or_none);
  const RefineOptions options = check_offsets(
      heatmaps, offsets, kernel_size, radius, flipped, flipped_offsets, flip_index, transform, max_offset, threshold);
  const FlipIndex index = flip_index_of(flip_index);
  const DeviceGuard guard(heatmaps.get_device_index());
  Tensors tensors = allocate(heatmaps, flipped, transform, false, pixels, offsets.has_value() ? 1 : kOffsetChannels);
  const int64_t maps = tensors.scores.numel();
  PYPOSE_OPS_CHECK(maps <= kMaxBlocks, kOp, ": heatmaps must be at most ", kMaxBlocks, " joints, got ", maps);
  if (maps > 0) {
    make_contiguous(tensors);
    PYPOSE_OPS_DISPATCH_FLOATING(
        heatmaps.scalar_type(), "decode_offsets",
        [&] {
          launch_decode_offsets<scalar_t>(
              tensors, options, offsets, flipped_offsets, radius, flip_shift, index, threshold, missing);
        });
  }
  return {tensors.coords, tensors.scores, tensors.pixels};
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("_decode_offsets", TORCH_BOX(&decode_offsets_cuda));
}

}  // namespace pypose_ops

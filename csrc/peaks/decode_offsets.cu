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
    decode_offsets_kernel(const Arguments<scalar> args, const acc_t<scalar> radius, const FlipIndex flip_index) {
  using acc = acc_t<scalar>;
  acc* const across = dynamic_shared<acc>();
  const int64_t number = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  const MapView<scalar> map = args.view(flip_index, number);
  const Taps<acc>& taps = args.refinement.taps;
  const int reach = taps.size / 2;
  const int rows = kTile + 2 * reach;

  Peak<acc> peak = {0, 0};
  for (int top = 0; top < map.height; top += kTile) {
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
          peak = better(peak, leads(sum, acc(0)) ? Peak<acc>{sum, y * map.width + x} : Peak<acc>{0, 0});
        }
      }
    }
  }
  peak = block_best<kBlock>(peak);
  if (thread == 0) {
    const Step<acc> step =
        peak.value > 0 ? offset_step(args, flip_index, number, peak.index, radius) : Step<acc>{0, 0};
    write_peak(args, number, peak, no_covariance(step));
  }
}

template <typename scalar>
void launch_decode_offsets(
    const Tensors& tensors, const RefineOptions& options, double radius, bool flip_shift, const FlipIndex& flip_index) {
  using acc = acc_t<scalar>;
  Arguments<scalar> args = make_arguments<scalar>(tensors, flip_shift);
  args.refinement = options.as<acc>();
  const size_t shared_bytes = (kTile + options.kernel_size - 1) * kTile * sizeof(acc);
  launch(
      kOp, decode_offsets_kernel<scalar>, tensors.scores.numel(), kBlock, shared_bytes,
      current_stream(tensors.heatmaps), args, static_cast<acc>(radius), flip_index);
}

std::tuple<Tensor, Tensor> decode_offsets_cuda(
    const Tensor& heatmaps, int64_t kernel_size, double radius, const std::optional<Tensor>& flipped,
    const std::optional<std::vector<int64_t>>& flip_index, bool flip_shift, const std::optional<Tensor>& transform,
    std::optional<double> max_offset) {
  const RefineOptions options =
      check_offsets(heatmaps, kernel_size, radius, flipped, flip_index, transform, max_offset);
  const FlipIndex index = flip_index_of(flip_index);
  const DeviceGuard guard(heatmaps.get_device_index());
  Tensors tensors = allocate(heatmaps, flipped, transform, false, kOffsetChannels);
  const int64_t maps = tensors.scores.numel();
  PYPOSE_OPS_CHECK(maps <= kMaxBlocks, kOp, ": heatmaps must be at most ", kMaxBlocks, " joints, got ", maps);
  if (maps > 0) {
    make_contiguous(tensors);
    PYPOSE_OPS_DISPATCH_FLOATING(
        heatmaps.scalar_type(), "decode_offsets",
        [&] { launch_decode_offsets<scalar_t>(tensors, options, radius, flip_shift, index); });
  }
  return {tensors.coords, tensors.scores};
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("_decode_offsets", TORCH_BOX(&decode_offsets_cuda));
}

}  // namespace pypose_ops

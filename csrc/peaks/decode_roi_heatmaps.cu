// decode_roi_heatmaps on CUDA: one kernel, one block per map; a warp looks for cells by their bounds and resizes one together.
#include "peaks/decode_roi_heatmaps.h"

#include <tuple>

#include "common/cuda.cuh"
#include "common/reduce.cuh"

namespace pypose_ops {
namespace {

using namespace peaks;

constexpr int kRoiBlock = 128;

// A map whose outermost pixels are repeated beyond its edges.
template <typename scalar>
struct EdgedMap {
  const scalar* pixels;
  int width, height;

  __device__ __forceinline__ acc_t<scalar> at(int x, int y) const {
    const int column = x < 0 ? 0 : (x < width ? x : width - 1);
    const int row = y < 0 ? 0 : (y < height ? y : height - 1);
    return static_cast<acc_t<scalar>>(pixels[row * width + column]);
  }
};

// The highest control point of a cell.
template <typename scalar>
__device__ __forceinline__ acc_t<scalar> bound_of(const EdgedMap<scalar>& map, int cell_x, int cell_y) {
  using acc = acc_t<scalar>;
  acc p[4][4];
#pragma unroll
  for (int k = 0; k < 16; ++k) {
    p[k / 4][k % 4] = map.at(cell_x - 1 + k % 4, cell_y - 1 + k / 4);
  }
  acc highest = -std::numeric_limits<acc>::infinity();
#pragma unroll
  for (int corner = 0; corner < 4; ++corner) {
    const int x = 1 + corner % 2, y = 1 + corner / 2;
    const acc here = Controls<acc>::of([&](int dx, int dy) { return p[y + dy][x + dx]; }).highest(3 - 2 * x, 3 - 2 * y);
    highest = highest > here ? highest : here;
  }
  return highest;
}

// The best resized pixel of a cell, every lane's.
template <typename scalar, typename acc>
__device__ __forceinline__ Indexed<acc> best_of_cell(
    const EdgedMap<scalar>& map, const RoiAxis<acc>& x, const RoiAxis<acc>& y, int cell_x, int cell_y, int lane) {
  using Weights = CubicWeights<Single<acc>>;
  const int left = x.first(cell_x), columns = x.first(cell_x + 1) - left;
  const int top = y.first(cell_y), count = (y.first(cell_y + 1) - top) * columns;
  Indexed<acc> best = nothing_found<acc>();
  for (int i = lane; i < count; i += kWarpSize) {
    const int column = left + i % columns, row = top + i / columns;
    const Weights across = Weights::at(part_of_cell(x.at(column), cell_x));
    const Weights down = Weights::at(part_of_cell(y.at(row), cell_y));
    acc lines[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int source = cell_y - 1 + k;
      lines[k] = across.of(
          map.at(cell_x - 1, source), map.at(cell_x, source), map.at(cell_x + 1, source), map.at(cell_x + 2, source));
    }
    const acc value = down.of(lines[0], lines[1], lines[2], lines[3]);
    if (is_finite(value)) {
      best = better(best, Indexed<acc>{value, row * x.size + column});
    }
  }
  return warp_best(best);
}

// Block b decodes map b of the (B * K, H, W). With the second launch bound ptxas takes the registers it needs; left alone it
// spills.
template <typename scalar>
__global__ void __launch_bounds__(kRoiBlock, 4) decode_roi_heatmaps_kernel(const RoiArguments<scalar> args) {
  using acc = acc_t<scalar>;
  const int64_t number = blockIdx.x;
  const RoiAxis<acc> x = args.x(number / args.joints), y = args.y(number / args.joints);
  const EdgedMap<scalar> map = {args.map(number), args.width, args.height};
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, warp = static_cast<int>(threadIdx.x) / kWarpSize;
  if (x.size == 0 || y.size == 0) {
    if (threadIdx.x == 0) {
      args.write(number, x, y, nothing_found<acc>());
    }
    return;
  }

  // 1. The highest finite pixel, and the largest, which rounding depends on.
  Indexed<acc> peak = nothing_found<acc>();
  acc largest = 0;
  for (int i = static_cast<int>(threadIdx.x); i < args.width * args.height; i += kRoiBlock) {
    const acc pixel = static_cast<acc>(map.pixels[i]);
    if (is_finite(pixel)) {
      peak = better(peak, Indexed<acc>{pixel, i});
      largest = pixel > largest ? pixel : (-pixel > largest ? -pixel : largest);
    }
  }
  peak = block_best<kRoiBlock>(peak);
  largest = block_max<kRoiBlock>(largest);
  const acc margin = acc(kResizedUlps / 2) * std::numeric_limits<acc>::epsilon() * largest;

  // 2. What is reached near it: every warp resizes the cell of the nearest resized pixel, and compares with that.
  Indexed<acc> best = nothing_found<acc>();
  if (peak.found()) {
    best = best_of_cell(
        map, x, y, x.nearest_cell(peak.index % args.width), y.nearest_cell(peak.index / args.width), lane);
  }

  // 3. The other cells, a warp's share of them.
  const unsigned across = static_cast<unsigned>(args.width) + 1;
  const unsigned cells = peak.found() ? across * (static_cast<unsigned>(args.height) + 1) : 0;
  for (unsigned from = warp * kWarpSize; from < cells; from += kRoiBlock) {
    const unsigned own = from + lane;
    const int own_x = static_cast<int>(own % across) - 1, own_y = static_cast<int>(own / across) - 1;
    const bool high = own < cells && !(bound_of(map, own_x, own_y) < best.value - margin);
    for (unsigned left = __ballot_sync(kFullMask, high); left != 0; left &= left - 1) {
      const unsigned cell = from + __popc((left & (0u - left)) - 1u);  // the first of those left
      const int cell_x = static_cast<int>(cell % across) - 1, cell_y = static_cast<int>(cell / across) - 1;
      best = better(best, best_of_cell(map, x, y, cell_x, cell_y, lane));
    }
  }
  best = block_best<kRoiBlock>(best);
  if (threadIdx.x == 0) {
    args.write(number, x, y, best);
  }
}

template <typename scalar>
void launch_decode_roi_heatmaps(RoiTensors& tensors) {
  launch(
      kRoi, decode_roi_heatmaps_kernel<scalar>, tensors.scores.numel(), kRoiBlock, 0, current_stream(tensors.heatmaps),
      tensors.arguments<scalar>());
}

std::tuple<Tensor, Tensor> decode_roi_heatmaps_cuda(const Tensor& heatmaps, const Tensor& boxes) {
  check_roi(heatmaps, boxes);
  const DeviceGuard guard(heatmaps.get_device_index());
  RoiTensors tensors(heatmaps, boxes);
  const int64_t maps = tensors.scores.numel();
  PYPOSE_OPS_CHECK(maps <= kMaxBlocks, kRoi, ": heatmaps must be at most ", kMaxBlocks, " maps, got ", maps);
  if (maps > 0) {
    PYPOSE_OPS_DISPATCH_FLOATING(
        heatmaps.scalar_type(), "decode_roi_heatmaps", [&] { launch_decode_roi_heatmaps<scalar_t>(tensors); });
  }
  return {tensors.coords, tensors.scores};
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("decode_roi_heatmaps", TORCH_BOX(&decode_roi_heatmaps_cuda));
}

}  // namespace pypose_ops

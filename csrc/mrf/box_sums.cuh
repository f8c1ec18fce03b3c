// Sums over the boxes around pixels, on the GPU: what the pixels of mrf_message_passing that are not active send together,
// and what they add to the gradient of a prior.
#pragma once

#include <algorithm>

#include "common/reduce.cuh"
#include "mrf/mrf_message_passing.h"

namespace pypose_ops {
namespace {

using namespace mrf;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;

// Where box sums come from: rows x columns at `row_stride`, N of them `map_stride` apart.
template <typename acc>
struct BoxSource {
  const acc* data;
  int64_t map_stride, row_stride;
  int32_t rows, columns;
};

// out(r, c) is the sum over a window of window_rows x window_columns whose last element is (r + lag_y, c + lag_x).
struct BoxShape {
  int32_t out_rows, out_columns, window_rows, window_columns, lag_y, lag_x;
};

// Where a block keeps its columns: in shared memory, or where they are too many for it, in a slice of global memory.
constexpr int64_t kBoxBytes = kMaxSharedBytes - kWarps * static_cast<int64_t>(sizeof(double));  // beside warp_totals
struct BoxPlace {
  double* memory;  // null: shared
  int32_t rows;    // per block: many where it is slow to begin

  static int64_t doubles(int64_t columns) {
    return 2 * columns + 1;
  }
};

// One block owns some rows of out: it slides sums of columns down, and takes differences of their running sums.
template <typename acc, bool kUsable>
__global__ void __launch_bounds__(kThreads, 4) box_sums_kernel(
    acc* __restrict__ out, const int64_t out_map_stride, const int64_t out_row_stride, const BoxSource<acc> source,
    const BoxShape box, const BoxPlace place, const acc scale) {
  __shared__ double warp_totals[kWarps];
  double* running = place.memory ? place.memory + blockIdx.x * (2 * static_cast<int64_t>(source.columns) + 1)
                                 : dynamic_shared<double>();  // columns + 1
  double* sums = running + source.columns + 1;
  const int32_t groups = (box.out_rows + place.rows - 1) / place.rows;
  const int64_t map = blockIdx.x / groups;
  const int32_t first_row = static_cast<int32_t>(blockIdx.x % groups) * place.rows;
  const acc* in = source.data + map * source.map_stride;
  // Each thread owns neighbouring columns.
  const int32_t each = (source.columns + kThreads - 1) / kThreads;
  const int32_t begin = min(source.columns, each * static_cast<int32_t>(threadIdx.x));
  const int32_t end = min(source.columns, begin + each);
  const auto read = [&](int32_t row, int32_t k) -> double {
    if (row < 0 || row >= source.rows) {
      return 0.0;
    }
    const acc value = in[row * source.row_stride + k];
    return static_cast<double>(kUsable ? usable(value) : value);
  };
  for (int32_t k = begin; k < end; ++k) {
    double sum = 0;
    for (int32_t row = max(0, first_row + box.lag_y - box.window_rows + 1); row < first_row + box.lag_y; ++row) {
      sum += read(row, k);
    }
    sums[k] = sum;
  }
  for (int32_t r = first_row; r < min(box.out_rows, first_row + place.rows); ++r) {
    // 1. Slide down, and add up the thread's columns.
    double total = 0;
    for (int32_t k = begin; k < end; ++k) {
      sums[k] += read(r + box.lag_y, k);
      total += sums[k];
    }
    // 2. What is left of them, over the warp and over the block.
    double before = total;
    for (int offset = 1; offset < kWarpSize; offset *= 2) {
      const double other = __shfl_up_sync(kFullMask, before, offset);
      before += static_cast<int>(threadIdx.x % kWarpSize) >= offset ? other : 0.0;
    }
    if (threadIdx.x % kWarpSize == kWarpSize - 1) {
      warp_totals[threadIdx.x / kWarpSize] = before;
    }
    __syncthreads();
    before -= total;
    for (int w = 0; w < static_cast<int>(threadIdx.x) / kWarpSize; ++w) {
      before += warp_totals[w];
    }
    for (int32_t k = begin; k < end; ++k) {
      running[k] = before;
      before += sums[k];
    }
    if (begin < end && end == source.columns) {
      running[end] = before;
    }
    __syncthreads();
    // 3. Differences.
    for (int32_t c = threadIdx.x; c < box.out_columns; c += kThreads) {
      const int32_t high = min(source.columns, c + box.lag_x + 1);
      const int32_t low = max(0, c + box.lag_x - box.window_columns + 1);
      const double sum = running[high] - running[low];
      out[map * out_map_stride + r * out_row_stride + c] = scale * static_cast<acc>(kUsable && sum < 0 ? 0.0 : sum);
    }
    for (int32_t k = begin; k < end; ++k) {
      sums[k] -= read(r + box.lag_y - box.window_rows + 1, k);
    }
    __syncthreads();
  }
}

// like: a tensor on the device.
template <typename acc, bool kUsable>
void launch_box_sums(
    const char* op, const Tensor& like, acc* out, int64_t out_map_stride, int64_t out_row_stride,
    const BoxSource<acc>& source, const BoxShape& box, int64_t maps, acc scale, cudaStream_t stream) {
  const int64_t bytes = BoxPlace::doubles(source.columns) * static_cast<int64_t>(sizeof(double));
  if (bytes <= kBoxBytes) {
    const BoxPlace place{nullptr, 8};
    launch(
        op, box_sums_kernel<acc, kUsable>, maps * ceil_div(box.out_rows, place.rows), kThreads, bytes, stream, out,
        out_map_stride, out_row_stride, source, box, place, scale);
    return;
  }
  // Some maps at a time: 64 MiB, or what one needs.
  constexpr int64_t kMemory = 64 * 1024 * 1024;
  BoxPlace place{nullptr, 64};
  const int64_t blocks = ceil_div(box.out_rows, place.rows);
  const int64_t together = std::max<int64_t>(1, std::min(maps, kMemory / (blocks * bytes)));
  const Tensor memory = empty_beside(
      like, {together * blocks * BoxPlace::doubles(source.columns)}, ScalarType::Double);
  place.memory = memory.mutable_data_ptr<double>();
  for (int64_t first = 0; first < maps; first += together) {
    BoxSource<acc> part = source;
    part.data += first * source.map_stride;
    launch(
        op, box_sums_kernel<acc, kUsable>, std::min(together, maps - first) * blocks, kThreads, 0, stream,
        out + first * out_map_stride, out_map_stride, out_row_stride, part, box, place, scale);
  }
}

// base (P, H, W) = floor * the sum of every prior over the displacements that stay in the map.
template <typename acc>
void launch_base(
    const char* op, const Tensor& out, const acc* prior, const Shape& shape, acc floor, cudaStream_t stream) {
  const auto narrow = [](int64_t n) { return static_cast<int32_t>(n); };
  const acc* corner = prior + (shape.kernel_height / 2 - shape.reach_y) * shape.kernel_width +
      (shape.kernel_width / 2 - shape.reach_x);
  const BoxSource<acc> source{
      corner, shape.kernel_height * shape.kernel_width, shape.kernel_width, narrow(2 * shape.reach_y + 1),
      narrow(2 * shape.reach_x + 1)};
  const BoxShape box{narrow(shape.height), narrow(shape.width),   narrow(shape.height),
                     narrow(shape.width),  narrow(shape.reach_y), narrow(shape.reach_x)};
  launch_box_sums<acc, true>(
      op, out, out.mutable_data_ptr<acc>(), shape.pixels(), shape.width, source, box, shape.priors, floor, stream);
}

}  // namespace
}  // namespace pypose_ops

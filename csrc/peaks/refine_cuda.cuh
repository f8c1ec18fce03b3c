// The refinements on CUDA: one warp refines one peak.
#pragma once

#include "common/cuda.cuh"
#include "peaks/refine.h"

namespace pypose_ops {
namespace peaks {

// What one warp shares while it refines.
template <typename acc>
struct Scratch {
  acc down[kSpan][kMaxKernelSize + 2 * kReach];  // blurred down the columns: rows y - 2 ... y + 2, the patch's columns
  acc logs[kSpan][kSpan];
};

// One warp. First a lane is a column of the patch, then a pixel of the 5x5 window, 13 of which are needed.
template <typename scalar, typename acc>
__device__ Step<acc> dark_step(
    const MapView<scalar>& map, const Taps<acc>& taps, int x, int y, int lane, Scratch<acc>& scratch) {
  const int patch = taps.size + 2 * kReach;
  const int top = y - patch / 2;
  const int first = top < 0 ? -top : 0;
  const int last = top + patch > map.height ? map.height - top : patch;
  for (int column = lane; column < patch; column += kWarpSize) {
    const int from = x - patch / 2 + column;
    acc sums[kSpan] = {};
    if (from >= 0 && from < map.width) {
#pragma unroll 4
      for (int row = first; row < last; ++row) {
        const acc value = map(from, top + row);
#pragma unroll
        for (int out = 0; out < kSpan; ++out) {
          sums[out] += taps[row - out] * value;
        }
      }
    }
#pragma unroll
    for (int out = 0; out < kSpan; ++out) {
      scratch.down[out][column] = sums[out];
    }
  }
  __syncwarp();

  const int row = lane / kSpan;
  const int column = lane % kSpan;
  if (abs(row - kReach) + abs(column - kReach) <= kReach) {
    acc blurred = 0;
    for (int i = 0; i < taps.size; ++i) {
      blurred += taps[i] * scratch.down[row][column + i];
    }
    scratch.logs[row][column] = log_blurred(blurred);
  }
  __syncwarp();
  return newton_step(scratch.logs);
}

// The same step in every lane of the warp.
template <typename scalar, typename acc>
__device__ Step<acc> refined(
    const MapView<scalar>& map, const Refinement<acc>& refinement, int index, int lane, Scratch<acc>& scratch) {
  const int x = index % map.width;
  const int y = index / map.width;
  Step<acc> step = {0, 0};
  if (refinement.refine == Refine::quarter) {
    step = quarter_step(map, x, y);
  } else if (refinement.refine == Refine::dark && dark_applies(x, y, map.width, map.height)) {
    step = dark_step(map, refinement.taps, x, y, lane, scratch);
  }
  return limited(step, refinement.max_offset);
}

}  // namespace peaks
}  // namespace pypose_ops

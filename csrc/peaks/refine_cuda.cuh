// Searching and refining on CUDA: one warp refines one peak.
#pragma once

#include <optional>
#include <vector>

#include "common/reduce.cuh"
#include "common/vector.cuh"
#include "peaks/refine.h"

namespace pypose_ops {
namespace peaks {

// The joints' permutation travels with the launch: nothing is copied to the device, and graphs can capture the call.
constexpr int kMaxFlipJoints = 1024;
struct FlipIndex {
  int16_t joints[kMaxFlipJoints];

  PYPOSE_OPS_HOST_DEVICE int operator[](int64_t joint) const {
    return joints[joint];
  }
};

inline FlipIndex flip_index_of(const std::optional<std::vector<int64_t>>& joints) {
  FlipIndex index = {};
  const size_t count = joints.has_value() ? joints->size() : 0;
  PYPOSE_OPS_CHECK(
      count <= kMaxFlipJoints, "decode_heatmaps: heatmaps must have at most ", kMaxFlipJoints,
      " joints where flipped is given, got ", count);
  for (size_t joint = 0; joint < count; ++joint) {
    index.joints[joint] = static_cast<int16_t>((*joints)[joint]);
  }
  return index;
}

template <typename acc>
__device__ __forceinline__ void consider(Peak<acc>& peak, acc value, int index) {
  if (leads(value, peak.value)) {
    peak = {value, index};
  }
}

// The peak of the share of a map that thread `own` of `stride` has, in packs where the map begins at a multiple of 16
// bytes.
template <typename scalar, typename acc>
__device__ __forceinline__ void scan(
    Peak<acc>& peak, const scalar* __restrict__ map, int pixels, int own, int stride) {
  constexpr int kVec = kPack<scalar>;
  int packed = 0;
  if (reinterpret_cast<uintptr_t>(map) % kPackBytes == 0) {
    const int count = pixels / kVec;
    packed = count * kVec;
#pragma unroll 4
    for (int i = own; i < count; i += stride) {
      const auto pack = load_pack<kVec>(map + i * kVec);
#pragma unroll
      for (int j = 0; j < kVec; ++j) {
        consider(peak, static_cast<acc>(pack.v[j]), i * kVec + j);
      }
    }
  }
#pragma unroll 4
  for (int i = packed + own; i < pixels; i += stride) {
    consider(peak, static_cast<acc>(map[i]), i);
  }
}

// The same of the mean of a map and its flipped twin. x follows i without a division per pixel.
template <int kVec, typename scalar, typename acc>
__device__ __forceinline__ void scan_merged(Peak<acc>& peak, const MapView<scalar>& map) {
  const int packs = map.height * map.width / kVec;
  const int stride = static_cast<int>(blockDim.x);
  const int step = stride * kVec % map.width;
  int x = static_cast<int>(threadIdx.x) * kVec % map.width;
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x); i < packs; i += stride) {
    // The twin's pixels in the opposite order: those of one pack, or with the shift of the one before it and one more.
    const auto pack = load_pack<kVec>(map.map + i * kVec);
    const scalar* mirrored = map.twin + i * kVec - x + map.width - x - kVec;
    const auto twin = load_pack<kVec>(mirrored);
    const scalar first = map.shift && x > 0 ? mirrored[kVec] : twin.v[kVec - 1];
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      const scalar other = j == 0 ? first : map.shift ? twin.v[kVec - j] : twin.v[kVec - 1 - j];
      consider(peak, merged(static_cast<acc>(pack.v[j]), static_cast<acc>(other)), i * kVec + j);
    }
    x += step;
    x -= x >= map.width ? map.width : 0;
  }
}

template <typename scalar, typename acc = acc_t<scalar>>
__device__ Peak<acc> thread_peak(const MapView<scalar>& map, acc threshold) {
  Peak<acc> peak = no_peak(threshold);
  if (map.twin == nullptr) {
    scan(peak, map.map, map.height * map.width, static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x));
  } else if (
      map.width % kPack<scalar> == 0 &&
      (reinterpret_cast<uintptr_t>(map.map) | reinterpret_cast<uintptr_t>(map.twin)) % kPackBytes == 0) {
    scan_merged<kPack<scalar>>(peak, map);
  } else {
    scan_merged<1>(peak, map);
  }
  return peak;
}

// What one warp shares while it refines.
template <typename acc>
struct Scratch {
  acc down[kSpan][kMaxKernelSize + 2 * kReach];  // blurred down the columns: rows y - 2 ... y + 2, the patch's columns
  acc logs[kSpan][kSpan];
};

// One warp. First a lane is a column of the patch, then a pixel of the 5x5 window, 13 of which are needed.
template <typename scalar, typename acc>
__device__ Refined<acc> dark_step(
    const MapView<scalar>& map, const Refinement<acc>& refinement, int x, int y, int lane, Scratch<acc>& scratch) {
  const Taps<acc>& taps = refinement.taps;
  const int patch = taps.size + 2 * kReach;
  const Stencil stencil = stencil_at(refinement, x, y, map.width, map.height);
  const int top = stencil.y - patch / 2;
  for (int column = lane; column < patch; column += kWarpSize) {
    const int from = outside(stencil.x - patch / 2 + column, map.width, refinement.border);
    acc sums[kSpan] = {};
    if (from >= 0) {
#pragma unroll 4
      for (int i = 0; i < patch; ++i) {
        const int row = outside(top + i, map.height, refinement.border);
        if (row < 0) {
          continue;
        }
        const acc value = map(from, row);
#pragma unroll
        for (int out = 0; out < kSpan; ++out) {
          sums[out] += taps.within(i - out, stencil.reach_y) * value;
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
  const bool needed = abs(row - kReach) + abs(column - kReach) <= kReach;
  acc blurred = 0;
  for (int i = 0; needed && i < taps.size; ++i) {
    blurred += taps.within(i, stencil.reach_x) * scratch.down[row][column + i];
  }
  acc scale = 1;
  if (refinement.rescale) {
    const bool inside = map.contains(stencil.x + column - kReach, stencil.y + row - kReach);
    scale = map(x, y) / warp_max(inside ? blurred : acc(0));
  }
  if (needed) {
    scratch.logs[row][column] = log_blurred(blurred * scale, refinement.low, refinement.high);
  }
  __syncwarp();
  return newton_step(refinement, scratch.logs, stencil, x, y, map.width, map.height);
}

// The same in every lane of the warp.
template <typename scalar, typename acc>
__device__ Refined<acc> refined(
    const MapView<scalar>& map, const Refinement<acc>& refinement, int index, int lane, Scratch<acc>& scratch) {
  const int x = index % map.width;
  const int y = index / map.width;
  Refined<acc> result = no_covariance(Step<acc>{0, 0});
  if (refinement.refine == Refine::dark || refinement.refine == Refine::dark_udp) {
    if (dark_applies(refinement, x, y, map.width, map.height)) {
      result = dark_step(map, refinement, x, y, lane, scratch);
    }
  } else {
    result.step = plain_step(map, refinement, x, y);
  }
  result.step = limited(result.step, refinement.max_offset);
  return result;
}

}  // namespace peaks
}  // namespace pypose_ops

// The refinements on the CPU. Everything here must be inlined into a simd_call.
#pragma once

#include <algorithm>
#include <type_traits>

#include "common/simd.h"
#include "peaks/refine.h"

namespace pypose_ops {
namespace peaks {

// Columns from ... from + count - 1 of a row, in the arithmetic type, merged.
template <typename scalar, typename acc>
void load_row(const MapView<scalar>& map, int y, int from, int count, acc* row) {
  const scalar* pixels = map.map + y * map.width + from;
  if (map.twin == nullptr) {
    for (int i = 0; i < count; ++i) {
      row[i] = simd::load(pixels[i]);
    }
    return;
  }
  const scalar* twin = map.twin + (y + 1) * map.width - 1 - from + (map.shift ? 1 : 0);
  int i = 0;
  if (map.shift && from == 0) {
    row[i++] = map(0, y);  // the column that stays
  }
  for (; i < count; ++i) {
    row[i] = merged<acc>(simd::load(pixels[i]), simd::load(twin[-i]));
  }
}

// The patch that DARK reads is kernel size + 4 pixels wide and high. Its rows are padded to whole vectors.
constexpr int kMaxPatch = kMaxKernelSize + 2 * kReach;
constexpr int kMaxColumns = (kMaxPatch + 15) / 16 * 16;

// The patch around (x, y) as pointer and stride: in place where the map allows, else a copy with zeros round the map.
template <typename scalar, typename acc>
const acc* find_patch(const MapView<scalar>& map, int x, int y, int patch, int columns, acc* copy, int* stride) {
  const int left = x - patch / 2;
  const int top = y - patch / 2;
  if constexpr (std::is_same_v<scalar, acc>) {
    if (map.twin == nullptr && left >= 0 && left + columns <= map.width && top >= 0 && top + patch <= map.height) {
      *stride = map.width;
      return map.map + top * map.width + left;
    }
  }
  std::fill(copy, copy + patch * columns, acc(0));
  const int from = std::max(0, left);
  const int count = std::min(map.width, left + columns) - from;
  for (int row = std::max(0, -top); row < std::min(patch, map.height - top); ++row) {
    load_row(map, top + row, from, count, copy + row * columns + from - left);
  }
  *stride = columns;
  return copy;
}

// Blurs down the columns in the five rows round the peak, then along those rows at the 13 pixels that are needed.
template <typename scalar, typename acc>
Step<acc> dark_step(const MapView<scalar>& map, const Taps<acc>& taps, int x, int y) {
  const int patch = taps.size + 2 * kReach;
  const int columns = (patch + 15) / 16 * 16;
  acc copy[kMaxPatch * kMaxColumns];
  int stride;
  const acc* pixels = find_patch(map, x, y, patch, columns, copy, &stride);

  acc down[kSpan][kMaxColumns] = {};
  for (int row = 0; row < patch; ++row) {
    for (int column = 0; column < columns; ++column) {
      for (int out = 0; out < kSpan; ++out) {
        down[out][column] += taps[row - out] * pixels[row * stride + column];
      }
    }
  }
  acc logs[kSpan][kSpan];
  for (int row = 0; row < kSpan; ++row) {
    const int reach = kReach - std::abs(row - kReach);
    for (int column = kReach - reach; column <= kReach + reach; ++column) {
      acc blurred = 0;
      for (int i = 0; i < taps.size; ++i) {
        blurred += taps[i] * down[row][column + i];
      }
      logs[row][column] = log_blurred(blurred);
    }
  }
  return newton_step(logs);
}

template <typename scalar, typename acc>
Step<acc> refined(const MapView<scalar>& map, const Refinement<acc>& refinement, int index) {
  const int x = index % map.width;
  const int y = index / map.width;
  Step<acc> step = {0, 0};
  if (refinement.refine == Refine::quarter) {
    step = quarter_step(map, x, y);
  } else if (refinement.refine == Refine::dark && dark_applies(x, y, map.width, map.height)) {
    step = dark_step(map, refinement.taps, x, y);
  }
  return limited(step, refinement.max_offset);
}

}  // namespace peaks
}  // namespace pypose_ops

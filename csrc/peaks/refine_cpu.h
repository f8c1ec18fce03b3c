// Searching and refining on the CPU. Everything here must be inlined into a simd_call, but step_in_patch.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "common/simd.h"
#include "peaks/refine.h"

namespace pypose_ops {
namespace peaks {

// Positive floating-point numbers are ordered like their bits read as a signed integer; negative ones are negative, and
// infinity and the positive NaNs come last. So the highest pixel is found by integer maxima, which vectorise in every
// instruction set and for every storage type.
template <typename scalar>
using key_t = std::conditional_t<
    sizeof(scalar) == 2, int16_t, std::conditional_t<sizeof(scalar) == 4, int32_t, int64_t>>;

// The bits of a number as an integer in the numbers' order, negative ones included, -0 as 0; infinity and the NaNs above it
// as the lowest. For one number and for a vector of them: the compiler leaves the loop over scalars scalar.
template <typename scalar, typename keys>
keys ordered_keys(keys raw) {
  using key = key_t<scalar>;
  constexpr key lowest = std::numeric_limits<key>::lowest();
  const key infinity = simd::bits_to<key>(std::numeric_limits<scalar>::infinity());
  const keys none = raw - raw + lowest;
  const keys bits = raw == none ? keys(raw - raw) : raw;
  const keys ordered = keys(bits ^ ((bits >> (8 * sizeof(key) - 1)) & std::numeric_limits<key>::max()));
  return ordered < infinity ? ordered : none;
}

template <bool kNegative, typename scalar>
key_t<scalar> key_of(scalar pixel) {
  using key = key_t<scalar>;
  const key bits = simd::bits_to<key>(pixel);
  if constexpr (kNegative) {
    return ordered_keys<scalar, key>(bits);
  } else {
    return bits;
  }
}

template <typename scalar>
acc_t<scalar> value_of(key_t<scalar> key) {
  const bool negative = key < 0;
  return simd::load(simd::bits_to<scalar>(
      static_cast<key_t<scalar>>(negative ? key ^ std::numeric_limits<key_t<scalar>>::max() : key)));
}

// Below the key of every pixel that can be a peak: 0, or that of minus infinity.
template <bool kNegative, typename scalar>
key_t<scalar> no_key() {
  return kNegative ? key_of<true>(static_cast<scalar>(-std::numeric_limits<scalar>::infinity())) : key_t<scalar>{0};
}

template <typename keys, typename scalar>
keys load_keys(const scalar* pixels) {
  keys out;
  std::memcpy(&out, pixels, sizeof(out));
  return out;
}

template <typename Isa, typename scalar>
key_t<scalar> highest_of_any_sign(Isa, const scalar* pixels, int count) {
  using key = key_t<scalar>;
  using keys = simd::vec<key, Isa>;
  constexpr int lanes = simd::lanes<key, Isa>;
  key best = std::numeric_limits<key>::lowest();
  int i = 0;
  if (count >= lanes) {
    keys high = ordered_keys<scalar>(load_keys<keys>(pixels));
    for (i = lanes; i + lanes <= count; i += lanes) {
      const keys ordered = ordered_keys<scalar>(load_keys<keys>(pixels + i));
      high = ordered > high ? ordered : high;
    }
    for (int lane = 0; lane < lanes; ++lane) {
      best = high[lane] > best ? high[lane] : best;
    }
  }
  for (; i < count; ++i) {
    const key ordered = key_of<true>(pixels[i]);
    best = ordered > best ? ordered : best;
  }
  return best;
}

// The highest of at most `count` keys, or 0: that of infinity or a NaN too. Several maxima at a time: one alone waits for itself.
template <typename Isa, typename scalar>
key_t<scalar> highest_bits(Isa, const scalar* pixels, int count) {
  using key = key_t<scalar>;
  using keys = simd::vec<key, Isa>;
  constexpr int lanes = simd::lanes<key, Isa>;
  constexpr int kChains = 4;
  key best = 0;
  int i = 0;
  if (count >= kChains * lanes) {
    keys high[kChains] = {};
    for (; i + kChains * lanes <= count; i += kChains * lanes) {
      for (int chain = 0; chain < kChains; ++chain) {
        const keys bits = load_keys<keys>(pixels + i + chain * lanes);
        high[chain] = bits > high[chain] ? bits : high[chain];
      }
    }
    for (int half = kChains / 2; half > 0; half /= 2) {
      for (int chain = 0; chain < half; ++chain) {
        high[chain] = high[chain] > high[chain + half] ? high[chain] : high[chain + half];
      }
    }
    for (int lane = 0; lane < lanes; ++lane) {
      best = high[0][lane] > best ? high[0][lane] : best;
    }
  }
  for (; i < count; ++i) {
    const key bits = simd::bits_to<key>(pixels[i]);
    best = bits > best ? bits : best;
  }
  return best;
}

template <typename Isa, typename scalar>
key_t<scalar> highest_positive(Isa isa, const scalar* pixels, int count) {
  using key = key_t<scalar>;
  const key infinity = simd::bits_to<key>(std::numeric_limits<scalar>::infinity());
  key best = highest_bits(isa, pixels, count);
  if (best >= infinity) {
    best = 0;
    for (int i = 0; i < count; ++i) {
      const key bits = simd::bits_to<key>(pixels[i]);
      const key finite = bits < infinity ? bits : key{0};
      best = finite > best ? finite : best;
    }
  }
  return best;
}

// The key of the highest finite pixel, or one that is not above no_key.
template <bool kNegative, typename Isa, typename scalar>
key_t<scalar> highest(Isa isa, const scalar* pixels, int count) {
  if constexpr (kNegative) {
    return highest_of_any_sign(isa, pixels, count);
  } else {
    return highest_positive(isa, pixels, count);
  }
}

template <bool kNegative, typename scalar>
int first_with(key_t<scalar> wanted, const scalar* pixels, int count) {
  int first = count;
  for (int i = 0; i < count; ++i) {
    const int here = key_of<kNegative>(pixels[i]) == wanted ? i : count;
    first = here < first ? here : first;
  }
  return first;
}

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

// A map is read in chunks; only the one that holds the maximum is searched for its place. chunk(i) returns the pixels
// from i on.
template <bool kNegative, typename stored, typename Isa, typename Chunk>
auto find_peak(Isa isa, int pixels, int chunk_size, acc_t<stored> threshold, const Chunk& chunk)
    -> Peak<acc_t<stored>> {
  key_t<stored> best = no_key<kNegative, stored>();
  int from = 0;
  for (int64_t i = 0; i < pixels; i += chunk_size) {
    const int start = static_cast<int>(i);
    const key_t<stored> key = highest<kNegative>(isa, chunk(start), std::min(chunk_size, pixels - start));
    from = key > best ? start : from;
    best = key > best ? key : best;
  }
  if (best == no_key<kNegative, stored>() || !(value_of<stored>(best) > threshold)) {
    return no_peak(threshold);
  }
  const int index = from + first_with<kNegative>(best, chunk(from), std::min(chunk_size, pixels - from));
  return {value_of<stored>(best), index};
}

constexpr int kChunk = 512;

// The rows that are merged at a time where there is a flipped twin.
template <typename scalar>
int merged_rows(const MapView<scalar>& map) {
  return map.twin == nullptr ? 0 : std::max(1, std::min(map.height, kChunk / map.width));
}

template <bool kNegative, typename Isa, typename scalar, typename acc>
Peak<acc> find_signed_peak(Isa isa, const MapView<scalar>& map, acc threshold, int rows, acc* buffer) {
  const int pixels = map.height * map.width;
  if (map.twin == nullptr) {
    return find_peak<kNegative, scalar>(isa, pixels, kChunk, threshold, [&](int i) { return map.map + i; });
  }
  return find_peak<kNegative, acc>(isa, pixels, rows * map.width, threshold, [&](int i) {
    const int y = i / map.width;
    for (int row = 0; row < std::min(rows, map.height - y); ++row) {
      load_row(map, y + row, 0, map.width, buffer + row * map.width);
    }
    return static_cast<const acc*>(buffer);
  });
}

// The highest finite pixel above the threshold. The buffer holds merged_rows rows.
template <typename Isa, typename scalar, typename acc>
Peak<acc> find_peak(Isa isa, const MapView<scalar>& map, acc threshold, int rows, acc* buffer) {
  return threshold < 0 ? find_signed_peak<true>(isa, map, threshold, rows, buffer)
                       : find_signed_peak<false>(isa, map, threshold, rows, buffer);
}

// The patch that DARK reads is kernel size + 4 pixels wide and high. Its rows are padded to whole vectors.
constexpr int kMaxPatch = kMaxKernelSize + 2 * kReach;

constexpr int padded_columns(int patch) {
  return (patch + 15) / 16 * 16;
}

constexpr int kMaxColumns = padded_columns(kMaxPatch);

// The patch around (x, y) as pointer and stride: in place inside the map, otherwise a copy with the border around the map.
template <typename scalar, typename acc>
const acc* find_patch(
    const MapView<scalar>& map, Border border, int x, int y, int patch, int columns, acc* copy, int* stride) {
  const int left = x - patch / 2;
  const int top = y - patch / 2;
  if constexpr (std::is_same_v<scalar, acc>) {
    if (map.twin == nullptr && left >= 0 && left + columns <= map.width && top >= 0 && top + patch <= map.height) {
      *stride = map.width;
      return map.map + top * map.width + left;
    }
  }
  *stride = columns;
  std::fill(copy, copy + patch * columns, acc(0));
  const int from = std::max(0, left);
  const int count = std::min(map.width, left + columns) - from;
  for (int i = 0; i < patch; ++i) {
    const int row = outside(top + i, map.height, border);
    if (row < 0) {
      continue;
    }
    acc* into = copy + i * columns;
    load_row(map, row, from, count, into + from - left);
    if (border == Border::zeros) {
      continue;
    }
    const auto reflect = [&](int column) {
      const int there = outside(left + column, map.width, border);
      into[column] = there >= from && there < from + count ? into[there - left] : map(there, row);
    };
    for (int column = 0; column < from - left; ++column) {
      reflect(column);
    }
    for (int column = from - left + count; column < patch; ++column) {
      reflect(column);
    }
  }
  return copy;
}

// The taps cut to `reach`; `copy` is used where that is shorter.
template <typename acc>
const Taps<acc>& narrowed(const Taps<acc>& taps, int reach, Taps<acc>& copy) {
  if (reach >= taps.size / 2) {
    return taps;
  }
  copy = {};
  copy.size = taps.size;
  for (int i = 0; i < taps.size; ++i) {
    copy.padded[i + kSpan - 1] = taps.within(i, reach);
  }
  return copy;
}

// Blurs down the columns, in the five rows around the peak. `columns` is a multiple of the lanes.
template <typename Isa, typename acc>
void blur_down(
    Isa isa, const Taps<acc>& taps, const acc* pixels, int stride, int patch, int columns,
    acc (&down)[kSpan][kMaxColumns + simd::kMostLanes<acc>]) {
  using Vec = simd::vec<acc, Isa>;
  constexpr int lanes = simd::lanes<acc, Isa>;
  for (int column = 0; column < columns; column += lanes) {
    Vec sums[kSpan] = {};
    for (int row = 0; row < patch; ++row) {
      const Vec here = isa.load(pixels + row * stride + column);
      for (int out = 0; out < kSpan; ++out) {
        sums[out] += taps[row - out] * here;
      }
    }
    for (int out = 0; out < kSpan; ++out) {
      isa.store(&down[out][column], sums[out]);
    }
  }
  for (int out = 0; out < kSpan; ++out) {
    std::fill(&down[out][columns], &down[out][columns] + lanes, acc(0));
  }
}

constexpr int kPaddedSpan = 16;  // kSpan in whole registers

// Blurs along those rows.
template <typename Isa, typename acc>
void blur_along(
    Isa isa, const Taps<acc>& taps, const acc (&down)[kSpan][kMaxColumns + simd::kMostLanes<acc>],
    acc (&blurred)[kSpan][kPaddedSpan]) {
  using Vec = simd::vec<acc, Isa>;
  constexpr int lanes = simd::lanes<acc, Isa>;
  static_assert(lanes <= kPaddedSpan, "whole registers");
  for (int row = 0; row < kSpan; ++row) {
    for (int column = 0; column < kSpan; column += lanes) {
      Vec sum = {};
      for (int i = 0; i < taps.size; ++i) {
        sum += taps[i] * isa.load(&down[row][column + i]);
      }
      isa.store(&blurred[row][column], sum);
    }
  }
}

// log_blurred of all 25, although 13 are needed: without branches.
template <typename acc>
void take_logs(const acc (&blurred)[kSpan][kPaddedSpan], acc scale, acc low, acc high, acc (&logs)[kSpan][kSpan]) {
  for (int row = 0; row < kSpan; ++row) {
    for (int column = 0; column < kSpan; ++column) {
      logs[row][column] = log_blurred(blurred[row][column] * scale, low, high);
    }
  }
}

// The step from a peak of a given value, by the pixels around it. Not inlined: it depends on the map's type no more, and
// would be compiled with every search.
template <typename acc>
[[gnu::noinline]] Refined<acc> step_in_patch(
    const Refinement<acc>& refinement, const Stencil& stencil, const acc* pixels, int stride, acc value, int x, int y,
    int width, int height) {
  const int patch = refinement.taps.size + 2 * kReach;
  const int columns = padded_columns(patch);
  Refined<acc> result;
  simd_call([&](auto isa) {
    Taps<acc> narrow_x, narrow_y;
    const Taps<acc>& taps_x = narrowed(refinement.taps, stencil.reach_x, narrow_x);
    const Taps<acc>& taps_y = narrowed(refinement.taps, stencil.reach_y, narrow_y);
    acc down[kSpan][kMaxColumns + simd::kMostLanes<acc>];
    acc blurred[kSpan][kPaddedSpan];
    blur_down(isa, taps_y, pixels, stride, patch, columns, down);
    blur_along(isa, taps_x, down, blurred);
    acc scale = 1;
    if (refinement.rescale) {
      acc highest = 0;
      for (int row = 0; row < kSpan; ++row) {
        const int reach = kReach - std::abs(row - kReach);
        for (int column = kReach - reach; column <= kReach + reach; ++column) {
          const int there = stencil.x + column - kReach, here = stencil.y + row - kReach;
          const bool inside = there >= 0 && there < width && here >= 0 && here < height;
          highest = inside && blurred[row][column] > highest ? blurred[row][column] : highest;
        }
      }
      scale = value / highest;
    }
    acc logs[kSpan][kSpan];
    take_logs(blurred, scale, refinement.low, refinement.high, logs);
    result = newton_step(refinement, logs, stencil, x, y, width, height);
  });
  return result;
}

template <typename scalar, typename acc>
Refined<acc> dark_step(const MapView<scalar>& map, const Refinement<acc>& refinement, int x, int y) {
  const Stencil stencil = stencil_at(refinement, x, y, map.width, map.height);
  const int patch = refinement.taps.size + 2 * kReach;
  const int columns = padded_columns(patch);
  acc copy[kMaxPatch * kMaxColumns];
  int stride;
  const acc* pixels = find_patch(map, refinement.border, stencil.x, stencil.y, patch, columns, copy, &stride);
  return step_in_patch(refinement, stencil, pixels, stride, acc(map(x, y)), x, y, map.width, map.height);
}

template <typename scalar, typename acc>
Refined<acc> refined(const MapView<scalar>& map, const Refinement<acc>& refinement, int index) {
  const int x = index % map.width;
  const int y = index / map.width;
  Refined<acc> result = no_covariance(Step<acc>{0, 0});
  if (refinement.refine == Refine::dark || refinement.refine == Refine::dark_udp) {
    if (dark_applies(refinement, x, y, map.width, map.height)) {
      result = dark_step(map, refinement, x, y);
    }
  } else {
    result.step = plain_step(map, refinement, x, y);
  }
  result.step = limited(result.step, refinement.max_offset);
  return result;
}

}  // namespace peaks
}  // namespace pypose_ops

// One row of one patch on the CPU: the taps of its pixels in tables, then one pass over the tables per channel.
// Images of bytes: crop_byte_rows.h.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "common/simd.h"
#include "patches/crop_patches.h"

namespace pypose_ops {
namespace patches {

// Where the tables of pixels' taps are: the address of the upper left one, in elements, and the weights.
template <typename acc, typename Offset>
struct TapPointers {
  Offset* offset;
  acc *w00, *w01, *w10, *w11;  // upper left, upper right, lower left, lower right
};

// The tables of a row.
template <typename acc, typename Offset>
struct RowTaps {
  std::vector<Offset> offset;
  std::vector<acc> w00, w01, w10, w11;

  explicit RowTaps(int64_t width) : offset(width), w00(width), w01(width), w10(width), w11(width) {}

  TapPointers<acc, Offset> pointers() {
    return {offset.data(), w00.data(), w01.data(), w10.data(), w11.data()};
  }
};

// An image as the loops over a row see it.
template <typename T, typename Offset>
struct Plane {
  const T* data;
  Offset stride_y, stride_x;  // between taps: 0 where the image has one row or column
};

template <typename T, typename Offset>
Plane<T, Offset> plane_of(const Image& image, int64_t channel) {
  return {
      static_cast<const T*>(image.data) + channel * image.stride_c,
      static_cast<Offset>(image.height > 1 ? image.stride_y : 0),
      static_cast<Offset>(image.width > 1 ? image.stride_x : 0)};
}

// Elements from a plane's first to its last.
inline int64_t span_of(const Image& image) {
  return (image.height - 1) * image.stride_y + (image.width - 1) * image.stride_x;
}

// Whether positions [begin, end) of a line lie between the centres of the first and the last of `size` pixels. They are
// in order, so the two at the ends tell; with room for the rounding of step * x + start, which may be one operation or two.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE bool is_inside(const Line<acc>& line, int32_t size, int32_t begin, int32_t end) {
  constexpr int32_t kExact = 1 << 22;  // whole numbers up to here are floats
  const acc a = line.at(begin), b = line.at(end - 1);
  const acc room = acc(0x1p-22) * (magnitude(line.step) * static_cast<acc>(end) + magnitude(line.start));
  const acc low = static_cast<acc>(-line.whole) + room, high = static_cast<acc>(size - 1 - line.whole) - room;
  return line.whole > -kExact && line.whole < kExact && size < kExact && a >= low && b >= low && a < high && b < high;
}

// Whether tap_at() has nothing to clamp there, in both directions, and offsets from the row's first pixel are exact.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE bool is_inside(
    const Line<acc>& lx, const Line<acc>& ly, const Image& image, int32_t begin, int32_t end) {
  const auto furthest = [&](const Line<acc>& line) {
    const acc a = magnitude(line.at(begin)), b = magnitude(line.at(end - 1));
    return (a > b ? a : b) + acc(1);
  };
  return is_inside(lx, image.width, begin, end) && is_inside(ly, image.height, begin, end) &&
      furthest(lx) * static_cast<acc>(image.stride_x) + furthest(ly) * static_cast<acc>(image.stride_y) < acc(1 << 24);
}

// What tap_at() gives for bilinear samples there, the same bits, for pixels begin, begin + 1, ... of a row.
template <typename acc, typename Offset>
PYPOSE_OPS_HOST_DEVICE void fill_taps_inside(
    const TapPointers<acc, Offset>& pointers, const Line<acc>& along_x, const Line<acc>& along_y, const Image& image,
    int32_t begin, int32_t count) {
  const auto [offset, w00, w01, w10, w11] = pointers;
  const Line<acc> lx = along_x, ly = along_y;
  const acc stride_x = static_cast<acc>(image.stride_x), stride_y = static_cast<acc>(image.stride_y);
  const Offset base = static_cast<Offset>(ly.whole * image.stride_y + lx.whole * image.stride_x);
  PYPOSE_OPS_INDEPENDENT
  for (int32_t x = 0; x < count; ++x) {
    const acc tx = lx.at(begin + x), ty = ly.at(begin + x);
    const acc left = floor_of(tx), top = floor_of(ty);
    const acc near_x = acc(1) - (tx - left), near_y = acc(1) - (ty - top);
    const acc far_x = acc(1) - near_x, far_y = acc(1) - near_y;
    offset[x] = base + static_cast<Offset>(static_cast<int32_t>(top * stride_y + left * stride_x));
    w00[x] = near_y * near_x;
    w01[x] = near_y * far_x;
    w10[x] = far_y * near_x;
    w11[x] = far_y * far_x;
  }
}

// The loops below read everything through local names: what a lambda captured counts as memory that the stores may change.
template <Mode mode, Padding padding, typename acc, typename Offset>
void fill_taps_as(
    const TapPointers<acc, Offset>& pointers, const Line<acc>& along_x, const Line<acc>& along_y, const Image& image,
    int32_t begin, int32_t count) {
  simd_call([=, &image]() __attribute__((always_inline)) {
    if (mode == Mode::bilinear && is_inside(along_x, along_y, image, begin, begin + count)) {
      return fill_taps_inside(pointers, along_x, along_y, image, begin, count);
    }
    const auto [offset, w00, w01, w10, w11] = pointers;
    const Line<acc> lx = along_x, ly = along_y;
    const Offset stride_x = static_cast<Offset>(image.stride_x), stride_y = static_cast<Offset>(image.stride_y);
    const int32_t size_x = image.width, size_y = image.height, from = begin, width = count;
    PYPOSE_OPS_INDEPENDENT
    for (int32_t x = 0; x < width; ++x) {
      const Tap<acc> tx = tap_at(lx.at(from + x), lx.whole, size_x, mode, padding);
      const Tap<acc> ty = tap_at(ly.at(from + x), ly.whole, size_y, mode, padding);
      offset[x] = static_cast<Offset>(ty.base) * stride_y + static_cast<Offset>(tx.base) * stride_x;
      w00[x] = ty.near * tx.near;
      w01[x] = ty.near * tx.far;
      w10[x] = ty.far * tx.near;
      w11[x] = ty.far * tx.far;
    }
  });
}

// body(mode, padding) with both as compile-time constants.
template <typename Body>
void with_options(const Options& options, const Body& body) {
  const auto with_padding = [&](auto mode) {
    switch (options.padding) {
      case Padding::constant:
        return body(mode, std::integral_constant<Padding, Padding::constant>());
      case Padding::border:
        return body(mode, std::integral_constant<Padding, Padding::border>());
      case Padding::reflect:
        return body(mode, std::integral_constant<Padding, Padding::reflect>());
    }
  };
  if (options.mode == Mode::bilinear) {
    with_padding(std::integral_constant<Mode, Mode::bilinear>());
  } else {
    with_padding(std::integral_constant<Mode, Mode::nearest>());
  }
}

// The taps of pixels begin ... begin + count - 1 of a row, from the beginning of the tables on.
template <typename acc, typename Offset>
[[gnu::noinline]] void fill_taps(
    const TapPointers<acc, Offset>& taps, const Line<acc>& lx, const Line<acc>& ly, const Image& image, int32_t begin,
    int32_t count, const Options& options) {
  with_options(options, [&](auto mode, auto padding) {
    fill_taps_as<mode(), padding()>(taps, lx, ly, image, begin, count);
  });
}

// out[x] = value_at(x), rounded to T. Bytes are rounded to the nearest and clamped; NaN becomes 0.
template <typename T, typename acc, typename Value>
PYPOSE_OPS_HOST_DEVICE void store_as(T* out, int32_t width, const Value& value_at) {
  PYPOSE_OPS_INDEPENDENT
  for (int32_t x = 0; x < width; ++x) {
    const acc value = value_at(x);
    if constexpr (std::is_same_v<T, uint8_t>) {
      const acc clamped = value > acc(0) ? (value < acc(255) ? value : acc(255)) : acc(0);
      out[x] = static_cast<uint8_t>(static_cast<int32_t>(clamped + acc(0.5)));
    } else if constexpr (std::is_same_v<T, double>) {
      out[x] = static_cast<double>(value);
    } else {
      out[x] = simd::store<T>(static_cast<float>(value));
    }
  }
}

// A row of output: the sums of the samples, the fill where padding was met (`missing`, or null), mean and std.
template <typename T, typename acc, typename Sums>
PYPOSE_OPS_HOST_DEVICE void store_levelled(
    T* out, int32_t width, Sums sums, const acc* missing, acc scale, acc shift, acc fill) {
  if (missing) {
    store_as<T, acc>(out, width, [=](int32_t x) { return (sums[x] + fill * missing[x]) * scale + shift; });
  } else {
    store_as<T, acc>(out, width, [=](int32_t x) { return sums[x] * scale + shift; });
  }
}

// Adds the weight of what padding replaces to missing; of the first samples it is written.
template <typename acc, typename Offset>
PYPOSE_OPS_HOST_DEVICE void add_missing(acc* missing, const TapPointers<acc, Offset>& taps, int32_t width, bool first) {
  for (int32_t x = 0; x < width; ++x) {
    const acc found = (taps.w00[x] + taps.w01[x]) + (taps.w10[x] + taps.w11[x]);
    missing[x] = (first ? acc(0) : missing[x]) + (acc(1) - found);
  }
}

// A pixel in its arithmetic type.
template <typename T>
PYPOSE_OPS_HOST_DEVICE auto pixel_of(T pixel) {
  if constexpr (std::is_same_v<T, uint8_t>) {
    return static_cast<int>(pixel);
  } else {
    return simd::load(pixel);
  }
}

// A pixel with weight 0 counts as 0, even when it is NaN.
template <typename T, typename acc>
PYPOSE_OPS_HOST_DEVICE acc weighted(acc weight, T pixel) {
  const acc product = weight * static_cast<acc>(pixel_of(pixel));
  return std::is_same_v<T, uint8_t> || weight != acc(0) ? product : acc(0);
}

// Adds a row's samples of one channel to sums; the first ones are written.
template <bool first, typename T, typename acc, typename Offset>
void add_samples(const Plane<T, Offset>& plane, RowTaps<acc, Offset>& taps, acc* target, int32_t count) {
  const TapPointers<acc, Offset> pointers = taps.pointers();
  simd_call<true>([=]() __attribute__((always_inline)) {
    const auto [offset, w00, w01, w10, w11] = pointers;
    const T* upper_left = plane.data;
    const T* upper_right = upper_left + plane.stride_x;
    const T* lower_left = upper_left + plane.stride_y;
    const T* lower_right = lower_left + plane.stride_x;
    acc* sums = target;
    const int32_t width = count;
    PYPOSE_OPS_INDEPENDENT
    for (int32_t x = 0; x < width; ++x) {
      const Offset o = offset[x];
      const acc sample = weighted(w00[x], upper_left[o]) + weighted(w01[x], upper_right[o]) +
          weighted(w10[x], lower_left[o]) + weighted(w11[x], lower_right[o]);
      sums[x] = first ? sample : sums[x] + sample;
    }
  });
}

typedef uint32_t Word __attribute__((aligned(1), may_alias));

// Pixels of 16 bits, left and right in one word.
template <typename T, typename Offset>
PYPOSE_OPS_HOST_DEVICE void gather_pairs(
    uint32_t* pairs, const T* data, const Offset* offset, Offset stride_x, int32_t count) {
  if (stride_x == 1) {
    for (int32_t x = 0; x < count; ++x) {
      pairs[x] = *reinterpret_cast<const Word*>(data + offset[x]);
    }
  } else {
    const T* right = data + stride_x;
    for (int32_t x = 0; x < count; ++x) {
      pairs[x] = data[offset[x]].x | static_cast<uint32_t>(right[offset[x]].x) << 16;
    }
  }
}

// The sample of one pixel (F float, U uint32_t) or of a vector of them.
template <typename T, typename F, typename U>
PYPOSE_OPS_HOST_DEVICE F sample_of_pairs(F w00, F w01, F w10, F w11, U upper, U lower) {
  const auto weighted = [](F weight, U bits) {
    F pixel;
    if constexpr (std::is_same_v<T, Half>) {
      pixel = simd::from_half<F, U>(bits);
    } else {
      pixel = simd::from_bfloat16<F, U>(bits);
    }
    return weight != 0.0f ? F(weight * pixel) : F{};
  };
  return weighted(w00, upper & 0xffffu) + weighted(w01, upper >> 16) + weighted(w10, lower & 0xffffu) +
      weighted(w11, lower >> 16);
}

// Pixels of 16 bits: no instruction gathers them, and a loop that widens them one by one takes twice as long. So their
// bits are gathered first, and the rest is vectors.
template <bool first, typename T, typename Offset>
void add_samples_of_pairs(const Plane<T, Offset>& plane, RowTaps<float, Offset>& taps, float* target, int32_t count) {
  const TapPointers<float, Offset> pointers = taps.pointers();
  simd_call([=](auto isa) {
    using Floats = typename decltype(isa)::Floats;
    using Bits = typename decltype(isa)::Bits;
    constexpr int32_t kLanes = simd::lanes<float, decltype(isa)>;
    constexpr int32_t kBlock = 64;
    const auto [offset, w00, w01, w10, w11] = pointers;
    uint32_t upper[kBlock], lower[kBlock];
    for (int32_t begin = 0; begin < count; begin += kBlock) {
      const int32_t width = std::min(count - begin, kBlock);
      gather_pairs(upper, plane.data, offset + begin, plane.stride_x, width);
      gather_pairs(lower, plane.data + plane.stride_y, offset + begin, plane.stride_x, width);
      int32_t i = 0;
      for (; i + kLanes <= width; i += kLanes) {
        const int32_t x = begin + i;
        Bits above, below;
        std::memcpy(&above, upper + i, sizeof(above));
        std::memcpy(&below, lower + i, sizeof(below));
        const Floats sample = sample_of_pairs<T, Floats, Bits>(
            isa.load(w00 + x), isa.load(w01 + x), isa.load(w10 + x), isa.load(w11 + x), above, below);
        isa.store(target + x, first ? sample : Floats(isa.load(target + x) + sample));
      }
      for (; i < width; ++i) {
        const int32_t x = begin + i;
        const float sample = sample_of_pairs<T, float, uint32_t>(w00[x], w01[x], w10[x], w11[x], upper[i], lower[i]);
        target[x] = first ? sample : target[x] + sample;
      }
    }
  });
}

// Channels [begin, end) of a row; sums holds `width` numbers for each.
template <bool first, typename T, typename acc, typename Offset>
void add_channels(
    const Image& image, RowTaps<acc, Offset>& taps, acc* sums, int32_t width, int64_t begin, int64_t end) {
  for (int64_t c = begin; c < end; ++c) {
    const auto plane = plane_of<T, Offset>(image, c);
    if constexpr (sizeof(T) == 2 && std::is_same_v<acc, float>) {
      add_samples_of_pairs<first>(plane, taps, sums + (c - begin) * width, width);
    } else {
      add_samples<first>(plane, taps, sums + (c - begin) * width, width);
    }
  }
}

}  // namespace patches
}  // namespace pypose_ops

// One row of one patch on the CPU: the taps of its pixels in tables, then one pass over the tables per channel.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "common/simd.h"
#include "patches/crop_patches.h"

namespace pypose_ops {
namespace patches {

// Addresses and weights of a row's pixels.
template <typename acc, typename Offset>
struct RowTaps {
  std::vector<Offset> offset;            // of the upper left tap, in elements
  std::vector<acc> w00, w01, w10, w11;   // upper left, upper right, lower left, lower right

  explicit RowTaps(int64_t width) : offset(width), w00(width), w01(width), w10(width), w11(width) {}
};

template <typename acc, typename Offset>
struct TapPointers {
  Offset* offset;
  acc *w00, *w01, *w10, *w11;

  explicit TapPointers(RowTaps<acc, Offset>& taps)
      : offset(taps.offset.data()), w00(taps.w00.data()), w01(taps.w01.data()), w10(taps.w10.data()),
        w11(taps.w11.data()) {}
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

// The loops below read everything through local names: what a lambda captured counts as memory that the stores may change.
template <Mode mode, Padding padding, typename acc, typename Offset>
void fill_taps_as(
    RowTaps<acc, Offset>& taps, const Line<acc>& along_x, const Line<acc>& along_y, const Image& image, int32_t count) {
  const TapPointers<acc, Offset> pointers(taps);
  simd_call([=, &image]() __attribute__((always_inline)) {
    const auto [offset, w00, w01, w10, w11] = pointers;
    const Line<acc> lx = along_x, ly = along_y;
    const Offset stride_x = static_cast<Offset>(image.stride_x), stride_y = static_cast<Offset>(image.stride_y);
    const int32_t size_x = image.width, size_y = image.height, width = count;
    PYPOSE_OPS_INDEPENDENT
    for (int32_t x = 0; x < width; ++x) {
      const Tap<acc> tx = tap_at(lx.at(x), lx.whole, size_x, mode, padding);
      const Tap<acc> ty = tap_at(ly.at(x), ly.whole, size_y, mode, padding);
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

template <typename acc, typename Offset>
[[gnu::noinline]] void fill_taps(
    RowTaps<acc, Offset>& taps, const Line<acc>& lx, const Line<acc>& ly, const Image& image, int32_t width,
    const Options& options) {
  with_options(options, [&](auto mode, auto padding) {
    fill_taps_as<mode(), padding()>(taps, lx, ly, image, width);
  });
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
  const TapPointers<acc, Offset> pointers(taps);
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
  const TapPointers<float, Offset> pointers(taps);
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

// The four bytes from data + offset on, as far as they lie before the end; `last` is the last offset with four bytes.
PYPOSE_OPS_HOST_DEVICE uint32_t word_at(const uint8_t* data, int32_t offset, int32_t last) {
  const int32_t from = offset < last ? offset : last;
  return *reinterpret_cast<const Word*>(data + from) >> ((offset - from) * 8);
}

template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc byte_of(uint32_t word, int i) {
  return static_cast<acc>(static_cast<int32_t>(word >> (8 * i) & 255u));
}

// Bytes side by side: both taps of a row come with one 32-bit read. span >= 3, two columns at least.
template <bool first, typename acc>
void add_samples_of_bytes(
    const Plane<uint8_t, int32_t>& plane, RowTaps<acc, int32_t>& taps, acc* target, int32_t count, int32_t span) {
  const TapPointers<acc, int32_t> pointers(taps);
  simd_call<true>([=]() __attribute__((always_inline)) {
    const auto [offset, w00, w01, w10, w11] = pointers;
    const uint8_t* data = plane.data;
    const int32_t stride_y = plane.stride_y, last = span - 3, width = count;
    acc* sums = target;
    PYPOSE_OPS_INDEPENDENT
    for (int32_t x = 0; x < width; ++x) {
      const uint32_t upper = word_at(data, offset[x], last);
      const uint32_t lower = word_at(data, offset[x] + stride_y, last);
      const acc sample = w00[x] * byte_of<acc>(upper, 0) + w01[x] * byte_of<acc>(upper, 1) +
          w10[x] * byte_of<acc>(lower, 0) + w11[x] * byte_of<acc>(lower, 1);
      sums[x] = first ? sample : sums[x] + sample;
    }
  });
}

// Three interleaved channels of bytes: one 32-bit read per tap holds all of them. span counts to the last channel.
template <bool first, typename acc>
void add_samples_of_rgb(
    const Plane<uint8_t, int32_t>& plane, RowTaps<acc, int32_t>& taps, acc* target, int32_t count, int32_t span) {
  const TapPointers<acc, int32_t> pointers(taps);
  simd_call<true>([=]() __attribute__((always_inline)) {
    const auto [offset, w00, w01, w10, w11] = pointers;
    const uint8_t* data = plane.data;
    const int32_t stride_x = plane.stride_x, stride_y = plane.stride_y, last = span - 3, width = count;
    acc* red = target;
    acc* green = target + width;
    acc* blue = green + width;
    PYPOSE_OPS_INDEPENDENT
    for (int32_t x = 0; x < width; ++x) {
      const int32_t o = offset[x];
      const uint32_t a = word_at(data, o, last), b = word_at(data, o + stride_x, last);
      const uint32_t c = word_at(data, o + stride_y, last), d = word_at(data, o + stride_y + stride_x, last);
      const acc wa = w00[x], wb = w01[x], wc = w10[x], wd = w11[x];
      const acc r = wa * byte_of<acc>(a, 0) + wb * byte_of<acc>(b, 0) + wc * byte_of<acc>(c, 0) + wd * byte_of<acc>(d, 0);
      const acc g = wa * byte_of<acc>(a, 1) + wb * byte_of<acc>(b, 1) + wc * byte_of<acc>(c, 1) + wd * byte_of<acc>(d, 1);
      const acc u = wa * byte_of<acc>(a, 2) + wb * byte_of<acc>(b, 2) + wc * byte_of<acc>(c, 2) + wd * byte_of<acc>(d, 2);
      red[x] = first ? r : red[x] + r;
      green[x] = first ? g : green[x] + g;
      blue[x] = first ? u : blue[x] + u;
    }
  });
}

// Channels [begin, end) of a row; sums holds `width` numbers for each.
template <bool first, typename T, typename acc, typename Offset>
void add_channels(
    const Image& image, RowTaps<acc, Offset>& taps, acc* sums, int32_t width, int64_t begin, int64_t end) {
  if constexpr (std::is_same_v<T, uint8_t> && std::is_same_v<Offset, int32_t>) {
    const int64_t span = span_of(image);
    if (end - begin == 3 && image.stride_c == 1 && image.width > 1 && span >= 1) {
      const auto plane = plane_of<T, Offset>(image, begin);
      add_samples_of_rgb<first>(plane, taps, sums, width, static_cast<int32_t>(span + 2));
      return;
    }
    if (image.stride_x == 1 && image.width > 1 && span >= 3) {
      for (int64_t c = begin; c < end; ++c) {
        const auto plane = plane_of<T, Offset>(image, c);
        add_samples_of_bytes<first>(plane, taps, sums + (c - begin) * width, width, static_cast<int32_t>(span));
      }
      return;
    }
  }
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

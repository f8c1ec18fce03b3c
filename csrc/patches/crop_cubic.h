// Bicubic samples of crop_patches, separable in the image: along each of its axes the taps around a position, 4 of them, or
// with antialias as many as the kernel covers. Shared by the CPU and CUDA kernels.
#pragma once

#include "patches/crop_patches.h"

namespace pypose_ops {
namespace patches {

// Keys's kernel at a distance of z pixels: a = -0.75 as OpenCV and torch's interpolate, with antialias a = -0.5 as
// Pillow and torch's antialiased interpolate.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc cubic(acc z, acc a) {
  z = magnitude(z);
  const acc near = ((a + acc(2)) * z - (a + acc(3))) * z * z + acc(1);
  const acc far = ((a * z - acc(5) * a) * z + acc(8) * a) * z - acc(4) * a;
  return z < acc(1) ? near : (z < acc(2) ? far : acc(0));
}

template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc cubic_slope(acc z, acc a) {
  const acc sign = z < acc(0) ? acc(-1) : acc(1);
  z = magnitude(z);
  const acc near = (acc(3) * (a + acc(2)) * z - acc(2) * (a + acc(3))) * z;
  const acc far = (acc(3) * a * z - acc(10) * a) * z + acc(8) * a;
  return sign * (z < acc(1) ? near : (z < acc(2) ? far : acc(0)));
}

// How many times as wide as without antialias the kernel is along each axis of the image: the image pixels that a step of
// one patch pixel covers there, from 1 to kMaxSamples.
template <typename acc>
struct Stretch {
  acc x, y;

  static PYPOSE_OPS_HOST_DEVICE acc along(acc a, acc b) {
    const acc length = ::sqrt(a * a + b * b);
    return length > acc(1) ? (length < acc(kMaxSamples) ? length : acc(kMaxSamples)) : acc(1);
  }
  static PYPOSE_OPS_HOST_DEVICE Stretch of(const Affine<acc>& affine, const Options& options) {
    if (!options.antialias) {
      return {acc(1), acc(1)};
    }
    return {along(affine.xx, affine.xy), along(affine.yx, affine.yy)};
  }
  // The derivative of one of them to one of its two entries of the transform.
  static PYPOSE_OPS_HOST_DEVICE acc slope(acc stretch, acc entry) {
    return stretch > acc(1) && stretch < acc(kMaxSamples) ? entry / stretch : acc(0);
  }
};

// The taps along one axis: pixels first .. first + count - 1 before padding. None where nothing is to be read.
template <typename acc>
struct CubicAxis {
  int32_t first, count, size;
  acc start;     // distance of the first tap from the position, in image pixels
  acc inverse;   // 1 / stretch
  acc a, norm;
  acc shift;     // of a mirrored image: periods between the position and these taps, in pixels
  bool follows;  // false where the position was moved to the border
  bool antialias, inside_only;
  Padding padding;

  PYPOSE_OPS_HOST_DEVICE acc distance(int32_t k) const {
    return (start + static_cast<acc>(k)) * inverse;
  }
  // The pixel that tap k reads, -1 for none.
  PYPOSE_OPS_HOST_DEVICE int32_t pixel(int32_t k) const {
    const int32_t i = first + k, last = size - 1;
    if (i >= 0 && i <= last) {
      return i;
    }
    if (padding == Padding::constant || inside_only) {
      return -1;
    }
    if (padding == Padding::border || last == 0) {
      return i < 0 ? 0 : last;
    }
    const int32_t period = 2 * last, turned = i % period;
    const int32_t r = turned < 0 ? turned + period : turned;
    return r > last ? period - r : r;
  }
  PYPOSE_OPS_HOST_DEVICE acc weight(int32_t k) const {
    return pixel(k) < 0 ? acc(0) : cubic(distance(k), a) * norm;
  }
  // The sum of the weights.
  PYPOSE_OPS_HOST_DEVICE acc covered() const {
    acc sum = 0;
    for (int32_t k = 0; k < count; ++k) {
      sum += weight(k);
    }
    return sum;
  }
};

// The taps at position t of a line. NaN weighs nothing.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE CubicAxis<acc> cubic_at(
    acc t, int32_t whole, int32_t size, acc stretch, const Options& options) {
  constexpr acc kNear = acc(1 << 29);
  const acc reach = acc(2) * stretch, last = static_cast<acc>(size - 1);
  CubicAxis<acc> axis{0, 0, size, acc(0), acc(1) / stretch, options.antialias ? acc(-0.5) : acc(-0.75), acc(1), acc(0),
                      true, options.antialias, options.antialias && options.padding == Padding::border,
                      options.padding};
  if (options.padding == Padding::reflect) {
    const acc u = t + static_cast<acc>(whole), period = last + last;
    axis.shift = last > acc(0) ? floor_of(u / period) * period : floor_of(u);
    t = u - axis.shift;
    whole = 0;
    t = t < acc(0) ? acc(0) : (t > period + acc(1) ? period : t);  // of numbers without fractions
  } else {
    // With antialias the border is that of Pillow: taps outside do not count. Positions end at the image's edge.
    const bool border = options.padding == Padding::border;
    const acc margin = border && options.antialias ? acc(0.5) : reach + acc(1);
    const acc low = static_cast<acc>(-whole) - margin, high = last - static_cast<acc>(whole) + margin;
    if (t < low || t > high) {
      t = border ? (t < low ? low : high) : acc(2) * kNear;
      axis.follows = false;
    }
  }
  if (!(t > -kNear && t < kNear)) {
    return axis;
  }
  const acc below = floor_of(t - reach) + acc(1);
  axis.first = whole + static_cast<int32_t>(below);
  axis.start = below - t;
  axis.count = static_cast<int32_t>(::ceil(acc(2) * reach));
  if (options.antialias) {
    acc sum = 0;
    for (int32_t k = 0; k < axis.count; ++k) {
      sum += !axis.inside_only || axis.pixel(k) >= 0 ? cubic(axis.distance(k), axis.a) : acc(0);
    }
    axis.norm = acc(1) / sum;
  }
  return axis;
}

// Derivatives of an axis's weights to the position and to the stretch.
template <typename acc>
struct CubicSlopes {
  const CubicAxis<acc>& axis;
  acc moved, stretched;  // of the sum of the weights before they are normalised

  explicit PYPOSE_OPS_HOST_DEVICE CubicSlopes(const CubicAxis<acc>& axis) : axis(axis), moved(0), stretched(0) {
    for (int32_t k = 0; axis.antialias && k < axis.count; ++k) {
      if (!axis.inside_only || axis.pixel(k) >= 0) {
        const acc z = axis.distance(k), slope = cubic_slope(z, axis.a) * axis.inverse;
        moved -= slope;
        stretched -= slope * z;
      }
    }
  }
  // For a tap that reads a pixel; weight is its weight.
  PYPOSE_OPS_HOST_DEVICE void at(int32_t k, acc weight, acc* to_position, acc* to_stretch) const {
    const acc z = axis.distance(k), slope = cubic_slope(z, axis.a) * axis.inverse;
    *to_position = axis.follows ? (-slope - weight * moved) * axis.norm : acc(0);
    *to_stretch = axis.antialias ? (-slope * z - weight * stretched) * axis.norm : acc(0);
  }
};

template <typename acc>
struct CubicGradient {
  acc u, v, stretch_x, stretch_y;
};

// The derivatives of one channel of one sample to the position and to the stretches.
template <typename T, typename acc>
PYPOSE_OPS_HOST_DEVICE CubicGradient<acc> cubic_gradient(
    const Image& image, int64_t channel, const CubicAxis<acc>& across, const CubicAxis<acc>& down, acc fill) {
  const CubicSlopes<acc> slopes_x(across), slopes_y(down);
  CubicGradient<acc> sum{};
  for (int32_t l = 0; l < down.count; ++l) {
    const int32_t row = down.pixel(l);
    if (row < 0) {
      continue;
    }
    const T* at = static_cast<const T*>(image.data) + channel * image.stride_c + row * image.stride_y;
    const acc wy = down.weight(l);
    acc value = 0, to_u = 0, to_x = 0, to_v = 0, to_y = 0;
    for (int32_t k = 0; k < across.count; ++k) {
      const int32_t column = across.pixel(k);
      if (column < 0) {
        continue;
      }
      const acc wx = across.weight(k);
      acc position, stretch;
      slopes_x.at(k, wx, &position, &stretch);
      // A pixel of weight 0 counts as 0 when it is not finite.
      const acc pixel = static_cast<acc>(at[column * image.stride_x]);
      const acc above = (wx * wy == acc(0) && !(pixel - pixel == acc(0)) ? acc(0) : pixel) - fill;
      value += wx * above;
      to_u += position * above;
      to_x += stretch * above;
    }
    slopes_y.at(l, wy, &to_v, &to_y);
    sum.u += wy * to_u;
    sum.v += to_v * value;
    sum.stretch_x += wy * to_x;
    sum.stretch_y += to_y * value;
  }
  return sum;
}

}  // namespace patches
}  // namespace pypose_ops

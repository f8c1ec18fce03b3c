// crop_patches: shapes, options and the formulas of one sample, shared by the CPU and CUDA kernels; what the entry points
// check is in crop_checks.h.
//
// A sample is bilinear and separable in the image: two taps per axis, `base` and `base + 1`, always inside of the
// image, with weights that are 0 for what padding replaces. No pixel is tested for being inside. Bicubic: crop_cubic.h.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/dispatch.h"

namespace pypose_ops {
namespace patches {

enum class Mode : int { bilinear, nearest, bicubic };
enum class Padding : int { constant, border, reflect };

// Coordinates up to here are exact to a fraction of 2^-23 pixels; what lies further out is padding.
constexpr int64_t kMaxSide = int64_t(1) << 28;
// Of the output: more than a processor can address, and far from where offsets overflow.
constexpr int64_t kMaxElements = int64_t(1) << 47;
// Antialiasing takes at most this many samples a side.
constexpr int kMaxSamples = 32;
// Channels that may have a mean, std and fill of their own: the lists travel in the kernel's parameters.
constexpr int kMaxListed = 64;

struct Shape {
  int64_t patches, images, channels, height, width;  // channels of the images, without the mask's

  PYPOSE_OPS_HOST_DEVICE int64_t pixels() const {
    return height * width;
  }
};

struct Options {
  Mode mode;
  Padding padding;
  bool antialias;
};

// One image (C, H, W) of any strides, in elements.
struct Image {
  const void* data;
  int64_t stride_c, stride_y, stride_x;
  int32_t height, width;
};

// out = sample * scale + shift; fill is in the image's units. One entry for all channels, or one for each.
template <typename acc>
struct Levels {
  int count;
  bool filled;  // some fill is not 0
  acc scale[kMaxListed], shift[kMaxListed], fill[kMaxListed];

  PYPOSE_OPS_HOST_DEVICE int at(int64_t channel) const {
    return count == 1 ? 0 : static_cast<int>(channel);
  }
};

PYPOSE_OPS_HOST_DEVICE float floor_of(float v) {
  return ::floorf(v);
}
PYPOSE_OPS_HOST_DEVICE double floor_of(double v) {
  return ::floor(v);
}
PYPOSE_OPS_HOST_DEVICE float fma_of(float a, float b, float c) {
  return __builtin_fmaf(a, b, c);
}
PYPOSE_OPS_HOST_DEVICE double fma_of(double a, double b, double c) {
  return __builtin_fma(a, b, c);
}

// One axis of the image along a row of the patch: position x is at `whole + (start + step * x)`. The split keeps the
// fraction exact to the last bit of the row's own extent, wherever in a large image the row lies.
template <typename acc>
struct Line {
  int32_t whole;
  acc start, step;

  // The row y of a patch, with coordinate = step * x + across * y + offset.
  static PYPOSE_OPS_HOST_DEVICE Line of(acc step, acc across, acc offset, acc y) {
    constexpr acc kNear = acc(1 << 28);
    const acc product = across * y;
    const bool near = product > -kNear && product < kNear && offset > -kNear && offset < kNear;
    if (!near) {  // outside of every image, or NaN
      return {0, product + offset, step};
    }
    const acc whole_product = floor_of(product);
    const acc whole_offset = floor_of(offset);
    const int32_t whole = static_cast<int32_t>(whole_product) + static_cast<int32_t>(whole_offset);
    return {whole, fma_of(across, y, -whole_product) + (offset - whole_offset), step};
  }

  template <typename Index>
  PYPOSE_OPS_HOST_DEVICE acc at(Index x) const {
    return step * static_cast<acc>(x) + start;
  }
  // The same positions, moved by a part of a patch pixel along the row.
  PYPOSE_OPS_HOST_DEVICE Line moved(acc by) const {
    return {whole, start + step * by, step};
  }
};

// Weights of pixels base and base + 1, and their derivatives. far is 0 where the image has one pixel.
template <typename acc>
struct Tap {
  int32_t base;
  acc near, far;
  acc near_slope, far_slope;
  acc copy;  // of a mirrored image
};

template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc positive(acc v) {
  return v > acc(0) ? v : acc(0);  // also for NaN
}

PYPOSE_OPS_HOST_DEVICE float magnitude(float v) {
  return ::fabsf(v);
}
PYPOSE_OPS_HOST_DEVICE double magnitude(double v) {
  return ::fabs(v);
}

// Mirrors at the centres of the first and the last pixel. Copies of the image are numbered from 0, itself, on; those
// with odd numbers are mirrored, there direction is -1.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc reflected(acc u, acc last, acc* copy, acc* direction) {
  const acc period = last + last;
  const acc inverse = last > acc(0) ? acc(1) / period : acc(0);
  const acc k = floor_of(u * inverse);
  const acc r = u - k * period;
  *copy = last > acc(0) ? k + k + (r > last ? acc(1) : acc(0)) : acc(0);
  *direction = r > last ? acc(-1) : acc(1);
  return r > last ? period - r : r;
}

// The taps at position t of a line. NaN weighs nothing. Selects only, no branches: loops over it vectorise.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE Tap<acc> tap_at(acc t, int32_t whole, int32_t size, Mode mode, Padding padding) {
  const int32_t last = size - 1;
  const int32_t last_base = last > 0 ? last - 1 : 0;
  const acc has_far = last > 0 ? acc(1) : acc(0);
  Tap<acc> tap;
  tap.copy = 0;
  acc direction = 1;
  if (padding == Padding::reflect) {
    t = reflected(t + static_cast<acc>(whole), static_cast<acc>(last), &tap.copy, &direction);
    whole = 0;
  }
  const acc low = static_cast<acc>(-whole);
  if (padding != Padding::constant) {
    const acc high = static_cast<acc>(last - whole);
    direction = t < low || t > high ? acc(0) : direction;
    t = t < low ? low : t;
    t = t > high ? high : t;
  }
  t = mode == Mode::nearest ? floor_of(t + acc(0.5)) : t;
  const acc high_base = static_cast<acc>(last_base - whole);
  acc below = floor_of(t);
  below = below < high_base ? below : high_base;  // NaN ends here
  below = below > low ? below : low;
  const acc d = t - below;
  // Clamped once more: far from 0, low and high_base are rounded.
  tap.base = whole + static_cast<int32_t>(below);
  tap.base = tap.base < last_base ? tap.base : last_base;
  tap.base = tap.base > 0 ? tap.base : 0;
  tap.near = positive(acc(1) - magnitude(d));
  tap.far = positive(acc(1) - magnitude(d - acc(1))) * has_far;
  if (padding == Padding::constant) {
    // Hats of width 1 around both pixels; at a kink the slope is the one to the right.
    tap.near_slope = d >= acc(-1) && d < acc(1) ? (d < acc(0) ? acc(1) : acc(-1)) : acc(0);
    tap.far_slope = d >= acc(0) && d < acc(2) ? (d < acc(1) ? has_far : -has_far) : acc(0);
  } else {
    tap.far_slope = d == d ? direction * has_far : acc(0);
    tap.near_slope = -tap.far_slope;
  }
  return tap;
}

// A patch's affine, patch px -> image px. Infinity counts as NaN: it times 0 is NaN, and which pixels that meets would
// depend on how the products are summed up.
template <typename acc>
struct Affine {
  acc xx, xy, x0, yx, yy, y0;

  static PYPOSE_OPS_HOST_DEVICE Affine load(const acc* m) {
    const acc spoilt = acc(0) * m[0] + acc(0) * m[1] + acc(0) * m[2] + acc(0) * m[3] + acc(0) * m[4] + acc(0) * m[5];
    return {m[0] + spoilt, m[1] + spoilt, m[2] + spoilt, m[3] + spoilt, m[4] + spoilt, m[5] + spoilt};
  }
  PYPOSE_OPS_HOST_DEVICE Line<acc> line_x(acc y) const {
    return Line<acc>::of(xx, xy, x0, y);
  }
  PYPOSE_OPS_HOST_DEVICE Line<acc> line_y(acc y) const {
    return Line<acc>::of(yx, yy, y0, y);
  }
};

// Samples per patch pixel along x and y: one for each image pixel that a step passes, in a regular grid.
template <typename acc>
struct Samples {
  int32_t x, y;
  acc half_x, half_y;  // half the distance between samples, in patch pixels

  PYPOSE_OPS_HOST_DEVICE int32_t count() const {
    return x * y;
  }
  // Where sample i lies from the patch pixel's centre.
  PYPOSE_OPS_HOST_DEVICE acc along(int32_t i) const {
    return static_cast<acc>(2 * (i % x) + 1 - x) * half_x;
  }
  PYPOSE_OPS_HOST_DEVICE acc down(int32_t i) const {
    return static_cast<acc>(2 * (i / x) + 1 - y) * half_y;
  }
};

template <typename acc>
PYPOSE_OPS_HOST_DEVICE int32_t samples_along(acc dx, acc dy) {
  const acc length = ::sqrt(dx * dx + dy * dy);
  const acc count = ::ceil(length - acc(1e-3));  // a rotation by exactly 2 is 2 long, up to rounding
  return count > acc(1) ? (count < acc(kMaxSamples) ? static_cast<int32_t>(count) : kMaxSamples) : 1;
}

template <typename acc>
PYPOSE_OPS_HOST_DEVICE Samples<acc> samples_of(const Affine<acc>& affine, const Options& options) {
  if (!options.antialias) {
    return {1, 1, acc(0), acc(0)};
  }
  const int32_t x = samples_along(affine.xx, affine.yx), y = samples_along(affine.xy, affine.yy);
  return {x, y, acc(0.5) / static_cast<acc>(x), acc(0.5) / static_cast<acc>(y)};
}

// The mask channel: whether the patch pixel's centre lies in the box (x1, y1, x2, y2) of the image, edges included.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE bool in_box(const acc* box, acc u, acc v) {
  return u >= box[0] && u <= box[2] && v >= box[1] && v <= box[3];
}

// The image that patch n is cut from, or -1.
PYPOSE_OPS_HOST_DEVICE int64_t image_of(const int64_t* index, const Shape& shape, int64_t n) {
  const int64_t image = index ? index[n] : (shape.images == 1 ? 0 : n);
  return image >= 0 && image < shape.images ? image : -1;
}

// Where the patch pixel (x, y) takes sample i from: positions on the two lines.
template <typename acc>
struct Sample {
  acc x, y;  // in patch pixels
  Tap<acc> tap_x, tap_y;
};

template <typename acc>
PYPOSE_OPS_HOST_DEVICE Sample<acc> sample_at(
    const Affine<acc>& affine, const Samples<acc>& samples, int32_t i, int64_t x, int64_t y, const Image& image,
    const Options& options) {
  const acc along = samples.along(i);
  const acc row = static_cast<acc>(y) + samples.down(i);
  const Line<acc> lx = affine.line_x(row).moved(along);
  const Line<acc> ly = affine.line_y(row).moved(along);
  return {
      static_cast<acc>(x) + along, row, tap_at(lx.at(x), lx.whole, image.width, options.mode, options.padding),
      tap_at(ly.at(x), ly.whole, image.height, options.mode, options.padding)};
}

// A sample's four pixels of one channel, upper left first; the strides are 0 where the image has one row or column.
// A pixel with weight 0 counts as 0 when it is not finite.
template <typename T, typename acc>
struct Corners {
  acc v[4];

  PYPOSE_OPS_HOST_DEVICE Corners(const Image& image, int64_t channel, const Sample<acc>& s) {
    const T* at = static_cast<const T*>(image.data) + channel * image.stride_c + s.tap_y.base * image.stride_y +
        s.tap_x.base * image.stride_x;
    const int64_t right = image.width > 1 ? image.stride_x : 0;
    const int64_t down = image.height > 1 ? image.stride_y : 0;
    v[0] = pixel(at[0], s.tap_y.near * s.tap_x.near);
    v[1] = pixel(at[right], s.tap_y.near * s.tap_x.far);
    v[2] = pixel(at[down], s.tap_y.far * s.tap_x.near);
    v[3] = pixel(at[down + right], s.tap_y.far * s.tap_x.far);
  }
  static PYPOSE_OPS_HOST_DEVICE acc pixel(T value, acc weight) {
    const acc v = static_cast<acc>(value);
    return weight == acc(0) && !(v - v == acc(0)) ? acc(0) : v;
  }
  // Derivatives of the sample to the image coordinates u and v.
  PYPOSE_OPS_HOST_DEVICE acc slope_u(const Tap<acc>& x, const Tap<acc>& y, acc fill) const {
    return y.near * (x.near_slope * v[0] + x.far_slope * v[1]) + y.far * (x.near_slope * v[2] + x.far_slope * v[3]) -
        fill * (x.near_slope + x.far_slope) * (y.near + y.far);
  }
  PYPOSE_OPS_HOST_DEVICE acc slope_v(const Tap<acc>& x, const Tap<acc>& y, acc fill) const {
    return x.near * (y.near_slope * v[0] + y.far_slope * v[2]) + x.far * (y.near_slope * v[1] + y.far_slope * v[3]) -
        fill * (y.near_slope + y.far_slope) * (x.near + x.far);
  }
};

}  // namespace patches
}  // namespace pypose_ops

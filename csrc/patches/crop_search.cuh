// The gradient of crop_patches to its images: which pixels of a patch took from a pixel of the image, and how much.
#pragma once

#include <limits>

#include "common/cuda.cuh"
#include "patches/crop_cubic.h"

namespace pypose_ops {
namespace {

using namespace patches;

template <typename acc>
constexpr int kChannelBlock = 16 / sizeof(acc);  // channels that share the search for their patches
constexpr int kMaxCopies = 64;  // mirrored copies of an image that are searched one by one

template <typename acc>
struct Job {
  const acc* grad;  // (N, grad_channels, h, w)
  const acc* transforms;
  const int64_t* index;
  Shape shape;
  Options options;
  int64_t grad_channels;
};

// An interval of coordinates.
template <typename acc>
struct Range {
  acc low, high;

  __device__ bool meets(const Range& other) const {
    return low <= other.high && other.low <= high;
  }
  __device__ Range cut(const Range& other) const {
    return {low > other.low ? low : other.low, high < other.high ? high : other.high};
  }
};

// How far from a sample its pixels lie along both axes.
template <bool cubic, typename acc>
__device__ Stretch<acc> taps_of(const Affine<acc>& affine, const Options& options) {
  if constexpr (cubic) {
    const Stretch<acc> stretch = Stretch<acc>::of(affine, options);
    return {acc(2) * stretch.x, acc(2) * stretch.y};
  }
  return {acc(1), acc(1)};
}

// Image coordinates that a whole patch spans along one axis, with the half pixels around it and its taps.
template <typename acc>
__device__ Range<acc> span_of(acc step, acc across, acc offset, acc taps, const Shape& shape) {
  const acc along = step * (static_cast<acc>(shape.width) - acc(0.5)), before = acc(-0.5) * step;
  const acc down = across * (static_cast<acc>(shape.height) - acc(0.5)), above = acc(-0.5) * across;
  return {
      offset + (along < before ? along : before) + (down < above ? down : above) - taps,
      offset + (along < before ? before : along) + (down < above ? above : down) + taps};
}

// Whether a copy of the image is mirrored.
template <typename acc>
__device__ bool is_mirrored(acc copy) {
  return copy - acc(2) * floor_of(copy * acc(0.5)) > acc(0.5);
}

// Where pixel `at` lies in copy number `copy` of the image.
template <typename acc>
__device__ acc center_of(int32_t at, int32_t size, acc copy) {
  const acc turns = floor_of(copy * acc(0.5)), period = acc(2) * static_cast<acc>(size - 1);
  return is_mirrored(copy) ? (turns + acc(1)) * period - static_cast<acc>(at) : turns * period + static_cast<acc>(at);
}

// Coordinates from which pixel `at` takes gradient, in copy number `copy` of the image.
template <bool cubic, typename acc>
__device__ Range<acc> reach_of(int32_t at, int32_t size, acc taps, const Options& options, acc copy) {
  const acc far = std::numeric_limits<acc>::infinity();
  const acc last = static_cast<acc>(size - 1);
  if (options.padding == Padding::reflect) {
    const acc center = center_of(at, size, copy);
    return size == 1 ? Range<acc>{-far, far} : Range<acc>{center - taps, center + taps};
  }
  const acc low = static_cast<acc>(at) - taps, high = static_cast<acc>(at) + taps;
  if (options.padding == Padding::constant) {
    return {low, high};
  }
  if constexpr (cubic) {
    if (options.antialias) {  // positions end half a pixel beyond the last pixels
      return {low < acc(-0.5) ? -far : low, high > last + acc(0.5) ? far : high};
    }
  }
  return {at == 0 ? -far : low, at == size - 1 ? far : high};
}

// Whole numbers [first, last].
struct Numbers {
  int32_t first, last;
};

// Patch pixels along one side that may lie in the parallelogram over (us, vs), `size` of them at most; ix and iy are the
// row of the inverse transform. `flat`: there is no inverse worth using, all of them may.
template <typename acc>
__device__ Numbers patch_pixels(
    const Affine<acc>& affine, acc ix, acc iy, const Range<acc>& us, const Range<acc>& vs, bool flat, int64_t size) {
  const acc a = ix * (us.low - affine.x0), b = ix * (us.high - affine.x0);
  const acc c = iy * (vs.low - affine.y0), d = iy * (vs.high - affine.y0);
  // Half a pixel for the samples around a centre, and what rounding may cost.
  const acc slack = acc(0.6) + acc(2e-5) * (magnitude(ix * affine.x0) + magnitude(a) + magnitude(b) +
                                            magnitude(iy * affine.y0) + magnitude(c) + magnitude(d));
  const acc low = ::ceil((a < b ? a : b) + (c < d ? c : d) - slack);
  const acc high = floor_of((a < b ? b : a) + (c < d ? d : c) + slack);
  const acc last = static_cast<acc>(size - 1);
  return {
      !flat && low > acc(0) ? static_cast<int32_t>(low < last ? low : last) : 0,
      !flat && high < last ? static_cast<int32_t>(high > acc(-1) ? high : acc(-1)) : static_cast<int32_t>(size - 1)};
}

// What pixel `at` weighs among an axis's taps; mirrored images: in the copy where it lies at `center`.
template <typename acc>
__device__ acc cubic_weight_at(const CubicAxis<acc>& axis, int32_t at, bool one_copy, acc center) {
  if (one_copy || axis.padding == Padding::constant) {
    const acc k = (one_copy ? center - axis.shift : static_cast<acc>(at)) - static_cast<acc>(axis.first);
    return k >= acc(0) && k < static_cast<acc>(axis.count) ? axis.weight(static_cast<int32_t>(k)) : acc(0);
  }
  acc sum = 0;
  for (int32_t k = 0; k < axis.count; ++k) {
    sum += axis.pixel(k) == at ? axis.weight(k) : acc(0);
  }
  return sum;
}

// The search for the samples of a patch that reach one pixel of the image.
template <bool cubic, typename acc>
struct Search {
  const Job<acc>& job;
  const Image& image;  // its size
  const Affine<acc> affine;
  const Samples<acc> samples;
  const Stretch<acc> taps;
  const Range<acc> span_x, span_y;
  const int64_t n;
  bool whole;  // all copies of the image at once
  bool flat;
  acc inverse[4];

  __device__ Search(const Job<acc>& job, const Image& image, int64_t n)
      : job(job), image(image), affine(Affine<acc>::load(job.transforms + n * 6)),
        samples(cubic ? Samples<acc>{1, 1, acc(0), acc(0)} : samples_of(affine, job.options)),
        taps(taps_of<cubic>(affine, job.options)),
        span_x(span_of(affine.xx, affine.xy, affine.x0, taps.x, job.shape)),
        span_y(span_of(affine.yx, affine.yy, affine.y0, taps.y, job.shape)), n(n), whole(false) {
    const acc det = affine.xx * affine.yy - affine.xy * affine.yx;
    const acc size = (magnitude(affine.xx) + magnitude(affine.xy)) * (magnitude(affine.yx) + magnitude(affine.yy));
    const acc scale = acc(1) / det;
    flat = !(magnitude(det) > acc(1e-2) * size) || scale == acc(0);
    inverse[0] = affine.yy * scale;
    inverse[1] = -affine.xy * scale;
    inverse[2] = -affine.yx * scale;
    inverse[3] = affine.xx * scale;
  }

  __device__ static acc weight_at(const Tap<acc>& tap, int32_t at) {
    return tap.base == at ? tap.near : (tap.base + 1 == at ? tap.far : acc(0));
  }

  // What pixel (px, py) weighs in patch pixel (x, y).
  __device__ acc weight_of(int32_t px, int32_t py, acc kx, acc ky, int32_t x, int32_t y, bool mirrors) const {
    if constexpr (cubic) {
      const Stretch<acc> stretch{acc(0.5) * taps.x, acc(0.5) * taps.y};
      const Line<acc> lx = affine.line_x(static_cast<acc>(y)), ly = affine.line_y(static_cast<acc>(y));
      const CubicAxis<acc> across = cubic_at(lx.at(x), lx.whole, image.width, stretch.x, job.options);
      const CubicAxis<acc> down = cubic_at(ly.at(x), ly.whole, image.height, stretch.y, job.options);
      return cubic_weight_at(across, px, mirrors && image.width > 1, center_of(px, image.width, kx)) *
          cubic_weight_at(down, py, mirrors && image.height > 1, center_of(py, image.height, ky));
    }
    acc weight = 0;
    for (int32_t i = 0; i < samples.count(); ++i) {
      const Sample<acc> s = sample_at(affine, samples, i, x, y, image, job.options);
      const bool counts = !mirrors || (s.tap_x.copy == kx && s.tap_y.copy == ky);
      weight += counts ? weight_at(s.tap_x, px) * weight_at(s.tap_y, py) : acc(0);
    }
    return weight;
  }

  // Adds what pixel (px, py) gets from the copies (kx, ky) of the image.
  __device__ void add(acc (&sums)[kChannelBlock<acc>], int32_t px, int32_t py, acc kx, acc ky, int64_t begin) const {
    const bool mirrors = job.options.padding == Padding::reflect && !whole;
    if constexpr (cubic) {
      // The outermost pixels belong to two copies.
      const bool edge_x = image.width > 1 && (px == 0 || px == image.width - 1);
      const bool edge_y = image.height > 1 && (py == 0 || py == image.height - 1);
      if (mirrors && ((edge_x && is_mirrored(kx)) || (edge_y && is_mirrored(ky)))) {
        return;
      }
    }
    const Range<acc> us = whole ? span_x : reach_of<cubic>(px, image.width, taps.x, job.options, kx).cut(span_x);
    const Range<acc> vs = whole ? span_y : reach_of<cubic>(py, image.height, taps.y, job.options, ky).cut(span_y);
    if (us.low > us.high || vs.low > vs.high) {
      return;
    }
    const Numbers xs = patch_pixels(affine, inverse[0], inverse[1], us, vs, flat || whole, job.shape.width);
    const Numbers ys = patch_pixels(affine, inverse[2], inverse[3], us, vs, flat || whole, job.shape.height);
    for (int32_t y = ys.first; y <= ys.last; ++y) {
      for (int32_t x = xs.first; x <= xs.last; ++x) {
        const acc weight = weight_of(px, py, kx, ky, x, y, mirrors);
        if (weight != acc(0)) {
          const acc* g = job.grad + ((n * job.grad_channels + begin) * job.shape.height + y) * job.shape.width + x;
#pragma unroll
          for (int c = 0; c < kChannelBlock<acc>; ++c) {
            if (begin + c < job.shape.channels) {
              sums[c] += weight * g[c * job.shape.pixels()];
            }
          }
        }
      }
    }
  }
};

// The first and the last copy of the image that a span of coordinates touches; whole: too many to search one by one.
template <typename acc>
__device__ Range<acc> copies_of(const Range<acc>& span, int32_t size, Padding padding, bool* whole) {
  if (padding != Padding::reflect || size == 1) {
    return {acc(0), acc(0)};
  }
  acc first = 0, last = 0, unused = 0;
  reflected(span.low, static_cast<acc>(size - 1), &first, &unused);
  reflected(span.high, static_cast<acc>(size - 1), &last, &unused);
  *whole = *whole || !(last - first < acc(kMaxCopies));
  return {first, last};
}

}  // namespace
}  // namespace pypose_ops

// crop_patches: checks, options and the formulas of one sample, shared by the CPU and CUDA kernels.
//
// A sample is bilinear and separable in the picture: two taps per axis, `base` and `base + 1`, always inside of the
// picture, with weights that are 0 for what padding replaces. No pixel is tested for being inside.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include <torch/csrc/stable/ops.h>

#include "common/check.h"
#include "common/dispatch.h"

namespace pypose_ops {
namespace patches {

enum class Mode : int { bilinear, nearest };
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

  POSE_HD int64_t pixels() const {
    return height * width;
  }
};

struct Options {
  Mode mode;
  Padding padding;
  bool antialias;
};

// One picture (C, H, W) of any strides, in elements.
struct Image {
  const void* data;
  int64_t stride_c, stride_y, stride_x;
  int32_t height, width;
};

// out = sample * scale + shift; fill is in the picture's units. One entry for all channels, or one for each.
template <typename acc>
struct Levels {
  int count;
  bool filled;  // some fill is not 0
  acc scale[kMaxListed], shift[kMaxListed], fill[kMaxListed];

  POSE_HD int at(int64_t channel) const {
    return count == 1 ? 0 : static_cast<int>(channel);
  }
};

POSE_HD float floor_of(float v) {
  return ::floorf(v);
}
POSE_HD double floor_of(double v) {
  return ::floor(v);
}
POSE_HD float fma_of(float a, float b, float c) {
  return __builtin_fmaf(a, b, c);
}
POSE_HD double fma_of(double a, double b, double c) {
  return __builtin_fma(a, b, c);
}

// One axis of the picture along a row of the patch: position x is at `whole + (start + step * x)`. The split keeps the
// fraction exact to the last bit of the row's own extent, wherever in a large picture the row lies.
template <typename acc>
struct Line {
  int32_t whole;
  acc start, step;

  // The row y of a patch, with coordinate = step * x + across * y + offset.
  static POSE_HD Line of(acc step, acc across, acc offset, acc y) {
    constexpr acc kNear = acc(1 << 28);
    const acc product = across * y;
    const bool near = product > -kNear && product < kNear && offset > -kNear && offset < kNear;
    if (!near) {  // outside of every picture, or NaN
      return {0, product + offset, step};
    }
    const acc whole_product = floor_of(product);
    const acc whole_offset = floor_of(offset);
    const int32_t whole = static_cast<int32_t>(whole_product) + static_cast<int32_t>(whole_offset);
    return {whole, fma_of(across, y, -whole_product) + (offset - whole_offset), step};
  }

  template <typename Index>
  POSE_HD acc at(Index x) const {
    return step * static_cast<acc>(x) + start;
  }
  // The same positions, moved by a part of a patch pixel along the row.
  POSE_HD Line moved(acc by) const {
    return {whole, start + step * by, step};
  }
};

// Weights of pixels base and base + 1, and their derivatives. far is 0 where the picture has one pixel.
template <typename acc>
struct Tap {
  int32_t base;
  acc near, far;
  acc near_slope, far_slope;
  acc copy;  // of a mirrored picture
};

template <typename acc>
POSE_HD acc positive(acc v) {
  return v > acc(0) ? v : acc(0);  // also for NaN
}

POSE_HD float magnitude(float v) {
  return ::fabsf(v);
}
POSE_HD double magnitude(double v) {
  return ::fabs(v);
}

// Mirrors at the centres of the first and the last pixel. Copies of the picture are numbered from 0, itself, on; those
// with odd numbers are mirrored, there direction is -1.
template <typename acc>
POSE_HD acc reflected(acc u, acc last, acc* copy, acc* direction) {
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
POSE_HD Tap<acc> tap_at(acc t, int32_t whole, int32_t size, Mode mode, Padding padding) {
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

// A patch's affine, patch px -> picture px.
template <typename acc>
struct Affine {
  acc xx, xy, x0, yx, yy, y0;

  static POSE_HD Affine load(const acc* m) {
    return {m[0], m[1], m[2], m[3], m[4], m[5]};
  }
  POSE_HD Line<acc> line_x(acc y) const {
    return Line<acc>::of(xx, xy, x0, y);
  }
  POSE_HD Line<acc> line_y(acc y) const {
    return Line<acc>::of(yx, yy, y0, y);
  }
};

// Samples per patch pixel along x and y: one for each picture pixel that a step passes, in a regular grid.
template <typename acc>
struct Samples {
  int32_t x, y;
  acc half_x, half_y;  // half the distance between samples, in patch pixels

  POSE_HD int32_t count() const {
    return x * y;
  }
  // Where sample i lies from the patch pixel's centre.
  POSE_HD acc along(int32_t i) const {
    return static_cast<acc>(2 * (i % x) + 1 - x) * half_x;
  }
  POSE_HD acc down(int32_t i) const {
    return static_cast<acc>(2 * (i / x) + 1 - y) * half_y;
  }
};

template <typename acc>
POSE_HD int32_t samples_along(acc dx, acc dy) {
  const acc length = ::sqrt(dx * dx + dy * dy);
  const acc count = ::ceil(length - acc(1e-3));  // a rotation by exactly 2 is 2 long, up to rounding
  return count > acc(1) ? (count < acc(kMaxSamples) ? static_cast<int32_t>(count) : kMaxSamples) : 1;
}

template <typename acc>
POSE_HD Samples<acc> samples_of(const Affine<acc>& affine, const Options& options) {
  if (!options.antialias) {
    return {1, 1, acc(0), acc(0)};
  }
  const int32_t x = samples_along(affine.xx, affine.yx), y = samples_along(affine.xy, affine.yy);
  return {x, y, acc(0.5) / static_cast<acc>(x), acc(0.5) / static_cast<acc>(y)};
}

// The mask channel: whether the patch pixel's centre lies in the box (x1, y1, x2, y2) of the picture, edges included.
template <typename acc>
POSE_HD bool in_box(const acc* box, acc u, acc v) {
  return u >= box[0] && u <= box[2] && v >= box[1] && v <= box[3];
}

// The picture that patch n is cut from, or -1.
POSE_HD int64_t image_of(const int64_t* index, const Shape& shape, int64_t n) {
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
POSE_HD Sample<acc> sample_at(
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

// A sample's four pixels of one channel, upper left first; the strides are 0 where the picture has one row or column.
// A pixel with weight 0 counts as 0 when it is not finite.
template <typename T, typename acc>
struct Corners {
  acc v[4];

  POSE_HD Corners(const Image& image, int64_t channel, const Sample<acc>& s) {
    const T* at = static_cast<const T*>(image.data) + channel * image.stride_c + s.tap_y.base * image.stride_y +
        s.tap_x.base * image.stride_x;
    const int64_t right = image.width > 1 ? image.stride_x : 0;
    const int64_t down = image.height > 1 ? image.stride_y : 0;
    v[0] = pixel(at[0], s.tap_y.near * s.tap_x.near);
    v[1] = pixel(at[right], s.tap_y.near * s.tap_x.far);
    v[2] = pixel(at[down], s.tap_y.far * s.tap_x.near);
    v[3] = pixel(at[down + right], s.tap_y.far * s.tap_x.far);
  }
  static POSE_HD acc pixel(T value, acc weight) {
    const acc v = static_cast<acc>(value);
    return weight == acc(0) && !(v - v == acc(0)) ? acc(0) : v;
  }
  // Derivatives of the sample to the picture coordinates u and v.
  POSE_HD acc slope_u(const Tap<acc>& x, const Tap<acc>& y, acc fill) const {
    return y.near * (x.near_slope * v[0] + x.far_slope * v[1]) + y.far * (x.near_slope * v[2] + x.far_slope * v[3]) -
        fill * (x.near_slope + x.far_slope) * (y.near + y.far);
  }
  POSE_HD acc slope_v(const Tap<acc>& x, const Tap<acc>& y, acc fill) const {
    return x.near * (y.near_slope * v[0] + y.far_slope * v[2]) + x.far * (y.near_slope * v[1] + y.far_slope * v[3]) -
        fill * (y.near_slope + y.far_slope) * (x.near + x.far);
  }
};

// Checks ---------------------------------------------------------------------------------------------------------------

inline bool is_pixel_type(ScalarType type) {
  return type == ScalarType::Byte || is_floating(type);
}

inline ScalarType arithmetic_of(ScalarType pixels, ScalarType out) {
  return acc_scalar_type(pixels == ScalarType::Double ? pixels : out);
}

inline Shape check_images(const char* op, const std::vector<Tensor>& images) {
  PYPOSE_OPS_CHECK(!images.empty(), op, ": images must be (B, C, H, W) or a list of at least one (C, H, W)");
  const Tensor& first = images[0];
  const bool batch = images.size() == 1 && first.dim() == 4;
  PYPOSE_OPS_CHECK(
      is_pixel_type(first.scalar_type()), op,
      ": images must be uint8, float16, bfloat16, float32 or float64, got ",
      torch::headeronly::toString(first.scalar_type()));
  for (size_t i = 0; i < images.size(); ++i) {
    const Tensor& image = images[i];
    const int64_t dims = image.dim();
    PYPOSE_OPS_CHECK(
        batch || dims == 3, op, ": images must be (B, C, H, W) or a list of (C, H, W), got shape ", shape_of(image));
    PYPOSE_OPS_CHECK(
        image.scalar_type() == first.scalar_type(), op, ": images must have one dtype, got ",
        torch::headeronly::toString(first.scalar_type()), " and ", torch::headeronly::toString(image.scalar_type()));
    check_same_device(op, "images", image, "the first of them", first);
    PYPOSE_OPS_CHECK(
        image.size(dims - 3) == first.size(dims - 3), op, ": images must have one number of channels, got ",
        first.size(dims - 3), " and ", image.size(dims - 3));
    for (int64_t d = dims - 2; d < dims; ++d) {
      PYPOSE_OPS_CHECK(
          image.size(d) > 0 && image.size(d) <= kMaxSide, op, ": images must have sides from 1 to ", kMaxSide,
          ", got shape ", shape_of(image));
    }
  }
  return {0, batch ? first.size(0) : static_cast<int64_t>(images.size()), first.size(first.dim() - 3), 0, 0};
}

inline Shape check_crop(
    const char* op, const std::vector<Tensor>& images, const Tensor& transforms, int64_t height, int64_t width,
    const std::optional<Tensor>& index) {
  Shape shape = check_images(op, images);
  PYPOSE_OPS_CHECK(
      transforms.dim() == 3 && transforms.size(1) == 2 && transforms.size(2) == 3, op,
      ": transforms must be (N, 2, 3), got shape ", shape_of(transforms));
  check_coordinates(op, "transforms", transforms);
  check_same_device(op, "transforms", transforms, "images", images[0]);
  shape.patches = transforms.size(0);
  if (index) {
    PYPOSE_OPS_CHECK(
        index->dim() == 1 && index->size(0) == shape.patches, op, ": image_index must be (N,) for ", shape.patches,
        " transforms, got shape ", shape_of(*index));
    PYPOSE_OPS_CHECK(
        index->scalar_type() == ScalarType::Long, op, ": image_index must be int64, got ",
        torch::headeronly::toString(index->scalar_type()));
    check_same_device(op, "image_index", *index, "images", images[0]);
  } else {
    PYPOSE_OPS_CHECK(
        shape.images == 1 || shape.images == shape.patches, op, ": image_index must be given for ", shape.patches,
        " transforms and ", shape.images, " images");
  }
  PYPOSE_OPS_CHECK(
      height > 0 && width > 0 && height <= kMaxSide && width <= kMaxSide, op, ": size must be from 1 to ", kMaxSide,
      " a side, got (", height, ", ", width, ")");
  const __int128 elements = static_cast<__int128>(height * width) * (shape.channels + 1) * shape.patches;
  PYPOSE_OPS_CHECK(
      elements <= kMaxElements, op, ": size is too large for ", shape.patches,
      " patches of ", shape.channels, " channels, got (", height, ", ", width, ")");
  shape.height = height;
  shape.width = width;
  return shape;
}

// For the backward operators: grad (N, C, h, w), or with a mask channel at the end (N, C + 1, h, w).
inline Shape check_crop_grad(
    const char* op, const Tensor& grad, const std::vector<Tensor>& images, const Tensor& transforms,
    const std::optional<Tensor>& index) {
  check_dim(op, "grad", grad, 4, "(N, C, h, w)");
  check_floating(op, "grad", grad);
  const Shape shape = check_crop(op, images, transforms, grad.size(2), grad.size(3), index);
  check_same_device(op, "grad", grad, "images", images[0]);
  check_size(op, "grad", grad, 0, shape.patches);
  PYPOSE_OPS_CHECK(
      grad.size(1) == shape.channels || grad.size(1) == shape.channels + 1, op, ": grad must have ", shape.channels,
      " or ", shape.channels + 1, " channels, got ", grad.size(1));
  return shape;
}

inline void check_mask(const char* op, const std::optional<Tensor>& mask, const Tensor& transforms) {
  if (mask) {
    PYPOSE_OPS_CHECK(
        mask->dim() == 2 && mask->size(0) == transforms.size(0) && mask->size(1) == 4, op,
        ": mask must be (N, 4) boxes x1, y1, x2, y2 for ", transforms.size(0), " transforms, got shape ",
        shape_of(*mask));
    check_coordinates(op, "mask", *mask);
    check_same_device(op, "mask", *mask, "transforms", transforms);
  }
}

inline Options check_options(const char* op, int64_t mode, int64_t padding, bool antialias) {
  return {check_choice<Mode>(op, "mode", mode, 2), check_choice<Padding>(op, "padding", padding, 3), antialias};
}

inline void check_list(const char* op, const char* name, const std::vector<double>& list, int64_t channels) {
  const int64_t count = static_cast<int64_t>(list.size());
  PYPOSE_OPS_CHECK(
      count <= 1 || count == channels, op, ": ", name, " must be a number, or one for each of the ", channels,
      " channels, got ", count);
  PYPOSE_OPS_CHECK(
      count <= kMaxListed, op, ": ", name, " must be a number, or at most ", kMaxListed, " numbers, got ", count);
  for (const double value : list) {
    PYPOSE_OPS_CHECK(std::isfinite(value), op, ": ", name, " must be finite, got ", value);
  }
}

// From lists of no entry (the default), one entry for all channels, or one for each.
template <typename acc>
Levels<acc> levels_of(
    const std::vector<double>& fill, const std::vector<double>& mean, const std::vector<double>& std) {
  const size_t count = std::max({size_t(1), fill.size(), mean.size(), std.size()});
  const auto entry = [](const std::vector<double>& list, size_t i, double otherwise) {
    return list.empty() ? otherwise : list[list.size() == 1 ? 0 : i];
  };
  Levels<acc> levels{};
  levels.count = static_cast<int>(count);
  for (size_t i = 0; i < count; ++i) {
    const double scale = 1 / entry(std, i, 1);
    levels.scale[i] = static_cast<acc>(scale);
    levels.shift[i] = static_cast<acc>(-entry(mean, i, 0) * scale);
    levels.fill[i] = static_cast<acc>(entry(fill, i, 0));
    levels.filled = levels.filled || levels.fill[i] != acc(0);
  }
  return levels;
}

inline void check_levels(
    const char* op, const std::vector<double>& fill, const std::vector<double>& mean, const std::vector<double>& std,
    int64_t channels) {
  check_list(op, "fill", fill, channels);
  check_list(op, "mean", mean, channels);
  check_list(op, "std", std, channels);
  for (const double value : std) {
    PYPOSE_OPS_CHECK(value > 0, op, ": std must be positive, got ", value);
  }
}

inline Image image_at(const Tensor& tensor) {
  const int64_t d = tensor.dim() - 3;
  return {
      tensor.const_data_ptr(), tensor.stride(d), tensor.stride(d + 1), tensor.stride(d + 2),
      static_cast<int32_t>(tensor.size(d + 1)), static_cast<int32_t>(tensor.size(d + 2))};
}

// The pictures of a list, or the first picture of a batch and the elements from one to the next.
struct ImageTable {
  std::vector<Image> images;
  bool batch;
  int64_t stride;

  explicit ImageTable(const std::vector<Tensor>& tensors)
      : batch(tensors[0].dim() == 4), stride(batch ? tensors[0].stride(0) : 0) {
    for (const Tensor& tensor : tensors) {
      images.push_back(image_at(tensor));
    }
  }
  // T is the pictures' type.
  template <typename T>
  Image at(int64_t number) const {
    Image image = images[batch ? 0 : number];
    image.data = static_cast<const T*>(image.data) + (batch ? number * stride : 0);
    return image;
  }
};

inline std::optional<Tensor> dense_index(const std::optional<Tensor>& index) {
  return index ? std::optional(torch::stable::contiguous(*index)) : std::nullopt;
}

inline void check_out_type(const char* op, ScalarType dtype) {
  PYPOSE_OPS_CHECK(
      is_pixel_type(dtype), op, ": dtype must be uint8, float16, bfloat16, float32 or float64, got ",
      torch::headeronly::toString(dtype));
}

// Gradients of the pictures, in the arithmetic's dtype.
inline std::vector<Tensor> new_grads(const std::vector<Tensor>& images, ScalarType type) {
  std::vector<Tensor> grads;
  for (const Tensor& image : images) {
    const std::vector<int64_t> sizes(image.sizes().begin(), image.sizes().end());
    grads.push_back(torch::stable::new_zeros(image, sizes, type));
  }
  return grads;
}

inline std::vector<Tensor> as_type(std::vector<Tensor> tensors, ScalarType type) {
  for (Tensor& tensor : tensors) {
    if (tensor.scalar_type() != type) {
      tensor = torch::stable::to(tensor, type);
    }
  }
  return tensors;
}

inline Tensor as_dense(const Tensor& tensor, ScalarType type) {
  return torch::stable::contiguous(tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type));
}

}  // namespace patches
}  // namespace pypose_ops

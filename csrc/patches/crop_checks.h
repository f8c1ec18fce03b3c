// crop_patches: what the entry points check, and how tensors become the structs that the kernels read.
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "common/check.h"
#include "common/tensors.h"
#include "patches/crop_patches.h"

namespace pypose_ops {
namespace patches {

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
        image.scalar_type() == first.scalar_type(), op, ": images must share one dtype, got ",
        torch::headeronly::toString(first.scalar_type()), " and ", torch::headeronly::toString(image.scalar_type()));
    check_same_device(op, "images", image, "the first of them", first);
    PYPOSE_OPS_CHECK(
        image.size(dims - 3) == first.size(dims - 3), op, ": images must have the same number of channels, got ",
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
  return {check_choice<Mode>(op, "mode", mode, 3), check_choice<Padding>(op, "padding", padding, 3), antialias};
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

// The images of a list, or the first image of a batch and the elements from one to the next.
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
  // T is the images' type.
  template <typename T>
  Image at(int64_t number) const {
    Image image = images[batch ? 0 : number];
    image.data = static_cast<const T*>(image.data) + (batch ? number * stride : 0);
    return image;
  }
};

inline void check_out_type(const char* op, ScalarType dtype) {
  PYPOSE_OPS_CHECK(
      is_pixel_type(dtype), op, ": dtype must be uint8, float16, bfloat16, float32 or float64, got ",
      torch::headeronly::toString(dtype));
}

// Gradients of the images, in the arithmetic's dtype: zeros, or memory that will be written completely.
inline std::vector<Tensor> new_grads(const std::vector<Tensor>& images, ScalarType type, bool zeros) {
  std::vector<Tensor> grads;
  for (const Tensor& image : images) {
    grads.push_back(zeros ? zeros_beside(image, image.sizes(), type) : empty_beside(image, image.sizes(), type));
  }
  return grads;
}

}  // namespace patches
}  // namespace pypose_ops

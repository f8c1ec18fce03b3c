// _box_transforms and _box_centers: boxes of pypose_ops.geometry to transforms, in one call on the host. Of a few boxes
// every pass through the dispatcher costs more than the arithmetic.
#include <tuple>
#include <vector>

#include <torch/csrc/stable/library.h>

#include "common/check.h"
#include "common/tensors.h"

#include "common/round_products.h"  // the bits are those of the steps of geometry.py

namespace pypose_ops {
namespace {

// How a patch lies in its box.
struct Patch {
  double extent_x, extent_y;  // what a box is divided by
  double middle_x, middle_y;
  double cos, sin;
  bool flip;
};

template <typename T>
PYPOSE_OPS_ROUND_PRODUCTS void fill_transforms(
    T* out, const T* center, const T* scale, int64_t boxes, const Patch& patch) {
  const T extent_x = static_cast<T>(patch.extent_x), extent_y = static_cast<T>(patch.extent_y);
  const T middle_x = static_cast<T>(patch.middle_x), middle_y = static_cast<T>(patch.middle_y);
  const T cos = static_cast<T>(patch.cos), sin = static_cast<T>(patch.sin);
  for (int64_t i = 0; i < boxes; ++i, center += 2, scale += 2, out += 6) {
    PYPOSE_OPS_CHECK(
        !(scale[0] < 0 || scale[1] < 0), "box_to_transform: scale must not be negative, a box's width and height, got (",
        scale[0], ", ", scale[1], ")");
    const T across = scale[0] / extent_x, step_y = scale[1] / extent_y;
    const T step_x = patch.flip ? -across : across;
    out[0] = step_x * cos;
    out[1] = -step_y * sin;
    out[2] = center[0] - out[0] * middle_x - out[1] * middle_y;
    out[3] = step_x * sin;
    out[4] = step_y * cos;
    out[5] = center[1] - out[3] * middle_x - out[4] * middle_y;
  }
}

Tensor box_transforms_cpu(
    const Tensor& center, const Tensor& scale, double extent_x, double extent_y, double middle_x, double middle_y,
    double cos, double sin, bool flip) {
  constexpr const char* op = "box_to_transform";
  check_coordinates(op, "center", center);
  const ScalarType dtype = center.scalar_type();
  std::vector<int64_t> sizes = center.sizes().vec();
  PYPOSE_OPS_CHECK(
      center.sizes() == scale.sizes() && scale.scalar_type() == dtype && !sizes.empty() && sizes.back() == 2, op,
      ": center and scale must be (..., 2) of one dtype, got shapes ", shape_of(center), " and ", shape_of(scale));
  sizes.push_back(3);
  const Tensor out = empty_beside(center, sizes, dtype);
  const Tensor at = as_contiguous(center), of = as_contiguous(scale);
  const Patch patch{extent_x, extent_y, middle_x, middle_y, cos, sin, flip};
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    fill_transforms<T>(
        out.mutable_data_ptr<T>(), at.const_data_ptr<T>(), of.const_data_ptr<T>(), center.numel() / 2, patch);
  };
  if (dtype == ScalarType::Double) {
    run(0.0);
  } else {
    run(0.0f);
  }
  return out;
}

// torch.maximum: NaN where either is.
template <typename T>
T larger(T a, T b) {
  return a != a || a > b ? a : b;
}

template <typename T>
PYPOSE_OPS_ROUND_PRODUCTS void fill_centers(
    T* center, T* scale, const T* box, int64_t boxes, T aspect, T padding, bool corners) {
  for (int64_t i = 0; i < boxes; ++i, box += 4, center += 2, scale += 2) {
    const T w = corners ? box[2] - box[0] : box[2];
    const T h = corners ? box[3] - box[1] : box[3];
    PYPOSE_OPS_CHECK(
        !(w < 0 || h < 0), "box_to_center_and_scale: boxes must not be inverted (x1 <= x2, y1 <= y2), got (", box[0],
        ", ", box[1], ", ", box[2], ", ", box[3], ")");
    center[0] = box[0] + w / 2;
    center[1] = box[1] + h / 2;
    scale[0] = larger<T>(w, h * aspect) * padding;
    scale[1] = larger<T>(h, w / aspect) * padding;
  }
}

std::tuple<Tensor, Tensor> box_centers_cpu(const Tensor& boxes, double aspect, double padding, bool corners) {
  constexpr const char* op = "box_to_center_and_scale";
  check_coordinates(op, "boxes", boxes);
  std::vector<int64_t> sizes = boxes.sizes().vec();
  PYPOSE_OPS_CHECK(!sizes.empty() && sizes.back() == 4, op, ": boxes must be (..., 4), got shape ", shape_of(boxes));
  sizes.back() = 2;
  const ScalarType dtype = boxes.scalar_type();
  const Tensor center = empty_beside(boxes, sizes, dtype), scale = empty_beside(boxes, sizes, dtype);
  const Tensor dense = as_contiguous(boxes);
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    fill_centers<T>(
        center.mutable_data_ptr<T>(), scale.mutable_data_ptr<T>(), dense.const_data_ptr<T>(), boxes.numel() / 4,
        static_cast<T>(aspect), static_cast<T>(padding), corners);
  };
  if (dtype == ScalarType::Double) {
    run(0.0);
  } else {
    run(0.0f);
  }
  return {center, scale};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "_box_transforms(Tensor center, Tensor scale, float extent_x, float extent_y, float middle_x, float middle_y, "
      "float cos, float sin, bool flip) -> Tensor");
  m.def("_box_centers(Tensor boxes, float aspect, float padding, bool corners) -> (Tensor center, Tensor scale)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("_box_transforms", TORCH_BOX(&box_transforms_cpu));
  m.impl("_box_centers", TORCH_BOX(&box_centers_cpu));
}

}  // namespace pypose_ops

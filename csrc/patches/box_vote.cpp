#include "patches/box_vote.h"

#include <algorithm>

#include <torch/csrc/stable/library.h>

namespace pypose_ops {
namespace {

using namespace patches;

constexpr int64_t kGrainPixels = 1 << 15;

// One map: corners, then the prefix sum down the columns and along the row in one pass.
template <typename T>
void vote_map(T* out, const double* boxes, const T* weights, int64_t* units, const VoteShape& shape) {
  double largest = 0;
  for (int64_t p = 0; p < shape.boxes; ++p) {
    largest = std::max(largest, std::abs(finite_or_zero(static_cast<double>(weights[p * shape.maps]))));
  }
  const int32_t exponent = unit_exponent(largest, shape.boxes);
  std::fill(units, units + shape.pixels(), 0);
  for (int64_t p = 0; p < shape.boxes; ++p) {
    const PixelBox box = PixelBox::of(boxes + p * 4, shape);
    if (!box.empty()) {
      const int64_t weight = units_of(finite_or_zero(static_cast<double>(weights[p * shape.maps])), exponent);
      for_corners(box, shape, [=](int64_t y, int64_t x, int sign) { units[y * shape.width + x] += sign * weight; });
    }
  }
  const double scale = std::ldexp(1.0, -exponent);
  const bool normal = std::isnormal(scale);
  for (int64_t y = 0; y < shape.height; ++y) {
    int64_t* row = units + y * shape.width;
    int64_t sum = 0;
    for (int64_t x = 0; x < shape.width; ++x) {
      sum += row[x];
      row[x] = sum + (y > 0 ? row[x - shape.width] : 0);
      // The same number, at a fraction of ldexp's cost.
      const double value = normal ? static_cast<double>(row[x]) * scale : from_units(row[x], exponent);
      out[y * shape.width + x] = static_cast<T>(static_cast<acc_t<T>>(value));
    }
  }
}

template <typename T>
void run_vote(const Tensor& out, const Tensor& boxes, const Tensor& weights, const VoteShape& shape) {
  T* out_data = out.mutable_data_ptr<T>();
  const double* box_data = boxes.const_data_ptr<double>();
  const T* weight_data = weights.const_data_ptr<T>();
  const int64_t grain = std::max<int64_t>(1, kGrainPixels / (shape.pixels() + shape.boxes));
  torch::stable::parallel_for(0, shape.batch * shape.maps, grain, [&](int64_t begin, int64_t end) {
    std::vector<int64_t> units(shape.pixels());
    for (int64_t map = begin; map < end; ++map) {
      const int64_t b = map / shape.maps, k = map % shape.maps;
      vote_map(
          out_data + map * shape.pixels(), box_data + b * shape.boxes * 4, weight_data + b * shape.boxes * shape.maps + k,
          units.data(), shape);
    }
  });
}

Tensor box_vote_cpu(const Tensor& boxes, const Tensor& weights, int64_t height, int64_t width) {
  constexpr const char* op = "box_vote";
  const VoteShape shape = check_vote(op, boxes, weights, height, width);
  Tensor out = empty_beside(weights, sizes_like(boxes, shape.batch, {shape.maps, height, width}));
  if (out.numel() == 0) {
    return out;
  }
  const Tensor corners = as_contiguous(boxes, ScalarType::Double), dense = as_contiguous(weights);
  PYPOSE_OPS_DISPATCH_FLOATING(
      weights.scalar_type(), op, [&] { run_vote<scalar_t>(out, corners, dense, shape); });
  return out;
}

// One map's gradient as an integral image, one row and one column of zeros ahead: a box is four look-ups.
template <typename T>
void map_backward(T* out, const T* grad, const double* boxes, double* integral, const VoteShape& shape) {
  const int64_t stride = shape.width + 1;
  std::fill(integral, integral + stride, 0.0);
  for (int64_t y = 0; y < shape.height; ++y) {
    double* row = integral + (y + 1) * stride;
    double sum = 0;
    row[0] = 0;
    for (int64_t x = 0; x < shape.width; ++x) {
      sum += static_cast<double>(grad[y * shape.width + x]);
      row[x + 1] = sum + row[x + 1 - stride];
    }
  }
  for (int64_t p = 0; p < shape.boxes; ++p) {
    const PixelBox box = PixelBox::of(boxes + p * 4, shape);
    const double* top = integral + box.y.first * stride;
    const double* bottom = integral + box.y.end * stride;
    const double sum = (bottom[box.x.end] - bottom[box.x.first]) - (top[box.x.end] - top[box.x.first]);
    out[p * shape.maps] = static_cast<T>(static_cast<acc_t<T>>(box.empty() ? 0.0 : sum));
  }
}

template <typename T>
void run_backward(const Tensor& out, const Tensor& grad, const Tensor& boxes, const VoteShape& shape) {
  T* out_data = out.mutable_data_ptr<T>();
  const double* box_data = boxes.const_data_ptr<double>();
  const T* grad_data = grad.const_data_ptr<T>();
  const int64_t grain = std::max<int64_t>(1, kGrainPixels / (shape.pixels() + shape.boxes));
  torch::stable::parallel_for(0, shape.batch * shape.maps, grain, [&](int64_t begin, int64_t end) {
    std::vector<double> integral((shape.height + 1) * (shape.width + 1));
    for (int64_t map = begin; map < end; ++map) {
      const int64_t b = map / shape.maps, k = map % shape.maps;
      map_backward(
          out_data + b * shape.boxes * shape.maps + k, grad_data + map * shape.pixels(), box_data + b * shape.boxes * 4,
          integral.data(), shape);
    }
  });
}

Tensor box_vote_backward_cpu(const Tensor& grad, const Tensor& boxes) {
  constexpr const char* op = "_box_vote_backward";
  const VoteShape shape = check_vote_backward(op, grad, boxes);
  Tensor out = empty_beside(grad, sizes_like(boxes, shape.batch, {shape.boxes, shape.maps}));
  if (out.numel() == 0) {
    return out;
  }
  const Tensor corners = as_contiguous(boxes, ScalarType::Double), dense = as_contiguous(grad);
  PYPOSE_OPS_DISPATCH_FLOATING(
      grad.scalar_type(), op, [&] { run_backward<scalar_t>(out, dense, corners, shape); });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def("box_vote(Tensor boxes, Tensor weights, SymInt height, SymInt width) -> Tensor");
  m.def("_box_vote_backward(Tensor grad, Tensor boxes) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("box_vote", TORCH_BOX(&box_vote_cpu));
  m.impl("_box_vote_backward", TORCH_BOX(&box_vote_backward_cpu));
}

}  // namespace pypose_ops

#include <algorithm>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/library.h>

#include "heatmaps/gaussian_heatmaps.h"
#include "heatmaps/gaussian_moments.h"
#include "heatmaps/gaussian_tables.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

// Gradients of one map. grad_keypoints and grad_sigma are (B, P, K, 2), zeroed before.
template <typename T, typename acc = acc_t<T>>
void map_backward(
    const T* grad, acc* grad_keypoints, acc* grad_sigma, Tables<acc>& tables, std::vector<acc>& row,
    std::vector<int32_t>& owner, const Options& options, const Shape& shape, int64_t b, int64_t k) {
  Moments<acc> moments(tables.blobs.size(), tables.width);
  for (int64_t y = 0; y < shape.height; ++y) {
    add_row_moments(grad + y * shape.width, tables, options, y, row.data(), owner.data(), moments);
  }
  write_gradients(tables, moments, grad_keypoints, grad_sigma, options, shape, b, k);
}

template <typename T>
void run_backward(
    const Tensor& grad, const Tensor& grad_keypoints, const Tensor& grad_sigma, const PeopleTensors& tensors,
    const Options& options, const Shape& shape) {
  using acc = acc_t<T>;
  const T* grad_data = grad.const_data_ptr<T>();
  acc* keypoints_data = grad_keypoints.mutable_data_ptr<acc>();
  acc* sigma_data = grad_sigma.mutable_data_ptr<acc>();
  const People<acc> people = tensors.view<acc>();
  const int64_t grain = std::max<int64_t>(1, kGrainPixels / shape.pixels());
  torch::stable::parallel_for(0, shape.maps(), grain, [&](int64_t begin, int64_t end) {
    const FlushSubnormals flush;
    Tables<acc> tables(shape);
    std::vector<acc> row(shape.width);
    std::vector<int32_t> owner(shape.width);
    for (int64_t map = begin; map < end; ++map) {
      const int64_t b = map / shape.joints;
      const int64_t k = map % shape.joints;
      tables.fill(people, options, shape, b, k);
      map_backward(
          grad_data + map * shape.pixels(), keypoints_data, sigma_data, tables, row, owner, options, shape, b, k);
    }
  });
}

std::tuple<Tensor, Tensor> gaussian_heatmaps_backward_cpu(
    const Tensor& grad, const Tensor& keypoints, const std::optional<Tensor>& sigma, double sigma_value,
    const std::optional<Tensor>& visible, int64_t center, std::optional<double> truncate, int64_t combine,
    int64_t normalize) {
  constexpr const char* op = "_gaussian_heatmaps_backward";
  const Shape shape = check_backward(op, grad, keypoints, sigma, visible);
  const Options options = check_options(op, 0, center, truncate, combine, normalize, sigma_value, !!sigma);
  const ScalarType acc_type = acc_scalar_type(grad.scalar_type());
  Tensor grad_keypoints =
      zeros_beside(keypoints, {shape.batch, shape.people, shape.joints, 2}, acc_type);
  Tensor grad_sigma = zeros_beside(keypoints, {shape.batch, shape.people, shape.joints, 2}, acc_type);
  if (grad_keypoints.numel() == 0) {
    return {grad_keypoints, grad_sigma};
  }
  const PeopleTensors people(keypoints, sigma, visible, acc_type);
  const Tensor dense = as_contiguous(grad);
  PYPOSE_OPS_DISPATCH_FLOATING(grad.scalar_type(), op, [&] {
    run_backward<scalar_t>(dense, grad_keypoints, grad_sigma, people, options, shape);
  });
  return {grad_keypoints, grad_sigma};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "_gaussian_heatmaps_backward(Tensor grad, Tensor keypoints, Tensor? sigma, float sigma_value, Tensor? visible, "
      "int center, float? truncate, int combine, int normalize) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("_gaussian_heatmaps_backward", TORCH_BOX(&gaussian_heatmaps_backward_cpu));
}

}  // namespace pypose_ops

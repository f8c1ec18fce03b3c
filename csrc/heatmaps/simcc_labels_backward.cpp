#include <algorithm>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/library.h>

#include "heatmaps/gaussian_tables.h"
#include "heatmaps/simcc_labels.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

constexpr int kPartial = 16;

// In 16 interleaved parts, so that it vectorises, in the same order everywhere.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc sum_of(const acc* values, int32_t n) {
  acc partial[kPartial] = {};
  int32_t i = 0;
  for (; i + kPartial <= n; i += kPartial) {
    for (int j = 0; j < kPartial; ++j) {
      partial[j] += values[i + j];
    }
  }
  acc sum = 0;
  for (; i < n; ++i) {
    sum += values[i];
  }
  for (int j = 0; j < kPartial; ++j) {
    sum += partial[j];
  }
  return sum;
}

// first and second are scratch, one element per bin.
template <typename T, typename acc = acc_t<T>>
void label_backward(
    const T* grad, const Label<acc>& label, const LabelOptions& options, acc* first, acc* second, int64_t bins,
    acc& grad_keypoint, acc& grad_sigma) {
  const int32_t n = static_cast<int32_t>(bins);
  const acc spread = options.density ? acc(1) : acc(0);
  acc sums[2];
  acc* out = sums;
  simd_call([=] {
    for (int32_t i = 0; i < n; ++i) {
      const acc value = label.peak(i);
      const acc u = value > 0 ? label.offset(i) : acc(0);  // u may overflow where the value is 0
      const acc g = simd::load(grad[i]) * value;
      first[i] = g * u;
      second[i] = g * (u * u - spread);
    }
    out[0] = sum_of(first, n);
    out[1] = sum_of(second, n);
  });
  label_gradients(label, options, sums[0], sums[1], grad_keypoint, grad_sigma);
}

// The gradients are (B, K, 2), zeroed before.
template <typename T>
void run_backward(
    const Tensor& grad_x, const Tensor& grad_y, const Tensor& grad_keypoints, const Tensor& grad_sigma,
    const PeopleTensors& tensors, const LabelOptions& options, const LabelShape& shape) {
  using acc = acc_t<T>;
  const T* const grads[2] = {grad_x.const_data_ptr<T>(), grad_y.const_data_ptr<T>()};
  acc* keypoints_data = grad_keypoints.mutable_data_ptr<acc>();
  acc* sigma_data = grad_sigma.mutable_data_ptr<acc>();
  const People<acc> people = tensors.view<acc>();
  const int64_t bins = shape.bins[0] + shape.bins[1];
  torch::stable::parallel_for(
      0, shape.batch * shape.joints, std::max<int64_t>(1, kGrainPixels / bins), [&](int64_t begin, int64_t end) {
        const FlushSubnormals flush;
        std::vector<acc> first(std::max(shape.bins[0], shape.bins[1])), second(first.size());
        for (int64_t i = begin; i < end; ++i) {
          for (int axis = 0; axis < 2; ++axis) {
            const Label<acc> label = label_of(people, options, shape, i / shape.joints, i % shape.joints, axis);
            if (label.drawn) {
              label_backward(
                  grads[axis] + i * shape.bins[axis], label, options, first.data(), second.data(), shape.bins[axis],
                  keypoints_data[2 * i + axis], sigma_data[2 * i + axis]);
            }
          }
        }
      });
}

std::tuple<Tensor, Tensor> simcc_labels_backward_cpu(
    const Tensor& grad_x, const Tensor& grad_y, const Tensor& keypoints, const std::optional<Tensor>& sigma,
    double sigma_x, double sigma_y, const std::optional<Tensor>& visible, double ratio, int64_t center,
    int64_t normalize) {
  constexpr const char* op = "_simcc_labels_backward";
  const LabelShape shape = check_label_backward(op, grad_x, grad_y, keypoints, sigma, visible);
  const LabelOptions options =
      check_label_options(op, sigma.has_value(), sigma_x, sigma_y, ratio, 0, center, normalize, 0);
  const ScalarType acc_type = acc_scalar_type(grad_x.scalar_type());
  Tensor grad_keypoints = zeros_beside(keypoints, {shape.batch, shape.joints, 2}, acc_type);
  Tensor grad_sigma = zeros_beside(keypoints, {shape.batch, shape.joints, 2}, acc_type);
  if (grad_keypoints.numel() == 0) {
    return {grad_keypoints, grad_sigma};
  }
  const PeopleTensors people(keypoints, sigma, visible, acc_type);
  const Tensor dense_x = as_contiguous(grad_x), dense_y = as_contiguous(grad_y);
  PYPOSE_OPS_DISPATCH_FLOATING(grad_x.scalar_type(), op, [&] {
    run_backward<scalar_t>(dense_x, dense_y, grad_keypoints, grad_sigma, people, options, shape);
  });
  return {grad_keypoints, grad_sigma};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "_simcc_labels_backward(Tensor grad_x, Tensor grad_y, Tensor keypoints, Tensor? sigma, float sigma_x, "
      "float sigma_y, Tensor? visible, float ratio, int center, int normalize) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("_simcc_labels_backward", TORCH_BOX(&simcc_labels_backward_cpu));
}

}  // namespace pypose_ops

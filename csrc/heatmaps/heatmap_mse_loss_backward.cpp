#include <algorithm>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/library.h>

#include "heatmaps/gaussian_moments.h"
#include "heatmaps/gaussian_tables.h"
#include "heatmaps/heatmap_mse_loss.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

// grad[x] = scale * (pred[x] - target(x)), rounded to T.
template <typename Isa, typename T, typename Vector, typename Scalar, typename acc = acc_t<T>>
PYPOSE_OPS_HOST_DEVICE void write_row(
    Isa isa, T* grad, const T* pred, acc scale, int64_t width, const Vector& vector_at, const Scalar& scalar_at) {
  constexpr int kLanes = simd::lanes<acc, Isa>;
  int64_t x = 0;
  for (; x + kLanes <= width; x += kLanes) {
    isa.store(grad + x, (isa.load(pred + x) - vector_at(x)) * scale);
  }
  for (; x < width; ++x) {
    grad[x] = simd::store<T>((simd::load(pred[x]) - scalar_at(x)) * scale);
  }
}

template <typename T, typename acc = acc_t<T>>
void write_single(T* grad, const T* pred, acc scale, const acc* tx, const acc* ty, int64_t height, int64_t width) {
  simd_call([=](auto isa) {
    for (int64_t y = 0; y < height; ++y) {
      const acc factor = ty[y];
      write_row(
          isa, grad + y * width, pred + y * width, scale, width, [=](int64_t x) { return isa.load(tx + x) * factor; },
          [=](int64_t x) { return tx[x] * factor; });
    }
  });
}

// target_grad[x] -= scale * (pred[x] - target[x]): what the target's pixel gets from one stage.
template <typename T, typename acc = acc_t<T>>
PYPOSE_OPS_HOST_DEVICE
void add_target_gradient(acc* target_grad, const T* pred, const acc* target, acc scale, int64_t width) {
  for (int64_t x = 0; x < width; ++x) {
    target_grad[x] -= scale * (simd::load(pred[x]) - target[x]);
  }
}

template <typename acc>
struct Scratch {
  explicit Scratch(const LossShape& shape)
      : tables(shape.target), row(shape.target.width), target_grad(shape.target.width), owner(shape.target.width),
        scales(shape.stages) {}

  Tables<acc> tables;
  std::vector<acc> row, target_grad;
  std::vector<int32_t> owner;
  std::vector<acc> scales;  // per stage: d loss / d (pred - target)^2, times 2
};

// Pointers of one call; pred and its gradient are (S, B, K, H, W), null where it is not wanted.
template <typename T>
struct Gradients {
  T* pred;
  acc_t<T>* keypoints;
  acc_t<T>* sigma;
};

// Row by row: the target once, then the gradient of every stage's prediction, then of the keypoints.
template <typename T, typename acc = acc_t<T>>
void map_backward(
    const Gradients<T>& out, const T* pred, Scratch<acc>& scratch, const Options& options, const LossShape& shape,
    int64_t b, int64_t k) {
  const Shape& target = shape.target;
  const int64_t width = target.width;
  Tables<acc>& tables = scratch.tables;
  acc* row = scratch.row.data();
  acc* target_grad = scratch.target_grad.data();
  Moments<acc> moments(tables.blobs.size(), tables.width);
  for (int64_t y = 0; y < target.height; ++y) {
    simd_call([&](auto isa) {
      draw_row(row, tables, options, y);
      for (int64_t x = 0; x < width; ++x) {
        target_grad[x] = 0;
      }
      for (int64_t s = 0; s < shape.stages; ++s) {
        const acc scale = scratch.scales[s];
        if (scale != acc(0)) {
          const int64_t at = (shape.index(s, b, k) * target.height + y) * width;
          if (out.pred) {
            write_row(
                isa, out.pred + at, pred + at, scale, width, [=](int64_t x) { return isa.load(row + x); },
                [=](int64_t x) { return row[x]; });
          }
          if (out.keypoints) {
            add_target_gradient(target_grad, pred + at, row, scale, width);
          }
        }
      }
    });
    if (out.keypoints) {
      add_row_moments(target_grad, tables, options, y, row, scratch.owner.data(), moments);
    }
  }
  if (out.keypoints) {
    write_gradients(tables, moments, out.keypoints, out.sigma, options, target, b, k);
  }
}

template <typename T, typename acc = acc_t<T>>
void backward(
    const Gradients<T>& out, const PerMap<acc>& grad, const T* pred, const People<acc>& people,
    const PerMap<acc>& weights, const Options& options, const LossShape& shape) {
  const Shape& target = shape.target;
  const int64_t pixels = target.pixels();
  const int64_t grain = std::max<int64_t>(1, kGrainPixels / (pixels * std::max<int64_t>(1, shape.stages)));
  torch::stable::parallel_for(0, target.maps(), grain, [&](int64_t begin, int64_t end) {
    const FlushSubnormals flush;
    Scratch<acc> scratch(shape);
    Tables<acc>& tables = scratch.tables;
    for (int64_t map = begin; map < end; ++map) {
      const int64_t b = map / target.joints, k = map % target.joints;
      const bool known = has_target(people, options, shape, b, k);
      for (int64_t s = 0; s < shape.stages; ++s) {
        const acc weight = known ? weight_of(weights, s, b, k) : acc(0);
        scratch.scales[s] = weight > 0 ? weight * (grad.at(s, b, k) * (acc(2) / static_cast<acc>(pixels))) : acc(0);
        if (scratch.scales[s] == acc(0) && out.pred) {
          std::memset(static_cast<void*>(out.pred + shape.index(s, b, k) * pixels), 0, pixels * sizeof(T));
        }
      }
      tables.fill(people, options, target, b, k);
      if (out.keypoints || tables.blobs.size() != 1 || options.profile != Profile::gaussian) {
        map_backward(out, pred, scratch, options, shape, b, k);
        continue;
      }
      for (int64_t s = 0; s < shape.stages; ++s) {
        if (scratch.scales[s] != acc(0)) {
          const int64_t at = shape.index(s, b, k) * pixels;
          write_single(
              out.pred + at, pred + at, scratch.scales[s], tables.row_x(0), tables.row_y(0), target.height,
              target.width);
        }
      }
    }
  });
}

template <typename T>
void run_backward(
    const Tensor& grad_pred, const Tensor& grad_keypoints, const Tensor& grad_sigma, const Tensor& grad,
    const Tensor& pred, const PeopleTensors& people, const std::optional<Tensor>& weight, const Options& options,
    const LossShape& shape) {
  using acc = acc_t<T>;
  const Gradients<T> out{
      grad_pred.numel() ? grad_pred.mutable_data_ptr<T>() : nullptr,
      grad_keypoints.numel() ? grad_keypoints.mutable_data_ptr<acc>() : nullptr,
      grad_sigma.numel() ? grad_sigma.mutable_data_ptr<acc>() : nullptr};
  if (out.pred) {
  }
  if (out.pred || out.keypoints) {
    backward(
        out, per_map<acc>(grad), pred.const_data_ptr<T>(), people.view<acc>(), per_map<acc>(weight), options, shape);
  }
}

std::tuple<Tensor, Tensor, Tensor> heatmap_mse_loss_backward_cpu(
    const Tensor& grad, const Tensor& pred, const Tensor& keypoints, const std::optional<Tensor>& sigma,
    double sigma_value, const std::optional<Tensor>& weight, const std::optional<Tensor>& visible, int64_t profile,
    int64_t center, std::optional<double> truncate, int64_t combine, int64_t normalize, bool needs_pred,
    bool needs_target) {
  constexpr const char* op = "_heatmap_mse_loss_backward";
  const LossShape shape = check_loss(op, pred, keypoints, sigma, weight, visible);
  const Options options = check_options(op, profile, center, truncate, combine, normalize, sigma_value, !!sigma);
  check_loss_gradient(op, grad, pred);
  const ScalarType acc_type = acc_scalar_type(pred.scalar_type());
  const Tensor dense = as_contiguous(pred);
  Tensor grad_pred = new_pred_gradient(pred, needs_pred);
  Tensor grad_keypoints = new_target_gradient(keypoints, shape, acc_type, needs_target);
  Tensor grad_sigma = new_target_gradient(keypoints, shape, acc_type, needs_target);
  const PeopleTensors people(keypoints, sigma, visible, acc_type);
  PYPOSE_OPS_DISPATCH_FLOATING(pred.scalar_type(), op, [&] {
    run_backward<scalar_t>(grad_pred, grad_keypoints, grad_sigma, grad, dense, people, weight, options, shape);
  });
  return {grad_pred, grad_keypoints, grad_sigma};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "_heatmap_mse_loss_backward(Tensor grad, Tensor pred, Tensor keypoints, Tensor? sigma, float sigma_value, "
      "Tensor? weight, Tensor? visible, int profile, int center, float? truncate, int combine, int normalize, "
      "bool needs_pred, bool needs_target) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("_heatmap_mse_loss_backward", TORCH_BOX(&heatmap_mse_loss_backward_cpu));
}

}  // namespace pypose_ops

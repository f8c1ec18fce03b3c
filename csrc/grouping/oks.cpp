// oks on the CPU, forward and backward: one thread takes whole rows of the matrix, one prediction each.
#include "grouping/oks_cpu.h"

#include <algorithm>

#include <torch/csrc/stable/library.h>

namespace pypose_ops {
namespace {

using namespace grouping;

constexpr int64_t kGrainJoints = 8192;  // joint pairs per task, some 10 us

template <typename acc>
void oks_rows(const OksInput<acc>& in, const OksShape& shape, const double* sigmas, acc* out) {
  const int64_t row = shape.targets * shape.joints;
  torch::stable::parallel_for(
      0, shape.batch * shape.preds, std::max<int64_t>(1, kGrainJoints / std::max<int64_t>(1, row)),
      [&](int64_t begin, int64_t end) {
        const FlushSubnormals flush;
        Targets<acc> targets(shape);
        std::vector<acc> values(targets.scale.size());
        for (int64_t d = begin; d < end; ++d) {
          targets.fill(in, shape, sigmas, d / shape.preds);
          similarities(in.pred + d * shape.joints * 2, targets, shape, values.data());
          for (int64_t g = 0; g < shape.targets; ++g) {
            out[d * shape.targets + g] = mean_similarity(values.data(), targets, shape, g);
          }
        }
      });
}

// d oks / d pred = -2 scale offset exp(-e) / divisor.
template <typename acc>
void oks_backward_rows(
    const OksInput<acc>& in, const OksShape& shape, const double* sigmas, const acc* grad, acc* grad_pred) {
  const int64_t row = shape.targets * shape.joints;
  torch::stable::parallel_for(
      0, shape.batch * shape.preds, std::max<int64_t>(1, kGrainJoints / std::max<int64_t>(1, row)),
      [&](int64_t begin, int64_t end) {
        const FlushSubnormals flush;
        Targets<acc> t(shape);
        std::vector<acc> values(t.scale.size());
        for (int64_t d = begin; d < end; ++d) {
          t.fill(in, shape, sigmas, d / shape.preds);
          const acc* pred = in.pred + d * shape.joints * 2;
          acc* result = grad_pred + d * shape.joints * 2;
          similarities(pred, t, shape, values.data());
          for (int64_t g = 0; g < shape.targets; ++g) {
            const acc outer = acc(-2) * grad[d * shape.targets + g] / t.divisor[g];
            for (int64_t k = 0; k < shape.joints; ++k) {
              const int64_t i = g * shape.joints + k;
              // 0 where a joint is nowhere near: the offset may be infinite.
              const acc factor = outer * values[i] * t.scale[i];
              const acc dx = offset_from(pred[2 * k], t.low_x[i], t.high_x[i]);
              const acc dy = offset_from(pred[2 * k + 1], t.low_y[i], t.high_y[i]);
              result[2 * k] += values[i] > 0 ? factor * dx : acc(0);
              result[2 * k + 1] += values[i] > 0 ? factor * dy : acc(0);
            }
          }
        }
      });
}

template <typename acc>
void run_oks(
    const OksTensors& tensors, const OksShape& shape, const std::vector<double>& sigmas, const Tensor& out) {
  oks_rows(tensors.view<acc>(), shape, sigmas.data(), out.mutable_data_ptr<acc>());
}

template <typename acc>
void run_oks_backward(
    const OksTensors& tensors, const OksShape& shape, const std::vector<double>& sigmas, const Tensor& grad,
    const Tensor& grad_pred) {
  oks_backward_rows(
      tensors.view<acc>(), shape, sigmas.data(), grad.const_data_ptr<acc>(), grad_pred.mutable_data_ptr<acc>());
}

Tensor oks_cpu(
    const Tensor& pred, const Tensor& target, const Tensor& area, const std::optional<Tensor>& visible,
    const std::optional<Tensor>& boxes, const std::vector<double>& sigmas) {
  const OksShape shape = check_oks("oks", pred, target, area, visible, boxes, sigmas);
  Tensor out = empty_beside(pred, {shape.batch, shape.preds, shape.targets});
  if (out.numel() == 0) {
    return out;
  }
  const OksTensors tensors(pred, target, area, visible, boxes);
  if (pred.scalar_type() == ScalarType::Double) {
    run_oks<double>(tensors, shape, sigmas, out);
  } else {
    run_oks<float>(tensors, shape, sigmas, out);
  }
  return out;
}

Tensor oks_backward_cpu(
    const Tensor& grad, const Tensor& pred, const Tensor& target, const Tensor& area,
    const std::optional<Tensor>& visible, const std::optional<Tensor>& boxes, const std::vector<double>& sigmas) {
  const OksShape shape = check_oks("oks", pred, target, area, visible, boxes, sigmas);
  check_like("oks", "grad", grad, "(B, D, G)", {shape.batch, shape.preds, shape.targets}, "pred", pred);
  check_coordinates_like("oks", "grad", grad, pred);
  Tensor grad_pred = zeros_beside(pred, {shape.batch, shape.preds, shape.joints, 2});
  if (grad_pred.numel() == 0) {
    return grad_pred;
  }
  const OksTensors tensors(pred, target, area, visible, boxes);
  const Tensor contiguous = as_contiguous(grad);
  if (pred.scalar_type() == ScalarType::Double) {
    run_oks_backward<double>(tensors, shape, sigmas, contiguous, grad_pred);
  } else {
    run_oks_backward<float>(tensors, shape, sigmas, contiguous, grad_pred);
  }
  return grad_pred;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "oks(Tensor pred, Tensor target, Tensor area, Tensor? visible, Tensor? boxes, float[] sigmas) -> Tensor");
  m.def(
      "_oks_backward(Tensor grad, Tensor pred, Tensor target, Tensor area, Tensor? visible, Tensor? boxes, "
      "float[] sigmas) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("oks", TORCH_BOX(&oks_cpu));
  m.impl("_oks_backward", TORCH_BOX(&oks_backward_cpu));
}

}  // namespace pypose_ops

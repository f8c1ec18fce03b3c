#include "grouping/oks.h"

#include <algorithm>

#include "common/cuda.cuh"
#include "grouping/joint_constants.cuh"

namespace pypose_ops {
namespace {

using namespace grouping;

constexpr int kThreads = 256;

// One thread per pair (b, d, g), g fastest: neighbours share the prediction and read annotated people in sequence.
template <typename acc>
__global__ void PYPOSE_OPS_BOUNDS_BEFORE_90(kThreads, 4)
    oks_kernel(
        acc* __restrict__ out, const OksInput<acc> in, const OksShape shape,
        const __grid_constant__ SigmaFactors<acc> factors) {
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (pair >= shape.pairs()) {
    return;
  }
  const int64_t d = pair / shape.targets;
  const int64_t g = d / shape.preds * shape.targets + pair % shape.targets;
  const acc* pred = in.pred + d * shape.joints * 2;
  const int64_t count = count_joints(in, shape, g);
  const acc area = usable_area(in.area[g]);
  acc sum = 0;
  for (int64_t k = 0; k < shape.joints; ++k) {
    const Place<acc> place = place_of(in, shape, g, k, count);
    if (place.counted) {
      const acc dx = offset_from(pred[2 * k], place.x.low, place.x.high);
      const acc dy = offset_from(pred[2 * k + 1], place.y.low, place.y.high);
      sum += similarity((dx * dx + dy * dy) * oks_scale(factors.value[k], area));
    }
  }
  out[pair] = sum / oks_divisor<acc>(shape, count);
}

// counts[g]: joints of annotated person g that are counted; one thread each.
template <typename acc>
__global__ void __launch_bounds__(kThreads)
    count_joints_kernel(int64_t* __restrict__ counts, const OksInput<acc> in, const OksShape shape) {
  const int64_t g = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (g < shape.batch * shape.targets) {
    counts[g] = count_joints(in, shape, g);
  }
}

// One thread per predicted joint (b, d, k) gathers over the annotated people of the image.
template <typename acc>
__global__ void PYPOSE_OPS_BOUNDS_BEFORE_90(kThreads, 4) oks_backward_kernel(
    acc* __restrict__ grad_pred, const acc* __restrict__ grad, const int64_t* __restrict__ counts,
    const OksInput<acc> in, const OksShape shape, const __grid_constant__ SigmaFactors<acc> factors) {
  const int64_t joint = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (joint >= shape.batch * shape.preds * shape.joints) {
    return;
  }
  const int64_t d = joint / shape.joints;
  const int64_t k = joint % shape.joints;
  const int64_t first = d / shape.preds * shape.targets;
  const acc x = in.pred[2 * joint];
  const acc y = in.pred[2 * joint + 1];
  acc sum_x = 0;
  acc sum_y = 0;
  for (int64_t i = 0; i < shape.targets; ++i) {
    const int64_t g = first + i;
    const Place<acc> place = place_of(in, shape, g, k, counts[g]);
    if (!place.counted) {
      continue;
    }
    const acc scale = oks_scale(factors.value[k], usable_area(in.area[g]));
    const acc dx = offset_from(x, place.x.low, place.x.high);
    const acc dy = offset_from(y, place.y.low, place.y.high);
    const acc value = similarity((dx * dx + dy * dy) * scale) / oks_divisor<acc>(shape, counts[g]);
    if (value > 0) {
      const acc factor = acc(-2) * grad[d * shape.targets + i] * value * scale;
      sum_x += factor * dx;
      sum_y += factor * dy;
    }
  }
  grad_pred[2 * joint] = sum_x;
  grad_pred[2 * joint + 1] = sum_y;
}

template <typename acc>
void launch_oks(
    const OksTensors& tensors, const OksShape& shape, const std::vector<double>& sigmas, const Tensor& out,
    cudaStream_t stream) {
  launch(
      "oks", oks_kernel<acc>, ceil_div(shape.pairs(), kThreads), kThreads, 0, stream, out.mutable_data_ptr<acc>(),
      tensors.view<acc>(), shape, SigmaFactors<acc>("oks", sigmas));
}

template <typename acc>
void launch_oks_backward(
    const OksTensors& tensors, const OksShape& shape, const std::vector<double>& sigmas, const Tensor& grad,
    const Tensor& grad_pred, cudaStream_t stream) {
  const int64_t people = shape.batch * shape.targets;
  const Tensor counts = empty_beside(grad, {people}, ScalarType::Long);
  if (people > 0) {
    launch(
        "oks", count_joints_kernel<acc>, ceil_div(people, kThreads), kThreads, 0, stream, counts.mutable_data_ptr<int64_t>(),
        tensors.view<acc>(), shape);
  }
  launch(
      "oks", oks_backward_kernel<acc>, ceil_div(shape.batch * shape.preds * shape.joints, kThreads), kThreads, 0, stream,
      grad_pred.mutable_data_ptr<acc>(), grad.const_data_ptr<acc>(), counts.const_data_ptr<int64_t>(),
      tensors.view<acc>(), shape, SigmaFactors<acc>("oks", sigmas));
}

Tensor oks_cuda(
    const Tensor& pred, const Tensor& target, const Tensor& area, const std::optional<Tensor>& visible,
    const std::optional<Tensor>& boxes, const std::vector<double>& sigmas) {
  const OksShape shape = check_oks("oks", pred, target, area, visible, boxes, sigmas);
  const DeviceGuard guard(pred.get_device_index());
  Tensor out = empty_beside(pred, {shape.batch, shape.preds, shape.targets});
  if (out.numel() == 0) {
    return out;
  }
  const OksTensors tensors(pred, target, area, visible, boxes);
  const cudaStream_t stream = current_stream(pred);
  if (pred.scalar_type() == ScalarType::Double) {
    launch_oks<double>(tensors, shape, sigmas, out, stream);
  } else {
    launch_oks<float>(tensors, shape, sigmas, out, stream);
  }
  return out;
}

Tensor oks_backward_cuda(
    const Tensor& grad, const Tensor& pred, const Tensor& target, const Tensor& area,
    const std::optional<Tensor>& visible, const std::optional<Tensor>& boxes, const std::vector<double>& sigmas) {
  const OksShape shape = check_oks("oks", pred, target, area, visible, boxes, sigmas);
  check_like("oks", "grad", grad, "(B, D, G)", {shape.batch, shape.preds, shape.targets}, "pred", pred);
  check_coordinates_like("oks", "grad", grad, pred);
  const DeviceGuard guard(pred.get_device_index());
  Tensor grad_pred = empty_beside(pred, {shape.batch, shape.preds, shape.joints, 2});
  if (grad_pred.numel() == 0) {
    return grad_pred;
  }
  const OksTensors tensors(pred, target, area, visible, boxes);
  const Tensor contiguous = as_contiguous(grad);
  const cudaStream_t stream = current_stream(pred);
  if (pred.scalar_type() == ScalarType::Double) {
    launch_oks_backward<double>(tensors, shape, sigmas, contiguous, grad_pred, stream);
  } else {
    launch_oks_backward<float>(tensors, shape, sigmas, contiguous, grad_pred, stream);
  }
  return grad_pred;
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("oks", TORCH_BOX(&oks_cuda));
  m.impl("_oks_backward", TORCH_BOX(&oks_backward_cuda));
}

}  // namespace pypose_ops

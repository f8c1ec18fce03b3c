#include <tuple>

#include "common/cuda.cuh"
#include "heatmaps/gaussian_gradients.cuh"
#include "heatmaps/gaussian_render.cuh"
#include "heatmaps/heatmap_mse_loss.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

// d loss / d (pred - target), divided by the difference.
template <typename acc>
__device__ acc scale_of(
    const PerMap<acc>& grad, const PerMap<acc>& weights, const LossShape& shape, int64_t s, int64_t b, int64_t k) {
  const acc weight = weight_of(weights, s, b, k);
  return weight > 0 ? weight * (grad.at(s, b, k) * (acc(2) / static_cast<acc>(shape.target.pixels()))) : acc(0);
}

// One block renders one chunk of one map and writes that chunk of every stage's gradient.
template <typename T, int kVec>
__global__ void __launch_bounds__(kThreads, kMinBlocks<T>) heatmap_mse_loss_backward_kernel(
    T* __restrict__ grad_pred, const PerMap<acc_t<T>> grad, const T* __restrict__ pred, const People<acc_t<T>> people,
    const PerMap<acc_t<T>> weights, const Options options, const LossShape shape, const Layout layout) {
  using acc = acc_t<T>;
  const Chunk chunk = chunk_of(layout, shape.target);
  const int64_t b = chunk.map / shape.target.joints;
  const int64_t k = chunk.map % shape.target.joints;
  const bool known = has_target(people, options, shape, b, k);
  acc target[kItems][kVec];
  if (known) {  // the same for all threads
    render_chunk<kVec>(target, people, options, shape.target, layout, chunk);
  }
  for (int64_t s = 0; s < shape.stages; ++s) {
    const acc scale = known ? scale_of(grad, weights, shape, s, b, k) : acc(0);
    const int64_t at = shape.index(s, b, k) * shape.target.pixels() + chunk.first;
    for_packs<kVec>(chunk, [&](int item, uint32_t pixel) {
      Pack<T, kVec> pack{};
      if (scale != acc(0)) {
        pack = load_pack<kVec>(pred + at + pixel);
#pragma unroll
        for (int v = 0; v < kVec; ++v) {
          pack.v[v] = static_cast<T>((static_cast<acc>(pack.v[v]) - clipped(target[item][v], options)) * scale);
        }
      }
      store_pack(grad_pred + at + pixel, pack);
    });
  }
}

// The gradient of a target's pixel: all stages' differences from it.
template <typename T>
struct TargetGradient {
  using acc = acc_t<T>;
  const T* pred;
  PerMap<acc> grad, weights;
  LossShape shape;

  __device__ acc operator()(const Map<acc>& map, acc value, int32_t x, int32_t y) const {
    const acc target = shape.target.people == 1 ? value : map.drawn(x, y);
    acc sum = 0;
    for (int64_t s = 0; s < shape.stages; ++s) {
      const acc scale = scale_of(grad, weights, shape, s, map.b, map.k);
      if (scale != acc(0)) {
        const int64_t row = shape.index(s, map.b, map.k) * shape.target.height + y;
        sum -= scale * (static_cast<acc>(pred[row * shape.target.width + x]) - target);
      }
    }
    return sum;
  }
};

template <typename T, int kVec>
void launch_pred_gradient(
    const Tensor& grad_pred, const Tensor& grad, const Tensor& pred, const PeopleTensors& people,
    const std::optional<Tensor>& weight, const Options& options, const LossShape& shape, cudaStream_t stream) {
  using acc = acc_t<T>;
  const Layout layout = layout_of<kVec>(shape.target, sizeof(acc));
  launch(
      "heatmap_mse_loss", heatmap_mse_loss_backward_kernel<T, kVec>, shape.target.maps() * layout.chunks, kThreads,
      layout.shared_bytes, stream, grad_pred.mutable_data_ptr<T>(), per_map<acc>(grad), pred.const_data_ptr<T>(),
      people.view<acc>(), per_map<acc>(weight), options, shape, layout);
}

template <typename T>
void launch_backward(
    const Tensor& grad_pred, const Tensor& grad_keypoints, const Tensor& grad_sigma, const Tensor& grad,
    const Tensor& pred, const PeopleTensors& people, const std::optional<Tensor>& weight, const Options& options,
    const LossShape& shape, cudaStream_t stream) {
  using acc = acc_t<T>;
  if (grad_pred.numel() > 0) {
    with_pack_width<T>(map_pack_width<T>(shape.target, pred), [&](auto width) {
      launch_pred_gradient<T, width>(grad_pred, grad, pred, people, weight, options, shape, stream);
    });
  }
  if (grad_keypoints.numel() > 0) {
    const TargetGradient<T> source{pred.const_data_ptr<T>(), per_map<acc>(grad), per_map<acc>(weight), shape};
    launch_keypoint_gradients<acc>(
        "heatmap_mse_loss", source, grad_keypoints, grad_sigma, people, options, shape.target, stream);
  }
}

std::tuple<Tensor, Tensor, Tensor> heatmap_mse_loss_backward_cuda(
    const Tensor& grad, const Tensor& pred, const Tensor& keypoints, const std::optional<Tensor>& sigma,
    double sigma_value, const std::optional<Tensor>& weight, const std::optional<Tensor>& visible, int64_t profile,
    int64_t center, std::optional<double> truncate, int64_t combine, int64_t normalize, bool needs_pred,
    bool needs_target) {
  constexpr const char* op = "_heatmap_mse_loss_backward";
  const LossShape shape = check_loss(op, pred, keypoints, sigma, weight, visible);
  const Options options = check_options(op, profile, center, truncate, combine, normalize, sigma_value, !!sigma);
  check_loss_gradient(op, grad, pred);
  const DeviceGuard guard(pred.get_device_index());
  const ScalarType acc_type = acc_scalar_type(pred.scalar_type());
  const Tensor dense = as_contiguous(pred);
  Tensor grad_pred = new_pred_gradient(pred, needs_pred);
  Tensor grad_keypoints = new_target_gradient(keypoints, shape, acc_type, needs_target);
  Tensor grad_sigma = new_target_gradient(keypoints, shape, acc_type, needs_target);
  const PeopleTensors people(keypoints, sigma, visible, acc_type);
  const cudaStream_t stream = current_stream(pred);
  PYPOSE_OPS_DISPATCH_FLOATING(pred.scalar_type(), op, [&] {
    launch_backward<scalar_t>(
        grad_pred, grad_keypoints, grad_sigma, grad, dense, people, weight, options, shape, stream);
  });
  return {grad_pred, grad_keypoints, grad_sigma};
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("_heatmap_mse_loss_backward", TORCH_BOX(&heatmap_mse_loss_backward_cuda));
}

}  // namespace pypose_ops

#include "heatmaps/heatmap_mse_loss.h"

#include "common/cuda.cuh"
#include "heatmaps/gaussian_render.cuh"

namespace pypose_ops {
namespace {

using namespace heatmaps;

// One block renders one chunk of one map and compares it with that chunk of every stage. losses is (S, B, K, chunks);
// where a map is one chunk that is the result.
template <typename T, int kVec>
__global__ void __launch_bounds__(kThreads, kMinBlocks<T>) heatmap_mse_loss_kernel(
    acc_t<T>* __restrict__ losses, const T* __restrict__ pred, const People<acc_t<T>> people,
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
    const acc weight = known ? weight_of(weights, s, b, k) : acc(0);
    const int64_t map = shape.index(s, b, k);
    acc sum[1] = {};
    if (weight > 0) {
      const T* source = pred + map * shape.target.pixels() + chunk.first;
      for_packs<kVec>(chunk, [&](int item, uint32_t pixel) {
        const auto pack = load_pack<kVec>(source + pixel);
#pragma unroll
        for (int v = 0; v < kVec; ++v) {
          const acc difference = static_cast<acc>(pack.v[v]) - clipped(target[item][v], options);
          sum[0] += difference * difference;
        }
      });
    }
    block_sum<kThreads>(sum);
    if (threadIdx.x == 0) {
      losses[map * layout.chunks + blockIdx.x % layout.chunks] =
          weight * (sum[0] / static_cast<acc>(shape.target.pixels()));
    }
  }
}

// One warp adds up the chunks of one map.
template <typename acc>
__global__ void __launch_bounds__(kThreads)
    sum_chunks_kernel(acc* __restrict__ losses, const acc* __restrict__ parts, int64_t maps, int64_t chunks) {
  const int64_t map = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kWarpSize;
  if (map >= maps) {
    return;
  }
  acc sum = 0;
  for (int64_t i = threadIdx.x % kWarpSize; i < chunks; i += kWarpSize) {
    sum += parts[map * chunks + i];
  }
  sum = warp_sum(sum);
  if (threadIdx.x % kWarpSize == 0) {
    losses[map] = sum;
  }
}

template <typename T, int kVec>
void launch_loss(
    const Tensor& losses, const Tensor& pred, const PeopleTensors& people, const std::optional<Tensor>& weight,
    const Options& options, const LossShape& shape, cudaStream_t stream) {
  using acc = acc_t<T>;
  const Layout layout = layout_of<kVec>(shape.target, sizeof(acc));
  const bool whole = layout.chunks == 1;
  const Tensor parts = whole ? losses : empty_beside(losses, {shape.maps(), layout.chunks});
  launch(
      "heatmap_mse_loss", heatmap_mse_loss_kernel<T, kVec>, shape.target.maps() * layout.chunks, kThreads,
      layout.shared_bytes, stream, parts.mutable_data_ptr<acc>(), pred.const_data_ptr<T>(), people.view<acc>(),
      per_map<acc>(weight), options, shape, layout);
  if (!whole) {
    launch(
        "heatmap_mse_loss", sum_chunks_kernel<acc>, ceil_div(shape.maps(), kWarps), kThreads, 0, stream,
        losses.mutable_data_ptr<acc>(), parts.const_data_ptr<acc>(), shape.maps(), layout.chunks);
  }
}

template <typename T>
void launch_loss_vec(
    const Tensor& losses, const Tensor& pred, const PeopleTensors& people, const std::optional<Tensor>& weight,
    const Options& options, const LossShape& shape, cudaStream_t stream) {
  with_pack_width<T>(map_pack_width<T>(shape.target, pred), [&](auto width) {
    launch_loss<T, width>(losses, pred, people, weight, options, shape, stream);
  });
}

Tensor heatmap_mse_loss_cuda(
    const Tensor& pred, const Tensor& keypoints, const std::optional<Tensor>& sigma, double sigma_value,
    const std::optional<Tensor>& weight, const std::optional<Tensor>& visible, int64_t profile, int64_t center,
    std::optional<double> truncate, int64_t combine, int64_t normalize) {
  constexpr const char* op = "heatmap_mse_loss";
  const LossShape shape = check_loss(op, pred, keypoints, sigma, weight, visible);
  const Options options = check_options(op, profile, center, truncate, combine, normalize, sigma_value, !!sigma);
  const DeviceGuard guard(pred.get_device_index());
  Tensor losses = new_losses(pred);
  if (losses.numel() == 0) {
    return losses;
  }
  const Tensor dense = as_contiguous(pred);
  const PeopleTensors people(keypoints, sigma, visible, acc_scalar_type(pred.scalar_type()));
  const cudaStream_t stream = current_stream(pred);
  PYPOSE_OPS_DISPATCH_FLOATING(pred.scalar_type(), op, [&] {
    launch_loss_vec<scalar_t>(losses, dense, people, weight, options, shape, stream);
  });
  return losses;
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("heatmap_mse_loss", TORCH_BOX(&heatmap_mse_loss_cuda));
}

}  // namespace pypose_ops

// The backward of soft_argmax on CUDA: one kernel, one block per map.
#include "peaks/soft_argmax.h"

#include "common/vector.cuh"

namespace pypose_ops {
namespace {

using namespace peaks;

constexpr int kSoftGradientBlock = 256;

// A thread takes kVec neighbours of a row at a time.
template <typename scalar, int kVec>
__global__ void __launch_bounds__(kSoftGradientBlock) soft_argmax_backward_kernel(const SoftBackwardArguments<scalar> args) {
  using acc = acc_t<scalar>;
  const int64_t number = blockIdx.x;
  const int width = args.width;
  const int pixels = args.height * width;
  const scalar* __restrict__ map = args.maps + number * pixels;
  scalar* __restrict__ grad = args.grad + number * pixels;
  const acc highest = args.stats[2 * number];
  const acc sum = args.stats[2 * number + 1];
  const acc scale = sum > 0 ? args.temperature / sum : acc(0);
  const acc mean_x = args.coords[2 * number], mean_y = args.coords[2 * number + 1];
  const acc variance_x = args.variance[2 * number], variance_y = args.variance[2 * number + 1];
  const acc grad_x = args.grad_coords[2 * number], grad_y = args.grad_coords[2 * number + 1];
  const acc grad_xx = args.grad_variance[2 * number], grad_yy = args.grad_variance[2 * number + 1];
  const int index = static_cast<int>(args.index[number]);
  const Region region(args.window, index % width, index / width, width, args.height);

  const int packs = pixels / kVec;
  const int step_y = kSoftGradientBlock * kVec / width;
  const int step_x = kSoftGradientBlock * kVec - step_y * width;
  int y = static_cast<int>(threadIdx.x) * kVec / width;
  int x = static_cast<int>(threadIdx.x) * kVec - y * width;
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x); i < packs; i += kSoftGradientBlock) {
    Pack<scalar, kVec> out{};
    if (scale > 0 && region.meets(x, kVec, y)) {
      const auto pack = load_pack<kVec>(map + i * kVec);
#pragma unroll
      for (int j = 0; j < kVec; ++j) {
        const acc weight = exp(log_weight(static_cast<acc>(pack.v[j]), highest, args.temperature));
        const acc slope = axis_slope(acc(x + j) - mean_x, variance_x, grad_x, grad_xx) +
            axis_slope(acc(y) - mean_y, variance_y, grad_y, grad_yy);
        out.v[j] = static_cast<scalar>(region.has(x + j, y) ? scale * weight * slope : acc(0));
      }
    }
    store_pack(grad + i * kVec, out);
    x += step_x;
    y += step_y;
    if (x >= width) {
      x -= width;
      ++y;
    }
  }
}

template <typename scalar>
void launch_soft_argmax_backward(const SoftBackwardArguments<scalar>& args, const Tensor& heatmaps, int64_t maps) {
  const int vec = pack_width<scalar>(args.width, reinterpret_cast<uintptr_t>(args.maps));
  with_pack_width<scalar>(vec, [&](auto width) {
    launch(kSoft, soft_argmax_backward_kernel<scalar, width>, maps, kSoftGradientBlock, 0, current_stream(heatmaps), args);
  });
}

Tensor soft_argmax_backward_cuda(
    const Tensor& grad_coords, const Tensor& grad_variance, const Tensor& heatmaps, const Tensor& coords,
    const Tensor& variance, const Tensor& stats, const Tensor& index, double temperature, int64_t window) {
  check_soft(heatmaps, temperature, window);
  const DeviceGuard guard(heatmaps.get_device_index());
  SoftBackwardTensors tensors = {grad_coords, grad_variance, heatmaps, coords, variance, stats, index, heatmaps};
  tensors.check();
  tensors.allocate();
  const int64_t maps = index.numel();
  PYPOSE_OPS_CHECK(maps <= kMaxBlocks, kSoft, ": heatmaps must be at most ", kMaxBlocks, " maps, got ", maps);
  if (maps > 0) {
    PYPOSE_OPS_DISPATCH_FLOATING(heatmaps.scalar_type(), kSoft, [&] {
      launch_soft_argmax_backward(tensors.arguments<scalar_t>(temperature, window), heatmaps, maps);
    });
  }
  return tensors.grad;
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("_soft_argmax_backward", TORCH_BOX(&soft_argmax_backward_cuda));
}

}  // namespace pypose_ops

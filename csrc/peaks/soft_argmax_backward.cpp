// The backward of soft_argmax on the CPU: one thread takes whole maps, one after the other.
#include "peaks/soft_argmax.h"

#include <algorithm>
#include <vector>

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include "common/simd.h"
#include "peaks/soft_weights.h"

namespace pypose_ops {
namespace {

using namespace peaks;

template <typename scalar, typename acc>
void backward_map(const SoftBackwardArguments<scalar>& args, int64_t number, acc* slope_x) {
  const int width = args.width;
  const int pixels = args.height * width;
  const scalar* map = args.maps + number * pixels;
  scalar* grad = args.grad + number * pixels;
  const acc sum = args.stats[2 * number + 1];
  const acc highest = args.stats[2 * number];
  const acc temperature = args.temperature;
  const int index = static_cast<int>(args.index[number]);
  const Region region(args.window, index % width, index / width, width, args.height);
  if (!(sum > 0) || args.window > 0) {
    std::fill(grad, grad + pixels, simd::store<scalar>(0));
  }
  if (!(sum > 0)) {
    return;
  }
  const acc *mean = args.coords + 2 * number, *variance = args.variance + 2 * number;
  const acc *grad_mean = args.grad_coords + 2 * number, *grad_variance = args.grad_variance + 2 * number;
  for (int i = 0; i < region.width; ++i) {
    slope_x[i] = axis_slope(acc(region.left + i) - mean[0], variance[0], grad_mean[0], grad_variance[0]);
  }
  const acc scale = temperature / sum;
  const acc exponent = temperature * acc(kLog2E);
  for (int y = region.top; y < region.top + region.height; ++y) {
    const acc slope_y = axis_slope(acc(y) - mean[1], variance[1], grad_mean[1], grad_variance[1]);
    const scalar* __restrict__ row = map + y * width + region.left;
    scalar* __restrict__ out = grad + y * width + region.left;
    for (int i = 0; i < region.width; ++i) {
      const acc weight = weight_of<acc>(simd::load(row[i]), highest, exponent);
      out[i] = simd::store<scalar>(scale * weight * (slope_x[i] + slope_y));
    }
  }
}

template <typename scalar>
void soft_argmax_backward_kernel(const SoftBackwardArguments<scalar>& args, int64_t maps) {
  const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 15) / (int64_t{args.height} * args.width));
  torch::stable::parallel_for(0, maps, grain, [&](int64_t begin, int64_t end) {
    const FlushSubnormals flush;
    std::vector<acc_t<scalar>> slope_x(args.width);
    simd_call([&] {
      for (int64_t number = begin; number < end; ++number) {
        backward_map(args, number, slope_x.data());
      }
    });
  });
}

Tensor soft_argmax_backward_cpu(
    const Tensor& grad_coords, const Tensor& grad_variance, const Tensor& heatmaps, const Tensor& coords,
    const Tensor& variance, const Tensor& stats, const Tensor& index, double temperature, int64_t window) {
  check_soft(heatmaps, temperature, window);
  SoftBackwardTensors tensors = {grad_coords, grad_variance, heatmaps, coords, variance, stats, index, heatmaps};
  tensors.check();
  tensors.allocate();
  const int64_t maps = index.numel();
  if (maps > 0) {
    PYPOSE_OPS_DISPATCH_FLOATING(heatmaps.scalar_type(), kSoft, [&] {
      soft_argmax_backward_kernel(tensors.arguments<scalar_t>(temperature, window), maps);
    });
  }
  return tensors.grad;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "_soft_argmax_backward(Tensor grad_coords, Tensor grad_variance, Tensor heatmaps, Tensor coords, "
      "Tensor variance, Tensor stats, Tensor index, float temperature, int window) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("_soft_argmax_backward", TORCH_BOX(&soft_argmax_backward_cpu));
}

}  // namespace pypose_ops

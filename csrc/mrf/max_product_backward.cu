// The gradient of max_product on CUDA: a block stages a strip of columns, then of rows, of a message; one thread owns a
// line of it, and adds to that line only.
#include <tuple>

#include "mrf/max_product.h"
#include "mrf/tree_strips.cuh"

namespace pypose_ops {
namespace {

constexpr int kGradientLines = kWarpSize;

template <typename acc>
constexpr int64_t kStagedGradientBytes = 2 * sizeof(acc) + sizeof(int16_t);

// The gradients of possible max-marginals, and of the scores at the places. One thread per pixel.
template <typename acc>
__global__ void __launch_bounds__(kThreads) max_belief_gradient_kernel(
    acc* __restrict__ out, const acc* __restrict__ grad, const acc* __restrict__ max_marginals, const Shape shape) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index < shape.batch * shape.joints * shape.pixels()) {
    out[index] = is_possible(max_marginals[index]) ? grad[index] : acc(0);
  }
}

// One axis of a level, y first: what arrives at the targets of a line goes to their sources. maps (B, messages, H, W)
// receives the gradient of every source; rows is (B, count, H, W).
template <typename acc, bool kRows>
__global__ void __launch_bounds__(kThreads, 2) route_kernel(
    acc* maps, acc* rows, const StretchPartials partials, const acc* __restrict__ grads,
    const int16_t* __restrict__ steps, const acc* __restrict__ deformation, const __grid_constant__ IntTable table,
    const Level level, const StripMemory memory, const Shape shape) {
  const Tables t = tables_of(table, shape);
  const Strip<kRows, kGradientLines> strip(level, shape);
  const int64_t pixels = shape.pixels();
  acc* image = maps + strip.b * shape.messages() * pixels;
  acc* between = rows + strip.local * pixels;
  acc* in = reinterpret_cast<acc*>(memory.own());
  acc* sources = in + strip.size();
  int16_t* best = reinterpret_cast<int16_t*>(sources + strip.size());
  const int16_t* own_steps = steps + ((strip.b * shape.messages() + strip.i) * kSteps + (kRows ? 0 : 1)) * pixels;
  strip.each([&](int32_t line, int32_t k) {
    const int32_t at = strip.at(line, k);
    const int64_t pixel = strip.pixel(line, k);
    in[at] = kRows ? between[pixel]
                   : incoming_at(grads + strip.b * shape.joints * pixels, image, t, strip.i, pixel, pixels);
    best[at] = own_steps[pixel];
    sources[at] = 0;
  });
  __syncthreads();
  constexpr int axis = kRows ? 0 : 1;
  const Spring<acc> spring = spring_of(deformation, t.edge[strip.i], t.sign[strip.i], axis);
  StretchSums sums{0, 0};
  const int32_t line = static_cast<int32_t>(threadIdx.x);
  for (int32_t k = 0; line < strip.count && k < strip.n; ++k) {
    const int source = best[strip.at(line, k)];
    const acc grad = in[strip.at(line, k)];
    if (source >= 0 && grad != 0) {
      sources[strip.at(line, source)] += grad;
      sums.add(grad, spring.stretch(source, k));
    }
  }
  __syncthreads();
  acc* out = kRows ? image + strip.i * pixels : between;
  strip.each([&](int32_t line, int32_t k) { out[strip.pixel(line, k)] = sources[strip.at(line, k)]; });
  write_stretch_sums(partials, sums, strip, axis, shape);
}

// One thread per joint: its score's gradient goes to its place.
template <typename acc>
__global__ void __launch_bounds__(kThreads) score_gradient_kernel(
    acc* __restrict__ grads, const acc* __restrict__ grad_scores, const acc* __restrict__ coords, const Shape shape) {
  const int64_t map = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (map < shape.batch * shape.joints && coords[2 * map] >= 0) {
    const int64_t place =
        static_cast<int64_t>(coords[2 * map + 1]) * shape.width + static_cast<int64_t>(coords[2 * map]);
    grads[map * shape.pixels() + place] += grad_scores[map];
  }
}

template <typename acc>
void launch_backward(
    const Gradients& out, const Tensor& grad, const Tensor& grad_scores,
    const Tensor& max_marginals, const Tensor& coords, const Tensor& steps, const Tensor& deformation,
    const Schedule& schedule, const Shape& shape, cudaStream_t stream) {
  const LevelMemory<acc> memory(kMaxBackward, grad, schedule, shape, 1, stream);
  const IntTable& table = memory.table();
  const Tensor maps = empty_beside(grad, {shape.batch, shape.messages(), shape.height, shape.width});
  const StripLaunch<Strip<true, kGradientLines>> along_x(grad, schedule, shape, kStagedGradientBytes<acc>);
  const StripLaunch<Strip<false, kGradientLines>> along_y(grad, schedule, shape, kStagedGradientBytes<acc>);
  const StretchMemory stretch(grad, shape, along_x.strips, along_y.strips);
  acc* grads = out.unary.mutable_data_ptr<acc>();
  launch(
      kMaxBackward, max_belief_gradient_kernel<acc>, ceil_div(grad.numel(), kThreads), kThreads, 0, stream, grads,
      grad.const_data_ptr<acc>(), max_marginals.const_data_ptr<acc>(), shape);
  each_level(schedule, true, [&](const Level& level) {
    const auto pass = [&](const auto& along, auto kernel) {
      along.run(
          kMaxBackward, kernel, level, shape.batch, stream, maps.mutable_data_ptr<acc>(), memory.buffer(0),
          stretch.partials, grads, steps.const_data_ptr<int16_t>(), deformation.const_data_ptr<acc>(), table, level,
          along.parameter(), shape);
    };
    pass(along_y, route_kernel<acc, false>);
    pass(along_x, route_kernel<acc, true>);
  });
  finish_gradients<acc>(kMaxBackward, out, maps, stretch.partials, deformation, table, shape, stream);
  launch(
      kMaxBackward, score_gradient_kernel<acc>, ceil_div(shape.batch * shape.joints, kThreads), kThreads, 0, stream,
      grads, grad_scores.const_data_ptr<acc>(), coords.const_data_ptr<acc>(), shape);
}

std::tuple<Tensor, Tensor> max_product_backward_cuda(
    const Tensor& grad, const Tensor& grad_scores, const Tensor& max_marginals, const Tensor& coords,
    const Tensor& steps, const Tensor& deformation, std::vector<int64_t> edges, int64_t root) {
  const Shape shape = check_max_backward(grad, grad_scores, max_marginals, coords, steps, deformation, edges, root);
  const Schedule schedule = make_schedule(kMaxBackward, edges, shape.joints, root);
  const DeviceGuard guard(grad.get_device_index());
  const ScalarType type = max_marginals.scalar_type();
  const Gradients out = new_gradients(max_marginals, shape);
  if (shape.batch > 0) {
    const auto run = [&](auto zero) {
      launch_backward<decltype(zero)>(
          out, as_contiguous(grad), as_contiguous(grad_scores),
          as_contiguous(max_marginals), as_contiguous(coords), as_contiguous(steps),
          as_contiguous(deformation, type), schedule, shape, current_stream(grad));
    };
    type == ScalarType::Double ? run(double(0)) : run(float(0));
  }
  return {out.unary, out.deformation};
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("_max_product_backward", TORCH_BOX(&max_product_backward_cuda));
}

}  // namespace pypose_ops

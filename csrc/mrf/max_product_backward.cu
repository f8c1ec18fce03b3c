// The gradient of max_product on CUDA: one thread owns a column, then a row, of a message, and adds to its own line only.
#include <tuple>

#include "mrf/max_product.h"
#include "mrf/tree.cuh"

namespace pypose_ops {
namespace {

// The gradients of possible max-marginals, and of the scores at the places. One thread per pixel.
template <typename acc>
__global__ void __launch_bounds__(kThreads) max_belief_gradient_kernel(
    acc* __restrict__ out, const acc* __restrict__ grad, const acc* __restrict__ max_marginals, const Shape shape) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index < shape.batch * shape.joints * shape.pixels()) {
    out[index] = is_possible(max_marginals[index]) ? grad[index] : acc(0);
  }
}

// maps (B, messages, H, W) receives the gradient of every source; incoming and rows are (B, count, H, W).
template <typename acc>
__global__ void __launch_bounds__(kThreads) route_kernel(
    acc* maps, double* __restrict__ partial, const acc* __restrict__ grads, const int16_t* __restrict__ steps,
    const acc* __restrict__ deformation, const __grid_constant__ IntTable table, const Level level,
    acc* __restrict__ level_incoming, acc* __restrict__ level_rows, const Shape shape) {
  const Tables t = tables_of(table, shape);
  const Job job(level);
  const int64_t pixels = shape.pixels();
  const int64_t width = shape.width;
  acc* image = maps + job.b * shape.messages() * pixels;
  acc* incoming = level_incoming + job.local * pixels;
  acc* rows = level_rows + job.local * pixels;
  acc* out = image + job.i * pixels;
  const int16_t* from_column = steps + (job.b * shape.messages() + job.i) * kSteps * pixels;
  const int16_t* from_row = from_column + pixels;
  fill_incoming(incoming, grads + job.b * shape.joints * pixels, image, t, job.i, pixels);
  for (int64_t p = threadIdx.x; p < pixels; p += kThreads) {
    rows[p] = 0;
    out[p] = 0;
  }
  __syncthreads();
  StretchSums sums_x{0, 0}, sums_y{0, 0};
  const Spring<acc> along_y = spring_of(deformation, t.edge[job.i], t.sign[job.i], 1);
  for (int64_t x = threadIdx.x; x < width; x += kThreads) {
    for (int64_t y = 0; y < shape.height; ++y) {
      const int row = from_row[y * width + x];
      const acc grad = incoming[y * width + x];
      if (row >= 0 && grad != 0) {
        rows[row * width + x] += grad;
        sums_y.add(grad, along_y.stretch(row, static_cast<int>(y)));
      }
    }
  }
  __syncthreads();
  const Spring<acc> along_x = spring_of(deformation, t.edge[job.i], t.sign[job.i], 0);
  for (int64_t y = threadIdx.x; y < shape.height; y += kThreads) {
    for (int64_t x = 0; x < width; ++x) {
      const int column = from_column[y * width + x];
      const acc grad = rows[y * width + x];
      if (column >= 0 && grad != 0) {
        out[y * width + column] += grad;
        sums_x.add(grad, along_x.stretch(column, static_cast<int>(x)));
      }
    }
  }
  write_stretch_sums(partial, sums_x, sums_y, job, shape);
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
  const LevelMemory<acc> memory(kMaxBackward, grad, schedule, shape, 2, stream);
  const IntTable& table = memory.table();
  const Tensor maps = torch::stable::new_empty(grad, {shape.batch, shape.messages(), shape.height, shape.width});
  const Tensor partial = torch::stable::new_empty(grad, {shape.batch, shape.messages(), 4}, ScalarType::Double);
  acc* grads = out.unary.mutable_data_ptr<acc>();
  launch(
      kMaxBackward, max_belief_gradient_kernel<acc>, ceil_div(grad.numel(), kThreads), kThreads, 0, stream, grads,
      grad.const_data_ptr<acc>(), max_marginals.const_data_ptr<acc>(), shape);
  each_level(schedule, true, [&](const Level& level) {
    launch(
        kMaxBackward, route_kernel<acc>, shape.batch * level.count, kThreads, 0, stream, maps.mutable_data_ptr<acc>(),
        partial.mutable_data_ptr<double>(), grads, steps.const_data_ptr<int16_t>(), deformation.const_data_ptr<acc>(),
        table, level, memory.buffer(0), memory.buffer(1), shape);
  });
  finish_gradients<acc>(kMaxBackward, out, maps, partial, deformation, table, shape, stream);
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

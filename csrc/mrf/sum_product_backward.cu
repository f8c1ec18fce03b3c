// The gradient of sum_product on CUDA: one thread owns a source pixel, and adds up the targets of its line.
#include <tuple>

#include "mrf/sum_product.cuh"

namespace pypose_ops {
namespace {

// Sum over t of grad[t] exp(value - cost(s, t) - message[t]); `sums` also gets it times the stretch and its square.
template <typename acc>
__device__ __forceinline__ acc share_line(
    StretchSums& sums, const acc* grad, const acc* message, int64_t stride, int n, int s,
    acc value, const Spring<acc>& spring) {
  acc total = 0;
  for (int t = 0; t < n; ++t) {
    const acc part = grad[t * stride] * ::exp(value - spring.cost(s, t) - offset_of(message[t * stride]));
    total += part;
    sums.add(part, bounded_stretch(spring, s, t));
  }
  return total;
}

// What a target gives, divided by the sum of the terms that share_line takes from it: that of rounded logarithms is not
// 1, but off by their size times the rounding.
template <typename acc>
__device__ __forceinline__ acc normalised(
    acc grad, const acc* line, int64_t stride, int n, int t, acc message, const Spring<acc>& spring) {
  acc sum = 0;
  for (int s = 0; s < n; ++s) {
    sum += ::exp(line[s * stride] - spring.cost(s, t) - offset_of(message));
  }
  return sum > 0 ? grad / sum : acc(0);
}

// Memory of a level's messages, (B, count, H, W) each: their sources, after the pass along x, and the gradients of the
// messages and of what the pass along x left.
template <typename acc>
struct Scratch {
  acc* source;
  acc* rows;
  acc* at_targets;
  acc* at_rows;
};

template <typename T>
__global__ void __launch_bounds__(kThreads) sum_pass_back_kernel(
    acc_t<T>* maps, double* __restrict__ partial, const acc_t<T>* __restrict__ grads, const T* __restrict__ unary,
    const acc_t<T>* __restrict__ messages, const acc_t<T>* __restrict__ deformation,
    const __grid_constant__ IntTable table, const Level level, const Scratch<acc_t<T>> scratch, const Shape shape) {
  using acc = acc_t<T>;
  const Tables t = tables_of(table, shape);
  const Job job(level);
  const int64_t pixels = shape.pixels();
  const int64_t width = shape.width;
  acc* image = maps + job.b * shape.messages() * pixels;
  const acc* kept = messages + job.b * shape.messages() * pixels;
  const acc* message = kept + job.i * pixels;
  acc* source = scratch.source + job.local * pixels;
  acc* rows = scratch.rows + job.local * pixels;
  acc* at_targets = scratch.at_targets + job.local * pixels;
  acc* at_rows = scratch.at_rows + job.local * pixels;
  fill_source(source, unary + job.b * shape.joints * pixels, kept, t, job.i, pixels);
  fill_incoming(at_targets, grads + job.b * shape.joints * pixels, image, t, job.i, pixels);
  __syncthreads();
  const Spring<acc> along_x = spring_of(deformation, t.edge[job.i], t.sign[job.i], 0);
  const Spring<acc> along_y = spring_of(deformation, t.edge[job.i], t.sign[job.i], 1);
  pass_x(rows, source, along_x, shape);
  __syncthreads();
  for (int64_t p = threadIdx.x; p < pixels; p += kThreads) {
    const int64_t x = p % width;
    at_targets[p] = normalised(
        at_targets[p], rows + x, width, static_cast<int>(shape.height), static_cast<int>(p / width), message[p],
        along_y);
  }
  __syncthreads();
  StretchSums sums_x{0, 0}, sums_y{0, 0};
  for (int64_t p = threadIdx.x; p < pixels; p += kThreads) {
    const int64_t x = p % width;
    at_rows[p] = share_line(
        sums_y, at_targets + x, message + x, width, static_cast<int>(shape.height), static_cast<int>(p / width), rows[p],
        along_y);
  }
  __syncthreads();
  for (int64_t p = threadIdx.x; p < pixels; p += kThreads) {
    const int64_t first = p - p % width;
    at_rows[p] = normalised(
        at_rows[p], source + first, 1, static_cast<int>(width), static_cast<int>(p - first), rows[p], along_x);
  }
  __syncthreads();
  for (int64_t p = threadIdx.x; p < pixels; p += kThreads) {
    const int64_t first = p - p % width;
    image[job.i * pixels + p] = share_line(
        sums_x, at_rows + first, rows + first, 1, static_cast<int>(width), static_cast<int>(p - first), source[p],
        along_x);
  }
  write_stretch_sums(partial, sums_x, sums_y, job, shape);
}

// One block per joint of an image: the gradient of its belief. The marginals are made to add up to 1: those of rounded
// logarithms do not.
template <typename acc>
__global__ void __launch_bounds__(kThreads, 2) sum_belief_gradient_kernel(
    acc* __restrict__ out, const acc* __restrict__ grad, const acc* __restrict__ grad_partition,
    const acc* __restrict__ log_marginals, const int64_t root, const Shape shape) {
  __shared__ acc rest;
  const int64_t first = blockIdx.x * shape.pixels();
  double sum = 0;
  double total = 0;
  for (int64_t p = threadIdx.x; p < shape.pixels(); p += kThreads) {
    const acc logarithm = log_marginals[first + p];
    sum += is_possible(logarithm) ? static_cast<double>(grad[first + p]) : 0.0;
    total += static_cast<double>(::exp(logarithm));
  }
  sum = block_sum<kThreads>(sum);
  total = block_sum<kThreads>(total);
  if (threadIdx.x == 0) {
    const acc of_partition = blockIdx.x % shape.joints == root ? grad_partition[blockIdx.x / shape.joints] : acc(0);
    rest = total > 0 ? static_cast<acc>((static_cast<double>(of_partition) - sum) / total) : acc(0);
  }
  __syncthreads();
  for (int64_t p = threadIdx.x; p < shape.pixels(); p += kThreads) {
    const acc logarithm = log_marginals[first + p];
    out[first + p] = is_possible(logarithm) ? grad[first + p] + rest * ::exp(logarithm) : acc(0);
  }
}

template <typename T>
void launch_backward(
    const Gradients& out, const Tensor& grad, const Tensor& grad_partition,
    const Tensor& unary, const Tensor& log_marginals, const Tensor& messages, const Tensor& deformation,
    const Schedule& schedule, int64_t root, const Shape& shape, cudaStream_t stream) {
  using acc = acc_t<T>;
  const LevelMemory<acc> memory(kSumBackward, grad, schedule, shape, 4, stream);
  const IntTable& table = memory.table();
  const Tensor maps = torch::stable::new_empty(grad, {shape.batch, shape.messages(), shape.height, shape.width});
  const Tensor partial = torch::stable::new_empty(grad, {shape.batch, shape.messages(), 4}, ScalarType::Double);
  acc* grads = out.unary.mutable_data_ptr<acc>();
  const Scratch<acc> scratch{memory.buffer(0), memory.buffer(1), memory.buffer(2), memory.buffer(3)};
  launch(
      kSumBackward, sum_belief_gradient_kernel<acc>, shape.batch * shape.joints, kThreads, 0, stream, grads,
      grad.const_data_ptr<acc>(), grad_partition.const_data_ptr<acc>(), log_marginals.const_data_ptr<acc>(), root,
      shape);
  each_level(schedule, true, [&](const Level& level) {
    launch(
        kSumBackward, sum_pass_back_kernel<T>, shape.batch * level.count, kThreads, 0, stream,
        maps.mutable_data_ptr<acc>(), partial.mutable_data_ptr<double>(), grads, unary.const_data_ptr<T>(),
        messages.const_data_ptr<acc>(), deformation.const_data_ptr<acc>(), table, level, scratch, shape);
  });
  finish_gradients<acc>(kSumBackward, out, maps, partial, deformation, table, shape, stream);
}

std::tuple<Tensor, Tensor> sum_product_backward_cuda(
    const Tensor& grad, const Tensor& grad_partition, const Tensor& unary, const Tensor& log_marginals,
    const Tensor& messages, const Tensor& deformation, std::vector<int64_t> edges, int64_t root) {
  const Shape shape = check_sum_backward(grad, grad_partition, unary, log_marginals, messages, deformation, edges, root);
  const Schedule schedule = make_schedule(kSumBackward, edges, shape.joints, root);
  const DeviceGuard guard(grad.get_device_index());
  const Gradients out = new_gradients(log_marginals, shape);
  if (shape.batch > 0) {
    PYPOSE_OPS_DISPATCH_FLOATING(unary.scalar_type(), kSumBackward, [&] {
      launch_backward<scalar_t>(
          out, as_contiguous(grad), as_contiguous(grad_partition),
          as_contiguous(unary), as_contiguous(log_marginals),
          as_contiguous(messages), as_contiguous(deformation, log_marginals.scalar_type()), schedule, root,
          shape, current_stream(grad));
    });
  }
  return {out.unary, out.deformation};
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("_sum_product_backward", TORCH_BOX(&sum_product_backward_cuda));
}

}  // namespace pypose_ops

// The gradient of sum_product on CUDA: a block stages a strip of columns, then of rows, of a message; one thread owns a
// source pixel of it, and adds up the targets of its line.
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

// One axis of a level, y first, with rows and at_rows (B, count, H, W). Along y what arrives at the messages goes to the
// map between the passes, rows: at_rows. Along x that goes to the sources: maps (B, messages, H, W).
template <typename T, bool kRows>
__global__ void __launch_bounds__(kThreads, 2) sum_lines_back_kernel(
    acc_t<T>* maps, acc_t<T>* at_rows, const acc_t<T>* __restrict__ rows, const StretchPartials partials,
    const acc_t<T>* __restrict__ grads, const T* __restrict__ unary, const acc_t<T>* __restrict__ messages,
    const acc_t<T>* __restrict__ deformation, const __grid_constant__ IntTable table, const Level level,
    const StripMemory memory, const Shape shape) {
  using acc = acc_t<T>;
  const Tables t = tables_of(table, shape);
  const Strip<kRows, kLines> strip(level, shape);
  const int64_t pixels = shape.pixels();
  const int64_t image = strip.b * shape.messages() * pixels;
  const int64_t between = strip.local * pixels;
  acc* source = reinterpret_cast<acc*>(memory.own());
  acc* grad = source + strip.size();
  acc* message = grad + strip.size();
  strip.each([&](int32_t line, int32_t k) {
    const int32_t at = strip.at(line, k);
    const int64_t pixel = strip.pixel(line, k);
    const int64_t joints = strip.b * shape.joints * pixels;
    if (kRows) {
      source[at] = source_at(unary + joints, messages + image, t, strip.i, pixel, pixels);
      grad[at] = at_rows[between + pixel];
      message[at] = rows[between + pixel];
    } else {
      source[at] = rows[between + pixel];
      grad[at] = incoming_at(grads + joints, maps + image, t, strip.i, pixel, pixels);
      message[at] = messages[image + strip.i * pixels + pixel];
    }
  });
  __syncthreads();
  constexpr int axis = kRows ? 0 : 1;
  const Spring<acc> spring = spring_of(deformation, t.edge[strip.i], t.sign[strip.i], axis);
  strip.each([&](int32_t line, int32_t k) {
    const int32_t at = strip.at(line, k);
    grad[at] = normalised(grad[at], source + line, strip.kPitch, strip.n, k, message[at], spring);
  });
  __syncthreads();
  StretchSums sums{0, 0};
  acc* out = kRows ? maps + image + strip.i * pixels : at_rows + between;
  strip.each([&](int32_t line, int32_t k) {
    out[strip.pixel(line, k)] =
        share_line(sums, grad + line, message + line, strip.kPitch, strip.n, k, source[strip.at(line, k)], spring);
  });
  write_stretch_sums(partials, sums, strip, axis, shape);
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
  const LevelMemory<acc> memory(kSumBackward, grad, schedule, shape, 2, stream);
  const IntTable& table = memory.table();
  const Tensor maps = empty_beside(grad, {shape.batch, shape.messages(), shape.height, shape.width});
  const StripLaunch<Strip<true, kLines>> along_x(grad, schedule, shape, 3 * sizeof(acc));
  const StripLaunch<Strip<false, kLines>> along_y(grad, schedule, shape, 3 * sizeof(acc));
  const StretchMemory stretch(grad, shape, along_x.strips, along_y.strips);
  acc* grads = out.unary.mutable_data_ptr<acc>();
  acc* rows = memory.buffer(0);
  const acc* kept = messages.const_data_ptr<acc>();
  launch(
      kSumBackward, sum_belief_gradient_kernel<acc>, shape.batch * shape.joints, kThreads, 0, stream, grads,
      grad.const_data_ptr<acc>(), grad_partition.const_data_ptr<acc>(), log_marginals.const_data_ptr<acc>(), root,
      shape);
  each_level(schedule, true, [&](const Level& level) {
    along_x.run(
        kSumBackward, sum_lines_kernel<T, true>, level, shape.batch, stream, static_cast<acc*>(nullptr), rows, kept,
        unary.const_data_ptr<T>(), deformation.const_data_ptr<acc>(), table, level, along_x.parameter(), shape);
    const auto pass = [&](const auto& along, auto kernel) {
      along.run(
          kSumBackward, kernel, level, shape.batch, stream, maps.mutable_data_ptr<acc>(), memory.buffer(1), rows,
          stretch.partials, grads, unary.const_data_ptr<T>(), kept, deformation.const_data_ptr<acc>(), table, level,
          along.parameter(), shape);
    };
    pass(along_y, sum_lines_back_kernel<T, false>);
    pass(along_x, sum_lines_back_kernel<T, true>);
  });
  finish_gradients<acc>(kSumBackward, out, maps, stretch.partials, deformation, table, shape, stream);
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

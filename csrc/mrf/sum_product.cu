// sum_product on CUDA: one thread owns a pixel of a message.
#include <tuple>

#include "mrf/sum_product.cuh"

namespace pypose_ops {
namespace {

// source and rows are (B, count, H, W).
template <typename T>
__global__ void __launch_bounds__(kThreads) sum_messages_kernel(
    acc_t<T>* messages, const T* __restrict__ unary, const acc_t<T>* __restrict__ deformation,
    const __grid_constant__ IntTable table, const Level level, acc_t<T>* __restrict__ level_source,
    acc_t<T>* __restrict__ level_rows, const Shape shape) {
  using acc = acc_t<T>;
  const Tables t = tables_of(table, shape);
  const Job job(level);
  const int64_t pixels = shape.pixels();
  acc* maps = messages + job.b * shape.messages() * pixels;
  acc* source = level_source + job.local * pixels;
  acc* rows = level_rows + job.local * pixels;
  fill_source(source, unary + job.b * shape.joints * pixels, maps, t, job.i, pixels);
  __syncthreads();
  pass_x(rows, source, spring_of(deformation, t.edge[job.i], t.sign[job.i], 0), shape);
  __syncthreads();
  pass_y(maps + job.i * pixels, rows, spring_of(deformation, t.edge[job.i], t.sign[job.i], 1), shape);
}

// One block per joint of an image: its belief, less the logarithm of the sum of its exponentials.
template <typename T>
__global__ void __launch_bounds__(kThreads) marginals_kernel(
    acc_t<T>* __restrict__ log_marginals, acc_t<T>* __restrict__ log_partition, const acc_t<T>* __restrict__ messages,
    const T* __restrict__ unary, const __grid_constant__ IntTable table, const int64_t root, const Shape shape) {
  using acc = acc_t<T>;
  const Tables t = tables_of(table, shape);
  __shared__ acc total;
  const int64_t pixels = shape.pixels();
  const int64_t b = blockIdx.x / shape.joints;
  const int32_t joint = static_cast<int32_t>(blockIdx.x % shape.joints);
  acc* out = log_marginals + blockIdx.x * pixels;
  acc peak = -std::numeric_limits<acc>::infinity();
  for (int64_t p = threadIdx.x; p < pixels; p += kThreads) {
    out[p] = add_messages<false>(
        evidence(static_cast<acc>(unary[blockIdx.x * pixels + p])), messages + b * shape.messages() * pixels, t, joint,
        -1, p, pixels);
    peak = out[p] > peak ? out[p] : peak;
  }
  peak = block_max<kThreads>(peak);
  double sum = 0;
  for (int64_t p = threadIdx.x; is_possible(peak) && p < pixels; p += kThreads) {
    sum += static_cast<double>(::exp(out[p] - peak));
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) {
    total = is_possible(peak) ? peak + static_cast<acc>(::log(sum)) : peak;
    if (joint == root) {
      log_partition[b] = total;
    }
  }
  __syncthreads();
  for (int64_t p = threadIdx.x; is_possible(peak) && p < pixels; p += kThreads) {
    out[p] -= total;
  }
}

template <typename T>
void launch_sum_product(
    const char* op, const SumProductTensors& out, const Tensor& unary, const Tensor& deformation,
    const Schedule& schedule, int64_t root, const Shape& shape, cudaStream_t stream) {
  using acc = acc_t<T>;
  const LevelMemory<acc> memory(op, out.log_marginals, schedule, shape, 2, stream);
  const IntTable& table = memory.table();
  each_level(schedule, false, [&](const Level& level) {
    launch(
        op, sum_messages_kernel<T>, shape.batch * level.count, kThreads, 0, stream,
        out.messages.mutable_data_ptr<acc>(), unary.const_data_ptr<T>(), deformation.const_data_ptr<acc>(), table, level,
        memory.buffer(0), memory.buffer(1), shape);
  });
  launch(
      op, marginals_kernel<T>, shape.batch * shape.joints, kThreads, 0, stream,
      out.log_marginals.mutable_data_ptr<acc>(), out.log_partition.mutable_data_ptr<acc>(),
      out.messages.const_data_ptr<acc>(), unary.const_data_ptr<T>(), table, root, shape);
}

std::tuple<Tensor, Tensor, Tensor> sum_product_cuda(
    const Tensor& unary, std::vector<int64_t> edges, const Tensor& deformation, int64_t root) {
  constexpr const char* op = "sum_product";
  const Shape shape = check_inputs(op, unary, edges, deformation, root);
  const Schedule schedule = make_schedule(op, edges, shape.joints, root);
  const DeviceGuard guard(unary.get_device_index());
  const SumProductTensors out = new_sum_product(unary, shape);
  if (shape.batch > 0) {
    const Tensor dense = as_contiguous(unary);
    const Tensor springs = as_contiguous(deformation, acc_scalar_type(unary.scalar_type()));
    PYPOSE_OPS_DISPATCH_FLOATING(unary.scalar_type(), op, [&] {
      launch_sum_product<scalar_t>(op, out, dense, springs, schedule, root, shape, current_stream(unary));
    });
  }
  return {out.log_marginals, out.log_partition, out.messages};
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("sum_product", TORCH_BOX(&sum_product_cuda));
}

}  // namespace pypose_ops

// sum_product on CUDA: a block stages a strip of rows, then of columns, of a message; one thread owns a pixel of it.
#include <tuple>

#include "mrf/sum_product.cuh"

namespace pypose_ops {
namespace {

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
  const LevelMemory<acc> memory(op, out.log_marginals, schedule, shape, 1, stream);
  const IntTable& table = memory.table();
  const StripLaunch<Strip<true, kLines>> along_x(unary, schedule, shape, sizeof(acc));
  const StripLaunch<Strip<false, kLines>> along_y(unary, schedule, shape, sizeof(acc));
  acc* messages = out.messages.mutable_data_ptr<acc>();
  each_level(schedule, false, [&](const Level& level) {
    const auto pass = [&](const auto& along, auto kernel) {
      along.run(
          op, kernel, level, shape.batch, stream, messages, memory.buffer(0), messages, unary.const_data_ptr<T>(),
          deformation.const_data_ptr<acc>(), table, level, along.parameter(), shape);
    };
    pass(along_x, sum_lines_kernel<T, true>);
    pass(along_y, sum_lines_kernel<T, false>);
  });
  launch(
      op, marginals_kernel<T>, shape.batch * shape.joints, kThreads, 0, stream,
      out.log_marginals.mutable_data_ptr<acc>(), out.log_partition.mutable_data_ptr<acc>(),
      out.messages.const_data_ptr<acc>(), unary.const_data_ptr<T>(), table, root, shape);
}

std::tuple<Tensor, Tensor, Tensor> sum_product_cuda(
    const Tensor& unary, std::vector<int64_t> edges, const Tensor& deformation, int64_t root,
    bool keep_messages) {
  constexpr const char* op = "sum_product";
  const Shape shape = check_inputs(op, unary, edges, deformation, root);
  const Schedule schedule = make_schedule(op, edges, shape.joints, root);
  const DeviceGuard guard(unary.get_device_index());
  const SumProductTensors out = new_sum_product(unary, shape, true);
  if (shape.batch > 0) {
    const Tensor dense = as_contiguous(unary);
    const Tensor springs = as_contiguous(deformation, acc_scalar_type(unary.scalar_type()));
    PYPOSE_OPS_DISPATCH_FLOATING(unary.scalar_type(), op, [&] {
      launch_sum_product<scalar_t>(op, out, dense, springs, schedule, root, shape, current_stream(unary));
    });
  }
  const Tensor messages =
      keep_messages ? out.messages : empty_beside(out.messages, {shape.batch, 0, shape.height, shape.width});
  return {out.log_marginals, out.log_partition, messages};
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("sum_product", TORCH_BOX(&sum_product_cuda));
}

}  // namespace pypose_ops

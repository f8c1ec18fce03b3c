// max_product on CUDA: one thread owns a row, then a column, of a message.
#include "mrf/max_product.h"

#include <tuple>

#include "mrf/tree.cuh"

namespace pypose_ops {
namespace {

// Memory of a level's messages, (B, count, H, W) each.
template <typename acc>
struct Scratch {
  acc* source;
  acc* rows;
  acc* from;
  int16_t* hull;
};

template <typename T>
__global__ void __launch_bounds__(kThreads) max_messages_kernel(
    acc_t<T>* messages, int16_t* __restrict__ steps, const T* __restrict__ unary,
    const acc_t<T>* __restrict__ deformation, const __grid_constant__ IntTable table, const Level level,
    const Scratch<acc_t<T>> scratch, const Shape shape) {
  using acc = acc_t<T>;
  const Tables t = tables_of(table, shape);
  const Job job(level);
  const int64_t pixels = shape.pixels();
  acc* maps = messages + job.b * shape.messages() * pixels;
  acc* source = scratch.source + job.local * pixels;
  acc* rows = scratch.rows + job.local * pixels;
  acc* from = scratch.from + job.local * pixels;
  int16_t* hull = scratch.hull + job.local * pixels;
  int16_t* own_steps = steps + (job.b * shape.messages() + job.i) * kSteps * pixels;
  fill_source(source, unary + job.b * shape.joints * pixels, maps, t, job.i, pixels);
  __syncthreads();
  const Spring<acc> along_x = spring_of(deformation, t.edge[job.i], t.sign[job.i], 0);
  for (int64_t y = threadIdx.x; y < shape.height; y += kThreads) {
    const int64_t first = y * shape.width;
    transform_line<acc>(
        {source + first, rows + first, own_steps + first, 1, hull + first, from + first, 1,
         static_cast<int>(shape.width)},
        along_x);
  }
  __syncthreads();
  const Spring<acc> along_y = spring_of(deformation, t.edge[job.i], t.sign[job.i], 1);
  acc* out = maps + job.i * pixels;
  for (int64_t x = threadIdx.x; x < shape.width; x += kThreads) {
    transform_line<acc>(
        {rows + x, out + x, own_steps + pixels + x, shape.width, hull + x, from + x, shape.width,
         static_cast<int>(shape.height)},
        along_y);
  }
}

// One thread per pixel of a joint.
template <typename T>
__global__ void __launch_bounds__(kThreads) max_beliefs_kernel(
    acc_t<T>* __restrict__ beliefs, const acc_t<T>* __restrict__ messages, const T* __restrict__ unary,
    const __grid_constant__ IntTable table, const Shape shape) {
  using acc = acc_t<T>;
  const Tables t = tables_of(table, shape);
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= shape.batch * shape.joints * shape.pixels()) {
    return;
  }
  const int64_t map = index / shape.pixels();
  beliefs[index] = add_messages<false>(
      evidence(static_cast<acc>(unary[index])),
      messages + map / shape.joints * shape.messages() * shape.pixels(), t, static_cast<int32_t>(map % shape.joints),
      -1, index % shape.pixels(), shape.pixels());
}

// One block per image: the root's highest pixel, the first of equals, and the pose from there.
template <typename T>
__global__ void __launch_bounds__(kThreads) decode_kernel(
    acc_t<T>* __restrict__ coords, acc_t<T>* __restrict__ scores, const acc_t<T>* __restrict__ beliefs,
    const T* __restrict__ unary, const int16_t* __restrict__ steps, const __grid_constant__ IntTable table,
    const int64_t root, const Shape shape) {
  using acc = acc_t<T>;
  const Tables t = tables_of(table, shape);
  const int64_t b = blockIdx.x;
  const acc* map = beliefs + (b * shape.joints + root) * shape.pixels();
  constexpr int kNone = std::numeric_limits<int>::max();
  Indexed<acc> best{-std::numeric_limits<acc>::infinity(), kNone};
  for (int64_t p = threadIdx.x; p < shape.pixels(); p += kThreads) {
    if (map[p] > best.value) {
      best = {map[p], static_cast<int>(p)};
    }
  }
  best = block_best<kThreads>(best);
  if (threadIdx.x == 0) {
    decode(
        coords + b * shape.joints * 2, scores + b * shape.joints, unary + b * shape.joints * shape.pixels(),
        steps + b * shape.messages() * kSteps * shape.pixels(), t, shape, best.index == kNone ? -1 : best.index);
  }
}

template <typename T>
void launch_max_product(
    const char* op, const MaxProductTensors& out, const Tensor& unary, const Tensor& deformation,
    const Schedule& schedule, int64_t root, const Shape& shape, cudaStream_t stream) {
  using acc = acc_t<T>;
  const LevelMemory<acc> memory(op, out.max_marginals, schedule, shape, 3, stream);
  const IntTable& table = memory.table();
  const Tensor messages =
      torch::stable::new_empty(out.max_marginals, {shape.batch, shape.messages(), shape.height, shape.width});
  const int64_t positions = memory.size;
  const Tensor hull = torch::stable::new_empty(unary, {positions}, ScalarType::Short);
  const Scratch<acc> scratch{memory.buffer(0), memory.buffer(1), memory.buffer(2), hull.mutable_data_ptr<int16_t>()};
  each_level(schedule, false, [&](const Level& level) {
    launch(
        op, max_messages_kernel<T>, shape.batch * level.count, kThreads, 0, stream, messages.mutable_data_ptr<acc>(),
        out.steps.mutable_data_ptr<int16_t>(), unary.const_data_ptr<T>(), deformation.const_data_ptr<acc>(), table, level,
        scratch, shape);
  });
  launch(
      op, max_beliefs_kernel<T>, ceil_div(out.max_marginals.numel(), kThreads), kThreads, 0, stream,
      out.max_marginals.mutable_data_ptr<acc>(), messages.const_data_ptr<acc>(), unary.const_data_ptr<T>(), table, shape);
  launch(
      op, decode_kernel<T>, shape.batch, kThreads, 0, stream, out.coords.mutable_data_ptr<acc>(),
      out.scores.mutable_data_ptr<acc>(), out.max_marginals.const_data_ptr<acc>(), unary.const_data_ptr<T>(),
      out.steps.const_data_ptr<int16_t>(), table, root, shape);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> max_product_cuda(
    const Tensor& unary, std::vector<int64_t> edges, const Tensor& deformation, int64_t root) {
  constexpr const char* op = "max_product";
  const Shape shape = check_inputs(op, unary, edges, deformation, root);
  const Schedule schedule = make_schedule(op, edges, shape.joints, root);
  const DeviceGuard guard(unary.get_device_index());
  const MaxProductTensors out = new_max_product(unary, shape);
  if (shape.batch > 0) {
    const Tensor dense = as_contiguous(unary);
    const Tensor springs = as_contiguous(deformation, acc_scalar_type(unary.scalar_type()));
    PYPOSE_OPS_DISPATCH_FLOATING(unary.scalar_type(), op, [&] {
      launch_max_product<scalar_t>(op, out, dense, springs, schedule, root, shape, current_stream(unary));
    });
  }
  return {out.max_marginals, out.coords, out.scores, out.steps};
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("max_product", TORCH_BOX(&max_product_cuda));
}

}  // namespace pypose_ops

// max_product on CUDA: a block stages a strip of rows, then of columns, of a message; one thread owns a line of it.
#include "mrf/max_product.h"

#include <tuple>

#include "mrf/tree_strips.cuh"

namespace pypose_ops {
namespace {

constexpr int kLines = kWarpSize;

template <typename acc>
constexpr int64_t kStagedBytes = 2 * sizeof(acc) + 2 * sizeof(int16_t);

// Along x: rows (B, count, W, H) receives the level's messages after the pass, transposed, so that neighbouring lines
// are neighbours in memory. Along y: from there to the messages.
template <typename T, bool kRows>
__global__ void __launch_bounds__(kThreads) max_lines_kernel(
    acc_t<T>* messages, acc_t<T>* rows, int16_t* __restrict__ steps, const T* __restrict__ unary,
    const acc_t<T>* __restrict__ deformation, const __grid_constant__ IntTable table, const Level level,
    const StripMemory memory, const Shape shape) {
  using acc = acc_t<T>;
  const Tables t = tables_of(table, shape);
  const Strip<kRows, kLines> strip(level, shape);
  const int64_t pixels = shape.pixels();
  acc* maps = messages + strip.b * shape.messages() * pixels;
  acc* across = rows + strip.local * pixels;
  acc* in = reinterpret_cast<acc*>(memory.own());
  acc* from = in + strip.size();
  int16_t* hull = reinterpret_cast<int16_t*>(from + strip.size());
  int16_t* best = hull + strip.size();
  strip.template each<true>([&](int32_t line, int32_t k) {
    in[strip.at(line, k)] = kRows
        ? source_at(unary + strip.b * shape.joints * pixels, maps, t, strip.i, strip.pixel(line, k), pixels)
        : across[(strip.first + line) * shape.height + k];
  });
  __syncthreads();
  const int32_t line = static_cast<int32_t>(threadIdx.x);
  if (line < strip.count) {
    acc* out = kRows ? across + strip.first + line : maps + strip.i * pixels + strip.first + line;
    transform_line<acc>(
        {in + line, out, best + line, strip.kPitch, kRows ? shape.height : shape.width, hull + line, from + line,
         strip.kPitch, strip.n},
        spring_of(deformation, t.edge[strip.i], t.sign[strip.i], kRows ? 0 : 1));
  }
  __syncthreads();
  int16_t* own_steps = steps + ((strip.b * shape.messages() + strip.i) * kSteps + (kRows ? 0 : 1)) * pixels;
  strip.each([&](int32_t line, int32_t k) { own_steps[strip.pixel(line, k)] = best[strip.at(line, k)]; });
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
        steps + b * shape.messages() * kSteps * shape.pixels(), false, t, shape, best.index == kNone ? -1 : best.index);
  }
}

template <typename T>
void launch_max_product(
    const char* op, const MaxProductTensors& out, const Tensor& unary, const Tensor& deformation,
    const Schedule& schedule, int64_t root, const Shape& shape, cudaStream_t stream) {
  using acc = acc_t<T>;
  const LevelMemory<acc> memory(op, out.max_marginals, schedule, shape, 1, stream);
  const IntTable& table = memory.table();
  const StripLaunch<Strip<true, kLines>> along_x(unary, schedule, shape, kStagedBytes<acc>);
  const StripLaunch<Strip<false, kLines>> along_y(unary, schedule, shape, kStagedBytes<acc>);
  const Tensor messages =
      empty_beside(out.max_marginals, {shape.batch, shape.messages(), shape.height, shape.width});
  each_level(schedule, false, [&](const Level& level) {
    const auto pass = [&](const auto& along, auto kernel) {
      along.run(
          op, kernel, level, shape.batch, stream, messages.mutable_data_ptr<acc>(), memory.buffer(0),
          out.steps.mutable_data_ptr<int16_t>(), unary.const_data_ptr<T>(), deformation.const_data_ptr<acc>(), table,
          level, along.parameter(), shape);
    };
    pass(along_x, max_lines_kernel<T, true>);
    pass(along_y, max_lines_kernel<T, false>);
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
    const Tensor& unary, std::vector<int64_t> edges, const Tensor& deformation, int64_t root,
    bool keep_steps) {
  constexpr const char* op = "max_product";
  const Shape shape = check_inputs(op, unary, edges, deformation, root);
  const Schedule schedule = make_schedule(op, edges, shape.joints, root);
  const DeviceGuard guard(unary.get_device_index());
  const MaxProductTensors out = new_max_product(unary, shape, true);
  if (shape.batch > 0) {
    const Tensor dense = as_contiguous(unary);
    const Tensor springs = as_contiguous(deformation, acc_scalar_type(unary.scalar_type()));
    PYPOSE_OPS_DISPATCH_FLOATING(unary.scalar_type(), op, [&] {
      launch_max_product<scalar_t>(op, out, dense, springs, schedule, root, shape, current_stream(unary));
    });
  }
  const Tensor steps =
      keep_steps ? out.steps : empty_beside(out.steps, {shape.batch, 0, kSteps, shape.height, shape.width});
  return {out.max_marginals, out.coords, out.scores, steps};
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("max_product", TORCH_BOX(&max_product_cuda));
}

}  // namespace pypose_ops

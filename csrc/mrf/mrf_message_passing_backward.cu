#include <tuple>

#include "mrf/mrf_message_passing.h"
#include "mrf/mrf_tiles.cuh"

namespace pypose_ops {
namespace {

// See mrf_message_passing_backward.cpp for the formulas. The edges, ordered by source, are handled in chunks whose
// slopes q = grad / message fit into memory of the size of grad.
struct Chunk {
  int32_t first, count;  // edges of the table
};

// One block owns one tile of one slope map (chunk, B).
template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocks<acc_t<T>>) slopes_kernel(
    acc_t<T>* __restrict__ slopes, const acc_t<T>* __restrict__ grad, const T* __restrict__ unary,
    const uint32_t* __restrict__ masks, const acc_t<T>* __restrict__ prior, const acc_t<T>* __restrict__ base,
    const acc_t<T>* __restrict__ bias, const __grid_constant__ IntTable ints, const Chunk chunk, const Shape shape,
    const Tiles tiles, const acc_t<T> floor) {
  using acc = acc_t<T>;
  const EdgeTable table = EdgeTable::of(ints, shape.sources, shape.edges);
  __shared__ TileShared<acc> shared;
  const int64_t map = blockIdx.x / tiles.count;
  const int32_t i = chunk.first + static_cast<int32_t>(map / shape.batch);
  const OutputTile tile(map % shape.batch, static_cast<int32_t>(blockIdx.x % tiles.count), tiles);
  const int64_t p = table.prior[i];
  const int64_t edge = table.edge[i];
  acc sums[kQuad];
  sum_active(
      sums, shared, unary, masks, prior + p * shape.kernel_height * shape.kernel_width, table.source[i], tile, shape,
      tiles, floor);
#pragma unroll
  for (int c = 0; c < kQuad; ++c) {
    if (tile.y < shape.height && tile.x + c < shape.width) {
      const int64_t pixel = tile.y * shape.width + tile.x + c;
      const acc message =
          sums[c] + (base[p * shape.pixels() + pixel] +
                     usable(bias[shape.bias_maps ? edge * shape.pixels() + pixel : edge]));
      const acc incoming = grad[(tile.b * shape.targets + table.target[i]) * shape.pixels() + pixel];
      slopes[map * shape.pixels() + pixel] = log_slope(incoming, message);
    }
  }
}

// One thread per pixel of a slope map (chunk, B), from messages (B, E, H, W) that were kept.
template <typename acc>
__global__ void __launch_bounds__(kThreads) kept_slopes_kernel(
    acc* __restrict__ slopes, const acc* __restrict__ grad, const acc* __restrict__ messages,
    const __grid_constant__ IntTable ints, const Chunk chunk, const Shape shape) {
  const EdgeTable table = EdgeTable::of(ints, shape.sources, shape.edges);
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= chunk.count * shape.batch * shape.pixels()) {
    return;
  }
  const int64_t pixel = index % shape.pixels();
  const int64_t map = index / shape.pixels();
  const int64_t b = map % shape.batch;
  const int32_t i = chunk.first + static_cast<int32_t>(map / shape.batch);
  slopes[index] = log_slope(
      grad[(b * shape.targets + table.target[i]) * shape.pixels() + pixel],
      messages[(b * shape.edges + table.edge[i]) * shape.pixels() + pixel]);
}

// One thread per pixel of an edge: totals (chunk, H, W) = the slopes added up over the images, which is the gradient of
// a bias map.
template <typename acc>
__global__ void __launch_bounds__(kThreads) totals_kernel(
    acc* __restrict__ totals, acc* __restrict__ grad_bias, const acc* __restrict__ slopes,
    const acc* __restrict__ bias, const __grid_constant__ IntTable ints, const Chunk chunk, const Shape shape) {
  const EdgeTable table = EdgeTable::of(ints, shape.sources, shape.edges);
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= chunk.count * shape.pixels()) {
    return;
  }
  const int64_t pixel = index % shape.pixels();
  const int64_t e = index / shape.pixels();
  acc sum = 0;
  for (int64_t b = 0; b < shape.batch; ++b) {
    sum += slopes[(e * shape.batch + b) * shape.pixels() + pixel];
  }
  totals[index] = sum;
  if (grad_bias && shape.bias_maps) {
    const int64_t at = table.edge[chunk.first + e] * shape.pixels() + pixel;
    grad_bias[at] = is_usable(bias[at]) ? sum : acc(0);
  }
}

// One block per edge: the gradient of its bias.
template <typename acc>
__global__ void __launch_bounds__(kThreads) bias_gradient_kernel(
    acc* __restrict__ grad_bias, const acc* __restrict__ totals, const acc* __restrict__ bias,
    const __grid_constant__ IntTable ints, const Chunk chunk, const Shape shape) {
  const EdgeTable table = EdgeTable::of(ints, shape.sources, shape.edges);
  double sum = 0;
  for (int64_t pixel = threadIdx.x; pixel < shape.pixels(); pixel += kThreads) {
    sum += static_cast<double>(totals[blockIdx.x * shape.pixels() + pixel]);
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) {
    const int64_t edge = table.edge[chunk.first + static_cast<int32_t>(blockIdx.x)];
    grad_bias[edge] = is_usable(bias[edge]) ? static_cast<acc>(sum) : acc(0);
  }
}

// One block owns one tile of the displacements of one edge, and adds the active pixels of all images to the share of the
// floor, boxes (chunk, 2 reach + 1, 2 reach + 1).
template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocks<acc_t<T>>) prior_gradient_kernel(
    acc_t<T>* __restrict__ grad_prior, const acc_t<T>* __restrict__ boxes, const acc_t<T>* __restrict__ slopes,
    const T* __restrict__ unary, const uint32_t* __restrict__ masks, const acc_t<T>* __restrict__ prior,
    const __grid_constant__ IntTable ints, const Chunk chunk, const Shape shape, const Tiles tiles,
    const Tiles kernel_tiles, const acc_t<T> floor) {
  using acc = acc_t<T>;
  const EdgeTable table = EdgeTable::of(ints, shape.sources, shape.edges);
  __shared__ TileShared<acc> shared;
  const int32_t e = static_cast<int32_t>(blockIdx.x / kernel_tiles.count);
  const int32_t i = chunk.first + e;
  const OutputTile out(0, static_cast<int32_t>(blockIdx.x % kernel_tiles.count), kernel_tiles);
  const int32_t reach_y = static_cast<int32_t>(shape.reach_y);
  const int32_t reach_x = static_cast<int32_t>(shape.reach_x);
  const int32_t height = static_cast<int32_t>(shape.height);
  const int32_t width = static_cast<int32_t>(shape.width);
  acc sums[kQuad] = {};
  for (int64_t b = 0; b < shape.batch; ++b) {
    const int64_t map = b * shape.sources + table.source[i];
    const acc* slope = slopes + (e * shape.batch + b) * shape.pixels();
    for (int32_t tile = 0; tile < tiles.count; ++tile) {
      const uint32_t* words = masks + (map * tiles.count + tile) * kMaskWords;
      const ActiveRows rows = active_rows(words);
      // Window row 0, column 0 in the map.
      const int32_t top = tiles.row(tile) + out.row - reach_y;
      const int32_t left = tiles.column(tile) + out.column - reach_x;
      if (rows.count == 0 || top >= height || top + kWindowRows <= 0 || left >= width || left + kWindowColumns <= 0) {
        continue;  // the same for all threads
      }
      __syncthreads();
      list_quads(shared, unary + map * shape.pixels(), words, tiles.row(tile), tiles.column(tile), shape, floor);
      fill_window(shared, rows.first, rows.last + kTileRows - 1, [&](int r, int k) {
        const int32_t y = top + r;
        const int32_t x = left + k;
        return y >= 0 && y < height && x >= 0 && x < width ? slope[static_cast<int64_t>(y) * width + x] : acc(0);
      });
      __syncthreads();
      add_quads<false>(sums, shared, rows.count);
    }
  }
  const int32_t kernel_rows = 2 * reach_y + 1;
  const int32_t kernel_columns = 2 * reach_x + 1;
  const int64_t kernel = shape.kernel_height * shape.kernel_width;
#pragma unroll
  for (int c = 0; c < kQuad; ++c) {
    if (out.y < kernel_rows && out.x + c < kernel_columns) {
      const int64_t at = (shape.kernel_height / 2 - reach_y + out.y) * shape.kernel_width + shape.kernel_width / 2 -
          reach_x + out.x + c;
      const acc box = boxes[(static_cast<int64_t>(e) * kernel_rows + out.y) * kernel_columns + out.x + c];
      grad_prior[table.edge[i] * kernel + at] =
          is_usable(prior[table.prior[i] * kernel + at]) ? box + sums[c] : acc(0);
    }
  }
}

constexpr int kParts = 4;  // blocks that share the quads of a tile

// One warp owns one active quad of one unary map (B, V): the lanes run over the slopes that its pixels reach, through
// the chunk's edges from this source.
template <typename T>
__global__ void __launch_bounds__(kThreads, 2) unary_gradient_kernel(
    acc_t<T>* __restrict__ grad_unary, const acc_t<T>* __restrict__ slopes, const T* __restrict__ unary,
    const uint32_t* __restrict__ masks, const acc_t<T>* __restrict__ prior, const __grid_constant__ IntTable ints,
    const Chunk chunk, const Shape shape, const Tiles tiles, const acc_t<T> floor) {
  using acc = acc_t<T>;
  const EdgeTable table = EdgeTable::of(ints, shape.sources, shape.edges);
  const int part = static_cast<int>(blockIdx.x % kParts);
  const int32_t tile = static_cast<int32_t>(blockIdx.x / kParts % tiles.count);
  const int64_t map = blockIdx.x / kParts / tiles.count;
  const int32_t v = static_cast<int32_t>(map % shape.sources);
  const int64_t b = map / shape.sources;
  const int32_t begin = max(table.begin[v], chunk.first);
  const int32_t end = min(table.begin[v + 1], chunk.first + chunk.count);
  const uint32_t* words = masks + (map * tiles.count + tile) * kMaskWords;
  const int32_t reach_y = static_cast<int32_t>(shape.reach_y);
  const int32_t reach_x = static_cast<int32_t>(shape.reach_x);
  const int32_t height = static_cast<int32_t>(shape.height);
  const int32_t width = static_cast<int32_t>(shape.width);
  const int lane = threadIdx.x % kWarpSize;
  int rank = 0;
  for (int q = 0; begin < end && q < kThreads; ++q) {
    if (!(words[q / kWarpSize] >> (q % kWarpSize) & 1u) ||
        rank++ % (kParts * kWarps) != part * kWarps + static_cast<int>(threadIdx.x) / kWarpSize) {
      continue;  // the same for all lanes
    }
    const int32_t y = tiles.row(tile) + q / kQuadsPerRow;
    const int32_t x = tiles.column(tile) + q % kQuadsPerRow * kQuad;
    acc sums[kQuad] = {};
    for (int32_t i = begin; i < end; ++i) {
      const acc* slope = slopes + ((i - chunk.first) * shape.batch + b) * shape.pixels();
      const acc* kernel = prior + table.prior[i] * shape.kernel_height * shape.kernel_width;
      for (int32_t r = max(0, y - reach_y); r <= min(height - 1, y + reach_y); ++r) {
        const acc* weights = kernel + (shape.kernel_height / 2 + r - y) * shape.kernel_width + shape.kernel_width / 2;
        const int32_t last = min(width - 1, x + kQuad - 1 + reach_x);
        for (int32_t c = max(0, x - reach_x) + lane; c <= last; c += kWarpSize) {
          const acc q_value = slope[static_cast<int64_t>(r) * width + c];
#pragma unroll
          for (int s = 0; s < kQuad; ++s) {
            const int32_t dx = c - x - s;
            sums[s] += dx >= -reach_x && dx <= reach_x ? usable(weights[dx]) * q_value : acc(0);
          }
        }
      }
    }
#pragma unroll
    for (int s = 0; s < kQuad; ++s) {
      const acc sum = warp_sum(sums[s]);
      if (lane == 0 && x + s < width) {
        const int64_t at = map * shape.pixels() + static_cast<int64_t>(y) * width + x + s;
        if (active_part(static_cast<acc>(unary[at]), floor) > 0) {
          grad_unary[at] += sum;  // the chunks follow each other on the stream
        }
      }
    }
  }
}

// One thread per weight of a prior: edges that share it add up in their order.
template <typename acc>
__global__ void __launch_bounds__(kThreads) shared_priors_kernel(
    acc* __restrict__ grad_prior, const acc* __restrict__ per_edge, const __grid_constant__ IntTable ints,
    const Shape shape, const int64_t kernel, const int64_t count) {
  const EdgeTable table = EdgeTable::of(ints, shape.sources, shape.edges);
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= count) {
    return;
  }
  acc sum = 0;
  for (int64_t i = 0; i < shape.edges; ++i) {
    if (table.prior[i] == index / kernel) {
      sum += per_edge[table.edge[i] * kernel + index % kernel];
    }
  }
  grad_prior[index] = sum;
}

template <typename T>
struct Backward {
  using acc = acc_t<T>;
  const char* op;
  Tensor memory;  // where to allocate
  const T* unary;
  const acc* grad;
  const acc* messages;  // null where they were not kept
  const acc* prior;
  const acc* bias;
  acc* grad_unary;  // null where not wanted
  acc* grad_prior;  // one kernel per edge
  acc* grad_bias;
  const uint32_t* masks;
  const acc* base;
  acc* slopes;
  acc* totals;
  acc* boxes;
  IntTable table;
  Shape shape;
  Tiles tiles;
  acc floor;
  cudaStream_t stream;

  void run(const Chunk& chunk) const {
    const int64_t maps = chunk.count * shape.batch;
    if (messages) {
      launch(
          op, kept_slopes_kernel<acc>, ceil_div(maps * shape.pixels(), kThreads), kThreads, 0, stream, slopes, grad,
          messages, table, chunk, shape);
    } else {
      launch(
          op, slopes_kernel<T>, maps * tiles.count, kThreads, 0, stream, slopes, grad, unary, masks, prior, base, bias,
          table, chunk, shape, tiles, floor);
    }
    if (grad_unary) {
      launch(
          op, unary_gradient_kernel<T>, shape.batch * shape.sources * tiles.count * kParts, kThreads, 0, stream,
          grad_unary, slopes, unary, masks, prior, table, chunk, shape, tiles, floor);
    }
    if (grad_prior || grad_bias) {
      launch(
          op, totals_kernel<acc>, ceil_div(chunk.count * shape.pixels(), kThreads), kThreads, 0, stream, totals,
          grad_bias, slopes, bias, table, chunk, shape);
    }
    if (grad_bias && !shape.bias_maps) {
      launch(
          op, bias_gradient_kernel<acc>, chunk.count, kThreads, 0, stream, grad_bias, totals, bias, table, chunk,
          shape);
    }
    if (grad_prior) {
      run_prior(chunk);
    }
  }

 private:
  void run_prior(const Chunk& chunk) const {
    const auto narrow = [](int64_t n) { return static_cast<int32_t>(n); };
    const int64_t rows = 2 * shape.reach_y + 1;
    const int64_t columns = 2 * shape.reach_x + 1;
    const BoxSource<acc> source{totals, shape.pixels(), shape.width, narrow(shape.height), narrow(shape.width)};
    const BoxShape box{narrow(rows),         narrow(columns),
                       narrow(shape.height), narrow(shape.width),
                       narrow(shape.height - 1 - shape.reach_y), narrow(shape.width - 1 - shape.reach_x)};
    launch_box_sums<acc, false>(op, memory, boxes, rows * columns, columns, source, box, chunk.count, floor, stream);
    const Tiles kernel_tiles = Tiles::of(rows, columns);
    launch(
        op, prior_gradient_kernel<T>, static_cast<int64_t>(chunk.count) * kernel_tiles.count, kThreads, 0, stream,
        grad_prior, boxes, slopes, unary, masks, prior, table, chunk, shape, tiles, kernel_tiles, floor);
  }
};

template <typename T>
void launch_backward(
    const Tensor& grad, const std::optional<Tensor>& messages, const Tensor& unary, const Tensor& prior,
    const Tensor& bias, const Tensor& grad_unary, const Tensor& grad_prior, const Tensor& grad_bias,
    const std::vector<int64_t>& edges, const std::vector<int64_t>& prior_index, double floor, const Shape& shape, cudaStream_t stream) {
  using acc = acc_t<T>;
  Backward<T> work;
  work.op = "_mrf_message_passing_backward";
  work.memory = grad;
  work.shape = shape;
  work.tiles = Tiles::of(shape.height, shape.width);
  work.floor = static_cast<acc>(floor);
  work.stream = stream;
  const HostTable table(work.op, grad, edge_values(edges, prior_index, shape.sources, 0), stream);
  work.table = table.table;
  const Tensor masks = new_ints(grad, shape.batch * shape.sources * work.tiles.count * kMaskWords);
  uint32_t* mask_data = static_cast<uint32_t*>(masks.mutable_data_ptr());
  launch_masks(work.op, mask_data, unary.const_data_ptr<T>(), shape, work.tiles, work.floor, stream);
  const Tensor base = empty_beside(grad, {shape.priors, shape.height, shape.width});
  if (!messages) {
    launch_base(work.op, base, prior.const_data_ptr<acc>(), shape, work.floor, stream);
  }

  const int64_t most = std::min(shape.edges, shape.targets);
  const Tensor slopes = empty_beside(grad, {most, shape.batch, shape.height, shape.width});
  const Tensor totals = empty_beside(grad, {most, shape.height, shape.width});
  const Tensor boxes = empty_beside(grad, {most, 2 * shape.reach_y + 1, 2 * shape.reach_x + 1});
  const bool is_shared = !prior_index.empty() && grad_prior.numel() > 0;
  const Tensor per_edge = is_shared
      ? zeros_beside(grad, {shape.edges, shape.kernel_height, shape.kernel_width})
      : grad_prior;
  const auto pointer = [](const Tensor& tensor) {
    return tensor.numel() > 0 ? tensor.mutable_data_ptr<acc>() : nullptr;
  };
  work.unary = unary.const_data_ptr<T>();
  work.grad = grad.const_data_ptr<acc>();
  work.messages = messages ? messages->const_data_ptr<acc>() : nullptr;
  work.prior = prior.const_data_ptr<acc>();
  work.bias = bias.const_data_ptr<acc>();
  work.grad_unary = pointer(grad_unary);
  work.grad_prior = pointer(per_edge);
  work.grad_bias = pointer(grad_bias);
  work.masks = mask_data;
  work.base = base.const_data_ptr<acc>();
  work.slopes = slopes.mutable_data_ptr<acc>();
  work.totals = totals.mutable_data_ptr<acc>();
  work.boxes = boxes.mutable_data_ptr<acc>();
  for (int64_t first = 0; first < shape.edges; first += most) {
    work.run({static_cast<int32_t>(first), static_cast<int32_t>(std::min(most, shape.edges - first))});
  }
  if (is_shared) {
    const int64_t kernel = shape.kernel_height * shape.kernel_width;
    const int64_t count = shape.priors * kernel;
    launch(
        work.op, shared_priors_kernel<acc>, ceil_div(count, kThreads), kThreads, 0, stream,
        grad_prior.mutable_data_ptr<acc>(), per_edge.const_data_ptr<acc>(), work.table, shape, kernel, count);
  }
}

std::tuple<Tensor, Tensor, Tensor> mrf_message_passing_backward_cuda(
    const Tensor& grad, const Tensor& unary, const Tensor& prior, const Tensor& bias, std::vector<int64_t> edges,
    const std::optional<std::vector<int64_t>>& prior_index_or_none, double floor, bool want_unary, bool want_prior,
    bool want_bias, const std::optional<Tensor>& messages) {
  const std::vector<int64_t> prior_index = prior_index_of(prior_index_or_none);
  constexpr const char* op = "_mrf_message_passing_backward";
  const Shape shape = check_backward(op, grad, unary, prior, bias, edges, prior_index, floor, messages);
  const ScalarType acc_type = acc_scalar_type(unary.scalar_type());
  const DeviceGuard guard(unary.get_device_index());
  const GradientTensors out =
      new_gradients(unary, prior, bias, acc_type, want_unary, want_prior, want_bias);
  if (grad.numel() == 0 || shape.edges == 0) {
    return {out.unary, out.prior, out.bias};
  }
  const Tensor dense = as_contiguous(unary);
  const Tensor dense_grad = as_contiguous(grad, acc_type);
  const Tensor dense_prior = as_contiguous(prior, acc_type);
  const Tensor dense_bias = as_contiguous(bias, acc_type);
  const std::optional<Tensor> dense_messages =
      messages ? std::optional<Tensor>(as_contiguous(*messages, acc_type)) : std::nullopt;
  const cudaStream_t stream = current_stream(unary);
  PYPOSE_OPS_DISPATCH_FLOATING(unary.scalar_type(), op, [&] {
    launch_backward<scalar_t>(
        dense_grad, dense_messages, dense, dense_prior, dense_bias, out.unary, out.prior, out.bias, edges, prior_index,
        floor, shape, stream);
  });
  return {out.unary, out.prior, out.bias};
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("_mrf_message_passing_backward", TORCH_BOX(&mrf_message_passing_backward_cuda));
}

}  // namespace pypose_ops

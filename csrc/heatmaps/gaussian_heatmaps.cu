#include <algorithm>

#include "common/cuda.cuh"
#include "heatmaps/gaussian_heatmaps.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kItems = 4;                    // 16-byte stores per thread
constexpr int64_t kTableBytes = 24 * 1024;   // shared memory for the axis tables: two blocks' worth of a small SM
constexpr int kMaxTile = 32;                 // people whose axes are tabulated at a time

// What a block needs to know of its chunk of a map: pixels [first, first + count), rows from first_row on.
struct Chunk {
  int64_t map, first, first_row;
  int32_t count, rows, columns;
};

// A chunk as wide as whole rows tabulates every column once. In maps wider than a chunk every pixel of the chunk has
// its own column entry, so that the table never outgrows the chunk.
struct Layout {
  int64_t chunks;  // per map
  int32_t chunk;   // pixels
  int32_t rows, columns;
  int32_t tile;    // people
};

template <typename acc>
struct Factors {
  acc x, y;  // what the axis values are multiplied by; for a disc x is the value inside
};

template <typename acc>
__device__ acc axis_sum(const Axis<acc>& axis, int64_t n) {
  acc sum = 0;
  for (int64_t i = threadIdx.x % kWarpSize; i < n; i += kWarpSize) {
    sum += axis.gaussian(i);
  }
  return warp_reduce(sum, [](acc a, acc b) { return a + b; });
}

// One warp: the factors that make the blob's pixels sum to 1.
template <typename acc>
__device__ Factors<acc> sum_factors(const Blob<acc>& blob, Profile profile, const Shape& shape) {
  if (profile == Profile::disc) {
    int64_t count = 0;
    for (int64_t y = threadIdx.x % kWarpSize; y < shape.height; y += kWarpSize) {
      count += disc_row_count(blob, y, shape.width);
    }
    count = warp_reduce(count, [](int64_t a, int64_t b) { return a + b; });
    return {acc(1) / static_cast<acc>(count > 0 ? count : 1), acc(1)};
  }
  const acc epsilon = static_cast<acc>(kSumEpsilon);
  return {
      acc(1) / (axis_sum(blob.x, shape.width) + epsilon), acc(1) / (axis_sum(blob.y, shape.height) + epsilon)};
}

// Tabulates the axes of people [begin, begin + tile) for the chunk: tile rows of `columns` and of `rows` values, scaled.
// A person that is not drawn gets a table that adds nothing.
template <typename acc>
__device__ void fill_tables(
    acc* table_x, acc* table_y, Factors<acc>* factors, const People<acc>& people, const Options& options,
    const Shape& shape, const Layout& layout, const Chunk& chunk, int64_t begin, int tile) {
  const int64_t b = chunk.map / shape.joints;
  const int64_t k = chunk.map % shape.joints;
  const bool gaussian = options.profile == Profile::gaussian;
  for (int q = threadIdx.x / kWarpSize; q < tile; q += kWarps) {
    const Blob<acc> blob = blob_of(people, options, b, begin + q, k);
    Factors<acc> found{acc(1), acc(1)};
    if (blob.drawn && options.normalize == Normalize::sum) {
      found = sum_factors(blob, options.profile, shape);
    }
    if (threadIdx.x % kWarpSize == 0) {
      factors[q] = found;
    }
  }
  __syncthreads();
  const int entries = layout.columns + layout.rows;
  for (int i = threadIdx.x; i < tile * entries; i += kThreads) {
    const int q = i / entries;
    const int entry = i % entries;
    const Blob<acc> blob = blob_of(people, options, b, begin + q, k);
    const bool is_column = entry < layout.columns;
    const int64_t position = is_column ? (layout.columns == shape.width ? entry : (chunk.first + entry) % shape.width)
                                       : chunk.first_row + (entry - layout.columns);
    const Axis<acc> axis{
        is_column ? blob.x.center : blob.y.center, is_column ? blob.x.sigma : blob.y.sigma,
        is_column ? blob.x.reach : blob.y.reach};
    acc value = gaussian ? acc(0) : std::numeric_limits<acc>::infinity();
    if (blob.drawn) {
      value = axis.value(options.profile, position);
      value *= gaussian ? (is_column ? factors[q].x : factors[q].y) : acc(1);
    }
    acc* table = is_column ? table_x + q * layout.columns + entry : table_y + q * layout.rows + entry - layout.columns;
    *table = value;
  }
  __syncthreads();
}

template <typename acc>
__device__ __forceinline__ acc combined(acc old, acc tx, acc ty, acc peak, const Options& options) {
  const acc value = options.profile == Profile::gaussian ? tx * ty : (tx + ty <= acc(1) ? peak : acc(0));
  return options.combine == Combine::max ? (value > old ? value : old) : old + value;
}

// One person's tabulated axes and, for a disc, the value inside.
template <typename acc>
struct Lines {
  const acc* x;
  const acc* y;
  acc peak;
};

// kVec pixels of one row, whose columns are read from shared memory 16 bytes at a time.
template <int kVec, typename acc>
__device__ __forceinline__ void combine_within_row(
    acc (&values)[kVec], const Lines<acc>& lines, uint32_t row, uint32_t column, const Options& options) {
  struct alignas(16) Pack {
    acc v[kVec];
  };
  const acc ty = lines.y[row];
  if constexpr (kVec * sizeof(acc) % 16 == 0) {
    const Pack tx = *reinterpret_cast<const Pack*>(lines.x + column);
#pragma unroll
    for (int v = 0; v < kVec; ++v) {
      values[v] = combined(values[v], tx.v[v], ty, lines.peak, options);
    }
  } else {
#pragma unroll
    for (int v = 0; v < kVec; ++v) {
      values[v] = combined(values[v], lines.x[column + v], ty, lines.peak, options);
    }
  }
}

template <int kVec, typename acc>
__device__ __forceinline__ void combine_across_rows(
    acc (&values)[kVec], const Lines<acc>& lines, uint32_t row, uint32_t column, uint32_t pixel, uint32_t width,
    bool all_columns, const Options& options) {
#pragma unroll
  for (int v = 0; v < kVec; ++v) {
    values[v] = combined(values[v], lines.x[all_columns ? column : pixel + v], lines.y[row], lines.peak, options);
    if (++column == width) {
      column = 0;
      ++row;
    }
  }
}

// One block draws one chunk of one map. A thread owns kItems vectors of kVec consecutive pixels, kThreads vectors apart,
// and keeps their values in registers while the people pass through the tables in shared memory, tile after tile.
template <typename T, int kVec>
__global__ void __launch_bounds__(kThreads) gaussian_heatmaps_kernel(
    T* __restrict__ out, const People<acc_t<T>> people, const Options options, const Shape shape,
    const Layout layout) {
  using acc = acc_t<T>;
  __shared__ Factors<acc> factors[kMaxTile];
  acc* table_x = dynamic_shared<acc>();
  acc* table_y = table_x + layout.tile * layout.columns;

  Chunk chunk;
  chunk.map = blockIdx.x / layout.chunks;
  chunk.first = (blockIdx.x % layout.chunks) * layout.chunk;
  chunk.first_row = chunk.first / shape.width;
  const int64_t left = shape.pixels() - chunk.first;
  chunk.count = static_cast<int32_t>(left < layout.chunk ? left : layout.chunk);
  const bool all_columns = layout.columns == shape.width;
  const bool whole_vectors = all_columns && shape.width % kVec == 0;
  const uint32_t width = static_cast<uint32_t>(shape.width);
  // Pixels of the first row before the chunk.
  const uint32_t skipped = static_cast<uint32_t>(chunk.first - chunk.first_row * shape.width);

  acc values[kItems][kVec];
#pragma unroll
  for (int item = 0; item < kItems; ++item) {
#pragma unroll
    for (int v = 0; v < kVec; ++v) {
      values[item][v] = 0;
    }
  }

  for (int64_t begin = 0; begin < shape.people; begin += layout.tile) {
    const int64_t rest = shape.people - begin;
    const int tile = static_cast<int>(rest < layout.tile ? rest : layout.tile);
    if (begin > 0) {
      __syncthreads();
    }
    fill_tables(table_x, table_y, factors, people, options, shape, layout, chunk, begin, tile);
#pragma unroll
    for (int item = 0; item < kItems; ++item) {
      const uint32_t pixel = (item * kThreads + threadIdx.x) * kVec;
      if (pixel < static_cast<uint32_t>(chunk.count)) {
        const uint32_t row = (skipped + pixel) / width;
        const uint32_t column = (skipped + pixel) % width;
        for (int q = 0; q < tile; ++q) {
          const Lines<acc> lines{table_x + q * layout.columns, table_y + q * layout.rows, factors[q].x};
          if (whole_vectors) {
            combine_within_row<kVec>(values[item], lines, row, column, options);
          } else {
            combine_across_rows<kVec>(values[item], lines, row, column, pixel, width, all_columns, options);
          }
        }
      }
    }
  }

  T* target = out + chunk.map * shape.pixels() + chunk.first;
#pragma unroll
  for (int item = 0; item < kItems; ++item) {
    const uint32_t pixel = (item * kThreads + threadIdx.x) * kVec;
    if (pixel < static_cast<uint32_t>(chunk.count)) {
      struct alignas(sizeof(T) * kVec) Pack {
        T v[kVec];
      } pack;
#pragma unroll
      for (int v = 0; v < kVec; ++v) {
        const acc value = values[item][v];
        pack.v[v] = static_cast<T>(options.combine == Combine::sum_clip && value > acc(1) ? acc(1) : value);
      }
      // kVec > 1 only where the pixels of a map are a multiple of it: every pack is whole and aligned.
      *reinterpret_cast<Pack*>(target + pixel) = pack;
    }
  }
}

template <typename T, int kVec>
void launch_render(
    const Tensor& out, const PeopleTensors& people, const Options& options, const Shape& shape, cudaStream_t stream) {
  using acc = acc_t<T>;
  Layout layout;
  layout.chunk = kThreads * kItems * kVec;
  layout.chunks = ceil_div(shape.pixels(), layout.chunk);
  layout.columns = static_cast<int32_t>(std::min<int64_t>(shape.width, layout.chunk));
  layout.rows = static_cast<int32_t>(std::min<int64_t>(shape.height, layout.chunk / shape.width + 2));
  const int64_t person_bytes = (layout.columns + layout.rows) * sizeof(acc);
  const int64_t fitting = std::max<int64_t>(1, kTableBytes / person_bytes);
  layout.tile = static_cast<int32_t>(std::max<int64_t>(1, std::min<int64_t>({fitting, kMaxTile, shape.people})));
  const int64_t blocks = shape.maps() * layout.chunks;
  PYPOSE_OPS_CHECK(blocks <= kMaxGridX, "gaussian_heatmaps: the output is too large, got ", blocks, " blocks");
  launch(
      gaussian_heatmaps_kernel<T, kVec>, dim3(static_cast<unsigned>(blocks)), dim3(kThreads),
      layout.tile * person_bytes, stream, out.mutable_data_ptr<T>(), people.view<acc>(), options, shape, layout);
}

template <typename T>
void launch_render_vec(
    const Tensor& out, const PeopleTensors& people, const Options& options, const Shape& shape, cudaStream_t stream) {
  constexpr int kVec = 16 / sizeof(T);
  if (shape.pixels() % kVec == 0) {
    launch_render<T, kVec>(out, people, options, shape, stream);
  } else {
    launch_render<T, 1>(out, people, options, shape, stream);
  }
}

Tensor gaussian_heatmaps_cuda(
    const Tensor& keypoints, const std::optional<Tensor>& sigma, double sigma_value,
    const std::optional<Tensor>& visible, int64_t height, int64_t width, int64_t profile, int64_t center,
    std::optional<double> truncate, int64_t combine, int64_t normalize, ScalarType dtype) {
  constexpr const char* op = "gaussian_heatmaps";
  const Shape shape = check_people(op, keypoints, sigma, visible, height, width);
  const Options options = check_options(op, profile, center, truncate, combine, normalize, sigma_value, !!sigma);
  check_map_type(op, dtype);
  const DeviceGuard guard(keypoints.get_device_index());
  Tensor out = torch::stable::new_empty(keypoints, {shape.batch, shape.joints, height, width}, dtype);
  if (out.numel() == 0) {
    return out;
  }
  const PeopleTensors people(keypoints, sigma, visible, acc_scalar_type(dtype));
  const cudaStream_t stream = current_stream(keypoints);
  PYPOSE_OPS_DISPATCH_FLOATING(
      dtype, op, [&] { launch_render_vec<scalar_t>(out, people, options, shape, stream); });
  return out;
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("gaussian_heatmaps", TORCH_BOX(&gaussian_heatmaps_cuda));
}

}  // namespace pypose_ops

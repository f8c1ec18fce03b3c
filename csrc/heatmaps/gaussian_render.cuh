// The CUDA kernels' view of one map: a block renders a chunk of it into registers, from axis tables in shared memory.
#pragma once

#include <algorithm>

#include "common/cuda.cuh"
#include "common/reduce.cuh"
#include "common/vector.cuh"
#include "heatmaps/gaussian_heatmaps.h"

namespace pypose_ops {
namespace heatmaps {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kItems = 4;                   // 16-byte packs per thread
constexpr int64_t kTableBytes = 24 * 1024;  // shared memory for the axis tables: two blocks' worth of a small SM
constexpr int kMaxTile = 32;                // people tabulated at a time

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
  int64_t shared_bytes;
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
  return warp_sum(sum);
}

// One warp: the factors that make the blob's pixels sum to 1.
template <typename acc>
__device__ Factors<acc> sum_factors(const Blob<acc>& blob, Profile profile, const Shape& shape) {
  if (profile == Profile::disc) {
    int64_t count = 0;
    for (int64_t y = threadIdx.x % kWarpSize; y < shape.height; y += kWarpSize) {
      count += disc_row_count(blob, y, shape.width);
    }
    count = warp_sum(count);
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
    if (blob.drawn && options.normalize == Normalization::sum) {
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

// kVec pixels of one row, whose columns are read from shared memory up to 16 bytes at a time.
template <int kVec, typename acc>
__device__ __forceinline__ void combine_within_row(
    acc (&values)[kVec], const Lines<acc>& lines, uint32_t row, uint32_t column, const Options& options) {
  const acc ty = lines.y[row];
  constexpr int kStep = kVec < kPack<acc> ? kVec : kPack<acc>;
#pragma unroll
  for (int first = 0; first < kVec; first += kStep) {
    const auto tx = *reinterpret_cast<const Pack<acc, kStep>*>(lines.x + column + first);
#pragma unroll
    for (int v = 0; v < kStep; ++v) {
      values[first + v] = combined(values[first + v], tx.v[v], ty, lines.peak, options);
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

// Blocks per multiprocessor that the compiler must leave registers for: as many as it can without spilling.
template <typename T>
constexpr int kMinBlocks = sizeof(T) == 4 ? 4 : 2;
// The gradients of blobs need a few registers more before sm_90.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
template <typename T>
constexpr int kMinGradientBlocks = sizeof(T) == 4 ? 3 : 2;
#else
template <typename T>
constexpr int kMinGradientBlocks = kMinBlocks<T>;
#endif

// The widest packs that maps of an existing tensor are made of; a new tensor is always aligned.
template <typename T>
int map_pack_width(const Shape& shape, const Tensor& maps) {
  return pack_width<T>(shape.pixels(), reinterpret_cast<uintptr_t>(maps.const_data_ptr()));
}

template <int kVec>
Layout layout_of(const Shape& shape, int64_t acc_bytes) {
  Layout layout;
  layout.chunk = kThreads * kItems * kVec;
  layout.chunks = ceil_div(shape.pixels(), layout.chunk);
  layout.columns = static_cast<int32_t>(std::min<int64_t>(shape.width, layout.chunk));
  layout.rows = static_cast<int32_t>(std::min<int64_t>(shape.height, layout.chunk / shape.width + 2));
  const int64_t person_bytes = (layout.columns + layout.rows) * acc_bytes;
  const int64_t fitting = std::max<int64_t>(1, kTableBytes / person_bytes);
  layout.tile = static_cast<int32_t>(std::max<int64_t>(1, std::min<int64_t>({fitting, kMaxTile, shape.people})));
  layout.shared_bytes = layout.tile * person_bytes;
  return layout;
}

__device__ __forceinline__ Chunk chunk_of(const Layout& layout, const Shape& shape) {
  Chunk chunk;
  chunk.map = blockIdx.x / layout.chunks;
  chunk.first = (blockIdx.x % layout.chunks) * layout.chunk;
  chunk.first_row = chunk.first / shape.width;
  const int64_t left = shape.pixels() - chunk.first;
  chunk.count = static_cast<int32_t>(left < layout.chunk ? left : layout.chunk);
  return chunk;
}

// body(item, pixel) for this thread's packs of kVec consecutive pixels, kThreads packs apart.
template <int kVec, typename Body>
__device__ __forceinline__ void for_packs(const Chunk& chunk, const Body& body) {
#pragma unroll
  for (int item = 0; item < kItems; ++item) {
    const uint32_t pixel = (item * kThreads + threadIdx.x) * kVec;
    if (pixel < static_cast<uint32_t>(chunk.count)) {
      body(item, pixel);
    }
  }
}

// values = the block's chunk. A thread owns kItems packs and keeps their values in registers while the people pass
// through the tables in shared memory, tile after tile.
template <int kVec, typename acc>
__device__ __forceinline__ void render_chunk(
    acc (&values)[kItems][kVec], const People<acc>& people, const Options& options, const Shape& shape,
    const Layout& layout, const Chunk& chunk) {
  __shared__ Factors<acc> factors[kMaxTile];
  acc* table_x = dynamic_shared<acc>();
  acc* table_y = table_x + layout.tile * layout.columns;
  const bool all_columns = layout.columns == shape.width;
  const bool whole_vectors = all_columns && shape.width % kVec == 0;
  const uint32_t width = static_cast<uint32_t>(shape.width);
  // Pixels of the first row before the chunk.
  const uint32_t skipped = static_cast<uint32_t>(chunk.first - chunk.first_row * shape.width);

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
    for_packs<kVec>(chunk, [&](int item, uint32_t pixel) {
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
    });
  }
}

// A rendered value as it belongs in the map.
template <typename acc>
__device__ __forceinline__ acc clipped(acc value, const Options& options) {
  return options.combine == Combine::sum_clip && value > acc(1) ? acc(1) : value;
}

}  // namespace heatmaps
}  // namespace pypose_ops

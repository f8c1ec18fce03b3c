// The sparse half of mrf_message_passing on the GPU, shared by forward and backward: tables of edges, bit
// masks of the active pixels, and the loop that correlates a tile with a tile.
//
// Maps are cut into tiles of 16 x 64 pixels. A block owns one tile of outputs and 4 neighbouring outputs per thread. It
// visits the tiles of the source that hold active pixels: their quads (4 neighbouring pixels, at least one of them
// active) go to a list in shared memory, the part of the prior that both tiles see to a window of 31 x 127 beside it.
#pragma once

#include "mrf/box_sums.cuh"
#include "mrf/int_table.cuh"

namespace pypose_ops {
namespace {

using namespace mrf;

constexpr int kTileRows = 16;
constexpr int kTileColumns = 64;
constexpr int kQuad = 4;
constexpr int kQuadsPerRow = kTileColumns / kQuad;
constexpr int kWindowRows = 2 * kTileRows - 1;
constexpr int kWindowColumns = 2 * kTileColumns;
constexpr int kMaskWords = kTileRows * kQuadsPerRow / kWarpSize;
// Blocks a multiprocessor should hold: doubles need more registers, and fill more of the shared memory.
template <typename acc>
constexpr int kBlocks = sizeof(acc) == 8 ? 2 : 4;
static_assert(kTileRows * kQuadsPerRow == kThreads && kMaskWords == kWarps, "a thread per quad");

struct Tiles {
  int32_t across, count;  // per map

  static Tiles of(int64_t height, int64_t width) {
    const int64_t across = ceil_div(width, kTileColumns);
    return {static_cast<int32_t>(across), static_cast<int32_t>(across * ceil_div(height, kTileRows))};
  }
  __device__ int32_t row(int32_t tile) const {
    return tile / across * kTileRows;
  }
  __device__ int32_t column(int32_t tile) const {
    return tile % across * kTileColumns;
  }
};

// The edges in the order of their groups (targets or sources): begin is (groups + 1), the others (E).
struct EdgeTable {
  const int32_t* begin;
  const int32_t* source;
  const int32_t* target;
  const int32_t* prior;
  const int32_t* edge;

  static __device__ __forceinline__ EdgeTable of(const IntTable& table, int64_t groups, int64_t edges) {
    EdgeTable t;
    t.begin = table.data();
    t.source = t.begin + groups + 1;
    t.target = t.source + edges;
    t.prior = t.target + edges;
    t.edge = t.prior + edges;
    return t;
  }
};

// side: 0 groups the edges by their sources, 1 by their targets.
inline std::vector<int64_t> edge_values(
    const std::vector<int64_t>& edges, const std::vector<int64_t>& prior_index, int64_t groups, int side) {
  const EdgeGroups grouped = group_edges(edges, groups, side);
  std::vector<int64_t> values(grouped.begin);
  for (int column = 0; column < 4; ++column) {
    for (const int64_t e : grouped.order) {
      values.push_back(column < 2 ? edges[2 * e + column] : column == 2 ? prior_of(prior_index, e) : e);
    }
  }
  return values;
}

// One block per tile of a map (B, V), one thread per quad: masks (B, V, tiles, kMaskWords).
template <typename T>
__global__ void __launch_bounds__(kThreads) active_masks_kernel(
    uint32_t* __restrict__ masks, const T* __restrict__ unary, const Shape shape, const Tiles tiles,
    const acc_t<T> floor) {
  using acc = acc_t<T>;
  const int64_t map = blockIdx.x / tiles.count;
  const int32_t tile = static_cast<int32_t>(blockIdx.x % tiles.count);
  const int32_t y = tiles.row(tile) + static_cast<int32_t>(threadIdx.x) / kQuadsPerRow;
  const int32_t x = tiles.column(tile) + static_cast<int32_t>(threadIdx.x) % kQuadsPerRow * kQuad;
  bool active = false;
  for (int i = 0; i < kQuad; ++i) {
    if (y < shape.height && x + i < shape.width) {
      active = active || active_part(static_cast<acc>(unary[(map * shape.height + y) * shape.width + x + i]), floor) > 0;
    }
  }
  const uint32_t word = __ballot_sync(kFullMask, active);
  if (threadIdx.x % kWarpSize == 0) {
    masks[static_cast<int64_t>(blockIdx.x) * kMaskWords + threadIdx.x / kWarpSize] = word;
  }
}

// Four values that are moved together.
template <typename acc>
struct alignas(16) Quad {
  acc v[kQuad];
};

// What a block shares: the active quads of one source tile, row-major, and the window beside them.
template <typename acc>
struct TileShared {
  Quad<acc> values[kThreads];
  Quad<acc> window[kWindowRows * kWindowColumns / kQuad];
  int32_t place[kThreads];  // row << 16 | quad << 1 | whether the quad before is its left neighbour
};

// A source tile that has active quads: how many, and which of its rows.
struct ActiveRows {
  int count, first, last;
};

__device__ __forceinline__ ActiveRows active_rows(const uint32_t* __restrict__ words) {
  ActiveRows rows{0, kTileRows, -1};
#pragma unroll
  for (int w = 0; w < kMaskWords; ++w) {
    const uint32_t word = words[w];
    rows.count += __popc(word);
    // Two rows a word.
    const int top = 2 * w + ((word & 0xffffu) ? 0 : 1);
    const int bottom = 2 * w + ((word & 0xffff0000u) ? 1 : 0);
    rows.first = word && top < rows.first ? top : rows.first;
    rows.last = word ? bottom : rows.last;
  }
  return rows;
}

// The active quads of a tile -> shared.values and shared.place. unary is the map, words its tile's mask.
template <typename T>
__device__ __forceinline__ void list_quads(
    TileShared<acc_t<T>>& shared, const T* __restrict__ unary, const uint32_t* __restrict__ words, int32_t tile_row,
    int32_t tile_column, const Shape& shape, acc_t<T> floor) {
  using acc = acc_t<T>;
  const int warp = threadIdx.x / kWarpSize;
  const int lane = threadIdx.x % kWarpSize;
  const uint32_t word = words[warp];
  if (!(word >> lane & 1u)) {
    return;
  }
  int rank = __popc(word & ((1u << lane) - 1u));
  for (int w = 0; w < warp; ++w) {
    rank += __popc(words[w]);
  }
  const int row = threadIdx.x / kQuadsPerRow;
  const int quad = threadIdx.x % kQuadsPerRow;
  const bool follows = quad > 0 && (word >> (lane - 1) & 1u);
  const int32_t y = tile_row + row;
  const int32_t x = tile_column + quad * kQuad;
  Quad<acc> values;
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    values.v[i] = x + i < shape.width
        ? active_part(static_cast<acc>(unary[static_cast<int64_t>(y) * shape.width + x + i]), floor)
        : acc(0);
  }
  shared.values[rank] = values;
  shared.place[rank] = row << 16 | quad << 1 | (follows ? 1 : 0);
}

// Window rows [first, last] from `at(row, column)`.
template <typename acc, typename At>
__device__ __forceinline__ void fill_window(TileShared<acc>& shared, int first, int last, const At& at) {
  acc* window = &shared.window[0].v[0];
  for (int i = first * kWindowColumns + threadIdx.x; i < (last + 1) * kWindowColumns; i += kThreads) {
    window[i] = at(i / kWindowColumns, i % kWindowColumns);
  }
}

// sums += the listed quads times the window. A message (kForward) slides the window against the pixels: output (row, c)
// meets pixel (p, s) at window (row - p + 15, c - s + 63); the gradient of a prior slides it along: (row + p, c + s).
template <bool kForward, typename acc>
__device__ __forceinline__ void add_quads(acc (&sums)[kQuad], const TileShared<acc>& shared, int count) {
  const int row = threadIdx.x / kQuadsPerRow;
  const int quad = threadIdx.x % kQuadsPerRow;
  constexpr int kRowQuads = kWindowColumns / kQuad;
  Quad<acc> low{}, high{};
  for (int n = 0; n < count; ++n) {
    const int32_t place = shared.place[n];
    const Quad<acc> value = shared.values[n];
    const int p = place >> 16;
    const int q = (place & 0xffff) >> 1;
    // Of two neighbours the second finds half of what it needs in registers.
    if constexpr (kForward) {
      const Quad<acc>* window = shared.window + (row - p + kTileRows - 1) * kRowQuads + quad - q + kQuadsPerRow - 1;
      high = place & 1 ? low : window[1];
      low = window[0];
    } else {
      const Quad<acc>* window = shared.window + (row + p) * kRowQuads + quad + q;
      low = place & 1 ? high : window[0];
      high = window[1];
    }
    const acc seen[2 * kQuad] = {low.v[0],  low.v[1],  low.v[2],  low.v[3],
                                 high.v[0], high.v[1], high.v[2], high.v[3]};
#pragma unroll
    for (int s = 0; s < kQuad; ++s) {
#pragma unroll
      for (int c = 0; c < kQuad; ++c) {
        sums[c] += value.v[s] * seen[kForward ? kQuad - 1 + c - s : c + s];
      }
    }
  }
}

// A block's tile of outputs in map b and what every thread of it owns.
struct OutputTile {
  int64_t b;
  int32_t row, column;  // of the tile's corner
  int32_t y, x;         // of the thread's first output

  __device__ OutputTile(int64_t b, int32_t tile, const Tiles& tiles)
      : b(b),
        row(tiles.row(tile)),
        column(tiles.column(tile)),
        y(row + static_cast<int32_t>(threadIdx.x) / kQuadsPerRow),
        x(column + static_cast<int32_t>(threadIdx.x) % kQuadsPerRow * kQuad) {}
};

// sums = what the active pixels of source v send to the block's tile through a prior.
template <typename T>
__device__ void sum_active(
    acc_t<T> (&sums)[kQuad], TileShared<acc_t<T>>& shared, const T* __restrict__ unary,
    const uint32_t* __restrict__ masks, const acc_t<T>* __restrict__ prior, int64_t v, const OutputTile& out,
    const Shape& shape, const Tiles& tiles, acc_t<T> floor) {
  using acc = acc_t<T>;
  const int64_t map = out.b * shape.sources + v;
  const int32_t reach_y = static_cast<int32_t>(shape.reach_y);
  const int32_t reach_x = static_cast<int32_t>(shape.reach_x);
  const acc* center = prior + shape.kernel_height / 2 * shape.kernel_width + shape.kernel_width / 2;
#pragma unroll
  for (int c = 0; c < kQuad; ++c) {
    sums[c] = 0;
  }
  for (int32_t tile = 0; tile < tiles.count; ++tile) {
    const uint32_t* words = masks + (map * tiles.count + tile) * kMaskWords;
    const ActiveRows rows = active_rows(words);
    const int32_t down = out.row - tiles.row(tile);
    const int32_t right = out.column - tiles.column(tile);
    if (rows.count == 0 || down >= reach_y + kTileRows || down <= -reach_y - kTileRows ||
        right >= reach_x + kTileColumns || right <= -reach_x - kTileColumns) {
      continue;  // the same for all threads
    }
    __syncthreads();
    list_quads(shared, unary + map * shape.pixels(), words, tiles.row(tile), tiles.column(tile), shape, floor);
    fill_window(shared, kTileRows - 1 - rows.last, kWindowRows - 1 - rows.first, [&](int i, int k) {
      const int32_t dy = down + i - (kTileRows - 1);
      const int32_t dx = right + k - (kTileColumns - 1);
      const bool inside = dy >= -reach_y && dy <= reach_y && dx >= -reach_x && dx <= reach_x;
      return inside ? usable(center[static_cast<int64_t>(dy) * shape.kernel_width + dx]) : acc(0);
    });
    __syncthreads();
    add_quads<true>(sums, shared, rows.count);
  }
}

template <typename T>
void launch_masks(
    const char* op, uint32_t* masks, const T* unary, const Shape& shape, const Tiles& tiles, acc_t<T> floor,
    cudaStream_t stream) {
  const int64_t blocks = shape.batch * shape.sources * tiles.count;
  if (blocks > 0) {
    launch(op, active_masks_kernel<T>, blocks, kThreads, 0, stream, masks, unary, shape, tiles, floor);
  }
}

}  // namespace
}  // namespace pypose_ops

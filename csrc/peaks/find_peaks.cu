// find_peaks on CUDA: one block per map. It collects the peaks in a list in shared memory, in any order; ranking puts them
// in the one order of the output. Pixels that tie with another one go to a second list, where plateaus are told apart.
// Two things are rare: more peaks than the first list holds are found again a part of the map at a time, and maps with
// more ties than the second list holds are left to a second launch, which has memory for the labels of a few maps.
#include "peaks/find_peaks.h"

#include <algorithm>
#include <tuple>

#include "common/vector.cuh"
#include "peaks/refine_cuda.cuh"

namespace pypose_ops {
namespace {

using namespace peaks;

constexpr int kBlock = 128;
constexpr int kWarps = kBlock / kWarpSize;
constexpr int kSpare = 512;  // places in the list beyond max_peaks
constexpr int kTies = 256;   // places in the list of pixels that tie
// The labels of the second launch take at most this share of the maps' memory, or one map.
constexpr int64_t kLabelShare = 128;
constexpr int64_t kMostLabelled = 1024;

template <typename acc>
struct List {
  acc* values;
  int* indices;
  acc* best_values;  // max_peaks of them
  int* best_indices;
  int capacity;
  int* count;  // of the peaks met; only those that fit are in the list

  __device__ List(unsigned char* shared, int max_peaks, int* count) : capacity(max_peaks + kSpare), count(count) {
    values = reinterpret_cast<acc*>(shared);
    best_values = values + capacity;
    indices = reinterpret_cast<int*>(best_values + max_peaks);
    best_indices = indices + capacity;
  }

  static size_t bytes(int max_peaks) {
    return (2 * max_peaks + kSpare) * (sizeof(acc) + sizeof(int));
  }

  __device__ void push(acc value, int index) {
    const int slot = atomicAdd(count, 1);
    if (slot < capacity) {
      values[slot] = value;
      indices[slot] = index;
    }
  }

  // The best of the first `filled` entries, in order, into best_*.
  __device__ void rank(int filled, int max_peaks) {
    for (int i = static_cast<int>(threadIdx.x); i < filled; i += kBlock) {
      int place = 0;
      for (int j = 0; j < filled; ++j) {
        place += before(values[j], indices[j], values[i], indices[i]) ? 1 : 0;
      }
      if (place < max_peaks) {
        best_values[place] = values[i];
        best_indices[place] = indices[i];
      }
    }
  }
};

// Pixels that are as high as another one in their window, and lower than none.
template <typename acc>
struct Ties {
  acc values[kTies];
  int indices[kTies], others[kTies];  // others: how many pixels of the window are as high
  int labels[kTies];                  // the first pixel of the plateau, -1 where it is no peak
  int count;                          // of the ties met; only those that fit are in the list

  __device__ void push(acc value, int index, int equal) {
    const int slot = atomicAdd(&count, 1);
    if (slot < kTies) {
      values[slot] = value;
      indices[slot] = index;
      others[slot] = equal;
    }
  }

  __device__ bool near(int i, int j, int radius, int width) const {
    const int dx = indices[i] % width - indices[j] % width;
    const int dy = indices[i] / width - indices[j] / width;
    return values[i] == values[j] && abs(dx) <= radius && abs(dy) <= radius;
  }

  // By all threads, all ties in the list: the smallest label spreads through each plateau, and -1 is the smallest of all.
  // A pixel begins with it where one as high in its window is not in the list: that one has a higher one in its own.
  __device__ void label(int radius, int width) {
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kBlock) {
      int found = 0;
      for (int j = 0; j < count; ++j) {
        found += j != i && near(i, j, radius, width) ? 1 : 0;
      }
      labels[i] = found == others[i] ? indices[i] : -1;
    }
    bool changed = true;
    while (changed) {
      __syncthreads();
      int lowest[kTies / kBlock];
#pragma unroll
      for (int n = 0; n < kTies / kBlock; ++n) {
        const int i = n * kBlock + static_cast<int>(threadIdx.x);
        lowest[n] = i < count ? labels[i] : 0;
        for (int j = 0; i < count && j < count; ++j) {
          lowest[n] = near(i, j, radius, width) && labels[j] < lowest[n] ? labels[j] : lowest[n];
        }
      }
      __syncthreads();
      changed = false;
#pragma unroll
      for (int n = 0; n < kTies / kBlock; ++n) {
        const int i = n * kBlock + static_cast<int>(threadIdx.x);
        if (i < count && lowest[n] < labels[i]) {
          labels[i] = lowest[n];
          changed = true;
        }
      }
      changed = __syncthreads_or(changed);
    }
  }
};

constexpr int kNoPeak = -1;

// How many other pixels of its window are as high as a pixel; kNoPeak: one is higher.
template <typename scalar, typename acc>
__device__ int equals_of(const MapView<scalar>& map, int index, int radius, acc value) {
  const int x = index % map.width;
  const int y = index / map.width;
  const Window window(x, y, radius, map.width, map.height);
  int equal = -1;  // the pixel itself
  for (int row = window.top; row <= window.bottom; ++row) {
    for (int column = window.left; column <= window.right; ++column) {
      const acc other = finite_or_lowest(map(column, row));
      if (other > value) {
        return kNoPeak;
      }
      equal += other == value ? 1 : 0;
    }
  }
  return equal;
}

// visit(index, value) for the pixels from ... to - 1 above the threshold. `from` is a multiple of 16.
template <typename scalar, typename acc, typename Visit>
__device__ void for_each_above(const MapView<scalar>& map, acc threshold, int from, int to, const Visit& visit) {
  constexpr int size = kPack<scalar>;
  const bool aligned = reinterpret_cast<uintptr_t>(map.map) % kPackBytes == 0;
  for (int start = from + static_cast<int>(threadIdx.x) * size; start < to; start += kBlock * size) {
    bool any = true;
    if (aligned && start + size <= to) {
      const auto pack = load_pack<size>(map.map + start);
      any = false;
#pragma unroll
      for (int i = 0; i < size; ++i) {
        any = any || static_cast<acc>(pack.v[i]) > threshold;
      }
    }
    for (int index = start; any && index < start + size && index < to; ++index) {
      const acc value = finite_or_lowest(static_cast<acc>(map.map[index]));
      if (value > threshold) {
        visit(index, value);
      }
    }
  }
}

// Labels every pixel with the first one of its plateau where that is a peak of several pixels, else with -1: the smallest
// label spreads through each plateau, and -1, which pixels with a higher one in reach begin with, is the smallest of all.
template <typename scalar, typename acc>
__device__ void label_plateaus(const MapView<scalar>& map, int radius, acc threshold, volatile int* labels) {
  const int pixels = map.height * map.width;
  for (int index = static_cast<int>(threadIdx.x); index < pixels; index += kBlock) {
    const acc value = finite_or_lowest(static_cast<acc>(map.map[index]));
    labels[index] = value > threshold && equals_of(map, index, radius, value) > 0 ? index : -1;
  }
  __syncthreads();
  bool changed = true;
  while (changed) {
    changed = false;
    for (int index = static_cast<int>(threadIdx.x); index < pixels; index += kBlock) {
      const int label = labels[index];
      if (label < 0) {
        continue;
      }
      const acc value = static_cast<acc>(map.map[index]);
      const Window window(index % map.width, index / map.width, radius, map.width, map.height);
      int lowest = label;
      for (int row = window.top; row <= window.bottom; ++row) {
        for (int column = window.left; column <= window.right; ++column) {
          const int other = row * map.width + column;
          const int others = map(column, row) == value ? labels[other] : lowest;
          lowest = others < lowest ? others : lowest;
        }
      }
      lowest = lowest < 0 ? lowest : labels[lowest];  // a pixel of the same plateau, and maybe further ahead
      if (lowest < label) {
        labels[index] = lowest;
        changed = true;
      }
    }
    changed = __syncthreads_or(changed);
  }
}

// Peaks of the map that do not fit into the list: again, kSpare pixels at a time, keeping the best max_peaks in the
// list; returns how many there are in all. is_plateau(index): whether the pixel represents a plateau.
template <typename scalar, typename acc, typename IsPlateau>
__device__ int keep_best(
    List<acc>& list, const MapView<scalar>& map, const FindArguments<scalar>& args, acc threshold,
    const IsPlateau& is_plateau) {
  const int pixels = args.height * args.width;
  int filled = 0;
  int total = 0;
  for (int from = 0; from < pixels; from += kSpare) {
    __syncthreads();
    if (threadIdx.x == 0) {
      *list.count = filled;
    }
    __syncthreads();
    const int to = from + kSpare < pixels ? from + kSpare : pixels;
    for_each_above(map, threshold, from, to, [&](int index, acc value) {
      if (is_plateau(index) || equals_of(map, index, args.radius, value) == 0) {
        list.push(value, index);
      }
    });
    __syncthreads();
    total += *list.count - filled;
    filled = *list.count;
    if (filled > args.max_peaks) {
      list.rank(filled, args.max_peaks);
      __syncthreads();
      filled = args.max_peaks;
      for (int i = static_cast<int>(threadIdx.x); i < filled; i += kBlock) {
        list.values[i] = list.best_values[i];
        list.indices[i] = list.best_indices[i];
      }
    }
  }
  __syncthreads();
  return total;
}

// The map's peaks, `total` of them, of which the list holds `filled`: ranked, refined and written, a warp a peak.
template <typename scalar, typename acc>
__device__ void write_peaks(
    List<acc>& list, int filled, int total, const MapView<scalar>& map, const FindArguments<scalar>& args, int64_t number,
    Scratch<acc> (&scratch)[kWarps]) {
  list.rank(filled, args.max_peaks);
  __syncthreads();
  const int written = filled < args.max_peaks ? filled : args.max_peaks;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  for (int rank = warp; rank < written; rank += kWarps) {
    const Peak<acc> peak = {list.best_values[rank], list.best_indices[rank]};
    const Step<acc> step = refined(map, args.refinement, peak.index, lane, scratch[warp]).step;
    __syncwarp();  // before the scratch is written again
    if (lane == 0) {
      args.write(number, rank, peak, step);
    }
  }
  for (int rank = written + static_cast<int>(threadIdx.x); rank < args.max_peaks; rank += kBlock) {
    args.write_none(number, rank);
  }
  if (threadIdx.x == 0) {
    args.counts[number] = total;
  }
}

// counts of a map that is left to the second launch.
constexpr int64_t kLeft = -1;

template <typename scalar>
__global__ void __launch_bounds__(kBlock, 8) find_peaks_kernel(const FindArguments<scalar> args) {
  using acc = acc_t<scalar>;
  __shared__ Scratch<acc> scratch[kWarps];
  __shared__ Ties<acc> ties;
  __shared__ int count;
  List<acc> list(dynamic_shared<unsigned char>(), args.max_peaks, &count);
  const int64_t number = blockIdx.x;
  const MapView<scalar> map = args.view(number);
  const acc threshold = args.threshold_of(number);
  if (threadIdx.x == 0) {
    count = 0;
    ties.count = 0;
  }
  __syncthreads();
  for_each_above(map, threshold, 0, args.height * args.width, [&](int index, acc value) {
    const int equal = equals_of(map, index, args.radius, value);
    if (equal == 0) {
      list.push(value, index);
    } else if (equal > 0) {
      ties.push(value, index, equal);
    }
  });
  __syncthreads();
  const int tied = ties.count;
  if (tied > kTies) {
    if (threadIdx.x == 0) {
      args.counts[number] = kLeft;
    }
    return;
  }
  if (tied > 0) {
    ties.label(args.radius, args.width);
    for (int i = static_cast<int>(threadIdx.x); i < tied; i += kBlock) {
      if (ties.labels[i] == ties.indices[i]) {
        list.push(ties.values[i], ties.indices[i]);
      }
    }
    __syncthreads();
  }
  const int total = count;
  int filled = total;
  if (total > list.capacity) {
    filled = args.max_peaks;
    keep_best(list, map, args, threshold, [&](int index) {
      bool first = false;
      for (int i = 0; i < tied; ++i) {
        first = first || (ties.labels[i] == index && ties.indices[i] == index);
      }
      return first;
    });
  }
  write_peaks(list, filled, total, map, args, number, scratch);
}

// The maps that the first launch left; a block takes one after the other. workspace: the labels of a map for each block.
template <typename scalar>
__global__ void __launch_bounds__(kBlock, 8)
    find_plateaus_kernel(const FindArguments<scalar> args, const int64_t maps, int* const workspace) {
  using acc = acc_t<scalar>;
  __shared__ Scratch<acc> scratch[kWarps];
  __shared__ int count;
  List<acc> list(dynamic_shared<unsigned char>(), args.max_peaks, &count);
  int* const labels = workspace + static_cast<int64_t>(blockIdx.x) * args.height * args.width;
  for (int64_t number = blockIdx.x; number < maps; number += gridDim.x) {
    if (args.counts[number] != kLeft) {
      continue;  // the same for all threads
    }
    const MapView<scalar> map = args.view(number);
    const acc threshold = args.threshold_of(number);
    label_plateaus(map, args.radius, threshold, labels);
    const int total = keep_best(list, map, args, threshold, [&](int index) { return labels[index] == index; });
    write_peaks(list, total < args.max_peaks ? total : args.max_peaks, total, map, args, number, scratch);
    __syncthreads();
  }
}

template <typename scalar>
void launch_find_peaks(const FindArguments<scalar>& args, const Tensor& heatmaps, int64_t maps) {
  const int64_t pixels = int64_t{args.height} * args.width;
  const size_t shared_bytes = List<acc_t<scalar>>::bytes(args.max_peaks);
  const cudaStream_t stream = current_stream(heatmaps);
  launch(kFindPeaks, find_peaks_kernel<scalar>, maps, kBlock, shared_bytes, stream, args);
  if (pixels <= kTies) {
    return;  // no map has more ties than fit
  }
  const int64_t affordable = maps * static_cast<int64_t>(sizeof(scalar)) / static_cast<int64_t>(sizeof(int)) / kLabelShare;
  const int64_t blocks = std::clamp<int64_t>(affordable, 1, std::min(maps, kMostLabelled));
  const Tensor workspace = empty_beside(heatmaps, {blocks, pixels}, ScalarType::Int);
  launch(
      kFindPeaks, find_plateaus_kernel<scalar>, blocks, kBlock, shared_bytes, stream, args, maps,
      workspace.mutable_data_ptr<int>());
}

std::tuple<Tensor, Tensor, Tensor, Tensor> find_peaks_cuda(
    const Tensor& heatmaps, const std::optional<Tensor>& thresholds, std::optional<double> threshold_or_none, int64_t radius,
    int64_t max_peaks, int64_t refine, int64_t kernel_size, std::optional<double> max_offset,
    const std::optional<Tensor>& transform, std::optional<double> missing_or_nan, bool pixels) {
  const double missing = missing_or_nan.value_or(std::numeric_limits<double>::quiet_NaN());
  const double threshold = threshold_of(threshold_or_none);
  const RefineOptions options = check_find_peaks(
      heatmaps, thresholds, threshold, radius, max_peaks, refine, kernel_size, max_offset, transform);
  const DeviceGuard guard(heatmaps.get_device_index());
  FindTensors tensors(heatmaps, thresholds, transform, max_peaks, pixels);
  const int64_t maps = tensors.counts.numel();
  if (maps > 0) {
    tensors.make_contiguous();
    PYPOSE_OPS_DISPATCH_FLOATING(heatmaps.scalar_type(), kFindPeaks, [&] {
      launch_find_peaks(
          tensors.arguments<scalar_t>(threshold, radius, max_peaks, options, missing), tensors.heatmaps, maps);
    });
  }
  return {tensors.coords, tensors.scores, tensors.counts, tensors.pixels};
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("find_peaks", TORCH_BOX(&find_peaks_cuda));
}

}  // namespace pypose_ops

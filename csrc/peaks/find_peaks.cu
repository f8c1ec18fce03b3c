// find_peaks on CUDA: one kernel; a block takes maps, one after the other.
//
// The block collects the peaks of a map in a list in shared memory, in any order; ranking puts them in the one order of
// the output. Two things are rare and handled apart: plateaus of several pixels, and more peaks than the list holds.
#include "peaks/find_peaks.h"

#include <algorithm>
#include <tuple>

#include "common/cuda.cuh"
#include "peaks/refine_cuda.cuh"

namespace pypose_ops {
namespace {

using namespace peaks;

constexpr int kBlock = 128;
constexpr int kWarps = kBlock / kWarpSize;
constexpr int kSpare = 512;         // places in the list beyond max_peaks
constexpr int64_t kMaxBlocks = 2048;  // at least what a GPU holds at a time; bounds the memory for labels

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

enum class Standing { none, tied, alone };

// Whether a pixel has a higher one in its window, or else an equal one.
template <typename scalar, typename acc>
__device__ Standing standing(const MapView<scalar>& map, int index, int radius, acc value) {
  const int x = index % map.width;
  const int y = index / map.width;
  const Window window(x, y, radius, map.width, map.height);
  int equal = 0;
  for (int row = window.top; row <= window.bottom; ++row) {
    for (int column = window.left; column <= window.right; ++column) {
      const acc other = finite_or_lowest(map(column, row));
      if (other > value) {
        return Standing::none;
      }
      equal += other == value ? 1 : 0;
    }
  }
  return equal > 1 ? Standing::tied : Standing::alone;
}

// visit(index, value) for the pixels from ... to - 1 above the threshold. `from` is a multiple of 16.
template <typename scalar, typename acc, typename Visit>
__device__ void for_each_above(const MapView<scalar>& map, acc threshold, int from, int to, const Visit& visit) {
  struct alignas(16) Pack {
    scalar pixels[16 / sizeof(scalar)];
  };
  constexpr int size = 16 / sizeof(scalar);
  const bool aligned = reinterpret_cast<uintptr_t>(map.map) % sizeof(Pack) == 0;
  for (int start = from + static_cast<int>(threadIdx.x) * size; start < to; start += kBlock * size) {
    bool any = true;
    if (aligned && start + size <= to) {
      const Pack pack = *reinterpret_cast<const Pack*>(map.map + start);
      any = false;
#pragma unroll
      for (int i = 0; i < size; ++i) {
        any = any || static_cast<acc>(pack.pixels[i]) > threshold;
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
    labels[index] = value > threshold && standing(map, index, radius, value) == Standing::tied ? index : -1;
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

template <typename scalar>
__global__ void __launch_bounds__(kBlock, 8)
    find_peaks_kernel(const FindArguments<scalar> args, const int64_t maps, int* const workspace) {
  using acc = acc_t<scalar>;
  __shared__ Scratch<acc> scratch[kWarps];
  __shared__ int count, ties;
  List<acc> list(dynamic_shared<unsigned char>(), args.max_peaks, &count);
  const int pixels = args.height * args.width;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  int* const labels = workspace + static_cast<int64_t>(blockIdx.x) * pixels;

  for (int64_t number = blockIdx.x; number < maps; number += gridDim.x) {
    const MapView<scalar> map = args.view(number);
    const acc threshold = args.threshold_of(number);
    if (threadIdx.x == 0) {
      count = 0;
      ties = 0;
    }
    __syncthreads();

    // 1. The peaks of a single pixel.
    for_each_above(map, threshold, 0, pixels, [&](int index, acc value) {
      const Standing found = standing(map, index, args.radius, value);
      if (found == Standing::alone) {
        list.push(value, index);
      } else if (found == Standing::tied) {
        ties = 1;
      }
    });
    __syncthreads();

    // 2. Where there are plateaus, or more peaks than fit: again, a part of the map at a time, keeping the best.
    int filled = count;
    const bool tied = ties != 0;
    int total = tied ? 0 : filled;
    if (tied) {
      label_plateaus(map, args.radius, threshold, labels);
    }
    if (tied || filled > list.capacity) {
      filled = 0;
      for (int from = 0; from < pixels; from += kSpare) {
        __syncthreads();
        if (threadIdx.x == 0) {
          count = filled;
        }
        __syncthreads();
        const int to = from + kSpare < pixels ? from + kSpare : pixels;
        for_each_above(map, threshold, from, to, [&](int index, acc value) {
          if ((tied && labels[index] == index) || standing(map, index, args.radius, value) == Standing::alone) {
            list.push(value, index);
          }
        });
        __syncthreads();
        total += tied ? count - filled : 0;
        filled = count;
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
    }
    list.rank(filled, args.max_peaks);
    __syncthreads();

    // 3. A warp refines and writes a peak at a time.
    const int written = filled < args.max_peaks ? filled : args.max_peaks;
    for (int rank = warp; rank < written; rank += kWarps) {
      const Peak<acc> peak = {list.best_values[rank], list.best_indices[rank]};
      const Step<acc> step = refined(map, args.refinement, peak.index, lane, scratch[warp]).step;
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
    __syncthreads();
  }
}

template <typename scalar>
void launch_find_peaks(const FindArguments<scalar>& args, const Tensor& heatmaps, int64_t maps) {
  const int64_t blocks = std::min(maps, kMaxBlocks);
  const Tensor workspace =
      torch::stable::new_empty(heatmaps, {blocks, int64_t{args.height} * args.width}, ScalarType::Int);
  launch(
      find_peaks_kernel<scalar>, dim3(static_cast<unsigned>(blocks)), dim3(kBlock),
      List<acc_t<scalar>>::bytes(args.max_peaks), current_stream(heatmaps), args, maps,
      workspace.mutable_data_ptr<int>());
}

std::tuple<Tensor, Tensor, Tensor, Tensor> find_peaks_cuda(
    const Tensor& heatmaps, const std::optional<Tensor>& thresholds, double threshold, int64_t radius,
    int64_t max_peaks, int64_t refine, int64_t kernel_size, std::optional<double> max_offset,
    const std::optional<Tensor>& transform, std::optional<double> missing_or_nan, bool pixels) {
  const double missing = missing_or_nan.value_or(std::numeric_limits<double>::quiet_NaN());
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

// find_peaks on the CPU: one thread takes whole maps, one after the other.
//
// Most of a map is below the threshold: rows without a pixel above it are passed over by one vector maximum per group of
// rows. In the others a separable maximum over the window finds the candidates, pixels with no higher one in reach.
#include "peaks/find_peaks.h"

#include <algorithm>
#include <cstring>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include "common/simd.h"
#include "peaks/refine_cpu.h"

namespace pypose_ops {
namespace {

using namespace peaks;

constexpr int kGroup = 512;  // pixels of a group of rows

// What the search through the maps of one thread needs, kept from map to map.
template <typename acc>
struct Workspace {
  std::vector<acc> own;          // a row
  std::vector<acc> above_below;  // its maxima over the window's other rows
  std::vector<acc> down;         // and its own, with -infinity in `radius` columns on both sides
  std::vector<acc> others;       // the maxima over the window without the pixel itself
  std::vector<uint8_t> flags;    // 1 at candidates; whole words
  std::vector<Peak<acc>> found;
  std::vector<bool> seen;        // pixels of plateaus that have been walked through; empty before the first
  std::vector<int> queue;

  Workspace(int width, int radius)
      : own(width), above_below(width), down(width + 2 * radius, -std::numeric_limits<acc>::infinity()), others(width),
        flags(width + sizeof(uint64_t), 0) {}
};

// Pixels above a positive threshold are found by their keys, without widening them.
template <typename scalar>
struct Above {
  using acc = acc_t<scalar>;
  using key = key_t<scalar>;
  acc threshold;
  key below;  // the highest number of the storage type that is not above a positive threshold
  key infinity;

  explicit Above(acc threshold)
      : threshold(threshold), below(simd::bits_to<key>(simd::store<scalar>(threshold))),
        infinity(simd::bits_to<key>(std::numeric_limits<scalar>::infinity())) {
    below -= simd::load(simd::bits_to<scalar>(below)) > threshold ? 1 : 0;
  }

  POSE_HD bool any(const scalar* pixels, int count) const {
    int found = 0;
    if (threshold > 0) {
      for (int i = 0; i < count; ++i) {
        const key bits = simd::bits_to<key>(pixels[i]);
        found |= static_cast<int>(bits > below) & static_cast<int>(bits < infinity);
      }
    } else {
      for (int i = 0; i < count; ++i) {
        found |= static_cast<int>(finite_or_lowest<acc>(simd::load(pixels[i])) > threshold);
      }
    }
    return found != 0;
  }
};

// into[x] = max(into[x], row[x])
template <typename scalar, typename acc>
void raise(acc* into, const scalar* row, int count) {
  for (int x = 0; x < count; ++x) {
    const acc value = finite_or_lowest<acc>(simd::load(row[x]));
    into[x] = value > into[x] ? value : into[x];
  }
}

// Flags the candidates of row y, pixels above the threshold with no higher one in reach.
template <typename scalar, typename acc>
void flag_candidates(const MapView<scalar>& map, int y, int radius, acc threshold, Workspace<acc>& work) {
  const int width = map.width;
  const acc lowest = -std::numeric_limits<acc>::infinity();
  acc* __restrict__ own = work.own.data();
  acc* __restrict__ above_below = work.above_below.data();
  acc* __restrict__ others = work.others.data();
  acc* __restrict__ down = work.down.data() + radius;
  uint8_t* __restrict__ flags = work.flags.data();
  const scalar* row = map.map + y * width;
  for (int x = 0; x < width; ++x) {
    own[x] = finite_or_lowest<acc>(simd::load(row[x]));
    above_below[x] = lowest;
  }
  const Window rows(0, y, radius, width, map.height);
  for (int other = rows.top; other <= rows.bottom; ++other) {
    if (other != y) {
      raise(above_below, map.map + other * width, width);
    }
  }
  for (int x = 0; x < width; ++x) {
    down[x] = above_below[x] > own[x] ? above_below[x] : own[x];
    others[x] = above_below[x];
  }
  for (int i = 1; i <= radius; ++i) {
    for (int x = 0; x < width; ++x) {
      const acc sides = down[x - i] > down[x + i] ? down[x - i] : down[x + i];
      others[x] = sides > others[x] ? sides : others[x];
    }
  }
  for (int x = 0; x < width; ++x) {
    flags[x] = static_cast<uint8_t>(own[x] > threshold) & static_cast<uint8_t>(own[x] >= others[x]);
  }
}

// visit(x) for the flagged columns, in order.
template <typename Visit>
void for_each_flag(const std::vector<uint8_t>& flags, int width, const Visit& visit) {
  for (int start = 0; start < width; start += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, flags.data() + start, sizeof(word));
    for (int x = start; word != 0 && x < width && x < start + static_cast<int>(sizeof(word)); ++x) {
      if (flags[x] != 0) {
        visit(x);
      }
    }
  }
}

template <typename scalar, typename acc>
bool is_candidate(const MapView<scalar>& map, int x, int y, int radius, acc value) {
  const Window window(x, y, radius, map.width, map.height);
  for (int row = window.top; row <= window.bottom; ++row) {
    for (int column = window.left; column <= window.right; ++column) {
      if (finite_or_lowest(map(column, row)) > value) {
        return false;
      }
    }
  }
  return true;
}

// Walks through the plateau of a pixel, unless it has been; whether it is a peak.
template <typename scalar, typename acc>
bool plateau_is_peak(const MapView<scalar>& map, int from, int radius, acc value, Workspace<acc>& work) {
  if (work.seen.empty()) {
    work.seen.resize(static_cast<size_t>(map.width) * map.height, false);
  }
  if (work.seen[from]) {
    return false;
  }
  bool is_peak = true;
  work.queue.assign(1, from);
  work.seen[from] = true;
  for (size_t next = 0; next < work.queue.size(); ++next) {
    const int x = work.queue[next] % map.width;
    const int y = work.queue[next] / map.width;
    is_peak = is_peak && is_candidate(map, x, y, radius, value);
    const Window window(x, y, radius, map.width, map.height);
    for (int row = window.top; row <= window.bottom; ++row) {
      for (int column = window.left; column <= window.right; ++column) {
        const int index = row * map.width + column;
        if (map(column, row) == value && !work.seen[index]) {
          work.seen[index] = true;
          work.queue.push_back(index);
        }
      }
    }
  }
  return is_peak;
}

// All peaks of a map, in row-major order, into work.found.
template <typename scalar, typename acc>
void search(const MapView<scalar>& map, int radius, acc threshold, Workspace<acc>& work) {
  work.found.clear();
  work.seen.clear();
  const Above<scalar> above(threshold);
  const int width = map.width;
  const int group = std::max(1, kGroup / width);
  for (int top = 0; top < map.height; top += group) {
    const int bottom = std::min(map.height, top + group);
    bool any = false;
    simd_call([&] { any = above.any(map.map + top * width, (bottom - top) * width); });
    for (int y = top; any && y < bottom; ++y) {
      bool some = false;
      simd_call([&] {
        some = above.any(map.map + y * width, width);
        if (some) {
          flag_candidates(map, y, radius, threshold, work);
        }
      });
      if (!some) {
        continue;
      }
      for_each_flag(work.flags, width, [&](int x) {
        const acc value = work.own[x];
        const int index = y * width + x;
        if (value > work.others[x] || plateau_is_peak(map, index, radius, value, work)) {
          work.found.push_back({value, index});
        }
      });
    }
  }
}

// The best `count` of the peaks found to the front, in order.
template <typename acc>
void put_best_first(std::vector<Peak<acc>>& found, int count) {
  const auto order = [](const Peak<acc>& a, const Peak<acc>& b) { return before(a.value, a.index, b.value, b.index); };
  if (static_cast<size_t>(count) < found.size()) {
    std::nth_element(found.begin(), found.begin() + count, found.end(), order);
  }
  std::sort(found.begin(), found.begin() + count, order);
}

template <typename scalar>
void find_peaks_kernel(const FindArguments<scalar>& args, int64_t maps) {
  using acc = acc_t<scalar>;
  const int64_t pixels = static_cast<int64_t>(args.height) * args.width;
  const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 16) / pixels);
  torch::stable::parallel_for(0, maps, grain, [&](int64_t begin, int64_t end) {
    Workspace<acc> work(args.width, args.radius);
    for (int64_t number = begin; number < end; ++number) {
      const MapView<scalar> map = args.view(number);
      search(map, args.radius, args.threshold_of(number), work);
      const int count = static_cast<int>(std::min<size_t>(work.found.size(), args.max_peaks));
      put_best_first(work.found, count);
      const Peak<acc>* peaks = work.found.data();
      simd_call([&, peaks] {
        for (int rank = 0; rank < count; ++rank) {
          args.write(number, rank, peaks[rank], refined(map, args.refinement, peaks[rank].index).step);
        }
        for (int rank = count; rank < args.max_peaks; ++rank) {
          args.write_none(number, rank);
        }
      });
      args.counts[number] = count;
    }
  });
}

std::tuple<Tensor, Tensor, Tensor> find_peaks_cpu(
    const Tensor& heatmaps, const std::optional<Tensor>& thresholds, double threshold, int64_t radius,
    int64_t max_peaks, int64_t refine, int64_t kernel_size, std::optional<double> max_offset,
    const std::optional<Tensor>& transform) {
  const RefineOptions options = check_find_peaks(
      heatmaps, thresholds, threshold, radius, max_peaks, refine, kernel_size, max_offset, transform);
  FindTensors tensors(heatmaps, thresholds, transform, max_peaks);
  const int64_t maps = tensors.counts.numel();
  if (maps > 0) {
    tensors.make_contiguous();
    PYPOSE_OPS_DISPATCH_FLOATING(heatmaps.scalar_type(), kFindPeaks, [&] {
      find_peaks_kernel(tensors.arguments<scalar_t>(threshold, radius, max_peaks, options), maps);
    });
  }
  return {tensors.coords, tensors.scores, tensors.counts};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "find_peaks(Tensor heatmaps, Tensor? threshold, float threshold_value, int radius, SymInt max_peaks, int refine, "
      "int kernel_size, float? max_offset, Tensor? transform) -> (Tensor coords, Tensor scores, Tensor counts)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("find_peaks", TORCH_BOX(&find_peaks_cpu));
}

}  // namespace pypose_ops

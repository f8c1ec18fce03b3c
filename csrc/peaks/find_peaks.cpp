// find_peaks on the CPU: one thread takes whole maps, one after the other.
//
// Most of a map is below the threshold: rows without a pixel above it are passed over, a group of rows at a time. In
// the others a maximum over the window finds the candidates, pixels with no higher one in reach.
#include "peaks/find_peaks.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include "common/simd.h"
#include "peaks/best_peaks.h"
#include "peaks/refine_cpu.h"
#include "peaks/scan_peaks.h"

namespace pypose_ops {
namespace {

using namespace peaks;

constexpr int kGroup = 192;  // pixels of a group of rows
constexpr int kGroups = 4;   // that are searched at once at most: fewer rows are loaded twice
constexpr int kScan = 32;    // pixels of a row that are passed over at once where none is a candidate

// What the search through the maps of one thread needs, kept from map to map.
//
// A group of rows is copied with `reach` rows on both sides, in the arithmetic type, what is not finite and what is
// outside of the map as the lowest. Rows are `stride` apart, `radius` lowest columns between them, so that no window is
// clipped and loops run over all rows of the group at once.
template <typename acc>
struct Workspace {
  static constexpr acc lowest = -std::numeric_limits<acc>::infinity();

  int radius, reach, group, stride;  // reach: the radius, as far as there are rows
  int block;                         // rows of the groups that are searched at once
  std::vector<acc> rows;
  std::vector<acc> others, down;  // maxima of the windows without their pixel; down the columns
  std::vector<key_t<acc>> flags;
  std::vector<int> columns;  // of the candidates of a row
  Found<acc> found;
  int64_t total;  // of all peaks
  Plateaus plateaus;

  Workspace(int width, int height, int radius, int most)
      : radius(radius), reach(std::min(radius, height - 1)), group(std::min(height, std::max(1, kGroup / width))),
        stride(width + radius), block(std::min(height, kGroups * group)),
        rows(size_t(block + 2 * reach) * stride + 2 * radius, lowest), others(size_t(block) * stride),
        down(size_t(block) * stride + 2 * radius, lowest), flags(size_t(block) * stride), columns(width + 1),
        found(most, block * width) {}

  // The group's first pixel in `rows`.
  acc* first() {
    return rows.data() + radius + size_t(reach) * stride;
  }

  template <typename scalar>
  void load(const MapView<scalar>& map, int top, int bottom) {
    for (int y = top - reach; y < bottom + reach; ++y) {
      acc* __restrict__ into = first() + static_cast<int64_t>(y - top) * stride;
      if (y < 0 || y >= map.height) {
        std::fill(into, into + map.width, lowest);
        continue;
      }
      const scalar* __restrict__ pixels = map.map + y * map.width;
      for (int x = 0; x < map.width; ++x) {
        into[x] = finite_or_lowest<acc>(simd::load(pixels[x]));
      }
    }
  }
};

// Pixels above a positive threshold are found by their keys, without widening them.
template <typename scalar>
struct Above {
  using acc = acc_t<scalar>;
  using key = key_t<scalar>;
  acc threshold;
  key below;  // the highest number of the storage type that is not above a positive threshold

  explicit Above(acc threshold) : threshold(threshold), below(simd::bits_to<key>(simd::store<scalar>(threshold))) {
    below -= simd::load(simd::bits_to<scalar>(below)) > threshold ? 1 : 0;
  }

  template <typename Isa>
  bool any(Isa isa, const scalar* pixels, int count) const {
    if (threshold > 0) {
      return highest_positive(isa, pixels, count) > below;
    }
    int found = 0;
    for (int i = 0; i < count; ++i) {
      found |= static_cast<int>(finite_or_lowest<acc>(simd::load(pixels[i])) > threshold);
    }
    return found != 0;
  }
};

// Flags are as wide as the pixels: a loop over narrower ones is cut into narrower vectors.
template <typename acc>
key_t<acc> flag_of(acc own, acc others, acc threshold) {
  const key_t<acc> flag = own > others ? kAlone : kTied;
  const key_t<acc> candidate = own >= others ? flag : 0;
  return own > threshold ? candidate : 0;
}

template <typename acc>
acc larger(acc a, acc b) {
  return a > b ? a : b;
}

// Flags the candidates among the first `count` pixels of the group for a radius of 1; whether there are any.
template <typename acc>
bool flag_among_neighbours(acc threshold, int64_t count, Workspace<acc>& work) {
  const acc* __restrict__ own = work.first();
  const acc* __restrict__ up = own - work.stride;
  const acc* __restrict__ down = own + work.stride;
  key_t<acc>* __restrict__ flags = work.flags.data();
  key_t<acc> any = 0;
  for (int64_t i = 0; i < count; ++i) {
    const acc left = larger(larger(up[i - 1], down[i - 1]), own[i - 1]);
    const acc right = larger(larger(up[i + 1], down[i + 1]), own[i + 1]);
    flags[i] = flag_of(own[i], larger(larger(left, right), larger(up[i], down[i])), threshold);
    any |= flags[i];
  }
  return any != 0;
}

// The same for any radius, by a maximum down the columns and then along the rows.
template <typename acc>
bool flag_in_windows(acc threshold, int64_t count, Workspace<acc>& work) {
  const acc* __restrict__ own = work.first();
  acc* __restrict__ others = work.others.data();
  acc* __restrict__ down = work.down.data() + work.radius;
  key_t<acc>* __restrict__ flags = work.flags.data();
  std::fill(others, others + count, Workspace<acc>::lowest);
  for (int i = 1; i <= work.reach; ++i) {
    const acc* __restrict__ above = own - static_cast<int64_t>(i) * work.stride;
    const acc* __restrict__ below = own + static_cast<int64_t>(i) * work.stride;
    for (int64_t x = 0; x < count; ++x) {
      others[x] = larger(larger(above[x], below[x]), others[x]);
    }
  }
  for (int64_t x = 0; x < count; ++x) {
    down[x] = larger(others[x], own[x]);
  }
  for (int i = 1; i <= work.radius; ++i) {
    for (int64_t x = 0; x < count; ++x) {
      others[x] = larger(larger(down[x - i], down[x + i]), others[x]);
    }
  }
  key_t<acc> any = 0;
  for (int64_t x = 0; x < count; ++x) {
    flags[x] = flag_of(own[x], others[x], threshold);
    any |= flags[x];
  }
  return any != 0;
}

// All bits of a number of flags.
template <typename key>
key any_flag(const key* flags, int count) {
  key any = 0;
  for (int x = 0; x < count; ++x) {
    any |= flags[x];
  }
  return any;
}

// Counts the peaks among the flagged pixels of the rows from `top` on, and adds those that may be among the best.
template <typename scalar, typename acc>
void add_peaks(const MapView<scalar>& map, int top, int bottom, Workspace<acc>& work) {
  int* __restrict__ columns = work.columns.data();
  for (int y = top; y < bottom; ++y) {
    const key_t<acc>* flags = work.flags.data() + static_cast<int64_t>(y - top) * work.stride;
    key_t<acc> any = 0;
    int count = 0;
    for (int from = 0; from < map.width; from += kScan) {
      const int end = std::min(map.width, from + kScan);
      const key_t<acc> here = any_flag(flags + from, end - from);
      if (here == 0) {
        continue;
      }
      any |= here;
      for (int x = from; x < end; ++x) {
        columns[count] = x;
        count += flags[x] != 0 ? 1 : 0;
      }
    }
    if ((any & kTied) != 0) {
      int peaks = 0;
      for (int i = 0; i < count; ++i) {
        const int x = columns[i];
        const int index = y * map.width + x;
        columns[peaks] = x;
        peaks += flags[x] == kAlone ||
            work.plateaus.is_peak(map, index, work.radius, acc(simd::load(map.map[index])));
      }
      count = peaks;
    }
    work.total += count;
    for (int i = 0; i < count; ++i) {
      const int index = y * map.width + columns[i];
      work.found.add(simd::load(map.map[index]), index);
    }
  }
}

// The best peaks of a map, in order, in work.found; how many.
template <typename Isa, typename scalar, typename acc>
int search(Isa isa, const MapView<scalar>& map, acc threshold, Workspace<acc>& work) {
  work.found.clear();
  work.plateaus.clear();
  work.total = 0;
  const Above<scalar> above(threshold);
  const auto end_of = [&](int top) { return static_cast<int>(std::min<int64_t>(map.height, int64_t{top} + work.group)); };
  const auto any = [&](int top) { return above.any(isa, map.map + top * map.width, (end_of(top) - top) * map.width); };
  for (int top = 0, bottom; top < map.height; top = bottom) {
    bottom = end_of(top);
    if (!any(top)) {
      continue;
    }
    while (bottom < map.height && end_of(bottom) - top <= work.block && any(bottom)) {
      bottom = end_of(bottom);
    }
    work.load(map, top, bottom);
    const int64_t count = static_cast<int64_t>(bottom - top) * work.stride;
    const bool adjacent = work.radius == 1 && work.reach == 1;
    const bool some = adjacent ? flag_among_neighbours(above.threshold, count, work)
                               : flag_in_windows(above.threshold, count, work);
    if (some) {
      add_peaks(map, top, bottom, work);
      work.found.drop_worst();
    }
  }
  return work.found.put_in_order();
}

template <typename scalar>
void find_peaks_kernel(const FindArguments<scalar>& args, int64_t maps) {
  using acc = acc_t<scalar>;
  const int64_t pixels = static_cast<int64_t>(args.height) * args.width;
  const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 16) / pixels);
  torch::stable::parallel_for(0, maps, grain, [&](int64_t begin, int64_t end) {
    Workspace<acc> work(args.width, args.height, args.radius, args.max_peaks);
    simd_call([&](auto isa) {
      for (int64_t number = begin; number < end; ++number) {
        const MapView<scalar> map = args.view(number);
        const int count = search(isa, map, args.threshold_of(number), work);
        for (int rank = 0; rank < count; ++rank) {
          const int index = work.found.indices[work.found.order[rank]];
          const Peak<acc> peak = {simd::load(map.map[index]), index};
          args.write(number, rank, peak, refined(map, args.refinement, index).step);
        }
        args.write_none_from(number, count);
        args.counts[number] = work.total;
      }
    });
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> find_peaks_cpu(
    const Tensor& heatmaps, const std::optional<Tensor>& thresholds, std::optional<double> threshold_or_none, int64_t radius,
    int64_t max_peaks, int64_t refine, int64_t kernel_size, std::optional<double> max_offset,
    const std::optional<Tensor>& transform, std::optional<double> missing_or_nan, bool pixels) {
  const double missing = missing_or_nan.value_or(std::numeric_limits<double>::quiet_NaN());
  const double threshold = threshold_of(threshold_or_none);
  const RefineOptions options = check_find_peaks(
      heatmaps, thresholds, threshold, radius, max_peaks, refine, kernel_size, max_offset, transform);
  FindTensors tensors(heatmaps, thresholds, transform, max_peaks, pixels);
  const int64_t maps = tensors.counts.numel();
  if (maps > 0) {
    tensors.make_contiguous();
    PYPOSE_OPS_DISPATCH_FLOATING(heatmaps.scalar_type(), kFindPeaks, [&] {
      find_peaks_kernel(tensors.arguments<scalar_t>(threshold, radius, max_peaks, options, missing), maps);
    });
  }
  return {tensors.coords, tensors.scores, tensors.counts, tensors.pixels};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "find_peaks(Tensor heatmaps, Tensor? threshold, float? threshold_value, int radius, SymInt max_peaks, int refine, "
      "int kernel_size, float? max_offset, Tensor? transform, float? missing, bool pixels) -> "
      "(Tensor coords, Tensor scores, Tensor counts, Tensor pixels)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("find_peaks", TORCH_BOX(&find_peaks_cpu));
}

}  // namespace pypose_ops

// _list_peaks: all peaks of maps as lists, in one call on the host: by sample, row, column and map. As many places as
// peaks, which only the host can know.
#include <algorithm>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include "peaks/scan_peaks.h"

namespace pypose_ops {
namespace {

using namespace peaks;

template <typename T>
struct Listed {
  int x, y, joint;
  T score, coords[2];
};

// To the centroid of a window, if there is one. Not inlined into a simd_call: nothing in it vectorises.
template <typename T>
[[gnu::noinline]] Step<T> step_at(const MapView<T>& map, int x, int y, int window) {
  return window == 0 ? Step<T>{0, 0}
                     : limited(centroid_step(map, x, y, window), std::numeric_limits<T>::infinity());
}

// Adds the peaks of a map, in row-major order, refined: now it is in the cache.
template <typename Isa, typename T>
void list_map(
    Isa isa, const MapView<T>& map, int joint, T threshold, int window, Candidates& row, Plateaus& plateaus,
    std::vector<Listed<T>>& found) {
  plateaus.clear();
  for (int y = 0; y < map.height; ++y) {
    scan_row(isa, map, y, threshold, row);
    if (row.count > 0) {
      row.keep_peaks(map, y, 1, plateaus);
      for (int i = 0; i < row.count; ++i) {
        const int x = row.columns[i];
        const Step<T> step = step_at(map, x, y, window);
        found.push_back({x, y, joint, map(x, y), {static_cast<T>(x) + step.x, static_cast<T>(y) + step.y}});
      }
    }
  }
}

// Into the order of one key, which keeps that of equal ones.
template <typename T, typename Key>
void count_sort(const std::vector<Listed<T>>& from, int keys, const Key& key, std::vector<Listed<T>>& into) {
  std::vector<int64_t> places(keys + 1);
  for (const Listed<T>& peak : from) {
    ++places[key(peak) + 1];
  }
  for (int i = 0; i < keys; ++i) {
    places[i + 1] += places[i];
  }
  into.resize(from.size());
  for (const Listed<T>& peak : from) {
    into[places[key(peak)]++] = peak;
  }
}

// The peaks of all maps of a sample, map after map, into the order of row, column and map.
template <typename T>
void sort_peaks(std::vector<Listed<T>>& peaks, int height, int width) {
  if (static_cast<int64_t>(height) + width > 4096 + 4 * static_cast<int64_t>(peaks.size())) {
    std::stable_sort(peaks.begin(), peaks.end(), [](const Listed<T>& a, const Listed<T>& b) {
      return a.y != b.y ? a.y < b.y : a.x < b.x;
    });
    return;
  }
  std::vector<Listed<T>> by_column;
  count_sort(peaks, width, [](const Listed<T>& peak) { return peak.x; }, by_column);
  count_sort(by_column, height, [](const Listed<T>& peak) { return peak.y; }, peaks);
}

// The outputs.
template <typename T>
struct Lists {
  T *coords, *scores;
  int32_t *samples, *joints;

  void write(const std::vector<Listed<T>>& peaks, int64_t sample, int64_t place) const {
    for (const Listed<T>& peak : peaks) {
      coords[2 * place] = peak.coords[0];
      coords[2 * place + 1] = peak.coords[1];
      scores[place] = peak.score;
      samples[place] = static_cast<int32_t>(sample);
      joints[place] = peak.joint;
      ++place;
    }
  }
};

using Result = std::tuple<Tensor, Tensor, Tensor, Tensor>;

template <typename T>
Result list_peaks(const Tensor& maps, T threshold, int window) {
  const int64_t batch = maps.size(0), joints = maps.size(1);
  const int height = static_cast<int>(maps.size(2)), width = static_cast<int>(maps.size(3));
  const int64_t pixels = static_cast<int64_t>(height) * width;
  const T* data = maps.const_data_ptr<T>();
  std::vector<std::vector<Listed<T>>> found(batch * joints);
  torch::stable::parallel_for(
      0, batch * joints, std::max<int64_t>(1, (int64_t{1} << 16) / pixels), [&](int64_t begin, int64_t end) {
        Candidates row(width);
        Plateaus plateaus;
        simd_call([&](auto isa) {
          for (int64_t number = begin; number < end; ++number) {
            const MapView<T> map = {data + number * pixels, nullptr, height, width, false};
            list_map(isa, map, static_cast<int>(number % joints), threshold, window, row, plateaus, found[number]);
          }
        });
      });
  std::vector<int64_t> first(batch + 1);
  for (int64_t sample = 0; sample < batch; ++sample) {
    first[sample + 1] = first[sample];
    for (int64_t joint = 0; joint < joints; ++joint) {
      first[sample + 1] += static_cast<int64_t>(found[sample * joints + joint].size());
    }
  }
  const int64_t total = first[batch];
  const ScalarType type = maps.scalar_type();
  Result out = {
      empty_beside(maps, {total, 2}, type), empty_beside(maps, {total}, type),
      empty_beside(maps, {total}, ScalarType::Int), empty_beside(maps, {total}, ScalarType::Int)};
  const Lists<T> lists = {
      std::get<0>(out).template mutable_data_ptr<T>(), std::get<1>(out).template mutable_data_ptr<T>(),
      std::get<2>(out).template mutable_data_ptr<int32_t>(), std::get<3>(out).template mutable_data_ptr<int32_t>()};
  torch::stable::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
    std::vector<Listed<T>> all;
    for (int64_t sample = begin; sample < end; ++sample) {
      all.clear();
      for (int64_t joint = 0; joint < joints; ++joint) {
        const std::vector<Listed<T>>& some = found[sample * joints + joint];
        all.insert(all.end(), some.begin(), some.end());
      }
      sort_peaks(all, height, width);
      lists.write(all, sample, first[sample]);
    }
  });
  return out;
}

Result list_peaks_cpu(const Tensor& heatmaps, std::optional<double> threshold_or_none, int64_t window) {
  constexpr const char* op = "list_peaks";
  check_maps(op, heatmaps);
  const double threshold = threshold_of(threshold_or_none);
  check_threshold(op, threshold);
  PYPOSE_OPS_CHECK(
      window >= 0 && window <= kMaxKernelSize, op, ": window must be from 0 to ", kMaxKernelSize, ", got ", window);
  const Tensor maps = as_contiguous(heatmaps, acc_scalar_type(heatmaps.scalar_type()));
  return maps.scalar_type() == ScalarType::Double
      ? list_peaks<double>(maps, threshold, static_cast<int>(window))
      : list_peaks<float>(maps, static_cast<float>(threshold), static_cast<int>(window));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "_list_peaks(Tensor heatmaps, float? threshold, int window) -> "
      "(Tensor coords, Tensor scores, Tensor samples, Tensor joints)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("_list_peaks", TORCH_BOX(&list_peaks_cpu));
}

}  // namespace pypose_ops

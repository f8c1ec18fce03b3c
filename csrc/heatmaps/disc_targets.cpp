// _disc_targets: what heads of heatmaps and location refinement are trained on, in one call on the host: blobs or discs, the
// offsets to the keypoints, and the discs in which they count. Of a few animals every pass through the dispatcher costs as
// much as its arithmetic.
#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/library.h>

#include "heatmaps/gaussian_heatmaps.h"

#include "common/round_products.h"  // what is on the edge of a disc depends on it

namespace pypose_ops {
namespace {

using namespace heatmaps;

template <typename T>
struct DiscGrid {
  T stride, first;   // image pixels per map pixel, and that of the first
  T radius, square;  // of the discs, in image pixels
  T std;             // what offsets are divided by
  T margin;          // of the first pixel of a disc: radius + first
  int height, width, side;
};

// The pixels of a disc along one axis, and the offsets from them to the keypoint.
template <typename T>
struct Span {
  int from, count;
  std::vector<T> offsets;

  PYPOSE_OPS_ROUND_PRODUCTS void place(T at, const DiscGrid<T>& grid, int size) {
    const T most = static_cast<T>(std::max(grid.height, grid.width));
    const T lowest = std::floor((at - grid.margin) / grid.stride);
    from = static_cast<int>(lowest < 0 ? T(0) : lowest > most ? most : lowest);
    count = std::max(0, std::min(grid.side, size - from));
    offsets.resize(count);
    for (int i = 0; i < count; ++i) {
      offsets[i] = at - (static_cast<T>(from + i) * grid.stride + grid.first);
    }
  }
};

// disc(row, from, until): the pixels of that row that are in the disc.
template <typename T, typename Disc>
PYPOSE_OPS_ROUND_PRODUCTS void walk(const Span<T>& across, const Span<T>& down, T square, const Disc& disc) {
  for (int i = 0; i < down.count; ++i) {
    const T high = down.offsets[i] * down.offsets[i];
    int from = 0, until = across.count;
    while (from < until && !(across.offsets[from] * across.offsets[from] + high <= square)) {
      ++from;
    }
    while (until > from && !(across.offsets[until - 1] * across.offsets[until - 1] + high <= square)) {
      --until;
    }
    if (from < until) {
      disc(i, from, until);
    }
  }
}

// Offsets from every pixel to the keypoint.
template <typename T>
PYPOSE_OPS_ROUND_PRODUCTS void draw_offsets(T* maps, T x, T y, const DiscGrid<T>& grid) {
  const int64_t pixels = static_cast<int64_t>(grid.height) * grid.width;
  for (int column = 0; column < grid.width; ++column) {
    maps[column] = (x - static_cast<T>(column) * grid.stride - grid.first) / grid.std;
  }
  for (int row = 1; row < grid.height; ++row) {
    std::copy(maps, maps + grid.width, maps + static_cast<int64_t>(row) * grid.width);
  }
  for (int row = 0; row < grid.height; ++row) {
    T* into = maps + pixels + static_cast<int64_t>(row) * grid.width;
    std::fill(into, into + grid.width, (y - static_cast<T>(row) * grid.stride - grid.first) / grid.std);
  }
}

// The outputs of one joint of one image, whose animals are drawn one after the other.
template <typename T, typename mask_t>
struct JointMaps {
  T* discs;  // or null
  T* locref;
  mask_t* mask;
};

template <typename T, typename mask_t>
void draw_joint(
    const JointMaps<T, mask_t>& out, const T* points, int64_t people, int64_t step, const DiscGrid<T>& grid,
    Span<T>& across, Span<T>& down) {
  const int64_t pixels = static_cast<int64_t>(grid.height) * grid.width;
  std::fill(out.mask, out.mask + 2 * pixels, mask_t(0));
  const T* last = nullptr;
  if (out.discs != nullptr) {
    std::fill(out.discs, out.discs + pixels, T(0));
    std::fill(out.locref, out.locref + 2 * pixels, T(0));
  }
  for (int64_t p = 0; p < people; ++p) {
    const T* point = points + p * step;
    if (point[0] != point[0]) {
      continue;
    }
    last = point;
    across.place(point[0], grid, grid.width);
    down.place(point[1], grid, grid.height);
    walk(across, down, grid.square, [&](int i, int from, int until) {
      const int64_t row = static_cast<int64_t>(down.from + i) * grid.width + across.from;
      std::fill(out.mask + row + from, out.mask + row + until, mask_t(1));
      std::fill(out.mask + pixels + row + from, out.mask + pixels + row + until, mask_t(1));
      if (out.discs != nullptr) {
        std::fill(out.discs + row + from, out.discs + row + until, T(1));
        T* offsets = out.locref + row;
        for (int j = from; j < until; ++j) {
          offsets[j] = across.offsets[j] / grid.std;
        }
        std::fill(offsets + pixels + from, offsets + pixels + until, down.offsets[i] / grid.std);
      }
    });
  }
  if (out.discs == nullptr) {
    if (last != nullptr) {
      draw_offsets(out.locref, last[0], last[1], grid);
    } else {
      std::fill(out.locref, out.locref + 2 * pixels, T(0));
    }
  }
}

// Keypoints that are not shown become NaN. weights: 0 for joints of which one is not annotated, `background` for those of
// which one is missing.
template <typename T>
void place_animals(
    T* at, T* weights, const T* keypoints, const T* visible, int64_t batch, int64_t people, int64_t joints,
    std::optional<double> background) {
  std::fill(weights, weights + batch * joints, T(1));
  constexpr T none = std::numeric_limits<T>::quiet_NaN();
  for (int64_t i = 0; i < batch * people * joints; ++i) {
    const bool shown = visible[i] > 0 && is_finite(keypoints[2 * i]) && is_finite(keypoints[2 * i + 1]);
    at[2 * i] = shown ? keypoints[2 * i] : none;
    at[2 * i + 1] = shown ? keypoints[2 * i + 1] : none;
    T& weight = weights[i / (people * joints) * joints + i % joints];
    weight = visible[i] == T(-1) ? T(0) : background && visible[i] == T(0) ? static_cast<T>(*background) : weight;
  }
}

using Targets = std::tuple<Tensor, Tensor, Tensor, Tensor>;

template <typename T>
Targets draw_targets(
    const Tensor& keypoints, const Tensor& visible, int64_t height, int64_t width, double stride, double first,
    bool plateau, double radius, double std, double sigma, std::optional<double> background, ScalarType mask_type) {
  const int64_t batch = keypoints.size(0), people = keypoints.size(1), joints = keypoints.size(2);
  const ScalarType type = keypoints.scalar_type();
  const Tensor at = empty_beside(keypoints, keypoints.sizes());
  const Tensor weights = empty_beside(keypoints, {batch, joints, 1, 1});
  T* points = at.mutable_data_ptr<T>();
  place_animals(
      points, weights.mutable_data_ptr<T>(), keypoints.const_data_ptr<T>(), visible.const_data_ptr<T>(), batch, people,
      joints, background);
  const Tensor locref = empty_beside(keypoints, {batch, 2 * joints, height, width});
  const Tensor mask = empty_beside(keypoints, {batch, 2 * joints, height, width}, mask_type);
  const int64_t pixels = height * width;
  const DiscGrid<T> grid = {
      static_cast<T>(stride), static_cast<T>(first), static_cast<T>(radius), static_cast<T>(radius * radius),
      static_cast<T>(std), static_cast<T>(radius + first), static_cast<int>(height), static_cast<int>(width),
      static_cast<int>(std::min<double>(static_cast<double>(std::max(height, width)), std::floor(2 * radius / stride) + 2))};
  Tensor maps;
  if (plateau) {
    maps = empty_beside(keypoints, {batch, joints, height, width});
  } else {
    // In map pixels, as torch would compute them.
    const Tensor placed = empty_beside(keypoints, keypoints.sizes());
    T* into = placed.mutable_data_ptr<T>();
    for (int64_t i = 0; i < 2 * batch * people * joints; ++i) {
      into[i] = (points[i] - grid.first) / grid.stride;
    }
    maps = draw_gaussians(placed, sigma, height, width, 0, std::nullopt, 1.0, type);
  }
  const auto draw = [&](auto zero) {
    using mask_t = decltype(zero);
    T* discs = plateau ? maps.mutable_data_ptr<T>() : nullptr;
    T* offsets = locref.mutable_data_ptr<T>();
    mask_t* masks = mask.mutable_data_ptr<mask_t>();
    const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 15) / (4 * pixels));
    torch::stable::parallel_for(0, batch * joints, grain, [&](int64_t begin, int64_t end) {
      Span<T> across, down;
      for (int64_t map = begin; map < end; ++map) {
        const JointMaps<T, mask_t> out = {
            plateau ? discs + map * pixels : nullptr, offsets + 2 * map * pixels, masks + 2 * map * pixels};
        const T* from = points + 2 * (map / joints * people * joints + map % joints);
        draw_joint(out, from, people, 2 * joints, grid, across, down);
      }
    });
  };
  if (mask_type == ScalarType::Long) {
    draw(int64_t{0});
  } else {
    draw(T(0));
  }
  return {maps, weights, locref, mask};
}

Targets disc_targets_cpu(
    const Tensor& keypoints, const Tensor& visible, int64_t height, int64_t width, double stride, double first,
    bool plateau, double radius, double std, double sigma, std::optional<double> background, ScalarType mask_type) {
  constexpr const char* op = "heatmap_targets";
  check_dim(op, "keypoints", keypoints, 4, "(B, P, K, 2)");
  check_size(op, "keypoints", keypoints, 3, 2);
  check_coordinates(op, "keypoints", keypoints);
  PYPOSE_OPS_CHECK(
      visible.numel() * 2 == keypoints.numel(), op, ": visible must be (B, P, K), got shape ", shape_of(visible));
  constexpr int64_t most = int64_t{1} << 30;
  PYPOSE_OPS_CHECK(
      height > 0 && width > 0 && height <= most / width, op, ": size must be positive, of at most 2^30 pixels, got (",
      height, ", ", width, ")");
  PYPOSE_OPS_CHECK(stride > 0 && radius > 0, op, ": stride and dist_thresh must be positive");
  const ScalarType type = keypoints.scalar_type();
  PYPOSE_OPS_CHECK(
      mask_type == type || mask_type == ScalarType::Long, op, ": weights_dtype must be that of the keypoints or int64");
  const Tensor points = as_contiguous(keypoints), seen = as_contiguous(visible, type);
  const auto run = type == ScalarType::Double ? &draw_targets<double> : &draw_targets<float>;
  return run(points, seen, height, width, stride, first, plateau, radius, std, sigma, background, mask_type);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "_disc_targets(Tensor keypoints, Tensor visible, SymInt height, SymInt width, float stride, float first, "
      "bool plateau, float radius, float std, float sigma, float? background, ScalarType mask_dtype) -> "
      "(Tensor maps, Tensor weights, Tensor locref, Tensor mask)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("_disc_targets", TORCH_BOX(&disc_targets_cpu));
}

}  // namespace pypose_ops

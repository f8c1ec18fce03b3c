// The CPU kernels of part_affinity_fields and limb_masks: one limb's map, row by row.
#pragma once

#include <algorithm>
#include <vector>

#include "heatmaps/gaussian_tables.h"
#include "heatmaps/limbs.h"

namespace pypose_ops {
namespace heatmaps {

// One row in the arithmetic's type. A mask uses x only.
template <typename acc>
struct LimbRow {
  explicit LimbRow(int64_t width) : width(width), x(width), y(width), people(width) {}

  int64_t width;
  std::vector<acc> x, y;
  std::vector<acc> people;  // how many cover the pixel
};

template <LimbProfile profile, bool last = false, typename acc>
PYPOSE_OPS_HOST_DEVICE void add_limb(
    acc* row_x, acc* row_y, acc* people, const Limb<acc>& limb, acc radius, int32_t y) {
  for (int32_t x = limb.left; x < limb.right; ++x) {
    const acc weight = limb_weight<profile>(limb, radius, x, y);
    if constexpr (profile == LimbProfile::capsule) {
      row_x[x] = weight > row_x[x] ? weight : row_x[x];
    } else if constexpr (last) {
      const bool covers = limb_covers<profile>(limb, radius, x, y);
      row_x[x] = covers ? weight * limb.along_x : row_x[x];
      row_y[x] = covers ? weight * limb.along_y : row_y[x];
    } else {
      row_x[x] += weight * limb.along_x;
      row_y[x] += weight * limb.along_y;
      if constexpr (!is_soft(profile)) {
        people[x] += limb_covers<profile>(limb, radius, x, y) ? acc(1) : acc(0);
      }
    }
  }
}

template <typename acc>
PYPOSE_OPS_HOST_DEVICE
void add_limb(acc* row_x, acc* row_y, acc* people, const Limb<acc>& limb, const LimbOptions& options, int32_t y) {
  const acc radius = static_cast<acc>(options.radius);
  const bool last = options.combine == LimbCombine::last;
  switch (options.profile) {
    case LimbProfile::band:
    case LimbProfile::openpose:  // they differ in the limb's range
      return last ? add_limb<LimbProfile::band, true>(row_x, row_y, people, limb, radius, y)
                  : add_limb<LimbProfile::band>(row_x, row_y, people, limb, radius, y);
    case LimbProfile::linear:
      return last ? add_limb<LimbProfile::linear, true>(row_x, row_y, people, limb, radius, y)
                  : add_limb<LimbProfile::linear>(row_x, row_y, people, limb, radius, y);
    case LimbProfile::trt_pose:
      return add_limb<LimbProfile::trt_pose>(row_x, row_y, people, limb, radius, y);
    case LimbProfile::sleap:
      return add_limb<LimbProfile::sleap>(row_x, row_y, people, limb, radius, y);
    case LimbProfile::capsule:
      return add_limb<LimbProfile::capsule>(row_x, row_y, people, limb, radius, y);
  }
}

// out[x] = row[x] / people[x] where people overlap.
template <typename Isa, typename T, typename acc = acc_t<T>>
PYPOSE_OPS_HOST_DEVICE void store_mean(Isa isa, T* out, const acc* row, const acc* people, int64_t width) {
  store_row(
      isa, out, width,
      [=](int64_t x) {
        const auto count = isa.load(people + x);
        return isa.load(row + x) / (count > acc(1) ? count : count - count + acc(1));
      },
      [=](int64_t x) { return row[x] / (people[x] > acc(1) ? people[x] : acc(1)); });
}

// One map: channels is 2 for a field (x, then y, a map apart) and 1 for a mask.
template <typename T, typename acc = acc_t<T>>
void draw_limbs(
    T* out, int channels, const std::vector<Limb<acc>>& limbs, int64_t people, LimbRow<acc>& row,
    const LimbOptions& options, const Shape& shape) {
  const int64_t width = shape.width;
  acc* row_x = row.x.data();
  acc* row_y = row.y.data();
  acc* count = row.people.data();
  const bool mean = options.combine == LimbCombine::mean;
  const acc everywhere = mean && is_soft(options.profile) ? static_cast<acc>(people) : acc(0);
  for (int32_t y = 0; y < shape.height; ++y) {
    T* target = out + y * width;
    bool touched = false;
    for (const Limb<acc>& limb : limbs) {
      touched = touched || (limb.top <= y && y < limb.bottom);
    }
    if (!touched) {
      for (int channel = 0; channel < channels; ++channel) {
        std::memset(static_cast<void*>(target + channel * shape.pixels()), 0, width * sizeof(T));
      }
      continue;
    }
    simd_call([&](auto isa) {
      for (int64_t x = 0; x < width; ++x) {
        row_x[x] = 0;
        row_y[x] = 0;
        count[x] = everywhere;
      }
      for (const Limb<acc>& limb : limbs) {
        if (limb.top <= y && y < limb.bottom) {
          add_limb(row_x, row_y, count, limb, options, y);
        }
      }
      if (!mean) {
        for (int64_t x = 0; x < width; ++x) {
          count[x] = 0;
        }
      }
      store_mean(isa, target, row_x, count, width);
      if (channels == 2) {
        store_mean(isa, target + shape.pixels(), row_y, count, width);
      }
    });
  }
}

// out is (B, channels * L, H, W).
template <typename T>
void draw_all_limbs(
    T* out, int channels, const People<acc_t<T>>& people, const LimbList& limbs, const LimbOptions& options,
    const Shape& shape) {
  using acc = acc_t<T>;
  const int64_t grain = std::max<int64_t>(1, kGrainPixels / (shape.pixels() * channels));
  torch::stable::parallel_for(0, shape.batch * limbs.count, grain, [&](int64_t begin, int64_t end) {
    const FlushSubnormals flush;
    LimbRow<acc> row(shape.width);
    std::vector<Limb<acc>> drawn;
    for (int64_t map = begin; map < end; ++map) {
      const int64_t b = map / limbs.count, l = map % limbs.count;
      drawn.clear();
      int64_t present = 0;
      for (int64_t p = 0; p < shape.people; ++p) {
        const Limb<acc> limb = limb_of(people, options, shape, limbs.from[l], limbs.to[l], b, p);
        present += limb.present;
        if (limb.drawn) {
          drawn.push_back(limb);
        }
      }
      draw_limbs(out + map * channels * shape.pixels(), channels, drawn, present, row, options, shape);
    }
  });
}

template <int channels>
Tensor limb_maps_cpu(
    const char* op, const std::optional<Tensor>& given, const Tensor& keypoints, const std::vector<int64_t>& limbs,
    const LimbOptions& options,
    const std::optional<Tensor>& visible, int64_t height, int64_t width, ScalarType dtype) {
  LimbMaps maps(op, given, channels, keypoints, limbs, visible, height, width, dtype);
  if (maps.out.numel() == 0) {
    return maps.out;
  }
  const PeopleTensors people(keypoints, std::nullopt, visible, acc_scalar_type(dtype));
  PYPOSE_OPS_DISPATCH_FLOATING(dtype, "limbs", [&] {
    draw_all_limbs(
        maps.out.mutable_data_ptr<scalar_t>(), channels, people.view<acc_t<scalar_t>>(), maps.limbs, options,
        maps.shape);
  });
  return maps.out;
}

}  // namespace heatmaps
}  // namespace pypose_ops

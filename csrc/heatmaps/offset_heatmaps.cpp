#include "heatmaps/offset_heatmaps.h"

#include <algorithm>
#include <vector>

#include <torch/csrc/stable/library.h>

#include "common/outputs.h"
#include "common/streaming.h"
#include "heatmaps/gaussian_tables.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

// One row of the three maps, in the arithmetic's type, and whose offsets it holds.
template <typename acc>
struct OffsetRow {
  explicit OffsetRow(int64_t width) : inside(width), x(width), y(width), distance(width) {}

  std::vector<acc> inside, x, y, distance;
};

// out is three maps of one joint.
template <typename T, typename acc = acc_t<T>>
void draw(
    T* out, const std::vector<Point<acc>>& points, OffsetRow<acc>& row, acc radius, Winner winner,
    const Shape& shape) {
  const int32_t width = static_cast<int32_t>(shape.width);
  acc* inside = row.inside.data();
  acc* offset_x = row.x.data();
  acc* offset_y = row.y.data();
  acc* distance = row.distance.data();
  for (int32_t y = 0; y < shape.height; ++y) {
    simd_call([&](auto isa) {
      const OffsetPixel<acc> empty = empty_pixel<acc>();
      for (int32_t x = 0; x < width; ++x) {
        inside[x] = empty.inside;
        offset_x[x] = empty.x;
        offset_y[x] = empty.y;
        distance[x] = empty.distance;
      }
      for (const Point<acc>& point : points) {
        const acc center = point.x;
        const acc down = point.y - static_cast<acc>(y);
        for (int32_t x = 0; x < width; ++x) {
          OffsetPixel<acc> pixel{inside[x], offset_x[x], offset_y[x], distance[x]};
          add_offset(pixel, center - static_cast<acc>(x), down, radius, winner);
          inside[x] = pixel.inside;
          offset_x[x] = pixel.x;
          offset_y[x] = pixel.y;
          distance[x] = pixel.distance;
        }
      }
      for (int32_t x = 0; x < width; ++x) {
        offset_x[x] /= radius;
        offset_y[x] /= radius;
      }
      T* target = out + y * shape.width;
      store_row(isa, target, width, inside);
      store_row(isa, target + shape.pixels(), width, offset_x);
      store_row(isa, target + 2 * shape.pixels(), width, offset_y);
    });
  }
}

// One person: the offsets in x are the same in every row, those in y constant along it, and the disc is in a few rows.
template <typename T, typename acc = acc_t<T>>
void draw_one(T* out, const Point<acc>& point, OffsetRow<acc>& row, acc radius, const Shape& shape) {
  const int32_t width = static_cast<int32_t>(shape.width);
  const int32_t height = static_cast<int32_t>(shape.height);
  acc* inside = row.inside.data();
  acc* offset_x = row.x.data();
  T* disc = out;
  T* map_x = out + shape.pixels();
  T* map_y = map_x + shape.pixels();
  std::memset(static_cast<void*>(disc), 0, shape.pixels() * sizeof(T));
  simd_call([=](auto isa) {
    for (int32_t x = 0; x < width; ++x) {
      offset_x[x] = (point.x - static_cast<acc>(x)) / radius;
    }
    for (int32_t y = 0; y < height; ++y) {
      const acc down = (point.y - static_cast<acc>(y)) / radius;
      if (down <= acc(1) && down >= acc(-1)) {
        for (int32_t x = 0; x < width; ++x) {
          const acc across = offset_x[x];
          inside[x] = across * across + down * down <= acc(1) ? acc(1) : acc(0);
        }
        store_row(isa, disc + y * shape.width, width, inside);
      }
    }
    for (int32_t y = 0; y < height; ++y) {
      store_row(isa, map_x + y * shape.width, width, offset_x);
    }
    for (int32_t y = 0; y < height; ++y) {
      const acc down = (point.y - static_cast<acc>(y)) / radius;
      const auto downs = down - simd::vec<acc, decltype(isa)>{};
      store_row(isa, map_y + y * shape.width, width, [=](int64_t) { return downs; }, [=](int64_t) { return down; });
    }
  });
}

template <typename T>
void run_draw(
    const Tensor& out, bool is_new, const PeopleTensors& tensors, double radius, Winner winner, const Shape& shape) {
  using acc = acc_t<T>;
  const bool streamed = is_streamed(out.numel() * sizeof(T), is_new);
  T* data = out.mutable_data_ptr<T>();
  const People<acc> people = tensors.view<acc>();
  const int64_t grain = std::max<int64_t>(1, kGrainPixels / (3 * shape.pixels()));
  torch::stable::parallel_for(0, shape.maps(), grain, [&](int64_t begin, int64_t end) {
    const FlushSubnormals flush;
    OffsetRow<acc> row(shape.width);
    std::vector<Point<acc>> points;
    Pieces<T> pieces(data, 3 * shape.pixels(), streamed);
    for (int64_t map = begin; map < end; ++map) {
      points.clear();
      for (int64_t p = 0; p < shape.people; ++p) {
        const Point<acc> point = point_of(people, map / shape.joints, p, map % shape.joints);
        if (point.drawn) {
          points.push_back(point);
        }
      }
      pieces.write(map, [&](T* to) {
        if (points.size() == 1) {
          draw_one(to, points[0], row, static_cast<acc>(radius), shape);
        } else {
          draw(to, points, row, static_cast<acc>(radius), winner, shape);
        }
      });
    }
  });
}

Tensor offset_heatmaps_cpu(
    const std::optional<Tensor>& given, const Tensor& keypoints, double radius, const std::optional<Tensor>& visible, int64_t height, int64_t width,
    int64_t combine, ScalarType dtype) {
  constexpr const char* op = "offset_heatmaps";
  const Shape shape = check_people(op, keypoints, std::nullopt, visible, height, width);
  check_radius(op, radius);
  const Winner winner = check_choice<Winner>(op, "combine", combine, 2);
  check_map_type(op, dtype);
  const Tensor out = output_of(op, given, keypoints, {shape.batch, 3 * shape.joints, height, width}, dtype);
  if (out.numel() == 0) {
    return out;
  }
  const PeopleTensors people(keypoints, std::nullopt, visible, acc_scalar_type(dtype));
  PYPOSE_OPS_DISPATCH_FLOATING(dtype, op, [&] { run_draw<scalar_t>(out, !given, people, radius, winner, shape); });
  return out;
}

}  // namespace

#define PYPOSE_OPS_ARGUMENTS \
  "Tensor keypoints, float radius, Tensor? visible, SymInt height, SymInt width, int combine, ScalarType " \
  "dtype"

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def("offset_heatmaps(" PYPOSE_OPS_ARGUMENTS ") -> Tensor");
  m.def("offset_heatmaps.out(Tensor(a!) out, " PYPOSE_OPS_ARGUMENTS ") -> ()");
}
#undef PYPOSE_OPS_ARGUMENTS

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  using Op = Drawn<&offset_heatmaps_cpu>;
  m.impl("offset_heatmaps", TORCH_BOX(&Op::returned));
  m.impl("offset_heatmaps.out", TORCH_BOX(&Op::into));
}

}  // namespace pypose_ops

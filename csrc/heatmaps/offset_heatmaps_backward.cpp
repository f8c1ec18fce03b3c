#include <algorithm>
#include <vector>

#include <torch/csrc/stable/library.h>

#include "heatmaps/gaussian_tables.h"
#include "heatmaps/offset_heatmaps.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

// Scratch of one map: whose offsets a row holds, and each person's sums of the gradient, kept per column until the last
// row: adding a row is then a vector loop without a reduction.
template <typename acc>
struct OffsetColumns {
  explicit OffsetColumns(int64_t width) : width(width), owner(width), distance(width) {}

  int64_t width;
  std::vector<int32_t> owner;
  std::vector<acc> distance;
  std::vector<acc> sums;  // (people, 2, width)
};

template <typename acc>
PYPOSE_OPS_HOST_DEVICE void find_owners(
    int32_t* owner, acc* distance, const std::vector<Point<acc>>& points, Winner winner, int32_t y, int32_t width) {
  for (int32_t x = 0; x < width; ++x) {
    owner[x] = static_cast<int32_t>(points.size()) - 1;
    distance[x] = std::numeric_limits<acc>::infinity();
  }
  for (size_t i = 0; winner == Winner::nearest && i < points.size(); ++i) {
    const acc center = points[i].x;
    const acc down = points[i].y - static_cast<acc>(y);
    for (int32_t x = 0; x < width; ++x) {
      const acc own = square_distance(center - static_cast<acc>(x), down);
      owner[x] = own < distance[x] ? static_cast<int32_t>(i) : owner[x];
      distance[x] = own < distance[x] ? own : distance[x];
    }
  }
}

template <typename T, typename acc>
PYPOSE_OPS_HOST_DEVICE void add_owned(acc* sums, const T* grad, const int32_t* owner, int32_t wanted, int64_t width) {
  for (int64_t x = 0; x < width; ++x) {
    const acc value = simd::load(grad[x]);  // in any case: AVX2 has no masked reads of half precision
    sums[x] += owner[x] == wanted ? value : acc(0);
  }
}

// grad is three maps of one joint, of which the disc has no slope. grad_keypoints is (B, P, K, 2), zeroed before.
template <typename T, typename acc = acc_t<T>>
void map_backward(
    const T* grad, acc* grad_keypoints, const std::vector<Point<acc>>& points, const std::vector<int64_t>& persons,
    OffsetColumns<acc>& columns, acc radius, Winner winner, const Shape& shape) {
  const int64_t width = shape.width;
  columns.sums.assign(points.size() * 2 * width, acc(0));
  acc* sums = columns.sums.data();
  int32_t* owner = columns.owner.data();
  acc* distance = columns.distance.data();
  for (int32_t y = 0; y < shape.height; ++y) {
    simd_call([&] {
      find_owners(owner, distance, points, winner, y, static_cast<int32_t>(width));
      for (size_t i = 0; i < points.size(); ++i) {
        const T* row = grad + shape.pixels() + y * width;
        add_owned(sums + 2 * i * width, row, owner, static_cast<int32_t>(i), width);
        add_owned(sums + (2 * i + 1) * width, row + shape.pixels(), owner, static_cast<int32_t>(i), width);
      }
    });
  }
  for (size_t i = 0; i < 2 * points.size(); ++i) {
    acc sum = 0;
    for (int64_t x = 0; x < width; ++x) {
      sum += sums[i * width + x];
    }
    grad_keypoints[persons[i / 2] * shape.joints * 2 + i % 2] = sum / radius;
  }
}

template <typename T>
void run_backward(
    const Tensor& grad, const Tensor& grad_keypoints, const PeopleTensors& tensors, double radius, Winner winner,
    const Shape& shape) {
  using acc = acc_t<T>;
  const T* data = grad.const_data_ptr<T>();
  acc* out = grad_keypoints.mutable_data_ptr<acc>();
  const People<acc> people = tensors.view<acc>();
  const int64_t grain = std::max<int64_t>(1, kGrainPixels / (2 * shape.pixels()));
  torch::stable::parallel_for(0, shape.maps(), grain, [&](int64_t begin, int64_t end) {
    const FlushSubnormals flush;
    OffsetColumns<acc> columns(shape.width);
    std::vector<Point<acc>> points;
    std::vector<int64_t> persons;
    for (int64_t map = begin; map < end; ++map) {
      const int64_t b = map / shape.joints, k = map % shape.joints;
      points.clear();
      persons.clear();
      for (int64_t p = 0; p < shape.people; ++p) {
        const Point<acc> point = point_of(people, b, p, k);
        if (point.drawn) {
          points.push_back(point);
          persons.push_back(p);
        }
      }
      map_backward(
          data + 3 * map * shape.pixels(), out + (b * shape.people * shape.joints + k) * 2, points, persons, columns,
          static_cast<acc>(radius), winner, shape);
    }
  });
}

Tensor offset_heatmaps_backward_cpu(
    const Tensor& grad, const Tensor& keypoints, double radius, const std::optional<Tensor>& visible, int64_t combine) {
  constexpr const char* op = "_offset_heatmaps_backward";
  const Shape shape = check_offset_backward(op, grad, keypoints, visible);
  check_radius(op, radius);
  const Winner winner = check_choice<Winner>(op, "combine", combine, 2);
  const ScalarType acc_type = acc_scalar_type(grad.scalar_type());
  Tensor grad_keypoints = zeros_beside(keypoints, {shape.batch, shape.people, shape.joints, 2}, acc_type);
  if (grad_keypoints.numel() == 0) {
    return grad_keypoints;
  }
  const PeopleTensors people(keypoints, std::nullopt, visible, acc_type);
  const Tensor dense = as_contiguous(grad);
  PYPOSE_OPS_DISPATCH_FLOATING(grad.scalar_type(), op, [&] {
    run_backward<scalar_t>(dense, grad_keypoints, people, radius, winner, shape);
  });
  return grad_keypoints;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "_offset_heatmaps_backward(Tensor grad, Tensor keypoints, float radius, Tensor? visible, int combine) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("_offset_heatmaps_backward", TORCH_BOX(&offset_heatmaps_backward_cpu));
}

}  // namespace pypose_ops

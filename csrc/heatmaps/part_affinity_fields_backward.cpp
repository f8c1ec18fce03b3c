#include <algorithm>
#include <vector>

#include <torch/csrc/stable/library.h>

#include "heatmaps/gaussian_tables.h"
#include "heatmaps/limb_gradients.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

// One row of the gradient of a limb's field, and the moments of the people that draw it, kept per column until the last
// row: adding a row is then a vector loop without a reduction.
template <typename acc>
struct Columns {
  explicit Columns(int64_t width) : width(width), grad_x(width), grad_y(width), people(width) {}

  void clear(size_t limbs) {
    moments.assign(limbs * kLimbMoments * width, acc(0));
  }
  acc* of(size_t limb) {
    return moments.data() + limb * kLimbMoments * width;
  }

  int64_t width;
  std::vector<acc> grad_x, grad_y;
  std::vector<acc> people;   // how many share the pixel
  std::vector<acc> moments;  // (limbs, kLimbMoments, width)
};

constexpr int32_t kChunk = 16;

// By way of local arrays: the compiler gives up on eight pointers that may overlap.
template <LimbProfile profile, typename acc>
PYPOSE_OPS_HOST_DEVICE void add_chunk(
    acc* columns, int64_t stride, const Limb<acc>& limb, acc radius, const acc* grad_x, const acc* grad_y, int32_t first,
    int32_t count, int32_t y) {
  acc parts[kLimbMoments][kChunk];
  for (int32_t j = 0; j < count; ++j) {
    acc moments[kLimbMoments];
    limb_moments<profile>(limb, radius, first + j, y, grad_x[first + j], grad_y[first + j], moments);
    parts[0][j] = moments[0];
    parts[1][j] = moments[1];
    parts[2][j] = moments[2];
    parts[3][j] = moments[3];
    parts[4][j] = moments[4];
    parts[5][j] = moments[5];
  }
  for (int i = 0; i < (has_slope(profile) ? kLimbMoments : 2); ++i) {
    acc* sums = columns + i * stride + first;
    for (int32_t j = 0; j < count; ++j) {
      sums[j] += parts[i][j];
    }
  }
}

template <LimbProfile profile, typename acc>
PYPOSE_OPS_HOST_DEVICE void add_moments(
    acc* columns, int64_t stride, const Limb<acc>& limb, acc radius, const acc* grad_x, const acc* grad_y, int32_t y) {
  const Limb<acc> here = limb;
  int32_t x = here.left;
  for (; x + kChunk <= here.right; x += kChunk) {
    add_chunk<profile>(columns, stride, here, radius, grad_x, grad_y, x, kChunk, y);
  }
  if (x < here.right) {
    add_chunk<profile>(columns, stride, here, radius, grad_x, grad_y, x, here.right - x, y);
  }
}

// The moments of one limb in one row.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE void add_moments(
    acc* columns, int64_t stride, const Limb<acc>& limb, const LimbOptions& options, const acc* grad_x,
    const acc* grad_y, int32_t y) {
  const acc radius = static_cast<acc>(options.radius);
  switch (options.profile) {
    case LimbProfile::trt_pose:
      return add_moments<LimbProfile::trt_pose>(columns, stride, limb, radius, grad_x, grad_y, y);
    case LimbProfile::sleap:
      return add_moments<LimbProfile::sleap>(columns, stride, limb, radius, grad_x, grad_y, y);
    case LimbProfile::linear:
      return add_moments<LimbProfile::linear>(columns, stride, limb, radius, grad_x, grad_y, y);
    default:
      return add_moments<LimbProfile::band>(columns, stride, limb, radius, grad_x, grad_y, y);
  }
}

// Zeroes the gradient where a limb covers those before it.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE void hide_covered(
    const Limb<acc>& limb, const LimbOptions& options, int32_t y, acc* grad_x, acc* grad_y) {
  for (int32_t x = limb.left; x < limb.right; ++x) {
    const bool covers = limb_covers(limb, options, x, y);
    grad_x[x] = covers ? acc(0) : grad_x[x];
    grad_y[x] = covers ? acc(0) : grad_y[x];
  }
}

// Loads a row of the gradient, divided by the number of people that share each pixel.
template <typename T, typename acc = acc_t<T>>
PYPOSE_OPS_HOST_DEVICE void load_gradient(
    const T* grad, int64_t pixels, const std::vector<Limb<acc>>& limbs, const LimbOptions& options, acc everywhere,
    int32_t y, int64_t width, acc* grad_x, acc* grad_y, acc* people) {
  const bool counted = options.combine == LimbCombine::mean && !is_soft(options.profile);
  for (int64_t x = 0; x < width; ++x) {
    people[x] = everywhere;
  }
  for (const Limb<acc>& limb : limbs) {
    if (counted && limb.top <= y && y < limb.bottom) {
      for (int32_t x = limb.left; x < limb.right; ++x) {
        people[x] += limb_covers(limb, options, x, y) ? acc(1) : acc(0);
      }
    }
  }
  for (int64_t x = 0; x < width; ++x) {
    const acc share = people[x] > acc(1) ? people[x] : acc(1);
    grad_x[x] = simd::load(grad[x]) / share;
    grad_y[x] = simd::load(grad[pixels + x]) / share;
  }
}

// The moments of one limb of all people. grad is its two maps.
template <typename T, typename acc = acc_t<T>>
void field_moments(
    const T* grad, const std::vector<Limb<acc>>& limbs, int64_t present, const LimbOptions& options, const Shape& shape,
    Columns<acc>& columns) {
  columns.clear(limbs.size());
  const bool shared = options.combine == LimbCombine::mean && is_soft(options.profile);
  const acc everywhere = shared ? static_cast<acc>(present) : acc(0);
  acc* grad_x = columns.grad_x.data();
  acc* grad_y = columns.grad_y.data();
  acc* people = columns.people.data();
  int32_t top = static_cast<int32_t>(shape.height), bottom = 0;
  for (const Limb<acc>& limb : limbs) {
    top = std::min(top, limb.top);
    bottom = std::max(bottom, limb.bottom);
  }
  for (int32_t y = top; y < bottom; ++y) {
    simd_call([&] {
      load_gradient(
          grad + y * shape.width, shape.pixels(), limbs, options, everywhere, y, shape.width, grad_x, grad_y, people);
      for (size_t i = limbs.size(); i-- > 0;) {  // backwards: the last person is on top
        if (limbs[i].top > y || y >= limbs[i].bottom) {
          continue;
        }
        add_moments(columns.of(i), shape.width, limbs[i], options, grad_x, grad_y, y);
        if (options.combine == LimbCombine::last) {
          hide_covered(limbs[i], options, y, grad_x, grad_y);
        }
      }
    });
  }
}

template <typename acc>
void write_ends(const Limb<acc>& limb, const acc* columns, int64_t width, acc* grad_ends) {
  acc moments[kLimbMoments] = {};
  for (int i = 0; i < kLimbMoments; ++i) {
    for (int64_t x = 0; x < width; ++x) {
      moments[i] += columns[i * width + x];
    }
  }
  end_gradients(limb, moments, grad_ends);
}

// grad_ends is (B, P, L, 4), zeroed before.
template <typename T>
void run_ends(
    const Tensor& grad, const Tensor& grad_ends, const PeopleTensors& tensors, const LimbList& limbs,
    const LimbOptions& options, const Shape& shape) {
  using acc = acc_t<T>;
  const T* data = grad.const_data_ptr<T>();
  acc* ends = grad_ends.mutable_data_ptr<acc>();
  const People<acc> people = tensors.view<acc>();
  const int64_t grain = std::max<int64_t>(1, kGrainPixels / (2 * shape.pixels()));
  torch::stable::parallel_for(0, shape.batch * limbs.count, grain, [&](int64_t begin, int64_t end) {
    const FlushSubnormals flush;
    Columns<acc> columns(shape.width);
    std::vector<Limb<acc>> drawn;
    std::vector<int64_t> persons;
    for (int64_t map = begin; map < end; ++map) {
      const int64_t b = map / limbs.count, l = map % limbs.count;
      drawn.clear();
      persons.clear();
      int64_t present = 0;
      for (int64_t p = 0; p < shape.people; ++p) {
        const Limb<acc> limb = limb_of(people, options, shape, limbs.from[l], limbs.to[l], b, p);
        present += limb.present;
        if (limb.drawn) {
          drawn.push_back(limb);
          persons.push_back(p);
        }
      }
      field_moments(data + map * 2 * shape.pixels(), drawn, present, options, shape, columns);
      for (size_t i = 0; i < drawn.size(); ++i) {
        acc* at = ends + ((b * shape.people + persons[i]) * limbs.count + l) * 4;
        write_ends(drawn[i], columns.of(i), shape.width, at);
      }
    }
  });
}

template <typename T>
void run_backward(
    const Tensor& grad, const Tensor& grad_ends, const Tensor& grad_keypoints, const PeopleTensors& people,
    const LimbList& limbs, const LimbOptions& options, const Shape& shape) {
  using acc = acc_t<T>;
  run_ends<T>(grad, grad_ends, people, limbs, options, shape);
  const acc* ends = grad_ends.const_data_ptr<acc>();
  acc* out = grad_keypoints.mutable_data_ptr<acc>();
  const int64_t grain = std::max<int64_t>(1, kGrainPixels / std::max<int64_t>(1, limbs.count));
  torch::stable::parallel_for(
      0, shape.batch * shape.people * shape.joints, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          gather_ends(ends + i / shape.joints * limbs.count * 4, limbs, i % shape.joints, out + 2 * i);
        }
      });
}

Tensor part_affinity_fields_backward_cpu(
    const Tensor& grad, const Tensor& keypoints, std::vector<int64_t> limbs, double limb_radius,
    const std::optional<Tensor>& visible, int64_t profile, int64_t combine) {
  constexpr const char* op = "_part_affinity_fields_backward";
  const Shape shape = check_field_backward(op, grad, keypoints, visible, static_cast<int64_t>(limbs.size() / 2));
  const LimbList list = check_limbs(op, limbs, shape.joints);
  const LimbOptions options = check_limb_options(op, limb_radius, profile, combine);
  const ScalarType acc_type = acc_scalar_type(grad.scalar_type());
  Tensor grad_keypoints = zeros_beside(keypoints, {shape.batch, shape.people, shape.joints, 2}, acc_type);
  if (grad_keypoints.numel() == 0 || list.count == 0) {
    return grad_keypoints;
  }
  const Tensor grad_ends = zeros_beside(keypoints, {shape.batch, shape.people, list.count, 4}, acc_type);
  const PeopleTensors people(keypoints, std::nullopt, visible, acc_type);
  const Tensor dense = as_contiguous(grad);
  PYPOSE_OPS_DISPATCH_FLOATING(grad.scalar_type(), op, [&] {
    run_backward<scalar_t>(dense, grad_ends, grad_keypoints, people, list, options, shape);
  });
  return grad_keypoints;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "_part_affinity_fields_backward(Tensor grad, Tensor keypoints, int[] limbs, float limb_radius, Tensor? visible, "
      "int profile, int combine) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("_part_affinity_fields_backward", TORCH_BOX(&part_affinity_fields_backward_cpu));
}

}  // namespace pypose_ops

// max_product: the formulas shared by the CPU and CUDA kernels.
//
// A message is  m(t) = max over s of  h(s) - cost_x(s, t) - cost_y(s, t),  one axis after the other. Along an axis every
// source is a parabola over the targets, all of the same width; the sources that are highest somewhere, and from where on,
// are found in one pass, and read off in a second: Felzenszwalb and Huttenlocher, "Distance Transforms of Sampled
// Functions" (Theory of Computing, 2012), section 2. The mean displacement shifts where it is read off, so that fractions
// of pixels are exact.
#pragma once

#include "mrf/tree.h"

namespace pypose_ops {
namespace tree {

// One line of a map: element i of in and best at i * stride, of out at i * out_stride. hull and from are n elements of
// memory, scratch_stride apart.
template <typename acc>
struct Line {
  const acc* in;
  acc* out;
  int16_t* best;  // the source of every target, the first of equals; -1 where there is none
  int64_t stride;
  int64_t out_stride;
  int16_t* hull;
  acc* from;
  int64_t scratch_stride;
  int n;
};

// The highest source for all targets: what a line without a spring comes down to.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE void free_line(const Line<acc>& line) {
  acc highest = -std::numeric_limits<acc>::infinity();
  int source = -1;
  for (int s = 0; s < line.n; ++s) {
    const acc value = line.in[s * line.stride];
    source = value > highest ? s : source;
    highest = value > highest ? value : highest;
  }
  for (int t = 0; t < line.n; ++t) {
    line.out[t * line.out_stride] = highest;
    line.best[t * line.stride] = static_cast<int16_t>(source);
  }
}

template <typename acc>
PYPOSE_OPS_HOST_DEVICE void transform_line(const Line<acc>& line, const Spring<acc>& spring) {
  constexpr acc lowest = -std::numeric_limits<acc>::infinity();
  if (spring.weight == 0) {
    return free_line(line);
  }
  // 1. The upper envelope: source hull[k] is the highest from position from[k] (= target + shift) on.
  const acc half = acc(0.5) / spring.weight;
  int count = 0;
  acc before = 0;  // value and start of the last one
  acc start = lowest;
  for (int s = 0; s < line.n; ++s) {
    const acc value = line.in[s * line.stride];
    if (!is_possible(value)) {
      continue;
    }
    acc crossing = lowest;
    while (count > 0) {
      const int last = line.hull[(count - 1) * line.scratch_stride];
      crossing = acc(0.5) * static_cast<acc>(s + last) + half * (before - value) / static_cast<acc>(s - last);
      if (crossing > start) {
        break;
      }
      --count;
      crossing = lowest;
      if (count > 0) {
        before = line.in[line.hull[(count - 1) * line.scratch_stride] * line.stride];
        start = line.from[(count - 1) * line.scratch_stride];
      }
    }
    line.hull[count * line.scratch_stride] = static_cast<int16_t>(s);
    line.from[count * line.scratch_stride] = crossing;
    before = value;
    start = crossing;
    ++count;
  }
  // 2. Read off.
  int k = 0;
  acc next = count > 1 ? line.from[line.scratch_stride] : -lowest;
  int source = count > 0 ? line.hull[0] : -1;
  acc value = count > 0 ? line.in[source * line.stride] : lowest;
  for (int t = 0; t < line.n; ++t) {
    const acc position = static_cast<acc>(t) + spring.shift;
    while (next < position) {
      ++k;
      next = k + 1 < count ? line.from[(k + 1) * line.scratch_stride] : -lowest;
      source = line.hull[k * line.scratch_stride];
      value = line.in[source * line.stride];
    }
    line.out[t * line.out_stride] = count > 0 ? value - spring.cost(source, t) : lowest;
    line.best[t * line.stride] = static_cast<int16_t>(source);
  }
}

// Every message's (2, H, W): the source column seen from a target column in a source row, then the source row seen from
// a target.
constexpr int64_t kSteps = 2;

// Follows the steps of a message from the target pixel to its source.
PYPOSE_OPS_HOST_DEVICE void step_back(const int16_t* steps, int64_t height, int64_t width, int64_t& y, int64_t& x) {
  const int64_t row = steps[height * width + y * width + x];
  x = row >= 0 ? steps[row * width + x] : -1;
  y = row;
}

// Places and scores of one image, from the root on; best is the highest pixel of the root's max-marginals, or -1. steps are
// those of every message or, by_joint, of the message from each joint to its parent.
template <typename T>
PYPOSE_OPS_HOST_DEVICE void decode(
    acc_t<T>* coords, acc_t<T>* scores, const T* unary, const int16_t* steps, bool by_joint, const Tables& t,
    const Shape& shape, int64_t best) {
  for (int64_t i = 0; i < shape.joints; ++i) {
    const int64_t joint = t.order[i];
    int64_t y = -1, x = -1;
    if (i == 0 && best >= 0) {
      y = best / shape.width;
      x = best % shape.width;
    } else if (i > 0) {
      const int64_t up = t.up[joint];
      x = static_cast<int64_t>(coords[2 * t.target[up]]);
      y = static_cast<int64_t>(coords[2 * t.target[up] + 1]);
      if (x >= 0) {
        step_back(steps + (by_joint ? joint : up) * kSteps * shape.pixels(), shape.height, shape.width, y, x);
      }
    }
    coords[2 * joint] = static_cast<acc_t<T>>(x);
    coords[2 * joint + 1] = static_cast<acc_t<T>>(y);
    scores[joint] =
        x >= 0 ? static_cast<acc_t<T>>(unary[joint * shape.pixels() + y * shape.width + x]) : acc_t<T>(0);
  }
}

struct MaxProductTensors {
  Tensor max_marginals, coords, scores, steps;
};

inline MaxProductTensors new_max_product(const Tensor& unary, const Shape& s, bool keep_steps) {
  const ScalarType acc = acc_scalar_type(unary.scalar_type());
  return {
      empty_beside(unary, {s.batch, s.joints, s.height, s.width}, acc),
      empty_beside(unary, {s.batch, s.joints, 2}, acc),
      empty_beside(unary, {s.batch, s.joints}, acc),
      empty_beside(unary, {s.batch, keep_steps ? s.messages() : 0, kSteps, s.height, s.width}, ScalarType::Short)};
}

constexpr const char* kMaxBackward = "_max_product_backward";

inline Shape check_max_backward(
    const Tensor& grad, const Tensor& grad_scores, const Tensor& max_marginals, const Tensor& coords,
    const Tensor& steps, const Tensor& deformation, const std::vector<int64_t>& edges, int64_t root) {
  const Shape shape = check_inputs(kMaxBackward, max_marginals, edges, deformation, root);
  check_coordinates(kMaxBackward, "max_marginals", max_marginals);
  const auto check = [&](const char* name, const Tensor& tensor, const std::vector<int64_t>& sizes, ScalarType type) {
    check_same_device(kMaxBackward, name, tensor, "max_marginals", max_marginals);
    check_dim(kMaxBackward, name, tensor, static_cast<int64_t>(sizes.size()), "as in max_product");
    for (size_t d = 0; d < sizes.size(); ++d) {
      check_size(kMaxBackward, name, tensor, static_cast<int64_t>(d), sizes[d]);
    }
    PYPOSE_OPS_CHECK(tensor.scalar_type() == type, kMaxBackward, ": ", name, " must have the dtype of max_product");
  };
  const ScalarType acc = max_marginals.scalar_type();
  check("grad", grad, {shape.batch, shape.joints, shape.height, shape.width}, acc);
  check("grad_scores", grad_scores, {shape.batch, shape.joints}, acc);
  check("coords", coords, {shape.batch, shape.joints, 2}, acc);
  check("steps", steps, {shape.batch, shape.messages(), kSteps, shape.height, shape.width}, ScalarType::Short);
  return shape;
}

}  // namespace tree
}  // namespace pypose_ops

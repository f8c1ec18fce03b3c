// What max_product and sum_product share: checks, the order of the messages, springs.
//
// Both work on a tree of joints. A pose's score is
//   sum over joints k of unary_k(p_k)
//     - sum over edges (a, b) of  weight_x (x_b - x_a - mean_x)^2 + weight_y (y_b - y_a - mean_y)^2
// A message runs along every edge in both directions, level by level from the leaves on. Its source map is the unary of the
// joint that sends it plus all messages into that joint but the one that comes back along the edge.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "common/check.h"
#include "common/dispatch.h"
#include "common/tensors.h"

namespace pypose_ops {
namespace tree {

struct Shape {
  int64_t batch, joints, edges, height, width;

  PYPOSE_OPS_HOST_DEVICE int64_t pixels() const {
    return height * width;
  }
  PYPOSE_OPS_HOST_DEVICE int64_t messages() const {
    return 2 * edges;
  }
};

// Messages in an order in which each comes after those it needs; as arrays, so that kernels can read them.
struct Tables {
  const int32_t* source;      // (messages): joints
  const int32_t* target;
  const int32_t* edge;
  const int32_t* sign;        // 1 from the edge's second joint to its first, else -1
  const int32_t* reverse;     // the message the other way
  const int32_t* into_begin;  // (joints + 1)
  const int32_t* into;        // (messages): those into joint k from into_begin[k] on
  const int32_t* order;       // (joints): from the root on, parents first
  const int32_t* up;          // (joints): the message from a joint to its parent; -1 at the root

  // All of them one after the other.
  static PYPOSE_OPS_HOST_DEVICE Tables of(const int32_t* data, int64_t joints, int64_t messages) {
    Tables t;
    t.source = data;
    t.target = t.source + messages;
    t.edge = t.target + messages;
    t.sign = t.edge + messages;
    t.reverse = t.sign + messages;
    t.into = t.reverse + messages;
    t.into_begin = t.into + messages;
    t.order = t.into_begin + joints + 1;
    t.up = t.order + joints;
    return t;
  }
};

struct Schedule {
  std::vector<int32_t> values;
  std::vector<int64_t> level_begin;  // the messages of one level do not need each other
  int64_t joints, messages;

  Tables tables() const {
    return Tables::of(values.data(), joints, messages);
  }
  int64_t levels() const {
    return static_cast<int64_t>(level_begin.size()) - 1;
  }
};

struct Walk {
  std::vector<int32_t> order, edge;  // joints from the root on; the edge to the parent, -1 at the root
};

// From the root along the edges. Fails where they are not a tree.
inline Walk walk_tree(const char* op, const std::vector<int64_t>& edges, int64_t joints, int64_t root) {
  std::vector<std::vector<int32_t>> around(joints);
  for (size_t e = 0; e < edges.size() / 2; ++e) {
    for (const int64_t joint : {edges[2 * e], edges[2 * e + 1]}) {
      PYPOSE_OPS_CHECK(
          joint >= 0 && joint < joints, op, ": edges must join joints from 0 to ", joints - 1, ", got (", edges[2 * e],
          ", ", edges[2 * e + 1], ")");
      around[joint].push_back(static_cast<int32_t>(e));
    }
  }
  Walk walk;
  walk.edge.assign(joints, -1);
  walk.order.push_back(static_cast<int32_t>(root));
  std::vector<bool> seen(joints, false);
  seen[root] = true;
  for (size_t i = 0; i < walk.order.size(); ++i) {
    const int64_t joint = walk.order[i];
    for (const int32_t e : around[joint]) {
      const int64_t other = edges[2 * e] == joint ? edges[2 * e + 1] : edges[2 * e];
      if (e == walk.edge[joint]) {
        continue;
      }
      PYPOSE_OPS_CHECK(
          !seen[other], op, ": edges must be a tree, but (", edges[2 * e], ", ", edges[2 * e + 1],
          other == joint ? ") joins a joint with itself" : ") closes a cycle");
      seen[other] = true;
      walk.edge[other] = e;
      walk.order.push_back(static_cast<int32_t>(other));
    }
  }
  for (int64_t joint = 0; joint < joints; ++joint) {
    PYPOSE_OPS_CHECK(
        seen[joint], op, ": edges must be a tree, but none leads from root ", root, " to joint ", joint);
  }
  return walk;
}

inline Schedule make_schedule(const char* op, const std::vector<int64_t>& edges, int64_t joints, int64_t root) {
  const Walk walk = walk_tree(op, edges, joints, root);
  const auto parent_of = [&](int64_t joint) {
    const int64_t e = walk.edge[joint];
    return edges[2 * e] == joint ? edges[2 * e + 1] : edges[2 * e];
  };
  // The level of the message from a joint to its parent, and of the one back: one more than the highest that it needs.
  // second: the same as up, without the joint's highest child.
  std::vector<int64_t> up(joints, 0), second(joints, 0), down(joints, 0);
  for (int64_t i = joints - 1; i > 0; --i) {
    const int64_t joint = walk.order[i], parent = parent_of(joint), level = up[joint] + 1;
    second[parent] = std::max(second[parent], std::min(level, up[parent]));
    up[parent] = std::max(up[parent], level);
  }
  for (int64_t i = 1; i < joints; ++i) {
    const int64_t joint = walk.order[i], parent = parent_of(joint);
    const int64_t others = up[joint] + 1 == up[parent] ? second[parent] : up[parent];
    down[joint] = std::max(others, parent == root ? int64_t(0) : down[parent] + 1);
  }
  Schedule out;
  out.joints = joints;
  out.messages = 2 * (joints - 1);
  struct Step {
    int64_t level;
    int32_t source, target, edge;
  };
  std::vector<Step> steps;
  for (int64_t i = 1; i < joints; ++i) {
    const int32_t joint = walk.order[i];
    const int32_t parent = static_cast<int32_t>(parent_of(joint));
    steps.push_back({up[joint], joint, parent, walk.edge[joint]});
    steps.push_back({down[joint], parent, joint, walk.edge[joint]});
  }
  std::stable_sort(steps.begin(), steps.end(), [](const Step& a, const Step& b) { return a.level < b.level; });
  const int64_t m = out.messages;
  out.values.assign(6 * m + 3 * joints + 1, -1);
  int32_t* values = out.values.data();
  const Tables t = out.tables();
  std::vector<int32_t> first_of_edge(joints, -1);
  for (int64_t i = 0; i < m; ++i) {
    const Step& step = steps[i];
    if (i == 0 || step.level != steps[i - 1].level) {
      out.level_begin.push_back(i);
    }
    values[i] = step.source;
    values[m + i] = step.target;
    values[2 * m + i] = step.edge;
    values[3 * m + i] = step.source == edges[2 * step.edge + 1] ? 1 : -1;
    if (walk.edge[step.source] == step.edge) {
      values[(t.up - values) + step.source] = static_cast<int32_t>(i);
    }
    int32_t& first = first_of_edge[step.edge];
    if (first < 0) {
      first = static_cast<int32_t>(i);
    } else {
      values[4 * m + i] = first;
      values[4 * m + first] = static_cast<int32_t>(i);
    }
  }
  out.level_begin.push_back(m);
  int32_t count = 0;
  for (int64_t joint = 0; joint < joints; ++joint) {
    values[(t.into_begin - values) + joint] = count;
    for (int64_t i = 0; i < m; ++i) {
      if (t.target[i] == joint) {
        values[(t.into - values) + count++] = static_cast<int32_t>(i);
      }
    }
  }
  values[(t.into_begin - values) + joints] = count;
  std::copy(walk.order.begin(), walk.order.end(), values + (t.order - values));
  return out;
}

inline Shape check_inputs(
    const char* op, const Tensor& unary, const std::vector<int64_t>& edges, const Tensor& deformation, int64_t root) {
  check_dim(op, "unary", unary, 4, "(B, K, H, W)");
  check_floating(op, "unary", unary);
  check_dim(op, "deformation", deformation, 2, "(E, 4)");
  check_coordinates(op, "deformation", deformation);
  check_same_device(op, "deformation", deformation, "unary", unary);
  const Shape shape{
      unary.size(0), unary.size(1), static_cast<int64_t>(edges.size()) / 2, unary.size(2), unary.size(3)};
  PYPOSE_OPS_CHECK(
      shape.joints > 0 && shape.pixels() > 0, op, ": unary must have joints and pixels, got shape ", shape_of(unary));
  PYPOSE_OPS_CHECK(edges.size() % 2 == 0, op, ": edges must be pairs, got ", edges.size(), " numbers");
  PYPOSE_OPS_CHECK(
      shape.edges == shape.joints - 1, op, ": edges must be a tree, ", shape.joints - 1, " edges for ", shape.joints,
      " joints, got ", shape.edges);
  check_size(op, "deformation", deformation, 0, shape.edges);
  check_size(op, "deformation", deformation, 1, 4);
  PYPOSE_OPS_CHECK(
      root >= 0 && root < shape.joints, op, ": root must be a joint from 0 to ", shape.joints - 1, ", got ", root);
  // Positions in a line are 16-bit.
  constexpr int64_t kMaxSide = 16384;
  PYPOSE_OPS_CHECK(
      shape.height <= kMaxSide && shape.width <= kMaxSide, op, ": unary must be at most ", kMaxSide,
      " a side, got shape ", shape_of(unary));
  return shape;
}

// What both operators return backward. like: of the arithmetic's dtype.
struct Gradients {
  Tensor unary;        // (B, K, H, W), to be filled
  Tensor deformation;  // (E, 4), zeros
};

inline Gradients new_gradients(const Tensor& like, const Shape& s) {
  return {
      empty_beside(like, {s.batch, s.joints, s.height, s.width}),
      zeros_beside(like, {s.edges, 4})};
}

// One axis of an edge, seen from a target at t: a source at s costs weight (s - t - shift)^2.
template <typename acc>
struct Spring {
  acc weight, shift;
  acc sign;  // d shift / d mean

  PYPOSE_OPS_HOST_DEVICE acc stretch(int s, int t) const {
    return static_cast<acc>(s - t) - shift;
  }
  PYPOSE_OPS_HOST_DEVICE acc cost(int s, int t) const {
    const acc d = stretch(s, t);
    return weight * d * d;
  }
};

// axis 0 is x. An axis whose weight is negative or not finite, or whose mean is not finite, has no spring.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE Spring<acc> spring_of(const acc* deformation, int32_t edge, int32_t sign, int axis) {
  constexpr acc most = std::numeric_limits<acc>::max();
  const acc mean = deformation[4 * static_cast<int64_t>(edge) + axis];
  const acc weight = deformation[4 * static_cast<int64_t>(edge) + 2 + axis];
  const bool usable =
      weight >= std::numeric_limits<acc>::min() && weight <= most && mean >= -most && mean <= most;
  return {usable ? weight : acc(0), usable ? static_cast<acc>(sign) * mean : acc(0), static_cast<acc>(sign)};
}

// A pixel of a unary; one that is not finite is impossible.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc evidence(acc value) {
  constexpr acc most = std::numeric_limits<acc>::max();
  return value >= -most && value <= most ? value : -std::numeric_limits<acc>::infinity();
}

// A sum of scores: what overflows stays the largest number, so that no infinities of both signs meet.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc settled(acc sum) {
  constexpr acc most = std::numeric_limits<acc>::max();
  return sum > most ? most : sum >= -most ? sum : -std::numeric_limits<acc>::infinity();
}

template <typename acc>
PYPOSE_OPS_HOST_DEVICE bool is_possible(acc score) {
  return score > -std::numeric_limits<acc>::infinity();
}

// A logarithm to subtract: that of an impossible value counts as 0, so that -inf minus -inf stays -inf.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc offset_of(acc logarithm) {
  return is_possible(logarithm) ? logarithm : acc(0);
}

// The stretch, small enough that sums of its square do not overflow.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc bounded_stretch(const Spring<acc>& spring, int s, int t) {
  const acc d = spring.stretch(s, t);
  return d > acc(1e9) ? acc(1e9) : d < acc(-1e9) ? acc(-1e9) : d;
}

// The sums of gradient times stretch and times squared stretch.
struct StretchSums {
  double first, second;

  template <typename acc>
  PYPOSE_OPS_HOST_DEVICE void add(acc grad, acc stretch) {
    if (grad != 0) {
      const double d = static_cast<double>(stretch);
      first += static_cast<double>(grad) * d;
      second += static_cast<double>(grad) * d * d;
    }
  }
};

}  // namespace tree
}  // namespace pypose_ops

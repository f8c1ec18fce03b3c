// mrf_message_passing: checks and the formulas shared by the CPU and CUDA kernels.
//
// Tompson et al. (NIPS 2014), equation 2, on an edge list. With u = max(unary, floor) and x, y pixels of the map,
//   message_e(x) = sum over y of prior_e(x - y) u_source(y)  +  bias_e(x)
//   out_target(x) = sum over the edges into the target of log message_e(x)
// Every u is floor plus the active part max(unary - floor, 0), which is 0 nearly everywhere, so the sum splits exactly:
//   message_e(x) = floor * (sum of the prior over all displacements that stay in the map)     no batch in it
//                + sum over active y of prior_e(x - y) active(y)                              sparse
//                + bias_e(x)
// All terms are positive: nothing cancels.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

#include "common/check.h"
#include "common/dispatch.h"
#include "common/tensors.h"

namespace pypose_ops {
namespace mrf {

// Where prior and bias leave nothing of a message, its logarithm is that of this number.
constexpr double kSmallestMessage = 1e-30;

struct Shape {
  int64_t batch, sources, targets, edges, priors, height, width;
  int64_t kernel_height, kernel_width;  // as given
  int64_t reach_y, reach_x;             // of the displacements that can stay in the map: the rest is never read
  bool bias_maps;

  PYPOSE_OPS_HOST_DEVICE int64_t pixels() const {
    return height * width;
  }
};

// What a pixel has above the floor. A pixel that is not finite counts as floor.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc active_part(acc value, acc floor) {
  return value > floor && value <= std::numeric_limits<acc>::max() ? value - floor : acc(0);
}

// A prior or bias that is negative or not finite counts as 0, and has no gradient.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE bool is_usable(acc weight) {
  return weight >= 0 && weight <= std::numeric_limits<acc>::max();
}
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc usable(acc weight) {
  return is_usable(weight) ? weight : acc(0);
}

// d out / d message. Messages at the smallest do not move.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc log_slope(acc grad, acc message) {
  return message > static_cast<acc>(kSmallestMessage) ? grad / message : acc(0);
}

// A product of many positive factors, whose logarithm is taken once: the mantissa stays in [1, 2), the powers of two
// are counted. Saves a logarithm per message, and loses less to rounding than a sum of logarithms.
template <typename acc>
struct FloatBits;
template <>
struct FloatBits<float> {
  using type = uint32_t;
  static constexpr int mantissa = 23;
  static constexpr uint32_t one = 0x3f800000u;
};
template <>
struct FloatBits<double> {
  using type = uint64_t;
  static constexpr int mantissa = 52;
  static constexpr uint64_t one = 0x3ff0000000000000u;
};

// F is acc or a vector of acc, U the integers of its size. An infinite factor counts as the power of two that would
// be next.
template <typename acc, typename F, typename U>
PYPOSE_OPS_HOST_DEVICE void multiply_into(F& mantissa, U& exponent, F factor) {
  using Bits = FloatBits<acc>;
  constexpr typename Bits::type one = Bits::one;
  constexpr typename Bits::type mantissa_bits = (typename Bits::type(1) << Bits::mantissa) - 1;
  const F product = mantissa * factor;
  U bits;
  static_assert(sizeof(F) == sizeof(U), "same size");
  std::memcpy(&bits, &product, sizeof(bits));
  exponent += (bits >> Bits::mantissa) - (one >> Bits::mantissa);
  bits = (bits & mantissa_bits) | one;
  std::memcpy(&mantissa, &bits, sizeof(bits));
}

constexpr double kLog2 = 0.693147180559945309417;

// The edges of every source or target, in the order given.
struct EdgeGroups {
  std::vector<int64_t> begin;  // of group g: [begin[g], begin[g + 1]) of order
  std::vector<int64_t> order;  // edge numbers
};

// edges holds source, target, source, target, ...; side is 0 to group by source, 1 by target.
inline EdgeGroups group_edges(const std::vector<int64_t>& edges, int64_t groups, int side) {
  EdgeGroups out;
  const int64_t count = static_cast<int64_t>(edges.size()) / 2;
  out.begin.assign(groups + 1, 0);
  for (int64_t e = 0; e < count; ++e) {
    ++out.begin[edges[2 * e + side] + 1];
  }
  for (int64_t g = 0; g < groups; ++g) {
    out.begin[g + 1] += out.begin[g];
  }
  out.order.resize(count);
  std::vector<int64_t> next(out.begin.begin(), out.begin.end() - 1);
  for (int64_t e = 0; e < count; ++e) {
    out.order[next[edges[2 * e + side]]++] = e;
  }
  return out;
}

// None: every edge has a prior of its own, as for an empty list.
inline std::vector<int64_t> prior_index_of(const std::optional<std::vector<int64_t>>& prior_index) {
  return prior_index.value_or(std::vector<int64_t>{});
}

// Which prior an edge uses: one each, unless an index says otherwise.
inline int64_t prior_of(const std::vector<int64_t>& prior_index, int64_t edge) {
  return prior_index.empty() ? edge : prior_index[edge];
}

inline void check_edges(
    const char* op, const std::vector<int64_t>& edges, const std::vector<int64_t>& prior_index, const Shape& shape) {
  std::vector<int64_t> keys(shape.edges);
  for (int64_t e = 0; e < shape.edges; ++e) {
    const int64_t source = edges[2 * e];
    const int64_t target = edges[2 * e + 1];
    PYPOSE_OPS_CHECK(
        source >= 0 && source < shape.sources, op, ": edges must start at a source from 0 to ", shape.sources - 1,
        ", got (", source, ", ", target, ")");
    PYPOSE_OPS_CHECK(
        target >= 0 && target < shape.targets, op, ": edges must end at a target from 0 to ", shape.targets - 1,
        ", got (", source, ", ", target, ")");
    keys[e] = source * shape.targets + target;
  }
  std::sort(keys.begin(), keys.end());
  const auto repeated = std::adjacent_find(keys.begin(), keys.end());
  PYPOSE_OPS_CHECK(
      repeated == keys.end(), op, ": edges must be different, got (", *repeated / shape.targets, ", ",
      *repeated % shape.targets, ") twice");
  if (prior_index.empty()) {
    PYPOSE_OPS_CHECK(
        shape.priors == shape.edges, op, ": prior must have one kernel per edge without a prior_index, got ",
        shape.priors, " for ", shape.edges, " edges");
    return;
  }
  PYPOSE_OPS_CHECK(
      static_cast<int64_t>(prior_index.size()) == shape.edges, op, ": prior_index must have one number per edge, got ",
      prior_index.size(), " for ", shape.edges, " edges");
  for (const int64_t p : prior_index) {
    PYPOSE_OPS_CHECK(
        p >= 0 && p < shape.priors, op, ": prior_index must be from 0 to ", shape.priors - 1, ", got ", p);
  }
}

inline Shape check_inputs(
    const char* op, const Tensor& unary, const Tensor& prior, const Tensor& bias, const std::vector<int64_t>& edges,
    const std::vector<int64_t>& prior_index, int64_t num_targets, double floor) {
  check_dim(op, "unary", unary, 4, "(B, V, H, W)");
  check_floating(op, "unary", unary);
  check_dim(op, "prior", prior, 3, "(E, kh, kw)");
  check_coordinates(op, "prior", prior);
  check_coordinates(op, "bias", bias);
  check_same_device(op, "prior", prior, "unary", unary);
  check_same_device(op, "bias", bias, "unary", unary);
  PYPOSE_OPS_CHECK(
      unary.size(2) > 0 && unary.size(3) > 0, op, ": unary must have pixels, got shape ", shape_of(unary));
  PYPOSE_OPS_CHECK(
      prior.size(1) % 2 == 1 && prior.size(2) % 2 == 1, op, ": prior must have an odd height and width, got shape ",
      shape_of(prior));
  PYPOSE_OPS_CHECK(edges.size() % 2 == 0, op, ": edges must be pairs, got ", edges.size(), " numbers");
  PYPOSE_OPS_CHECK(
      num_targets >= 0 && num_targets <= (int64_t(1) << 20), op, ": num_targets must not be negative nor above 2^20, got ",
      num_targets);
  PYPOSE_OPS_CHECK(floor > 0 && std::isfinite(floor), op, ": floor must be positive and finite, got ", floor);
  Shape shape;
  shape.batch = unary.size(0);
  shape.sources = unary.size(1);
  shape.targets = num_targets;
  shape.edges = static_cast<int64_t>(edges.size()) / 2;
  shape.priors = prior.size(0);
  shape.height = unary.size(2);
  shape.width = unary.size(3);
  shape.kernel_height = prior.size(1);
  shape.kernel_width = prior.size(2);
  shape.reach_y = std::min(shape.kernel_height / 2, shape.height - 1);
  shape.reach_x = std::min(shape.kernel_width / 2, shape.width - 1);
  shape.bias_maps = bias.dim() == 3;
  PYPOSE_OPS_CHECK(
      bias.dim() == 1 || bias.dim() == 3, op, ": bias must be (E,) or (E, H, W), got shape ", shape_of(bias));
  check_size(op, "bias", bias, 0, shape.edges);
  if (shape.bias_maps) {
    check_size(op, "bias", bias, 1, shape.height);
    check_size(op, "bias", bias, 2, shape.width);
  }
  // Positions in a map and in the largest kernel that it can use are 32-bit.
  constexpr int64_t kMaxSide = 16384;
  PYPOSE_OPS_CHECK(
      shape.height <= kMaxSide && shape.width <= kMaxSide, op, ": unary must be at most ", kMaxSide,
      " a side, got shape ", shape_of(unary));
  check_edges(op, edges, prior_index, shape);
  return shape;
}

inline void check_messages(const char* op, const Tensor& messages, const Tensor& unary, const Shape& shape) {
  check_dim(op, "messages", messages, 4, "(B, E, H, W)");
  check_coordinates(op, "messages", messages);
  check_same_device(op, "messages", messages, "unary", unary);
  const int64_t wanted[] = {shape.batch, shape.edges, shape.height, shape.width};
  for (int64_t d = 0; d < 4; ++d) {
    check_size(op, "messages", messages, d, wanted[d]);
  }
}

// messages: as mrf_message_passing has kept them; none: they are computed again.
inline Shape check_backward(
    const char* op, const Tensor& grad, const Tensor& unary, const Tensor& prior, const Tensor& bias,
    const std::vector<int64_t>& edges, const std::vector<int64_t>& prior_index, double floor,
    const std::optional<Tensor>& messages) {
  check_dim(op, "grad", grad, 4, "(B, J, H, W)");
  check_coordinates(op, "grad", grad);
  check_same_device(op, "grad", grad, "unary", unary);
  const Shape shape = check_inputs(op, unary, prior, bias, edges, prior_index, grad.size(1), floor);
  check_size(op, "grad", grad, 0, shape.batch);
  check_size(op, "grad", grad, 2, shape.height);
  check_size(op, "grad", grad, 3, shape.width);
  if (messages) {
    check_messages(op, *messages, unary, shape);
  }
  return shape;
}

// Zeros for each gradient that is wanted, in the arithmetic's dtype; empty tensors for the others.
struct GradientTensors {
  Tensor unary, prior, bias;
};

inline GradientTensors new_gradients(
    const Tensor& unary, const Tensor& prior, const Tensor& bias, ScalarType acc_type, bool want_unary, bool want_prior,
    bool want_bias) {
  const auto zeros = [&](const Tensor& like, bool wanted) {
    std::vector<int64_t> sizes{0};
    if (wanted) {
      sizes.clear();
      for (int64_t d = 0; d < like.dim(); ++d) {
        sizes.push_back(like.size(d));
      }
    }
    return zeros_beside(unary, sizes, acc_type);
  };
  return {zeros(unary, want_unary), zeros(prior, want_prior), zeros(bias, want_bias)};
}

}  // namespace mrf
}  // namespace pypose_ops

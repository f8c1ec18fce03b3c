// sum_product: the formulas shared by the CPU and CUDA kernels.
//
// A message is  m(t) = log of the sum over s of exp(h(s) - cost_x(s, t) - cost_y(s, t)),  one axis after the other, each
// relative to its largest term: no term overflows, and the sum is at least 1.
//
// Backward, what arrives at a target goes to the sources in proportion to their terms:
//   grad h(s) = sum over t of grad m(t) exp(h(s) - cost(s, t) - m(t)),  an exponent that is never positive.
#pragma once

#include "mrf/tree.h"

namespace pypose_ops {
namespace tree {

struct SumProductTensors {
  Tensor log_marginals, log_partition, messages;
};

inline SumProductTensors new_sum_product(const Tensor& unary, const Shape& s, bool keep_messages) {
  const ScalarType acc = acc_scalar_type(unary.scalar_type());
  return {
      empty_beside(unary, {s.batch, s.joints, s.height, s.width}, acc),
      empty_beside(unary, {s.batch}, acc),
      empty_beside(unary, {s.batch, keep_messages ? s.messages() : 0, s.height, s.width}, acc)};
}

constexpr const char* kSumBackward = "_sum_product_backward";

inline Shape check_sum_backward(
    const Tensor& grad, const Tensor& grad_partition, const Tensor& unary, const Tensor& log_marginals,
    const Tensor& messages, const Tensor& deformation, const std::vector<int64_t>& edges, int64_t root) {
  const Shape shape = check_inputs(kSumBackward, unary, edges, deformation, root);
  const ScalarType acc = acc_scalar_type(unary.scalar_type());
  const auto check = [&](const char* name, const Tensor& tensor, const std::vector<int64_t>& sizes) {
    check_same_device(kSumBackward, name, tensor, "unary", unary);
    check_dim(kSumBackward, name, tensor, static_cast<int64_t>(sizes.size()), "as in sum_product");
    for (size_t d = 0; d < sizes.size(); ++d) {
      check_size(kSumBackward, name, tensor, static_cast<int64_t>(d), sizes[d]);
    }
    PYPOSE_OPS_CHECK(tensor.scalar_type() == acc, kSumBackward, ": ", name, " must have the dtype of sum_product");
  };
  check("grad", grad, {shape.batch, shape.joints, shape.height, shape.width});
  check("grad_partition", grad_partition, {shape.batch});
  check("log_marginals", log_marginals, {shape.batch, shape.joints, shape.height, shape.width});
  check("messages", messages, {shape.batch, shape.messages(), shape.height, shape.width});
  return shape;
}

}  // namespace tree
}  // namespace pypose_ops

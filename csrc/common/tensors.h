// Tensors as kernels want them (one dtype, contiguous), and outputs that cost little to make.
#pragma once

#include <initializer_list>
#include <optional>
#include <vector>

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/stableivalue_conversions.h>
#include <torch/csrc/stable/tensor.h>

#include "common/check.h"

namespace pypose_ops {

// The conversions below return the tensor itself where it is as wanted: a pass through the dispatcher costs a small call
// more than its kernel.
inline Tensor as_type(const Tensor& tensor, ScalarType type) {
  return tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
}

inline std::vector<Tensor> as_type(std::vector<Tensor> tensors, ScalarType type) {
  for (Tensor& tensor : tensors) {
    tensor = as_type(tensor, type);
  }
  return tensors;
}

inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

inline Tensor as_contiguous(const Tensor& tensor, ScalarType type) {
  return as_contiguous(as_type(tensor, type));
}

inline std::optional<Tensor> as_contiguous(const std::optional<Tensor>& tensor) {
  return tensor ? std::optional(as_contiguous(*tensor)) : std::nullopt;
}

inline std::optional<Tensor> as_contiguous(const std::optional<Tensor>& tensor, ScalarType type) {
  return tensor ? std::optional(as_contiguous(*tensor, type)) : std::nullopt;
}

// new_empty(like, sizes, dtype) without the two passes through the dispatcher.
inline Tensor empty_beside(const Tensor& like, std::initializer_list<int64_t> sizes, ScalarType dtype) {
  constexpr int kMost = 4;
  const int dims = static_cast<int>(sizes.size());
  PYPOSE_OPS_CHECK(dims <= kMost, "pypose_ops: empty_beside is for at most ", kMost, " dimensions, got ", dims);
  int64_t strides[kMost];
  int64_t stride = 1;
  for (int d = dims; d-- > 0;) {
    const int64_t size = sizes.begin()[d];
    strides[d] = stride;
    stride *= size > 1 ? size : 1;
  }
  int32_t device_type, device_index;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  const int32_t type = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(dims, sizes.begin(), strides, type, device_type, device_index, &handle));
  return Tensor(handle);
}

}  // namespace pypose_ops

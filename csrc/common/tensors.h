// Tensors as kernels want them (one dtype, contiguous), and outputs that cost little to make.
#pragma once

#include <limits>
#include <optional>
#include <vector>

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/stableivalue_conversions.h>
#include <torch/csrc/stable/tensor.h>

#include "common/check.h"
#include "common/pages.h"

namespace pypose_ops {

using torch::headeronly::IntHeaderOnlyArrayRef;

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

// new_empty(like, sizes, dtype) without the two passes through the dispatcher, in huge pages where it is large.
inline Tensor empty_beside(const Tensor& like, IntHeaderOnlyArrayRef sizes, ScalarType dtype) {
  constexpr int kMost = 6;
  const int dims = static_cast<int>(sizes.size());
  PYPOSE_OPS_CHECK(dims <= kMost, "pypose_ops: empty_beside is for at most ", kMost, " dimensions, got ", dims);
  int64_t strides[kMost];
  int64_t stride = 1;
  for (int d = dims; d-- > 0;) {
    const int64_t size = sizes[d] > 1 ? sizes[d] : 1;
    strides[d] = stride;
    PYPOSE_OPS_CHECK(
        stride <= std::numeric_limits<int64_t>::max() / size, "pypose_ops: Storage size calculation overflowed");
    stride *= size;
  }
  int32_t device_type, device_index;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  const int32_t type = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(dims, sizes.data(), strides, type, device_type, device_index, &handle));
  Tensor out(handle);
  if (stride >= kLeastHugeElements && out.is_cpu() && out.numel() > 0) {
    advise_huge_pages(out.mutable_data_ptr(), stride * static_cast<int64_t>(out.element_size()));
  }
  return out;
}

inline Tensor empty_beside(const Tensor& like, IntHeaderOnlyArrayRef sizes) {
  return empty_beside(like, sizes, like.scalar_type());
}

inline Tensor zeros_beside(const Tensor& like, IntHeaderOnlyArrayRef sizes, ScalarType dtype) {
  Tensor out = empty_beside(like, sizes, dtype);
  TORCH_ERROR_CODE_CHECK(aoti_torch_zero_(out.get()));
  return out;
}

inline Tensor zeros_beside(const Tensor& like, IntHeaderOnlyArrayRef sizes) {
  return zeros_beside(like, sizes, like.scalar_type());
}

}  // namespace pypose_ops

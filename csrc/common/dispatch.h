// dtype dispatch and what the formulas need to be shared by the CPU kernels, the CUDA kernels and the tests.
#pragma once

#include <torch/headeronly/core/Dispatch_v2.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "common/check.h"
#include "common/glibc.h"

#ifdef __CUDACC__
#define PYPOSE_OPS_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define PYPOSE_OPS_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace pypose_ops {

using Half = c10::Half;
using BFloat16 = c10::BFloat16;

// Arithmetic type of a storage type: double for double, float for all others.
template <typename T>
struct acc_type {
  using type = float;
};
template <>
struct acc_type<double> {
  using type = double;
};
template <typename T>
using acc_t = typename acc_type<T>::type;

// The arithmetic's dtype for maps of the given dtype.
inline ScalarType acc_scalar_type(ScalarType type) {
  return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

}  // namespace pypose_ops

// Runs the body with scalar_t one of float, double, Half, BFloat16. The body is one call without bare commas outside
// parentheses: the macro splits on them.
#define PYPOSE_OPS_DISPATCH_FLOATING(TYPE, NAME, ...)                                        \
  THO_DISPATCH_V2(                                                                           \
      TYPE, NAME, AT_WRAP(__VA_ARGS__), AT_EXPAND(AT_FLOATING_TYPES), ScalarType::Half, ScalarType::BFloat16)

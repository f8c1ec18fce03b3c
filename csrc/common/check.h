// Argument checks. Every message names the operator and the argument, and states what was expected and what was given.
#pragma once

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

namespace pypose_ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

// A macro, not a function: the parts of the message are only evaluated when the check fails.
#define PYPOSE_OPS_CHECK(condition, ...) \
  do {                                   \
    if (!(condition)) {                  \
      ::pypose_ops::fail(__VA_ARGS__);   \
    }                                    \
  } while (false)

inline std::string shape_of(const Tensor& tensor) {
  std::ostringstream text;
  text << "(";
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    text << (i ? ", " : "") << tensor.size(i);
  }
  text << ")";
  return text.str();
}

inline bool is_floating(ScalarType type) {
  return type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::Half ||
      type == ScalarType::BFloat16;
}

inline void check_floating(const char* op, const char* name, const Tensor& tensor) {
  PYPOSE_OPS_CHECK(
      is_floating(tensor.scalar_type()), op, ": ", name,
      " must be float16, bfloat16, float32 or float64, got ", torch::headeronly::toString(tensor.scalar_type()));
}

// Coordinates and everything computed from them are never kept in half precision.
inline void check_coordinates(const char* op, const char* name, const Tensor& tensor) {
  PYPOSE_OPS_CHECK(
      tensor.scalar_type() == ScalarType::Float || tensor.scalar_type() == ScalarType::Double, op, ": ", name,
      " must be float32 or float64, got ", torch::headeronly::toString(tensor.scalar_type()));
}

inline void check_same_device(
    const char* op, const char* name, const Tensor& tensor, const char* other_name, const Tensor& other) {
  PYPOSE_OPS_CHECK(
      tensor.device() == other.device(), op, ": ", name, " must be on the same device as ", other_name);
}

inline void check_size(const char* op, const char* name, const Tensor& tensor, int64_t dim, int64_t want) {
  PYPOSE_OPS_CHECK(
      tensor.size(dim) == want, op, ": ", name, " must have size ", want, " in dimension ", dim, ", got shape ",
      shape_of(tensor));
}

inline void check_dim(const char* op, const char* name, const Tensor& tensor, int64_t want, const char* layout) {
  PYPOSE_OPS_CHECK(
      tensor.dim() == want, op, ": ", name, " must be ", layout, ", got shape ", shape_of(tensor));
}

// The number of one of an enumeration's first `count` values -> the enumerator.
template <typename Enum>
Enum check_choice(const char* op, const char* name, int64_t value, int64_t count) {
  PYPOSE_OPS_CHECK(
      value >= 0 && value < count, op, ": ", name, " must be a number from 0 to ", count - 1, ", got ", value);
  return static_cast<Enum>(value);
}

}  // namespace pypose_ops

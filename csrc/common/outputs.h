// Outputs that the caller may bring, so that a loop allocates nothing.
#pragma once

#include <optional>
#include <tuple>

#include "common/check.h"
#include "common/tensors.h"

namespace pypose_ops {

// The caller's output, checked, or a new one beside `like`.
inline Tensor output_of(
    const char* op, const std::optional<Tensor>& given, const Tensor& like, IntHeaderOnlyArrayRef sizes,
    ScalarType dtype, const char* like_name = "keypoints") {
  if (!given) {
    return empty_beside(like, sizes, dtype);
  }
  check_same_device(op, "out", *given, like_name, like);
  check_dim(op, "out", *given, static_cast<int64_t>(sizes.size()), "as the output is");
  for (size_t d = 0; d < sizes.size(); ++d) {
    check_size(op, "out", *given, static_cast<int64_t>(d), sizes[d]);
  }
  PYPOSE_OPS_CHECK(
      given->scalar_type() == dtype, op, ": out must be ", torch::headeronly::toString(dtype), ", got ",
      torch::headeronly::toString(given->scalar_type()));
  PYPOSE_OPS_CHECK(given->is_contiguous(), op, ": out must be contiguous");
  return *given;
}

// Two operators of one function draw(out, arguments): one returns a new output, one writes into the caller's.
template <auto kDraw, typename Draw = decltype(kDraw)>
struct Drawn;

template <auto kDraw, typename... Args>
struct Drawn<kDraw, Tensor (*)(const std::optional<Tensor>&, Args...)> {
  static Tensor returned(Args... args) {
    return kDraw(std::nullopt, args...);
  }
  static void into(Tensor out, Args... args) {
    kDraw(out, args...);
  }
};

// The same for two outputs.
template <auto kDraw, typename... Args>
struct Drawn<
    kDraw, std::tuple<Tensor, Tensor> (*)(const std::optional<Tensor>&, const std::optional<Tensor>&, Args...)> {
  static std::tuple<Tensor, Tensor> returned(Args... args) {
    return kDraw(std::nullopt, std::nullopt, args...);
  }
  static void into(Tensor first, Tensor second, Args... args) {
    kDraw(first, second, args...);
  }
};

}  // namespace pypose_ops

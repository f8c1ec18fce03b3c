// The pass of sum_product along a line on CUDA, shared by forward and backward.
#pragma once

#include "mrf/sum_product.h"
#include "mrf/tree.cuh"

namespace pypose_ops {
namespace {

// log of the sum over s of exp(line[s * stride] - cost(s, t)).
template <typename acc>
__device__ __forceinline__ acc sum_line(
    const acc* line, int64_t stride, int n, int t, const Spring<acc>& spring) {
  acc peak = -std::numeric_limits<acc>::infinity();
  for (int s = 0; s < n; ++s) {
    const acc term = line[s * stride] - spring.cost(s, t);
    peak = term > peak ? term : peak;
  }
  if (!is_possible(peak)) {
    return peak;
  }
  acc sum = 0;
  for (int s = 0; s < n; ++s) {
    sum += ::exp(line[s * stride] - spring.cost(s, t) - peak);
  }
  return peak + ::log(sum);
}

// out = source after the pass along x, by the whole block.
template <typename acc>
__device__ void pass_x(
    acc* out, const acc* source, const Spring<acc>& spring, const Shape& shape) {
  const int width = static_cast<int>(shape.width);
  for (int64_t p = threadIdx.x; p < shape.pixels(); p += kThreads) {
    const int64_t row = p / width;
    out[p] = sum_line(source + row * width, 1, width, static_cast<int>(p - row * width), spring);
  }
}

template <typename acc>
__device__ void pass_y(
    acc* out, const acc* rows, const Spring<acc>& spring, const Shape& shape) {
  const int64_t width = shape.width;
  for (int64_t p = threadIdx.x; p < shape.pixels(); p += kThreads) {
    const int64_t row = p / width;
    out[p] = sum_line(rows + p - row * width, width, static_cast<int>(shape.height), static_cast<int>(row), spring);
  }
}

}  // namespace
}  // namespace pypose_ops

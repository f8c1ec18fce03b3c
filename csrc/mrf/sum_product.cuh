// The pass of sum_product along a line on CUDA, shared by forward and backward.
#pragma once

#include "mrf/sum_product.h"
#include "mrf/tree_strips.cuh"

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

// Eight floats across are a sector of memory; shorter strips would leave fewer threads idle, but read sectors in part.
constexpr int kLines = 8;

// Along x: rows (B, count, H, W) receives the level's messages after the pass. Along y: from there to the messages.
template <typename T, bool kRows>
__global__ void __launch_bounds__(kThreads) sum_lines_kernel(
    acc_t<T>* out, acc_t<T>* rows, const acc_t<T>* messages, const T* __restrict__ unary,
    const acc_t<T>* __restrict__ deformation, const __grid_constant__ IntTable table, const Level level,
    const StripMemory memory, const Shape shape) {
  using acc = acc_t<T>;
  const Tables t = tables_of(table, shape);
  const Strip<kRows, kLines> strip(level, shape);
  const int64_t pixels = shape.pixels();
  const int64_t image = strip.b * shape.messages() * pixels;
  acc* between = rows + strip.local * pixels;
  acc* in = reinterpret_cast<acc*>(memory.own());
  strip.each([&](int32_t line, int32_t k) {
    const int64_t pixel = strip.pixel(line, k);
    in[strip.at(line, k)] = kRows
        ? source_at(unary + strip.b * shape.joints * pixels, messages + image, t, strip.i, pixel, pixels)
        : between[pixel];
  });
  __syncthreads();
  const Spring<acc> spring = spring_of(deformation, t.edge[strip.i], t.sign[strip.i], kRows ? 0 : 1);
  acc* to = kRows ? between : out + image + strip.i * pixels;
  strip.each([&](int32_t line, int32_t k) {
    to[strip.pixel(line, k)] = sum_line(in + line, strip.kPitch, strip.n, k, spring);
  });
}

}  // namespace
}  // namespace pypose_ops

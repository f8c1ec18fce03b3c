// What the CUDA kernels of max_product and sum_product share. A level of the tree takes one launch along x and one along
// y (backward in the other order); see tree_strips.cuh for what a block owns.
#pragma once

#include "common/reduce.cuh"
#include "mrf/tree.h"
#include "mrf/int_table.cuh"

namespace pypose_ops {
namespace {

using namespace tree;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;

__device__ __forceinline__ Tables tables_of(const IntTable& table, const Shape& shape) {
  return Tables::of(table.data(), shape.joints, shape.messages());
}

// Messages [first, first + count) of the schedule.
struct Level {
  int32_t first, count;
};

// One pixel of a joint's base plus the messages into it, but for `except`; kReversed: plus the maps of their reverses.
template <bool kReversed, typename acc>
__device__ __forceinline__ acc add_messages(
    acc base, const acc* maps, const Tables& t, int32_t joint, int32_t except, int64_t pixel,
    int64_t pixels) {
  acc sum = base;
  for (int32_t j = t.into_begin[joint]; j < t.into_begin[joint + 1]; ++j) {
    const int32_t message = kReversed ? t.reverse[t.into[j]] : t.into[j];
    if (message != except) {
      sum += maps[message * pixels + pixel];
    }
  }
  return kReversed ? sum : settled(sum);
}

// A pixel of what message i is computed from. unary and maps are the image's.
template <typename T>
__device__ __forceinline__ acc_t<T> source_at(
    const T* unary, const acc_t<T>* maps, const Tables& t, int32_t i, int64_t pixel, int64_t pixels) {
  const int32_t joint = t.source[i];
  const acc_t<T> base = evidence(static_cast<acc_t<T>>(unary[joint * pixels + pixel]));
  return add_messages<false>(base, maps, t, joint, t.reverse[i], pixel, pixels);
}

// Backward: a pixel of what arrives at message i. grads and maps are the image's.
template <typename acc>
__device__ __forceinline__ acc incoming_at(
    const acc* grads, const acc* maps, const Tables& t, int32_t i, int64_t pixel, int64_t pixels) {
  const int32_t joint = t.target[i];
  return add_messages<true>(grads[joint * pixels + pixel], maps, t, joint, t.reverse[i], pixel, pixels);
}

// The gradient of the beliefs, in place: plus what came back along the messages. One thread per pixel.
template <typename acc>
__global__ void __launch_bounds__(kThreads)
    unary_gradient_kernel(
        acc* grads, const acc* __restrict__ maps, const __grid_constant__ IntTable table, const Shape shape) {
  const Tables t = tables_of(table, shape);
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= shape.batch * shape.joints * shape.pixels()) {
    return;
  }
  const int64_t pixel = index % shape.pixels();
  const int64_t map = index / shape.pixels();
  grads[index] = add_messages<true>(
      grads[index], maps + map / shape.joints * shape.messages() * shape.pixels(), t,
      static_cast<int32_t>(map % shape.joints), -1, pixel, shape.pixels());
}

// Backward: sums of every strip, of gradient times stretch and times squared stretch: (B, messages, 2 axes, strips, 2).
struct StretchPartials {
  double* sums;
  int64_t strips[2];  // of a map, along x and along y; the larger is the size

  __device__ __forceinline__ double* at(int64_t message, int axis, int64_t strip) const {
    const int64_t size = strips[0] > strips[1] ? strips[0] : strips[1];
    return sums + ((message * 2 + axis) * size + strip) * 2;
  }
};

// One block per edge: grad_deformation (E, 4).
template <typename acc>
__global__ void __launch_bounds__(kThreads) deformation_gradient_kernel(
    acc* __restrict__ out, const StretchPartials partials, const acc* __restrict__ deformation,
    const __grid_constant__ IntTable table, const Shape shape) {
  const Tables t = tables_of(table, shape);
  const int32_t e = static_cast<int32_t>(blockIdx.x);
  double sums[4] = {0, 0, 0, 0};
  for (int64_t i = 0; i < shape.messages(); ++i) {
    if (t.edge[i] != e) {
      continue;  // the same for all threads
    }
    for (int axis = 0; axis < 2; ++axis) {
      const int64_t strips = partials.strips[axis];
      for (int64_t n = threadIdx.x; n < shape.batch * strips; n += kThreads) {
        const double* part = partials.at(n / strips * shape.messages() + i, axis, n % strips);
        sums[axis] += t.sign[i] * part[0];
        sums[2 + axis] += part[1];
      }
    }
  }
  block_sum<kThreads>(sums);
  for (int n = 0; threadIdx.x == 0 && n < 4; ++n) {
    const Spring<acc> spring = spring_of(deformation, e, 1, n % 2);
    out[4 * e + n] = n < 2 ? static_cast<acc>(static_cast<double>(spring.weight) * sums[n] * 2)
                           : spring.weight > 0 ? static_cast<acc>(-sums[n]) : acc(0);
  }
}

template <typename acc>
void finish_gradients(
    const char* op, const Gradients& out, const Tensor& maps, const StretchPartials& partials,
    const Tensor& deformation, const IntTable& table, const Shape& shape, cudaStream_t stream) {
  launch(
      op, unary_gradient_kernel<acc>, ceil_div(out.unary.numel(), kThreads), kThreads, 0, stream,
      out.unary.mutable_data_ptr<acc>(), maps.const_data_ptr<acc>(), table, shape);
  if (shape.edges > 0) {
    launch(
        op, deformation_gradient_kernel<acc>, shape.edges, kThreads, 0, stream,
        out.deformation.mutable_data_ptr<acc>(), partials, deformation.const_data_ptr<acc>(), table, shape);
  }
}

// run(level) for the levels of the schedule in order, or in reverse.
template <typename Run>
void each_level(const Schedule& schedule, bool reverse, const Run& run) {
  for (int64_t n = 0; n < schedule.levels(); ++n) {
    const int64_t level = reverse ? schedule.levels() - 1 - n : n;
    const int64_t first = schedule.level_begin[level];
    run(Level{static_cast<int32_t>(first), static_cast<int32_t>(schedule.level_begin[level + 1] - first)});
  }
}

inline int64_t widest_level(const Schedule& schedule) {
  int64_t widest = 0;
  each_level(schedule, false, [&](const Level& level) { widest = std::max<int64_t>(widest, level.count); });
  return widest;
}

// What a launcher keeps: the schedule's table, and buffers for the messages of one level, (B, count, H, W) each, in
// device memory. like: of the arithmetic's dtype, on the device.
template <typename acc>
struct LevelMemory {
  int64_t size;  // of a buffer
  HostTable host;
  Tensor buffers;

  LevelMemory(
      const char* op, const Tensor& like, const Schedule& schedule, const Shape& shape, int64_t count,
      cudaStream_t stream)
      : size(shape.batch * widest_level(schedule) * shape.pixels()),
        host(op, like, schedule.values, stream),
        buffers(empty_beside(like, {count, size})) {}
  const IntTable& table() const {
    return host.table;
  }
  acc* buffer(int64_t n) const {
    return buffers.mutable_data_ptr<acc>() + n * size;
  }
};

}  // namespace
}  // namespace pypose_ops

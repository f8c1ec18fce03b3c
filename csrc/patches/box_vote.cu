#include <algorithm>

#include "common/cuda.cuh"
#include "common/reduce.cuh"
#include "patches/box_vote.h"

namespace pypose_ops {
namespace {

using namespace patches;

constexpr int kThreads = 256;

// One warp per map: the unit of its weights. weights is (B, P, K), exponents (B, K).
template <typename T>
__global__ void __launch_bounds__(kThreads)
    units_kernel(int32_t* __restrict__ exponents, const T* __restrict__ weights, const VoteShape shape) {
  const int64_t map = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kWarpSize;
  if (map >= shape.batch * shape.maps) {
    return;
  }
  const T* column = weights + map / shape.maps * shape.boxes * shape.maps + map % shape.maps;
  double largest = 0;
  for (int64_t p = threadIdx.x % kWarpSize; p < shape.boxes; p += kWarpSize) {
    const double weight = ::fabs(finite_or_zero(static_cast<double>(column[p * shape.maps])));
    largest = weight > largest ? weight : largest;
  }
  largest = warp_max(largest);
  if (threadIdx.x % kWarpSize == 0) {
    exponents[map] = unit_exponent(largest, shape.boxes);
  }
}

// One thread per weight adds up to four corners. Integers: the order of the atomics does not matter.
template <typename T>
__global__ void __launch_bounds__(kThreads) corners_kernel(
    unsigned long long* __restrict__ units, const double* __restrict__ boxes, const T* __restrict__ weights,
    const int32_t* __restrict__ exponents, const VoteShape shape) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= shape.batch * shape.boxes * shape.maps) {
    return;
  }
  const PixelBox box = PixelBox::of(boxes + index / shape.maps * 4, shape);
  const int64_t map = index / (shape.boxes * shape.maps) * shape.maps + index % shape.maps;
  const int64_t weight = units_of(finite_or_zero(static_cast<double>(weights[index])), exponents[map]);
  if (box.empty() || weight == 0) {
    return;
  }
  unsigned long long* target = units + map * shape.pixels();
  for_corners(box, shape, [=](int64_t y, int64_t x, int sign) {
    atomicAdd(target + y * shape.width + x, static_cast<unsigned long long>(sign * weight));
  });
}

// One warp per row: sums[x] = in[0] + ... + in[x].
template <typename Sum, typename In>
__global__ void __launch_bounds__(kThreads)
    rows_kernel(Sum* sums, const In* in, int64_t rows, int64_t width) {
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kWarpSize;
  if (row >= rows) {
    return;
  }
  const int lane = threadIdx.x % kWarpSize;
  Sum carry = 0;
  for (int64_t begin = 0; begin < width; begin += kWarpSize) {
    const int64_t at = row * width + begin + lane;
    Sum sum = begin + lane < width ? static_cast<Sum>(in[at]) : Sum(0);
#pragma unroll
    for (int offset = 1; offset < kWarpSize; offset *= 2) {
      const Sum left = __shfl_up_sync(kFullMask, sum, offset);
      sum += lane >= offset ? left : Sum(0);
    }
    sum += carry;
    if (begin + lane < width) {
      sums[at] = sum;
    }
    carry = __shfl_sync(kFullMask, sum, kWarpSize - 1);
  }
}

// One thread per column: store(at, sum) with the sum from the top, x fastest.
template <typename Sum, typename Store>
__device__ __forceinline__ void sum_column(const Sum* sums, const VoteShape& shape, const Store& store) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (column >= shape.batch * shape.maps * shape.width) {
    return;
  }
  const int64_t map = column / shape.width;
  int64_t at = map * shape.pixels() + column % shape.width;
  Sum sum = 0;
  for (int64_t y = 0; y < shape.height; ++y, at += shape.width) {
    sum += sums[at];
    store(map, at, sum);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) votes_kernel(
    T* __restrict__ out, const long long* __restrict__ units, const int32_t* __restrict__ exponents,
    const VoteShape shape) {
  sum_column(units, shape, [=](int64_t map, int64_t at, long long sum) {
    out[at] = static_cast<T>(static_cast<acc_t<T>>(from_units(sum, exponents[map])));
  });
}

// In place.
__global__ void __launch_bounds__(kThreads) integral_kernel(double* sums, const VoteShape shape) {
  sum_column(sums, shape, [=](int64_t, int64_t at, double sum) { sums[at] = sum; });
}

// One thread per weight: its box in the integral image.
template <typename T>
__global__ void __launch_bounds__(kThreads) boxes_kernel(
    T* __restrict__ out, const double* __restrict__ integral, const double* __restrict__ boxes, const VoteShape shape) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= shape.batch * shape.boxes * shape.maps) {
    return;
  }
  const PixelBox box = PixelBox::of(boxes + index / shape.maps * 4, shape);
  const int64_t map = index / (shape.boxes * shape.maps) * shape.maps + index % shape.maps;
  const double* sums = integral + map * shape.pixels();
  const auto before = [=](int64_t y, int64_t x) { return y > 0 && x > 0 ? sums[(y - 1) * shape.width + x - 1] : 0.0; };
  double sum = 0;
  if (!box.empty()) {
    sum = (before(box.y.end, box.x.end) - before(box.y.end, box.x.first)) -
        (before(box.y.first, box.x.end) - before(box.y.first, box.x.first));
  }
  out[index] = static_cast<T>(static_cast<acc_t<T>>(sum));
}

int64_t blocks_for(int64_t threads) {
  return std::max<int64_t>(1, ceil_div(threads, kThreads));
}

template <typename T>
void launch_vote(
    const Tensor& out, const Tensor& boxes, const Tensor& weights, const VoteShape& shape, cudaStream_t stream) {
  const int64_t maps = shape.batch * shape.maps, rows = maps * shape.height;
  const Tensor exponents = empty_beside(weights, {maps}, ScalarType::Int);
  const Tensor units = zeros_beside(weights, {maps, shape.height, shape.width}, ScalarType::Long);
  auto* unit_data = static_cast<unsigned long long*>(units.mutable_data_ptr());
  auto* signed_data = static_cast<long long*>(units.mutable_data_ptr());
  launch(
      "box_vote", units_kernel<T>, blocks_for(maps * kWarpSize), kThreads, 0, stream,
      exponents.mutable_data_ptr<int32_t>(), weights.const_data_ptr<T>(), shape);
  launch(
      "box_vote", corners_kernel<T>, blocks_for(shape.batch * shape.boxes * shape.maps), kThreads, 0, stream,
      unit_data, boxes.const_data_ptr<double>(), weights.const_data_ptr<T>(), exponents.const_data_ptr<int32_t>(),
      shape);
  launch(
      "box_vote", rows_kernel<long long, long long>, blocks_for(rows * kWarpSize), kThreads, 0, stream, signed_data,
      signed_data, rows, shape.width);
  launch(
      "box_vote", votes_kernel<T>, blocks_for(maps * shape.width), kThreads, 0, stream, out.mutable_data_ptr<T>(),
      signed_data, exponents.const_data_ptr<int32_t>(), shape);
}

Tensor box_vote_cuda(const Tensor& boxes, const Tensor& weights, int64_t height, int64_t width) {
  constexpr const char* op = "box_vote";
  const VoteShape shape = check_vote(op, boxes, weights, height, width);
  const DeviceGuard guard(boxes.get_device_index());
  Tensor out = empty_beside(weights, sizes_like(boxes, shape.batch, {shape.maps, height, width}));
  if (out.numel() == 0) {
    return out;
  }
  const Tensor corners = as_contiguous(boxes, ScalarType::Double), dense = as_contiguous(weights);
  const cudaStream_t stream = current_stream(boxes);
  PYPOSE_OPS_DISPATCH_FLOATING(
      weights.scalar_type(), op, [&] { launch_vote<scalar_t>(out, corners, dense, shape, stream); });
  return out;
}

template <typename T>
void launch_backward(
    const Tensor& out, const Tensor& grad, const Tensor& boxes, const VoteShape& shape, cudaStream_t stream) {
  const int64_t maps = shape.batch * shape.maps, rows = maps * shape.height;
  const Tensor integral = empty_beside(grad, {maps, shape.height, shape.width}, ScalarType::Double);
  double* sums = integral.mutable_data_ptr<double>();
  launch(
      "box_vote", rows_kernel<double, T>, blocks_for(rows * kWarpSize), kThreads, 0, stream, sums,
      grad.const_data_ptr<T>(), rows, shape.width);
  launch("box_vote", integral_kernel, blocks_for(maps * shape.width), kThreads, 0, stream, sums, shape);
  launch(
      "box_vote", boxes_kernel<T>, blocks_for(shape.batch * shape.boxes * shape.maps), kThreads, 0, stream,
      out.mutable_data_ptr<T>(), sums, boxes.const_data_ptr<double>(), shape);
}

Tensor box_vote_backward_cuda(const Tensor& grad, const Tensor& boxes) {
  constexpr const char* op = "_box_vote_backward";
  const VoteShape shape = check_vote_backward(op, grad, boxes);
  const DeviceGuard guard(grad.get_device_index());
  Tensor out = empty_beside(grad, sizes_like(boxes, shape.batch, {shape.boxes, shape.maps}));
  if (out.numel() == 0) {
    return out;
  }
  const Tensor corners = as_contiguous(boxes, ScalarType::Double), dense = as_contiguous(grad);
  const cudaStream_t stream = current_stream(grad);
  PYPOSE_OPS_DISPATCH_FLOATING(
      grad.scalar_type(), op, [&] { launch_backward<scalar_t>(out, dense, corners, shape, stream); });
  return out;
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("box_vote", TORCH_BOX(&box_vote_cuda));
  m.impl("_box_vote_backward", TORCH_BOX(&box_vote_backward_cuda));
}

}  // namespace pypose_ops

// Reductions over a warp and over a block, in a fixed order of operations: the same bits on every run.
#pragma once

#include "common/cuda.cuh"
#include "common/math.h"

namespace pypose_ops {

// Sum, maximum, ... over the lanes of a full warp; every lane gets the result.
template <typename T, typename Op>
__device__ __forceinline__ T warp_reduce(T value, Op op) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    value = op(value, __shfl_xor_sync(kFullMask, value, offset));
  }
  return value;
}

template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
  return warp_reduce(value, [](T a, T b) { return a + b; });
}

template <typename T>
__device__ __forceinline__ T warp_max(T value) {
  return warp_reduce(value, [](T a, T b) { return b > a ? b : a; });
}

// The best over a warp; every lane gets it.
template <typename T>
__device__ __forceinline__ Indexed<T> warp_best(Indexed<T> best) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    const Indexed<T> other = {
        __shfl_xor_sync(kFullMask, best.value, offset), __shfl_xor_sync(kFullMask, best.index, offset)};
    best = better(best, other);
  }
  return best;
}

// Sums each of n values over a block of `threads`; every thread gets the same bits. It begins with a barrier, so that
// it may be called again while slower threads still read the last result.
template <int threads, typename T, int n>
__device__ __forceinline__ void block_sum(T (&values)[n]) {
  constexpr int warps = threads / kWarpSize;
  __shared__ T partial[warps][n];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < n; ++i) {
    const T sum = warp_sum(values[i]);
    if (threadIdx.x % kWarpSize == 0) {
      partial[threadIdx.x / kWarpSize][i] = sum;
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < n; ++i) {
    values[i] = partial[0][i];
    for (int w = 1; w < warps; ++w) {
      values[i] += partial[w][i];
    }
  }
}

template <int threads, typename T>
__device__ __forceinline__ T block_sum(T value) {
  T values[1] = {value};
  block_sum<threads>(values);
  return values[0];
}

template <int threads, typename T>
__device__ __forceinline__ T block_max(T value) {
  constexpr int warps = threads / kWarpSize;
  __shared__ T partial[warps];
  __syncthreads();
  value = warp_max(value);
  if (threadIdx.x % kWarpSize == 0) {
    partial[threadIdx.x / kWarpSize] = value;
  }
  __syncthreads();
  for (int w = 0; w < warps; ++w) {
    value = partial[w] > value ? partial[w] : value;
  }
  return value;
}

// The best over a block of `threads`; every thread gets it. It begins with a barrier, as block_sum.
template <int threads, typename T>
__device__ __forceinline__ Indexed<T> block_best(Indexed<T> best) {
  constexpr int warps = threads / kWarpSize;
  __shared__ Indexed<T> partial[warps];
  __syncthreads();
  best = warp_best(best);
  if (threadIdx.x % kWarpSize == 0) {
    partial[threadIdx.x / kWarpSize] = best;
  }
  __syncthreads();
  best = partial[0];
  for (int w = 1; w < warps; ++w) {
    best = better(best, partial[w]);
  }
  return best;
}

}  // namespace pypose_ops

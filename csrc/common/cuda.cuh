// What every .cu needs around its kernels: the current stream, launch(), shared memory, warp helpers, registration.
//
// A .cu file compiles in two ways: by nvcc, for GPUs, and by the host compiler against tests/simt, which runs the same
// kernels on the CPU. This header is the only place that knows; the .cu files themselves are written once.
#pragma once

#include <cstdint>
#include <type_traits>

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "common/check.h"
#include "common/dispatch.h"

#ifdef __CUDACC__
#include <cuda_runtime.h>

// Lives in libtorch_cuda; weak, so that one binary also loads beside a CPU-only torch.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream);
#else
#include <simt.h>
#endif

namespace pypose_ops {

constexpr int kWarpSize = 32;
constexpr unsigned kFullMask = 0xffffffffu;
// grid.y and grid.z stop here; grid.x goes to 2^31 - 1. Kernels put the long axis on x.
constexpr int64_t kMaxGridX = 2147483647;

// Launch bounds of kernels that ptxas, left alone, lets spill before sm_90, for the sake of more blocks per
// multiprocessor: there it must leave registers for that many blocks only.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define PYPOSE_OPS_BOUNDS_BEFORE_90(threads, blocks) __launch_bounds__(threads, blocks)
#else
#define PYPOSE_OPS_BOUNDS_BEFORE_90(threads, blocks) __launch_bounds__(threads)
#endif

#ifdef __CUDACC__

#define PYPOSE_OPS_CUDA_LIBRARY(m) STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CUDA, m)

using DeviceGuard = torch::stable::accelerator::DeviceGuard;

inline cudaStream_t current_stream(const Tensor& tensor) {
  PYPOSE_OPS_CHECK(
      aoti_torch_get_current_cuda_stream != nullptr, "pypose_ops: this torch has no CUDA, but a CUDA tensor came");
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// kernel<<<grid, block, shared_bytes, stream>>>(args...) with the launch checked. The arguments are converted to the
// kernel's parameter types, so that an int literal may be passed for an int64_t.
template <typename... Params, typename... Args>
void launch(
    void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, const Args&... args) {
  kernel<<<grid, block, shared_bytes, stream>>>(static_cast<Params>(args)...);
  const cudaError_t error = cudaGetLastError();
  PYPOSE_OPS_CHECK(error == cudaSuccess, "pypose_ops: kernel launch failed: ", cudaGetErrorString(error));
}

// The block's dynamic shared memory (shared_bytes of launch), 16-byte aligned.
template <typename T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char pypose_ops_dynamic_shared[];
  return reinterpret_cast<T*>(pypose_ops_dynamic_shared);
}

#else

#define PYPOSE_OPS_CUDA_LIBRARY(m) STABLE_TORCH_LIBRARY_IMPL(pypose_ops_simt, CPU, m)

// CPU tensors have no device to switch to and no stream.
struct DeviceGuard {
  explicit DeviceGuard(int32_t) {}
};

inline cudaStream_t current_stream(const Tensor&) {
  return nullptr;
}

template <typename... Params, typename... Args>
void launch(
    void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t, const Args&... args) {
  // As on a GPU, the parameters are copied at the launch and every thread reads the same copy.
  simt::run(grid, block, shared_bytes, [kernel, args...] { kernel(static_cast<Params>(args)...); });
}

template <typename T>
T* dynamic_shared() {
  return static_cast<T*>(simt::dynamic_shared());
}

#endif

inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// That many blocks along x.
inline dim3 grid_of(const char* op, int64_t blocks) {
  PYPOSE_OPS_CHECK(
      blocks <= kMaxGridX, op, ": the tensors are too large for one launch of at most ", kMaxGridX, " blocks, got ",
      blocks);
  return dim3(static_cast<unsigned>(blocks));
}

// Sum, maximum, ... over the lanes of a full warp; every lane gets the result, in the same order of operations.
template <typename T, typename Op>
__device__ __forceinline__ T warp_reduce(T value, Op op) {
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    value = op(value, __shfl_xor_sync(kFullMask, value, offset));
  }
  return value;
}

}  // namespace pypose_ops

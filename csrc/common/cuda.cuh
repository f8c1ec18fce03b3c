// What every .cu needs around its kernels: the current stream, launch(), shared memory, registration.
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
constexpr int64_t kMaxBlocks = 2147483647;  // of one launch, along x, the only axis that kernels use
// Static and dynamic shared memory together, without opting in to more.
constexpr int64_t kMaxSharedBytes = 48 * 1024;

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
      aoti_torch_get_current_cuda_stream != nullptr, "pypose_ops: this torch has no CUDA, got a CUDA tensor");
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// Starts the kernel on grid.x = blocks; simt does the same on the CPU.
template <typename... Params>
void start(
    void (*kernel)(Params...), unsigned blocks, unsigned threads, size_t shared_bytes, cudaStream_t stream,
    Params... args) {
  kernel<<<blocks, threads, shared_bytes, stream>>>(args...);
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

template <typename... Params>
void start(
    void (*kernel)(Params...), unsigned blocks, unsigned threads, size_t shared_bytes, cudaStream_t, Params... args) {
  // As on a GPU, the parameters are copied at the launch and every thread reads the same copy.
  simt::run(
      reinterpret_cast<const void*>(kernel), blocks, threads, shared_bytes, [kernel, args...] { kernel(args...); });
}

template <typename T>
T* dynamic_shared() {
  return static_cast<T*>(simt::dynamic_shared());
}

#endif

inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// Runs the kernel with the launch checked; op is named where it fails. The arguments are converted to the kernel's
// parameter types, so that an int literal may be passed for an int64_t.
template <typename... Params, typename... Args>
void launch(
    const char* op, void (*kernel)(Params...), int64_t blocks, int threads, size_t shared_bytes, cudaStream_t stream,
    const Args&... args) {
  PYPOSE_OPS_CHECK(
      blocks <= kMaxBlocks, op, ": the tensors are too large for one launch of at most ", kMaxBlocks, " blocks, got ",
      blocks);
  start(kernel, static_cast<unsigned>(blocks), static_cast<unsigned>(threads), shared_bytes, stream,
        static_cast<Params>(args)...);
  const cudaError_t error = cudaGetLastError();
  PYPOSE_OPS_CHECK(
      error == cudaSuccess, op, ": the launch of a CUDA kernel with ", blocks, " blocks of ", threads, " threads and ",
      shared_bytes, " bytes of dynamic shared memory failed: ", cudaGetErrorString(error));
}

}  // namespace pypose_ops

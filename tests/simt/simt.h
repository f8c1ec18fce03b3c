// The part of CUDA that the kernels of this project use, for the host compiler: a launch runs its blocks one after the
// other on the calling thread, and the threads of a block as fibers that switch where a GPU's threads may wait.
//
// PYPOSE_OPS_SIMT_ORDER = ascending (default), descending or shuffle:<seed> sets the order in which blocks, warps and
// lanes run. Between two synchronisations a thread runs undisturbed, so a race shows as a result that depends on it.
//
// Shared memory holds 0xff bytes (NaN) when a block starts, but for static memory where AddressSanitizer watches it, and
// from the second block on where a library has more of it than 64 KB.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include <math.h>

#include "trace.h"
#include "vector_types.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
// Thread-local storage of this library holds nothing else, so that the runtime can fill and watch it. A section of its own
// would not do: GCC 12 ignores that attribute in templates.
#ifdef __SANITIZE_ADDRESS__
#define __shared__ static
#else
#define __shared__ static thread_local
#endif
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

namespace simt {

struct Registers {
  uint3 thread, block;
  dim3 block_size, grid_size;
};
extern Registers registers;

// Where in the source a thread waits.
struct Place {
  const char* file;
  int line;
};
constexpr Place here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return {file, line};
}

// What a kernel takes, where it is known (tests/simt/limits.py): a launch that no multiprocessor can hold is refused.
struct Limits {
  unsigned registers, static_shared_bytes;
};
void set_limits(const void* kernel, Limits limits);

void run_blocks(
    const void* kernel, dim3 grid, dim3 block, size_t shared_bytes, void (*thread)(const void*), const void* context);

// Runs body() once per thread. Throws std::runtime_error for a launch that a GPU refuses and for threads that would wait
// for ever. kernel: its address, for the limits.
template <typename F>
void run(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes, F body) {
  run_blocks(
      kernel, grid, block, shared_bytes, [](const void* context) { (*static_cast<const F*>(context))(); }, &body);
}

void* dynamic_shared();

// Ends the launch with an error that names the block and the thread.
[[noreturn]] void stop(const char* message, Place at);

// Whether the predicate holds for any thread of the block.
bool barrier(bool predicate, Place at);

enum class WarpOp { sync, shfl, shfl_up, shfl_xor, ballot };
uint64_t warp_collective(WarpOp op, unsigned mask, uint64_t value, unsigned source, Place at);
unsigned lane();

}  // namespace simt

inline constexpr const uint3& threadIdx = simt::registers.thread;
inline constexpr const uint3& blockIdx = simt::registers.block;
inline constexpr const dim3& blockDim = simt::registers.block_size;
inline constexpr const dim3& gridDim = simt::registers.grid_size;
inline constexpr int warpSize = 32;

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9 };
inline cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid configuration argument";
}
#include "warp.h"
#include "intrinsics.h"

// The measure of the runtime's speed: one block per map, warp shuffles, shared memory and one barrier.
#include "common/cuda.cuh"

namespace pypose_ops {
namespace {

constexpr int kThreads = 256;

struct Best {
  float value;
  int index;
};

__device__ __forceinline__ Best better(Best a, Best b) {
  return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}

__global__ void __launch_bounds__(kThreads)
    argmax_kernel(const float* __restrict__ maps, int64_t* __restrict__ out, int pixels) {
  __shared__ Best partial[kThreads / kWarpSize];
  const float* map = maps + int64_t{blockIdx.x} * pixels;
  Best best{-INFINITY, 0};
  for (int i = threadIdx.x; i < pixels; i += kThreads) {
    best = better(best, Best{map[i], i});
  }
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    const float value = __shfl_xor_sync(kFullMask, best.value, offset);
    best = better(best, Best{value, __shfl_xor_sync(kFullMask, best.index, offset)});
  }
  if (threadIdx.x % kWarpSize == 0) {
    partial[threadIdx.x / kWarpSize] = best;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < kThreads / kWarpSize; ++warp) {
      best = better(best, partial[warp]);
    }
    out[blockIdx.x] = best.index;
  }
}

// maps (N, H, W) float32 -> (N,) int64
Tensor argmax(const Tensor& maps) {
  Tensor out = torch::stable::new_empty(maps, {maps.size(0)}, ScalarType::Long);
  launch(
      "planted", argmax_kernel, maps.size(0), kThreads, 0, current_stream(maps), maps.const_data_ptr<float>(),
      out.mutable_data_ptr<int64_t>(), maps.size(1) * maps.size(2));
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops_simt_selftest, m) {
  m.def("argmax(Tensor maps) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops_simt_selftest, CPU, m) {
  m.impl("argmax", TORCH_BOX(&argmax));
}

}  // namespace pypose_ops

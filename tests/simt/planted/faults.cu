// Kernels that are wrong on purpose, each beside its right version: the tests that prove that the test device can fail.
#include "common/cuda.cuh"

namespace pypose_ops {
namespace {

constexpr int kThreads = 128;

// out[i] = in[i] + in[i + 1]; the last thread reads past the end unless `guard`.
__global__ void neighbour_sum_kernel(const float* __restrict__ in, float* __restrict__ out, int n, bool guard) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) {
    out[i] = in[i] + (guard && i + 1 == n ? 0.0f : in[i + 1]);
  }
}

Tensor neighbour_sum(const Tensor& in, bool guard) {
  Tensor out = torch::stable::empty_like(in);
  launch(
      "planted", neighbour_sum_kernel, ceil_div(in.numel(), kThreads), kThreads, 0, current_stream(in), in.const_data_ptr<float>(),
      out.mutable_data_ptr<float>(), in.numel(), guard);
  return out;
}

// Writes one element past the end of memory that is 0 dynamic shared, 1 static shared, 2 the thread's own.
__global__ void overrun_kernel(float* __restrict__ out, int kind) {
  __shared__ float fixed[kThreads];
  float own[kThreads];
  float* tile = kind == 0 ? dynamic_shared<float>() : kind == 1 ? fixed : own;
  tile[threadIdx.x + 1] = 1.0f;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}

Tensor overrun(const Tensor& like, int64_t kind) {
  Tensor out = torch::stable::new_empty(like, {kThreads});
  launch(
      "planted", overrun_kernel, 1, kThreads, kThreads * sizeof(float), current_stream(like), out.mutable_data_ptr<float>(),
      kind);
  return out;
}

// A vector load or store at an address that is not a multiple of 16: 0 plain, 1 __ldg, 2 __stcg.
__global__ void misaligned_kernel(const float* __restrict__ in, float* __restrict__ out, int kind) {
  const uint4* from = reinterpret_cast<const uint4*>(in + 1);
  const uint4 four = kind == 0 ? *from : kind == 1 ? __ldg(from) : uint4{};
  __stcg(reinterpret_cast<uint4*>(out + (kind == 2 ? 1 : 0)), four);
}

Tensor misaligned(const Tensor& in, int64_t kind) {
  Tensor out = torch::stable::new_empty(in, {8});
  launch(
      "planted", misaligned_kernel, 1, 1, 0, current_stream(in), in.const_data_ptr<float>(), out.mutable_data_ptr<float>(), kind);
  return out;
}

// Each block reverses its 128 values through shared memory; right only with the barrier.
__global__ void reverse_kernel(const float* __restrict__ in, float* __restrict__ out, bool with_barrier) {
  __shared__ float tile[kThreads];
  const int first = blockIdx.x * kThreads;
  tile[threadIdx.x] = in[first + threadIdx.x];
  if (with_barrier) {
    __syncthreads();
  }
  out[first + threadIdx.x] = tile[kThreads - 1 - threadIdx.x];
}

Tensor reverse(const Tensor& in, bool with_barrier) {
  Tensor out = torch::stable::empty_like(in);
  launch(
      "planted", reverse_kernel, in.numel() / kThreads, kThreads, 0, current_stream(in), in.const_data_ptr<float>(),
      out.mutable_data_ptr<float>(), with_barrier);
  return out;
}

// Threads that use the same shared memory: 0 neighbours in a warp without __syncwarp, 1 with it; 2 all write one place, 3 all
// add to it atomically; 4 a plain read of it at the same time; 5 the barrier lies between them, but for the second round.
// A template, as most kernels are.
template <typename T>
__global__ void race_kernel(T* __restrict__ out, int kind) {
  __shared__ T tile[kThreads];
  __shared__ T total;
  const int i = threadIdx.x;
  if (i == 0) {
    total = 0.0f;
  }
  __syncthreads();
  float result = 0.0f;
  if (kind < 2) {
    tile[i] = static_cast<float>(i);
    if (kind == 1) {
      __syncwarp();
    }
    result = tile[i ^ 1];
  } else if (kind == 2) {
    total = 1.0f;
  } else if (kind < 5) {
    atomicAdd(&total, 1.0f);
    result = kind == 4 ? total : 0.0f;
  } else {
    for (int round = 0; round < 2; ++round) {
      tile[i] = static_cast<float>(round);
      __syncthreads();
      result += tile[kThreads - 1 - i];
    }
  }
  out[i] = result;
}

Tensor race(const Tensor& like, int64_t kind) {
  Tensor out = torch::stable::new_empty(like, {kThreads});
  launch("planted", race_kernel<float>, 1, kThreads, 0, current_stream(like), out.mutable_data_ptr<float>(), kind);
  return out;
}

// Reads (n,) and writes (n,) floats: 0 neighbouring lanes neighbouring floats, 1 with a stride of 8 floats; 2 the first as
// vectors of 16 bytes, 3 lanes own 16 bytes and move them float by float.
__global__ void copy_kernel(const float* __restrict__ in, float* __restrict__ out, int n, int kind) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (kind == 0) {
    for (int at = i; at < n; at += gridDim.x * blockDim.x) {
      out[at] = in[at];
    }
  } else if (kind == 1) {
    for (int j = 0; j < 4; ++j) {
      const int at = (4 * i + j) * 8 % n + (4 * i + j) * 8 / n;
      out[at] = in[at];
    }
  } else if (kind == 2) {
    __stcg(reinterpret_cast<uint4*>(out) + i, __ldg(reinterpret_cast<const uint4*>(in) + i));
  } else {
    for (int j = 0; j < 4; ++j) {
      out[4 * i + j] = in[4 * i + j];
    }
  }
}

Tensor copied(const Tensor& in, int64_t kind) {
  Tensor out = torch::stable::empty_like(in);
  launch(
      "planted", copy_kernel, in.numel() / (4 * kThreads), kThreads, 0, current_stream(in), in.const_data_ptr<float>(),
      out.mutable_data_ptr<float>(), in.numel(), kind);
  return out;
}

// Ways to wait for ever, or to be refused: 0 half the warps at a barrier, the others in a shuffle with absent lanes;
// 1 two different barriers; 2 a mask without the caller; 3 lanes naming different masks; 4 __trap; 5 a bad width;
// 6 a lane that the others do not wait for in a warp operation, they at a barrier; 7 nothing wrong.
__global__ void misuse_kernel(int* __restrict__ out, int kind) {
  const int i = threadIdx.x;
  if (kind == 0) {
    if (i < 64) {
      __syncthreads();
    } else if (i % 32 < 16) {
      __shfl_sync(kFullMask, i, 0);
    } else {
      __syncthreads();
    }
  } else if (kind == 1) {
    if (i < 64) {
      __syncthreads();
    } else {
      __syncthreads();
    }
  } else if (kind == 2) {
    __syncwarp(0x1u);
  } else if (kind == 3) {
    __ballot_sync(i % 2 ? kFullMask : 0x55555555u | 2u, 1);
  } else if (kind == 4 && i == 5) {
    __trap();
  } else if (kind == 5) {
    __shfl_xor_sync(kFullMask, i, 1, 12);
  } else if (kind == 6 && i == 3) {
    __syncwarp();
  }
  __syncthreads();
  out[i] = i;
}

Tensor misuse(const Tensor& like, int64_t kind) {
  Tensor out = torch::stable::new_empty(like, {kThreads});
  launch("planted", misuse_kernel, 1, kThreads, 0, current_stream(like), out.mutable_data_ptr<int>(), kind);
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops_simt_selftest, m) {
  m.def("neighbour_sum(Tensor values, bool guard) -> Tensor");
  m.def("overrun(Tensor like, int kind) -> Tensor");
  m.def("misaligned(Tensor values, int kind) -> Tensor");
  m.def("reverse(Tensor values, bool with_barrier) -> Tensor");
  m.def("race(Tensor like, int kind) -> Tensor");
  m.def("copied(Tensor values, int kind) -> Tensor");
  m.def("misuse(Tensor like, int kind) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops_simt_selftest, CPU, m) {
  m.impl("neighbour_sum", TORCH_BOX(&neighbour_sum));
  m.impl("overrun", TORCH_BOX(&overrun));
  m.impl("misaligned", TORCH_BOX(&misaligned));
  m.impl("reverse", TORCH_BOX(&reverse));
  m.impl("race", TORCH_BOX(&race));
  m.impl("copied", TORCH_BOX(&copied));
  m.impl("misuse", TORCH_BOX(&misuse));
}

}  // namespace pypose_ops

// One small operator per primitive of the runtime, for tests/simt/test_simt.py.
#include <string>

#include "common/cuda.cuh"

namespace pypose_ops {
namespace {

constexpr int kThreads = 128;

template <typename T>
__global__ void shuffle_kernel(const T* __restrict__ in, T* __restrict__ out, int kind, int argument, int width) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const T value = in[i];
  if (kind == 0) {
    out[i] = __shfl_sync(kFullMask, value, argument, width);
  } else if (kind == 1) {
    out[i] = __shfl_up_sync(kFullMask, value, argument, width);
  } else {
    out[i] = __shfl_xor_sync(kFullMask, value, argument, width);
  }
}

template <typename T>
void launch_shuffle(const Tensor& in, Tensor& out, int64_t kind, int64_t argument, int64_t width) {
  launch(
      "planted", shuffle_kernel<T>, ceil_div(in.numel(), 64), 64, 0, current_stream(in), in.const_data_ptr<T>(),
      out.mutable_data_ptr<T>(), kind, argument, width);
}

// kind: 0 index, 1 up, 2 xor. The number of values is a multiple of 64.
Tensor shuffle(const Tensor& in, int64_t kind, int64_t argument, int64_t width) {
  Tensor out = torch::stable::empty_like(in);
  THO_DISPATCH_V2(
      in.scalar_type(), "shuffle", AT_WRAP([&] { launch_shuffle<scalar_t>(in, out, kind, argument, width); }),
      AT_EXPAND(AT_ALL_TYPES), ScalarType::Half, ScalarType::BFloat16);
  return out;
}

// The ballot over the lanes of `mask`; the other lanes leave their -1.
__global__ void ballot_kernel(const int* __restrict__ in, int* __restrict__ out, unsigned mask) {
  const int i = threadIdx.x;
  if (mask >> i & 1u) {
    out[i] = static_cast<int>(__ballot_sync(mask, in[i] > 0));
  }
}

Tensor ballot(const Tensor& in, int64_t mask) {
  Tensor out = torch::stable::new_empty(in, {in.numel()});
  torch::stable::fill_(out, -1);
  launch(
      "planted", ballot_kernel, 1, in.numel(), 0, current_stream(in), in.const_data_ptr<int>(), out.mutable_data_ptr<int>(),
      mask);
  return out;
}

// Two halves of a warp that go different ways, each with its own mask and its own number of steps, and meet again.
__global__ void divergent_kernel(int* __restrict__ out) {
  const int lane = threadIdx.x;
  int value = lane;
  if (lane < 16) {
    for (int i = 0; i < 3; ++i) {
      value = __shfl_sync(0x0000ffffu, value, (lane + 1) % 16, 16);
    }
  } else {
    for (int offset = 8; offset > 0; offset /= 2) {
      value += __shfl_xor_sync(0xffff0000u, value, offset);
    }
    __syncwarp(0xffff0000u);
  }
  __syncwarp();
  out[lane] = value + 1000 * __shfl_xor_sync(kFullMask, value, 31);
}

Tensor divergent(const Tensor& like) {
  Tensor out = torch::stable::new_empty(like, {32});
  launch("planted", divergent_kernel, 1, 32, 0, current_stream(like), out.mutable_data_ptr<int>());
  return out;
}

// Threads past n leave before every barrier; the others vote, and sum through static and dynamic shared memory.
__global__ void barrier_kernel(const int* __restrict__ in, int* __restrict__ out, int n) {
  __shared__ int fixed[kThreads];
  int* dynamic = dynamic_shared<int>();
  const int i = threadIdx.x;
  if (i >= n) {
    return;
  }
  fixed[i] = in[i];
  const int any = __syncthreads_or(in[i] > 0);
  dynamic[i] = fixed[n - 1 - i];
  __syncthreads();
  int sum = 0;
  for (int j = 0; j <= i; ++j) {
    sum += dynamic[j];
  }
  out[i] = any;
  out[n + i] = sum;
}

Tensor barriers(const Tensor& in) {
  Tensor out = torch::stable::new_empty(in, {2, in.numel()});
  launch(
      "planted", barrier_kernel, 1, kThreads, in.numel() * sizeof(int), current_stream(in), in.const_data_ptr<int>(),
      out.mutable_data_ptr<int>(), in.numel());
  return out;
}

// What shared memory holds when a block starts: out (blocks, 2), then overwritten for the next block. A template, as most
// kernels are: compilers place the static variables of templates by rules of their own.
template <typename T>
__global__ void fresh_shared_kernel(T* __restrict__ out) {
  __shared__ T fixed[4];
  T* dynamic = dynamic_shared<T>();
  out[2 * blockIdx.x] = fixed[threadIdx.x];
  out[2 * blockIdx.x + 1] = dynamic[threadIdx.x];
  __syncthreads();
  fixed[threadIdx.x] = dynamic[threadIdx.x] = 7;
}

Tensor fresh_shared(const Tensor& like) {
  Tensor out = torch::stable::new_empty(like, {3, 2});
  launch("planted", fresh_shared_kernel<int>, 3, 4, 4 * sizeof(int), current_stream(like), out.mutable_data_ptr<int>());
  return out;
}

// In place, on one element: plus the number of every thread.
template <typename T>
__global__ void atomic_kernel(T* __restrict__ out) {
  atomicAdd(out, static_cast<T>(blockIdx.x * blockDim.x + threadIdx.x));
}

void atomics(Tensor out) {
  if (out.scalar_type() == ScalarType::Int) {
    launch("planted", atomic_kernel<int>, 4, 64, 0, current_stream(out), out.mutable_data_ptr<int>());
  } else if (out.scalar_type() == ScalarType::Long) {
    launch(
        "planted", atomic_kernel<unsigned long long>, 4, 64, 0, current_stream(out),
        reinterpret_cast<unsigned long long*>(out.mutable_data_ptr<int64_t>()));
  } else if (out.scalar_type() == ScalarType::Float) {
    launch("planted", atomic_kernel<float>, 4, 64, 0, current_stream(out), out.mutable_data_ptr<float>());
  } else {
    launch("planted", atomic_kernel<double>, 4, 64, 0, current_stream(out), out.mutable_data_ptr<double>());
  }
}

// Every thread of every block writes its own linear number plus one, so that nothing is missed or run twice.
__global__ void index_kernel(int* __restrict__ out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned number = block * (blockDim.x * blockDim.y * blockDim.z) + thread;
  out[number] += static_cast<int>(number) + 1;
}

Tensor indices(const Tensor& like, int64_t gx, int64_t gy, int64_t gz, int64_t bx, int64_t by, int64_t bz,
               int64_t shared_bytes) {
  Tensor out = torch::stable::new_empty(like, {gx * gy * gz * bx * by * bz});
  torch::stable::fill_(out, 0);
  int* data = out.mutable_data_ptr<int>();
  simt::run(
      reinterpret_cast<const void*>(&index_kernel), dim3(gx, gy, gz), dim3(bx, by, bz), shared_bytes,
      [data] { index_kernel(data); });
  return out;
}

// Intrinsics with a value to check by hand; in (4,), out (8,) float32.
__global__ void intrinsic_kernel(const float* __restrict__ in, float* __restrict__ out) {
  const float x = __ldg(in);
  const uint4 four = __ldg(reinterpret_cast<const uint4*>(in));
  __stcg(reinterpret_cast<uint4*>(out), four);
  out[4] = static_cast<float>(__popc(0xf0f0u));
  out[5] = min(in[3], x);
  out[6] = max(in[3], x);
  out[7] = static_cast<float>(max(-1, 1) + min(3u, 2u));
}

Tensor intrinsics(const Tensor& in) {
  Tensor out = torch::stable::new_empty(in, {8});
  launch("planted", intrinsic_kernel, 1, 1, 0, current_stream(in), in.const_data_ptr<float>(), out.mutable_data_ptr<float>());
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops_simt_selftest, m) {
  m.def("shuffle(Tensor values, int kind, int argument, int width) -> Tensor");
  m.def("ballot(Tensor values, int mask) -> Tensor");
  m.def("divergent(Tensor like) -> Tensor");
  m.def("barriers(Tensor values) -> Tensor");
  m.def("fresh_shared(Tensor like) -> Tensor");
  m.def("atomics(Tensor(a!) out) -> ()");
  m.def("indices(Tensor like, int gx, int gy, int gz, int bx, int by, int bz, int shared_bytes) -> Tensor");
  m.def("intrinsics(Tensor values) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops_simt_selftest, CPU, m) {
  m.impl("shuffle", TORCH_BOX(&shuffle));
  m.impl("ballot", TORCH_BOX(&ballot));
  m.impl("divergent", TORCH_BOX(&divergent));
  m.impl("barriers", TORCH_BOX(&barriers));
  m.impl("fresh_shared", TORCH_BOX(&fresh_shared));
  m.impl("atomics", TORCH_BOX(&atomics));
  m.impl("indices", TORCH_BOX(&indices));
  m.impl("intrinsics", TORCH_BOX(&intrinsics));
}

}  // namespace pypose_ops

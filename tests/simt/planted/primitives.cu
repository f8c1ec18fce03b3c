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
  } else if (kind == 2) {
    out[i] = __shfl_down_sync(kFullMask, value, argument, width);
  } else {
    out[i] = __shfl_xor_sync(kFullMask, value, argument, width);
  }
}

template <typename T>
void launch_shuffle(const Tensor& in, Tensor& out, int64_t kind, int64_t argument, int64_t width) {
  launch(
      shuffle_kernel<T>, ceil_div(in.numel(), 64), 64, 0, current_stream(in), in.const_data_ptr<T>(),
      out.mutable_data_ptr<T>(), kind, argument, width);
}

// kind: 0 index, 1 up, 2 down, 3 xor. The number of values is a multiple of 64.
Tensor shuffle(const Tensor& in, int64_t kind, int64_t argument, int64_t width) {
  Tensor out = torch::stable::empty_like(in);
  THO_DISPATCH_V2(
      in.scalar_type(), "shuffle", AT_WRAP([&] { launch_shuffle<scalar_t>(in, out, kind, argument, width); }),
      AT_EXPAND(AT_ALL_TYPES), ScalarType::Half, ScalarType::BFloat16);
  return out;
}

// out: (11, n) int32, one row per vote or reduction over the lanes of `mask`; the other lanes leave their -1.
__global__ void collective_kernel(const int* __restrict__ in, int* __restrict__ out, int n, unsigned mask) {
  const int i = threadIdx.x;
  if ((mask >> i & 1u) == 0) {
    return;
  }
  const unsigned bits = static_cast<unsigned>(in[i]);
  out[0 * n + i] = static_cast<int>(__ballot_sync(mask, in[i] > 0));
  out[1 * n + i] = __any_sync(mask, in[i] > 0);
  out[2 * n + i] = __all_sync(mask, in[i] > 0);
  out[3 * n + i] = static_cast<int>(__match_any_sync(mask, in[i]));
  out[4 * n + i] = __reduce_add_sync(mask, in[i]);
  out[5 * n + i] = __reduce_min_sync(mask, in[i]);
  out[6 * n + i] = __reduce_max_sync(mask, in[i]);
  out[7 * n + i] = static_cast<int>(__reduce_max_sync(mask, bits));
  out[8 * n + i] = static_cast<int>(__reduce_and_sync(mask, bits));
  out[9 * n + i] = static_cast<int>(__reduce_or_sync(mask, bits));
  out[10 * n + i] = static_cast<int>(__reduce_xor_sync(mask, bits));
}

Tensor collectives(const Tensor& in, int64_t mask) {
  Tensor out = torch::stable::new_empty(in, {11, in.numel()});
  torch::stable::fill_(out, -1);
  launch(
      collective_kernel, 1, in.numel(), 0, current_stream(in), in.const_data_ptr<int>(), out.mutable_data_ptr<int>(),
      in.numel(), mask);
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
    value = __reduce_add_sync(0xffff0000u, value);
    __syncwarp(0xffff0000u);
  }
  __syncwarp();
  out[lane] = value + 1000 * __shfl_xor_sync(kFullMask, value, 31);
}

Tensor divergent(const Tensor& like) {
  Tensor out = torch::stable::new_empty(like, {32});
  launch(divergent_kernel, 1, 32, 0, current_stream(like), out.mutable_data_ptr<int>());
  return out;
}

// Threads past n leave before every barrier; the others count, vote and sum through static and dynamic shared memory.
__global__ void barrier_kernel(const int* __restrict__ in, int* __restrict__ out, int n) {
  __shared__ int fixed[kThreads];
  int* dynamic = dynamic_shared<int>();
  const int i = threadIdx.x;
  if (i >= n) {
    return;
  }
  fixed[i] = in[i];
  const int positive = __syncthreads_count(in[i] > 0);
  const int all = __syncthreads_and(in[i] > 0);
  const int any = __syncthreads_or(in[i] > 0);
  dynamic[i] = fixed[n - 1 - i];
  __syncthreads();
  int sum = 0;
  for (int j = 0; j <= i; ++j) {
    sum += dynamic[j];
  }
  out[i] = positive;
  out[n + i] = all;
  out[2 * n + i] = any;
  out[3 * n + i] = sum;
}

Tensor barriers(const Tensor& in) {
  Tensor out = torch::stable::new_empty(in, {4, in.numel()});
  launch(
      barrier_kernel, 1, kThreads, in.numel() * sizeof(int), current_stream(in), in.const_data_ptr<int>(),
      out.mutable_data_ptr<int>(), in.numel());
  return out;
}

// What shared memory holds when a block starts: out (blocks, 2), then overwritten for the next block.
__global__ void fresh_shared_kernel(int* __restrict__ out) {
  __shared__ int fixed[4];
  int* dynamic = dynamic_shared<int>();
  out[2 * blockIdx.x] = fixed[threadIdx.x];
  out[2 * blockIdx.x + 1] = dynamic[threadIdx.x];
  __syncthreads();
  fixed[threadIdx.x] = dynamic[threadIdx.x] = 7;
}

Tensor fresh_shared(const Tensor& like) {
  Tensor out = torch::stable::new_empty(like, {3, 2});
  launch(fresh_shared_kernel, 3, 4, 4 * sizeof(int), current_stream(like), out.mutable_data_ptr<int>());
  return out;
}

// out (9,) of every type, each the result of all threads' atomics with their own number: sum, difference, minimum,
// maximum, or, xor, and; how many exchanges returned another's number; a sum by compare-and-swap.
template <typename T>
__global__ void atomic_kernel(T* __restrict__ out) {
  const T value = static_cast<T>(blockIdx.x * blockDim.x + threadIdx.x);
  atomicAdd(&out[0], value);
  if constexpr (std::is_integral_v<T>) {
    atomicMin(&out[2], value);
    atomicMax(&out[3], value);
    atomicOr(&out[4], value);
    atomicXor(&out[5], value);
    atomicAnd(&out[6], value);
    if (atomicExch(&out[7], value) != value) {
      atomicAdd(&out[1], 1);
    }
    T seen = out[8];
    T assumed;
    do {
      assumed = seen;
      seen = atomicCAS(&out[8], assumed, assumed + value);
    } while (seen != assumed);
  }
}

// In place, on (9,) of int32, uint64 (as int64), float32 or float64.
void atomics(Tensor out) {
  if (out.scalar_type() == ScalarType::Int) {
    launch(atomic_kernel<int>, 4, 64, 0, current_stream(out), out.mutable_data_ptr<int>());
  } else if (out.scalar_type() == ScalarType::Long) {
    launch(
        atomic_kernel<unsigned long long>, 4, 64, 0, current_stream(out),
        reinterpret_cast<unsigned long long*>(out.mutable_data_ptr<int64_t>()));
  } else if (out.scalar_type() == ScalarType::Float) {
    launch(atomic_kernel<float>, 4, 64, 0, current_stream(out), out.mutable_data_ptr<float>());
  } else {
    launch(atomic_kernel<double>, 4, 64, 0, current_stream(out), out.mutable_data_ptr<double>());
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
  launch(
      index_kernel, dim3(gx, gy, gz), dim3(bx, by, bz), shared_bytes, current_stream(like),
      out.mutable_data_ptr<int>());
  return out;
}

// Intrinsics with a value to check by hand; out (12,) float32.
__global__ void intrinsic_kernel(const float* __restrict__ in, float* __restrict__ out) {
  const float x = __ldg(in);
  const float4 four = *reinterpret_cast<const float4*>(in);
  out[0] = __expf(x) * __fdividef(1.0f, rsqrtf(four.y));
  out[1] = static_cast<float>(__float2int_rn(x) * 100 + __float2int_rd(x) * 10 + __float2int_ru(x));
  out[2] = static_cast<float>(__float2int_rz(four.z));
  out[3] = __int_as_float(__float_as_int(x) ^ 0x80000000);
  out[4] = static_cast<float>(__popc(0xf0f0u) * 10000 + __ffs(8) * 100 + __clz(1));
  out[5] = static_cast<float>(__brev(1u) >> 24);
  out[6] = fminf(four.w, x);
  out[7] = min(four.w, x);
  out[8] = static_cast<float>(max(-1, 1) + min(3u, 2u));
  __stcs(out + 9, static_cast<float>(isnan(four.w)));
  __stcs(out + 10, __uint_as_float(__float_as_uint(x)));
  out[11] = static_cast<float>(__activemask());
}

Tensor intrinsics(const Tensor& in) {
  Tensor out = torch::stable::new_empty(in, {12});
  launch(intrinsic_kernel, 1, 1, 0, current_stream(in), in.const_data_ptr<float>(), out.mutable_data_ptr<float>());
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops_simt_selftest, m) {
  m.def("shuffle(Tensor values, int kind, int argument, int width) -> Tensor");
  m.def("collectives(Tensor values, int mask) -> Tensor");
  m.def("divergent(Tensor like) -> Tensor");
  m.def("barriers(Tensor values) -> Tensor");
  m.def("fresh_shared(Tensor like) -> Tensor");
  m.def("atomics(Tensor(a!) out) -> ()");
  m.def("indices(Tensor like, int gx, int gy, int gz, int bx, int by, int bz, int shared_bytes) -> Tensor");
  m.def("intrinsics(Tensor values) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops_simt_selftest, CPU, m) {
  m.impl("shuffle", TORCH_BOX(&shuffle));
  m.impl("collectives", TORCH_BOX(&collectives));
  m.impl("divergent", TORCH_BOX(&divergent));
  m.impl("barriers", TORCH_BOX(&barriers));
  m.impl("fresh_shared", TORCH_BOX(&fresh_shared));
  m.impl("atomics", TORCH_BOX(&atomics));
  m.impl("indices", TORCH_BOX(&indices));
  m.impl("intrinsics", TORCH_BOX(&intrinsics));
}

}  // namespace pypose_ops

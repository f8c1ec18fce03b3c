// Small tables of the host in device memory.
#pragma once

#include <algorithm>
#include <vector>

#include "common/cuda.cuh"

namespace pypose_ops {
namespace {

constexpr int kUploadThreads = 256;
constexpr int kUpload = 960;  // a kernel's parameters hold 4 KiB
struct Upload {
  int32_t values[kUpload];
};

// Numbers of the host, passed by value: no copy from host memory, so calls can be captured.
__global__ void __launch_bounds__(kUploadThreads)
    upload_kernel(int32_t* __restrict__ out, const Upload upload, int32_t count) {
  for (int i = threadIdx.x; i < count; i += kUploadThreads) {
    out[i] = upload.values[i];
  }
}

inline Tensor new_ints(const Tensor& like, int64_t count) {
  return torch::stable::new_empty(like, {count}, ScalarType::Int);
}

// values on the device of `like`; keep the tensor while kernels read it.
template <typename Int>
Tensor upload_ints(const Tensor& like, const std::vector<Int>& values, cudaStream_t stream) {
  const int64_t count = static_cast<int64_t>(values.size());
  Tensor memory = new_ints(like, count);
  int32_t* data = static_cast<int32_t*>(memory.mutable_data_ptr());
  for (int64_t first = 0; first < count; first += kUpload) {
    Upload upload;
    const int64_t n = std::min<int64_t>(kUpload, count - first);
    for (int64_t i = 0; i < n; ++i) {
      upload.values[i] = static_cast<int32_t>(values[first + i]);
    }
    for (int64_t i = n; i < kUpload; ++i) {
      upload.values[i] = 0;
    }
    launch(upload_kernel, dim3(1), dim3(kUploadThreads), 0, stream, data + first, upload, n);
  }
  return memory;
}

}  // namespace
}  // namespace pypose_ops

// Small tables of the host for kernels, without a copy from host memory, so that calls can be captured.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "common/cuda.cuh"

namespace pypose_ops {
namespace {

// Parameters of a kernel hold 32,764 bytes from CUDA 12.1 on; what a table does not fill is copied at
// every launch for nothing. Enough for all edges between 17 joints.
constexpr int kTableInts = 1280;

// A kernel's parameter, __grid_constant__: the numbers themselves, or where there are too many, where they lie.
struct IntTable {
  const int32_t* memory;  // null: in values
  int32_t values[kTableInts];

  __device__ __forceinline__ const int32_t* data() const {
    return memory == nullptr ? values : memory;
  }
};

constexpr int kUploadThreads = 256;

__global__ void __launch_bounds__(kUploadThreads)
    upload_kernel(int32_t* __restrict__ out, const __grid_constant__ IntTable part, int32_t count) {
  for (int i = threadIdx.x; i < count; i += kUploadThreads) {
    out[i] = part.values[i];
  }
}

inline Tensor new_ints(const Tensor& like, int64_t count) {
  return empty_beside(like, {count}, ScalarType::Int);
}

// Keep it while kernels read the table.
struct HostTable {
  IntTable table{};
  std::optional<Tensor> memory;

  // like: a tensor on the device.
  template <typename Int>
  HostTable(const char* op, const Tensor& like, const std::vector<Int>& values, cudaStream_t stream) {
    const int64_t count = static_cast<int64_t>(values.size());
    const auto fill = [&](IntTable& part, int64_t first, int64_t n) {
      std::transform(values.begin() + first, values.begin() + first + n, part.values, [](Int value) {
        return static_cast<int32_t>(value);
      });
    };
    if (count <= kTableInts) {
      fill(table, 0, count);
      return;
    }
    memory = new_ints(like, count);
    int32_t* data = static_cast<int32_t*>(memory->mutable_data_ptr());
    for (int64_t first = 0; first < count; first += kTableInts) {
      IntTable part{};
      const int64_t n = std::min<int64_t>(kTableInts, count - first);
      fill(part, first, n);
      launch(op, upload_kernel, 1, kUploadThreads, 0, stream, data + first, part, n);
    }
    table.memory = data;
  }
};

}  // namespace
}  // namespace pypose_ops

// Strips of a message's map: neighbouring rows or columns that a block stages in shared memory.
#pragma once

#include "mrf/tree.cuh"

namespace pypose_ops {
namespace {

// Without opting in to more: what block_sum takes is static.
constexpr int64_t kStripBytes = kMaxSharedBytes - 512;

// Memory for what blocks stage: their dynamic shared memory, or for long lines a part of `global` each.
struct StripMemory {
  int64_t bytes;
  unsigned char* global;

  __device__ __forceinline__ unsigned char* own() const {
    return global == nullptr ? dynamic_shared<unsigned char>() : global + blockIdx.x * bytes;
  }
};

// The kLines rows (kRows) or columns of one message of one image that a block owns.
template <bool kRows, int kLines>
struct Strip {
  // Odd: neither threads on neighbouring lines nor threads along a line meet in a bank.
  static constexpr int kPitch = kLines + 1;
  static_assert(kPitch % 2 == 1);

  int64_t b, width;
  int32_t i;              // the message
  int32_t index;          // of the strip in its map
  int32_t first, count;   // lines
  int32_t n;              // elements of a line
  int64_t local;          // of the message in buffers of the level, (B, count, H, W)

  static PYPOSE_OPS_HOST_DEVICE int64_t per_map(const Shape& shape) {
    return ((kRows ? shape.height : shape.width) + kLines - 1) / kLines;
  }
  // Of `elements` staged numbers of so many bytes each per pixel.
  static int64_t bytes(int64_t per_pixel, const Shape& shape) {
    return ceil_div((kRows ? shape.width : shape.height) * kPitch * per_pixel, 16) * 16;
  }

  __device__ Strip(const Level& level, const Shape& shape) : width(shape.width) {
    const int64_t strips = per_map(shape);
    local = blockIdx.x / strips;
    index = static_cast<int32_t>(blockIdx.x % strips);
    b = local / level.count;
    i = level.first + static_cast<int32_t>(local % level.count);
    first = index * kLines;
    const int32_t lines = static_cast<int32_t>(kRows ? shape.height : shape.width);
    count = min(kLines, lines - first);
    n = static_cast<int32_t>(kRows ? shape.width : shape.height);
  }

  __device__ __forceinline__ int32_t size() const {
    return kPitch * n;
  }
  // Where element k of a line is staged, and where in the map.
  __device__ __forceinline__ int32_t at(int32_t line, int32_t k) const {
    return k * kPitch + line;
  }
  __device__ __forceinline__ int64_t pixel(int32_t line, int32_t k) const {
    return kRows ? (first + line) * width + k : k * width + first + line;
  }

  // f(line, k) for all elements, by the whole block; neighbouring threads are neighbours along a line (kAlong) or across.
  template <bool kAlong, typename F>
  __device__ __forceinline__ void each(const F& f) const {
    for (int32_t p = threadIdx.x; p < count * n; p += kThreads) {
      f(kAlong ? p / n : p % count, kAlong ? p % n : p / count);
    }
  }
  // ... in the order in which they lie in the map.
  template <typename F>
  __device__ __forceinline__ void each(const F& f) const {
    each<kRows>(f);
  }
};

// Backward: what a block's strip adds to the gradients of its message's spring.
template <typename S>
__device__ __forceinline__ void write_stretch_sums(
    const StretchPartials& partials, const StretchSums& own, const S& strip, int axis, const Shape& shape) {
  double sums[2] = {own.first, own.second};
  block_sum<kThreads>(sums);
  if (threadIdx.x == 0) {
    double* out = partials.at(strip.b * shape.messages() + strip.i, axis, strip.index);
    out[0] = sums[0];
    out[1] = sums[1];
  }
}

// What a launcher keeps for strips along one axis: `per_pixel` staged bytes per pixel, of messages of one level.
template <typename S>
struct StripLaunch {
  int64_t strips;
  int64_t bytes;
  Tensor memory;

  // like: a tensor on the device.
  StripLaunch(const Tensor& like, const Schedule& schedule, const Shape& shape, int64_t per_pixel)
      : strips(S::per_map(shape)),
        bytes(S::bytes(per_pixel, shape)),
        memory(empty_beside(
            like, {bytes <= kStripBytes ? 0 : shape.batch * widest_level(schedule) * strips * bytes},
            ScalarType::Byte)) {}

  bool shared() const {
    return bytes <= kStripBytes;
  }
  StripMemory parameter() const {
    return {bytes, shared() ? nullptr : static_cast<unsigned char*>(memory.mutable_data_ptr())};
  }
  template <typename... Params, typename... Args>
  void run(
      const char* op, void (*kernel)(Params...), const Level& level, int64_t batch, cudaStream_t stream,
      const Args&... args) const {
    launch(op, kernel, batch * level.count * strips, kThreads, shared() ? bytes : 0, stream, args...);
  }
};

// new_empty (B, messages, 2 axes, strips, 2) and its view.
struct StretchMemory {
  Tensor sums;
  StretchPartials partials;

  StretchMemory(const Tensor& like, const Shape& shape, int64_t strips_x, int64_t strips_y)
      : sums(empty_beside(
            like, {shape.batch, shape.messages(), 2, std::max(strips_x, strips_y), 2}, ScalarType::Double)),
        partials{sums.mutable_data_ptr<double>(), {strips_x, strips_y}} {}
};

}  // namespace
}  // namespace pypose_ops

#include "common/cuda.cuh"
#include "common/outputs.h"
#include "patches/crop_checks.h"
#include "patches/crop_cubic.h"

namespace pypose_ops {
namespace {

using namespace patches;

constexpr int kCropThreads = 256;
constexpr int kImagesPerLaunch = 128;  // of a list: 5 KB of the kernel's parameters
constexpr int kChannelBlock = 4;

// The images a launch knows: all of a batch, or some of a list.
struct Images {
  bool batch;
  int64_t stride;  // elements between the images of a batch
  int64_t first, count;
  Image table[kImagesPerLaunch];
};

template <typename acc>
struct Job {
  void* out;
  ScalarType out_type;
  const acc* transforms;
  const int64_t* index;
  const acc* mask;
  Shape shape;
  Options options;
  int64_t blocks;  // per patch

  __device__ int64_t out_channels() const {
    return shape.channels + (mask ? 1 : 0);
  }
};

// Bytes are rounded to the nearest and clamped; NaN becomes 0.
template <typename acc>
__device__ __forceinline__ void store_out(void* out, ScalarType type, int64_t at, acc value) {
  switch (type) {
    case ScalarType::Byte: {
      const acc clamped = value > acc(0) ? (value < acc(255) ? value : acc(255)) : acc(0);
      static_cast<uint8_t*>(out)[at] = static_cast<uint8_t>(static_cast<int>(clamped + acc(0.5)));
      break;
    }
    case ScalarType::Half:
      static_cast<Half*>(out)[at] = static_cast<Half>(static_cast<float>(value));
      break;
    case ScalarType::BFloat16:
      static_cast<BFloat16*>(out)[at] = static_cast<BFloat16>(static_cast<float>(value));
      break;
    case ScalarType::Float:
      static_cast<float*>(out)[at] = static_cast<float>(value);
      break;
    default:
      static_cast<double*>(out)[at] = static_cast<double>(value);
  }
}

// A pixel with weight 0 is not read.
template <typename T, typename acc>
__device__ __forceinline__ acc weighted(acc weight, const T* at) {
  return weight != acc(0) ? weight * static_cast<acc>(*at) : acc(0);
}

// The mean over the samples of one patch pixel, for channels [begin, begin + kChannelBlock); returns what is missing of
// the weights.
template <typename T, typename acc>
__device__ __forceinline__ acc sample_channels(
    acc (&values)[kChannelBlock], const Image& image, const Affine<acc>& affine, const Samples<acc>& samples,
    const Options& options, int64_t x, int64_t y, int64_t begin, int64_t channels) {
  const int32_t count = samples.count();
  const int64_t right = image.width > 1 ? image.stride_x : 0;
  const int64_t down = image.height > 1 ? image.stride_y : 0;
  acc missing = 0;
#pragma unroll
  for (int c = 0; c < kChannelBlock; ++c) {
    values[c] = 0;
  }
  for (int32_t i = 0; i < count; ++i) {
    const Sample<acc> s = sample_at(affine, samples, i, x, y, image, options);
    const acc w00 = s.tap_y.near * s.tap_x.near, w01 = s.tap_y.near * s.tap_x.far;
    const acc w10 = s.tap_y.far * s.tap_x.near, w11 = s.tap_y.far * s.tap_x.far;
    missing += acc(1) - ((w00 + w01) + (w10 + w11));
    const T* at = static_cast<const T*>(image.data) + begin * image.stride_c + s.tap_y.base * image.stride_y +
        s.tap_x.base * image.stride_x;
#pragma unroll
    for (int c = 0; c < kChannelBlock; ++c) {
      if (begin + c < channels) {
        values[c] += weighted(w00, at) + weighted(w01, at + right) + weighted(w10, at + down) +
            weighted(w11, at + down + right);
        at += image.stride_c;
      }
    }
  }
  return missing;
}

// The same for a bicubic sample.
template <typename T, typename acc>
__device__ __forceinline__ acc cubic_channels(
    acc (&values)[kChannelBlock], const Image& image, const Affine<acc>& affine, const Options& options, int64_t x,
    int64_t y, int64_t begin, int64_t channels) {
  const Stretch<acc> stretch = Stretch<acc>::of(affine, options);
  const Line<acc> lx = affine.line_x(static_cast<acc>(y)), ly = affine.line_y(static_cast<acc>(y));
  const CubicAxis<acc> across = cubic_at(lx.at(x), lx.whole, image.width, stretch.x, options);
  const CubicAxis<acc> down = cubic_at(ly.at(x), ly.whole, image.height, stretch.y, options);
#pragma unroll
  for (int c = 0; c < kChannelBlock; ++c) {
    values[c] = 0;
  }
  for (int32_t l = 0; l < down.count; ++l) {
    const acc wy = down.weight(l);
    if (wy == acc(0)) {
      continue;
    }
    const T* row = static_cast<const T*>(image.data) + begin * image.stride_c + down.pixel(l) * image.stride_y;
    for (int32_t k = 0; k < across.count; ++k) {
      const acc weight = wy * across.weight(k);
      if (weight == acc(0)) {
        continue;
      }
      const T* at = row + across.pixel(k) * image.stride_x;
#pragma unroll
      for (int c = 0; c < kChannelBlock; ++c) {
        if (begin + c < channels) {
          values[c] += weight * static_cast<acc>(*at);
          at += image.stride_c;
        }
      }
    }
  }
  return acc(1) - across.covered() * down.covered();
}

// One thread makes one pixel of one patch, x fastest, all its channels. A block stays within a patch.
template <bool cubic, typename T, typename acc>
__global__ void __launch_bounds__(kCropThreads, cubic ? 2 : 0) crop_patches_kernel(
    const Job<acc> job, const __grid_constant__ Images images, const __grid_constant__ Levels<acc> levels) {
  const Shape& shape = job.shape;
  const int64_t n = blockIdx.x / job.blocks;
  const int64_t pixel = (blockIdx.x % job.blocks) * kCropThreads + threadIdx.x;
  const int64_t number = image_of(job.index, shape, n);
  const bool here = number < 0 ? images.first == 0
                               : images.batch || (number >= images.first && number < images.first + images.count);
  if (!here || pixel >= shape.pixels()) {
    return;
  }
  const int64_t y = pixel / shape.width;
  const int64_t x = pixel - y * shape.width;
  const Affine<acc> affine = Affine<acc>::load(job.transforms + n * 6);
  const int64_t out = n * job.out_channels() * shape.pixels() + pixel;

  Image image{};
  Samples<acc> samples{1, 1, acc(0), acc(0)};
  if (number >= 0) {
    image = images.table[images.batch ? 0 : number - images.first];
    image.data = static_cast<const T*>(image.data) + (images.batch ? number * images.stride : 0);
    if constexpr (!cubic) {
      samples = samples_of(affine, job.options);
    }
  }
  const acc share = acc(1) / static_cast<acc>(samples.count());
  for (int64_t begin = 0; begin < shape.channels; begin += kChannelBlock) {
    acc values[kChannelBlock] = {};
    acc missing = 1;
    if (number >= 0) {
      if constexpr (cubic) {
        missing = cubic_channels<T>(values, image, affine, job.options, x, y, begin, shape.channels);
      } else {
        missing = sample_channels<T>(values, image, affine, samples, job.options, x, y, begin, shape.channels);
      }
    }
#pragma unroll
    for (int c = 0; c < kChannelBlock; ++c) {
      if (begin + c < shape.channels) {
        const int level = levels.at(begin + c);
        const acc sum = levels.filled ? values[c] + levels.fill[level] * missing : values[c];
        store_out(
            job.out, job.out_type, out + (begin + c) * shape.pixels(),
            sum * (levels.scale[level] * share) + levels.shift[level]);
      }
    }
  }
  if (job.mask) {
    const Line<acc> lx = affine.line_x(static_cast<acc>(y)), ly = affine.line_y(static_cast<acc>(y));
    const acc u = static_cast<acc>(lx.whole) + lx.at(x), v = static_cast<acc>(ly.whole) + ly.at(x);
    store_out(
        job.out, job.out_type, out + shape.channels * shape.pixels(), in_box(job.mask + n * 4, u, v) ? acc(1) : acc(0));
  }
}

template <bool cubic, typename T, typename acc>
void crop(const Job<acc>& job, const ImageTable& table, const Levels<acc>& levels, cudaStream_t stream) {
  const int64_t listed = static_cast<int64_t>(table.images.size());
  const bool batch = table.batch;
  for (int64_t first = 0; first < listed; first += kImagesPerLaunch) {
    Images images{batch, table.stride, first, std::min<int64_t>(kImagesPerLaunch, listed - first), {}};
    std::copy_n(table.images.begin() + first, images.count, images.table);
    launch(
        "crop_patches", crop_patches_kernel<cubic, T, acc>, job.shape.patches * job.blocks, kCropThreads, 0, stream, job, images,
        levels);
  }
}

template <typename T, typename acc>
void crop_any_mode(const Job<acc>& job, const ImageTable& table, const Levels<acc>& levels, cudaStream_t stream) {
  job.options.mode == Mode::bicubic ? crop<true, T>(job, table, levels, stream)
                                    : crop<false, T>(job, table, levels, stream);
}

template <typename acc>
void launch_crop(
    const Job<acc>& job, const ImageTable& table, const Levels<acc>& levels, ScalarType type, cudaStream_t stream) {
  switch (type) {
    case ScalarType::Byte:
      return crop_any_mode<uint8_t>(job, table, levels, stream);
    case ScalarType::Half:
      return crop_any_mode<Half>(job, table, levels, stream);
    case ScalarType::BFloat16:
      return crop_any_mode<BFloat16>(job, table, levels, stream);
    case ScalarType::Float:
      return crop_any_mode<float>(job, table, levels, stream);
    default:
      if constexpr (std::is_same_v<acc, double>) {
        return crop_any_mode<double>(job, table, levels, stream);
      }
  }
}

Tensor crop_patches_cuda(
    const std::optional<Tensor>& given, const std::vector<Tensor>& images, const Tensor& transforms, int64_t height,
    int64_t width, const std::optional<Tensor>& image_index, int64_t mode, int64_t padding, const std::vector<double>& fill,
    const std::vector<double>& mean, const std::vector<double>& std, bool antialias, const std::optional<Tensor>& mask,
    ScalarType dtype) {
  constexpr const char* op = "crop_patches";
  const Shape shape = check_crop(op, images, transforms, height, width, image_index);
  const Options options = check_options(op, mode, padding, antialias);
  check_levels(op, fill, mean, std, shape.channels);
  check_mask(op, mask, transforms);
  check_out_type(op, dtype);
  const DeviceGuard guard(transforms.get_device_index());
  const Tensor out = output_of(
      op, given, transforms, {shape.patches, shape.channels + (mask ? 1 : 0), height, width}, dtype, "transforms");
  if (out.numel() == 0) {
    return out;
  }
  const ScalarType type = images[0].scalar_type();
  const ScalarType acc_type = arithmetic_of(type, dtype);
  const Tensor affine = as_contiguous(transforms, acc_type);
  const std::optional<Tensor> boxes = as_contiguous(mask, acc_type);
  const std::optional<Tensor> index = as_contiguous(image_index);
  const cudaStream_t stream = current_stream(transforms);
  const auto run = [&](auto zero) {
    using acc = decltype(zero);
    const Job<acc> job{
        out.mutable_data_ptr(), dtype, affine.const_data_ptr<acc>(), index ? index->const_data_ptr<int64_t>() : nullptr,
        boxes ? boxes->const_data_ptr<acc>() : nullptr, shape, options, ceil_div(shape.pixels(), kCropThreads)};
    launch_crop(job, ImageTable(images), levels_of<acc>(fill, mean, std), type, stream);
  };
  acc_type == ScalarType::Double ? run(0.0) : run(0.0f);
  return out;
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  using Op = Drawn<&crop_patches_cuda>;
  m.impl("crop_patches", TORCH_BOX(&Op::returned));
  m.impl("crop_patches.out", TORCH_BOX(&Op::into));
}

}  // namespace pypose_ops

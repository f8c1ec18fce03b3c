#include "common/cuda.cuh"
#include "common/reduce.cuh"
#include "patches/crop_checks.h"
#include "patches/crop_search.cuh"

namespace pypose_ops {
namespace {

using namespace patches;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kTileWidth = 32;
constexpr int kTileHeight = kThreads / kTileWidth;

// One block owns a tile of one image and up to kChannelBlock of its channels, one thread one pixel: it gathers from
// the patches in their order, so there are no atomics and the bits are the same every time. The patches that may reach
// the tile are listed in shared memory, kThreads of them at a time. grads is (images, C, H, W), dense.
template <bool cubic, typename acc>
__global__ void __launch_bounds__(kThreads, 1) images_backward_kernel(
    acc* __restrict__ grads, const Job<acc> job, const __grid_constant__ Levels<acc> levels, const Image image,
    int64_t first_image, int64_t tiles_x, int64_t tiles_y, int64_t channel_blocks) {
  __shared__ int32_t listed[kThreads];
  __shared__ int32_t warp_counts[kWarps];
  const int64_t block = blockIdx.x;
  const int64_t tile_x = block % tiles_x * kTileWidth;
  const int64_t tile_y = block / tiles_x % tiles_y * kTileHeight;
  const int64_t begin = block / (tiles_x * tiles_y) % channel_blocks * kChannelBlock<acc>;
  const int64_t local = block / (tiles_x * tiles_y * channel_blocks);
  const int64_t number = first_image + local;
  const int32_t px = static_cast<int32_t>(tile_x) + threadIdx.x % kTileWidth;
  const int32_t py = static_cast<int32_t>(tile_y) + threadIdx.x / kTileWidth;
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const Padding padding = job.options.padding;
  const Range<acc> tile_u{static_cast<acc>(tile_x) - acc(1), static_cast<acc>(tile_x + kTileWidth)};
  const Range<acc> tile_v{static_cast<acc>(tile_y) - acc(1), static_cast<acc>(tile_y + kTileHeight)};
  acc sums[kChannelBlock<acc>] = {};

  for (int64_t base = 0; base < job.shape.patches; base += kThreads) {
    // 1. Which of these patches may reach the tile? Padding other than constant reaches from everywhere.
    const int64_t mine = base + threadIdx.x;
    bool wanted = mine < job.shape.patches && image_of(job.index, job.shape, mine) == number;
    if (wanted && padding == Padding::constant) {
      const Affine<acc> affine = Affine<acc>::load(job.transforms + mine * 6);
      const Stretch<acc> taps = taps_of<cubic>(affine, job.options);
      wanted = span_of(affine.xx, affine.xy, affine.x0, taps.x, job.shape).meets(tile_u) &&
          span_of(affine.yx, affine.yy, affine.y0, taps.y, job.shape).meets(tile_v);
    }
    // 2. List them in order.
    const unsigned votes = __ballot_sync(kFullMask, wanted);
    if (lane == 0) {
      warp_counts[warp] = __popc(votes);
    }
    __syncthreads();
    int count = 0, before = 0;
    for (int w = 0; w < kWarps; ++w) {
      before = w == warp ? count : before;
      count += warp_counts[w];
    }
    if (wanted) {
      listed[before + __popc(votes & ((1u << lane) - 1u))] = static_cast<int32_t>(threadIdx.x);
    }
    __syncthreads();
    // 3. Gather.
    for (int i = 0; i < count && px < image.width && py < image.height; ++i) {
      const int64_t n = base + listed[i];
      Search<cubic, acc> search(job, image, n);
      Range<acc> kx = copies_of(search.span_x, image.width, padding, &search.whole);
      Range<acc> ky = copies_of(search.span_y, image.height, padding, &search.whole);
      kx = search.whole ? Range<acc>{acc(0), acc(0)} : kx;
      ky = search.whole ? Range<acc>{acc(0), acc(0)} : ky;
      acc found[kChannelBlock<acc>] = {};
      for (acc y = ky.low; y <= ky.high; y += acc(1)) {
        for (acc x = kx.low; x <= kx.high; x += acc(1)) {
          search.add(found, px, py, x, y, begin);
        }
      }
      const acc share = acc(1) / static_cast<acc>(search.samples.count());
#pragma unroll
      for (int c = 0; c < kChannelBlock<acc>; ++c) {
        if (begin + c < job.shape.channels) {
          sums[c] += found[c] * (levels.scale[levels.at(begin + c)] * share);
        }
      }
    }
    __syncthreads();
  }
  if (px < image.width && py < image.height) {
    const int64_t plane = static_cast<int64_t>(image.height) * image.width;
    acc* target = grads + (local * job.shape.channels + begin) * plane + static_cast<int64_t>(py) * image.width + px;
#pragma unroll
    for (int c = 0; c < kChannelBlock<acc>; ++c) {
      if (begin + c < job.shape.channels) {
        target[c * plane] = sums[c];
      }
    }
  }
}

// One launch for a batch, one per image for a list.
template <typename acc>
void images_backward(
    const Job<acc>& job, const Levels<acc>& levels, const std::vector<Tensor>& grads, cudaStream_t stream) {
  const int64_t channel_blocks = ceil_div(job.shape.channels, kChannelBlock<acc>);
  for (size_t i = 0; i < grads.size(); ++i) {
    const Image image = image_at(grads[i]);
    const int64_t count = grads[i].dim() == 4 ? job.shape.images : 1;
    const int64_t tiles_x = ceil_div(image.width, kTileWidth), tiles_y = ceil_div(image.height, kTileHeight);
    const int64_t blocks = count * channel_blocks * tiles_x * tiles_y;
    if (blocks > 0) {
      const auto kernel =
          job.options.mode == Mode::bicubic ? images_backward_kernel<true, acc> : images_backward_kernel<false, acc>;
      launch(
          "crop_patches", kernel, blocks, kThreads, 0, stream, grads[i].mutable_data_ptr<acc>(), job, levels, image,
          static_cast<int64_t>(i), tiles_x, tiles_y, channel_blocks);
    }
  }
}

std::vector<Tensor> crop_patches_images_backward_cuda(
    const Tensor& grad, const std::vector<Tensor>& images, const Tensor& transforms,
    const std::optional<Tensor>& image_index, int64_t mode, int64_t padding, const std::vector<double>& std,
    bool antialias) {
  constexpr const char* op = "_crop_patches_images_backward";
  const Shape shape = check_crop_grad(op, grad, images, transforms, image_index);
  const Options options = check_options(op, mode, padding, antialias);
  check_levels(op, {}, {}, std, shape.channels);
  check_floating(op, "images", images[0]);
  const DeviceGuard guard(grad.get_device_index());
  const ScalarType type = images[0].scalar_type();
  const ScalarType acc_type = arithmetic_of(type, grad.scalar_type());
  const std::vector<Tensor> grads = new_grads(images, acc_type, false);
  const Tensor dense = as_contiguous(grad, acc_type), affine = as_contiguous(transforms, acc_type);
  const std::optional<Tensor> index = as_contiguous(image_index);
  const cudaStream_t stream = current_stream(grad);
  const auto run = [&](auto zero) {
    using acc = decltype(zero);
    const Job<acc> job{
        dense.const_data_ptr<acc>(), affine.const_data_ptr<acc>(), index ? index->const_data_ptr<int64_t>() : nullptr,
        shape, options, grad.size(1)};
    images_backward(job, levels_of<acc>({}, {}, std), grads, stream);
  };
  acc_type == ScalarType::Double ? run(0.0) : run(0.0f);
  return as_type(grads, type);
}

// One block owns one patch and sums over its pixels.
template <typename T, typename acc>
__global__ void __launch_bounds__(kThreads) transforms_backward_kernel(
    acc* __restrict__ out, const Job<acc> job, const __grid_constant__ Levels<acc> levels,
    const __grid_constant__ Image first, int64_t stride, int64_t first_image, bool batch) {
  const int64_t n = blockIdx.x;
  const int64_t number = image_of(job.index, job.shape, n);
  if (number < 0 || (!batch && number != first_image)) {  // the same for all threads; out is zeroed
    return;
  }
  Image image = first;
  image.data = static_cast<const T*>(first.data) + (batch ? number * stride : 0);
  const Affine<acc> affine = Affine<acc>::load(job.transforms + n * 6);
  const Samples<acc> samples = samples_of(affine, job.options);
  const int32_t count = samples.count();
  acc sums[6] = {};
  for (int64_t pixel = threadIdx.x; pixel < job.shape.pixels(); pixel += kThreads) {
    const int64_t y = pixel / job.shape.width;
    const int64_t x = pixel - y * job.shape.width;
    for (int32_t i = 0; i < count; ++i) {
      const Sample<acc> s = sample_at(affine, samples, i, x, y, image, job.options);
      acc du = 0, dv = 0;
      for (int64_t c = 0; c < job.shape.channels; ++c) {
        const int level = levels.at(c);
        const acc g = job.grad[(n * job.grad_channels + c) * job.shape.pixels() + pixel] * levels.scale[level];
        const Corners<T, acc> corners(image, c, s);
        du += g * corners.slope_u(s.tap_x, s.tap_y, levels.fill[level]);
        dv += g * corners.slope_v(s.tap_x, s.tap_y, levels.fill[level]);
      }
      const acc shares[6] = {du * s.x, du * s.y, du, dv * s.x, dv * s.y, dv};
#pragma unroll
      for (int k = 0; k < 6; ++k) {
        sums[k] += shares[k];
      }
    }
  }
  block_sum<kThreads>(sums);
  if (threadIdx.x == 0) {
#pragma unroll
    for (int k = 0; k < 6; ++k) {
      out[n * 6 + k] = sums[k] / static_cast<acc>(count);
    }
  }
}

// The same for bicubic samples.
template <typename T, typename acc>
__global__ void __launch_bounds__(kThreads, 1) cubic_transforms_backward_kernel(
    acc* __restrict__ out, const Job<acc> job, const __grid_constant__ Levels<acc> levels,
    const __grid_constant__ Image first, int64_t stride, int64_t first_image, bool batch) {
  const int64_t n = blockIdx.x;
  const int64_t number = image_of(job.index, job.shape, n);
  if (number < 0 || (!batch && number != first_image)) {  // the same for all threads; out is zeroed
    return;
  }
  Image image = first;
  image.data = static_cast<const T*>(first.data) + (batch ? number * stride : 0);
  const Affine<acc> affine = Affine<acc>::load(job.transforms + n * 6);
  const Stretch<acc> stretch = Stretch<acc>::of(affine, job.options);
  acc sums[8] = {};
  for (int64_t pixel = threadIdx.x; pixel < job.shape.pixels(); pixel += kThreads) {
    const int64_t y = pixel / job.shape.width;
    const int64_t x = pixel - y * job.shape.width;
    const Line<acc> lx = affine.line_x(static_cast<acc>(y)), ly = affine.line_y(static_cast<acc>(y));
    const CubicAxis<acc> across = cubic_at(lx.at(x), lx.whole, image.width, stretch.x, job.options);
    const CubicAxis<acc> down = cubic_at(ly.at(x), ly.whole, image.height, stretch.y, job.options);
    acc du = 0, dv = 0;
    for (int64_t c = 0; c < job.shape.channels; ++c) {
      const int level = levels.at(c);
      const acc g = job.grad[(n * job.grad_channels + c) * job.shape.pixels() + pixel] * levels.scale[level];
      const CubicGradient<acc> slopes = cubic_gradient<T>(image, c, across, down, levels.fill[level]);
      du += g * slopes.u;
      dv += g * slopes.v;
      sums[6] += g * slopes.stretch_x;
      sums[7] += g * slopes.stretch_y;
    }
    const acc px = static_cast<acc>(x), py = static_cast<acc>(y);
    const acc shares[6] = {du * px, du * py, du, dv * px, dv * py, dv};
#pragma unroll
    for (int k = 0; k < 6; ++k) {
      sums[k] += shares[k];
    }
  }
  block_sum<kThreads>(sums);
  if (threadIdx.x == 0) {
    acc* target = out + n * 6;
    target[0] = sums[0] + sums[6] * Stretch<acc>::slope(stretch.x, affine.xx);
    target[1] = sums[1] + sums[6] * Stretch<acc>::slope(stretch.x, affine.xy);
    target[2] = sums[2];
    target[3] = sums[3] + sums[7] * Stretch<acc>::slope(stretch.y, affine.yx);
    target[4] = sums[4] + sums[7] * Stretch<acc>::slope(stretch.y, affine.yy);
    target[5] = sums[5];
  }
}

template <typename T, typename acc>
void transforms_backward(
    const Job<acc>& job, const Levels<acc>& levels, const ImageTable& table, acc* out, cudaStream_t stream) {
  for (size_t i = 0; i < table.images.size() && job.shape.patches > 0; ++i) {
    const auto kernel = job.options.mode == Mode::bicubic ? cubic_transforms_backward_kernel<T, acc>
                                                          : transforms_backward_kernel<T, acc>;
    launch(
        "crop_patches", kernel, job.shape.patches, kThreads, 0, stream, out, job, levels, table.images[i], table.stride,
        static_cast<int64_t>(i), table.batch);
  }
}

template <typename acc>
void launch_transforms_backward(
    const Job<acc>& job, const Levels<acc>& levels, const ImageTable& table, ScalarType type, acc* out,
    cudaStream_t stream) {
  switch (type) {
    case ScalarType::Byte:
      return transforms_backward<uint8_t>(job, levels, table, out, stream);
    case ScalarType::Half:
      return transforms_backward<Half>(job, levels, table, out, stream);
    case ScalarType::BFloat16:
      return transforms_backward<BFloat16>(job, levels, table, out, stream);
    case ScalarType::Float:
      return transforms_backward<float>(job, levels, table, out, stream);
    default:
      if constexpr (std::is_same_v<acc, double>) {
        return transforms_backward<double>(job, levels, table, out, stream);
      }
  }
}

Tensor crop_patches_transforms_backward_cuda(
    const Tensor& grad, const std::vector<Tensor>& images, const Tensor& transforms,
    const std::optional<Tensor>& image_index, int64_t mode, int64_t padding, const std::vector<double>& fill,
    const std::vector<double>& std, bool antialias) {
  constexpr const char* op = "_crop_patches_transforms_backward";
  const Shape shape = check_crop_grad(op, grad, images, transforms, image_index);
  const Options options = check_options(op, mode, padding, antialias);
  check_levels(op, fill, {}, std, shape.channels);
  const DeviceGuard guard(grad.get_device_index());
  const ScalarType type = images[0].scalar_type();
  const ScalarType acc_type = arithmetic_of(type, grad.scalar_type());
  const Tensor out = zeros_beside(transforms, {shape.patches, 2, 3}, acc_type);
  const Tensor dense = as_contiguous(grad, acc_type), affine = as_contiguous(transforms, acc_type);
  const std::optional<Tensor> index = as_contiguous(image_index);
  const cudaStream_t stream = current_stream(grad);
  const auto run = [&](auto zero) {
    using acc = decltype(zero);
    const Job<acc> job{
        dense.const_data_ptr<acc>(), affine.const_data_ptr<acc>(), index ? index->const_data_ptr<int64_t>() : nullptr,
        shape, options, grad.size(1)};
    launch_transforms_backward(
        job, levels_of<acc>(fill, {}, std), ImageTable(images), type, out.mutable_data_ptr<acc>(), stream);
  };
  acc_type == ScalarType::Double ? run(0.0) : run(0.0f);
  return out;
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("_crop_patches_images_backward", TORCH_BOX(&crop_patches_images_backward_cuda));
  m.impl("_crop_patches_transforms_backward", TORCH_BOX(&crop_patches_transforms_backward_cuda));
}

}  // namespace pypose_ops

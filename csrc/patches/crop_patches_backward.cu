#include <limits>

#include "common/cuda.cuh"
#include "patches/crop_checks.h"

namespace pypose_ops {
namespace {

using namespace patches;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
template <typename acc>
constexpr int kChannelBlock = 16 / sizeof(acc);  // channels that share the search for their patches
constexpr int kTileWidth = 32;
constexpr int kTileHeight = kThreads / kTileWidth;
constexpr int kMaxCopies = 64;  // mirrored copies of a picture that are searched one by one

template <typename acc>
struct Job {
  const acc* grad;  // (N, grad_channels, h, w)
  const acc* transforms;
  const int64_t* index;
  Shape shape;
  Options options;
  int64_t grad_channels;
};

// An interval of coordinates.
template <typename acc>
struct Range {
  acc low, high;

  __device__ bool meets(const Range& other) const {
    return low <= other.high && other.low <= high;
  }
  __device__ Range cut(const Range& other) const {
    return {low > other.low ? low : other.low, high < other.high ? high : other.high};
  }
};

// Picture coordinates that a whole patch spans along one axis, with the half pixels around it and one more.
template <typename acc>
__device__ Range<acc> span_of(acc step, acc across, acc offset, const Shape& shape) {
  const acc along = step * (static_cast<acc>(shape.width) - acc(0.5)), before = acc(-0.5) * step;
  const acc down = across * (static_cast<acc>(shape.height) - acc(0.5)), above = acc(-0.5) * across;
  return {
      offset + (along < before ? along : before) + (down < above ? down : above) - acc(1),
      offset + (along < before ? before : along) + (down < above ? above : down) + acc(1)};
}

// Coordinates from which pixel `at` takes gradient, in copy number `copy` of the picture.
template <typename acc>
__device__ Range<acc> reach_of(int32_t at, int32_t size, Padding padding, acc copy) {
  const acc far = std::numeric_limits<acc>::infinity();
  const int32_t last = size - 1;
  acc center = static_cast<acc>(at);
  if (padding == Padding::reflect) {
    const acc turns = floor_of(copy * acc(0.5));
    const bool mirrored = copy - acc(2) * turns > acc(0.5);
    const acc period = acc(2) * static_cast<acc>(last);
    center = mirrored ? (turns + acc(1)) * period - center : turns * period + center;
    if (last == 0) {
      return {-far, far};
    }
  }
  const bool border = padding == Padding::border;
  return {border && at == 0 ? -far : center - acc(1), border && at == last ? far : center + acc(1)};
}

// Whole numbers [first, last].
struct Numbers {
  int32_t first, last;
};

// Patch pixels along one side that may lie in the parallelogram over (us, vs), `size` of them at most; ix and iy are the
// row of the inverse transform. `flat`: there is no inverse worth using, all of them may.
template <typename acc>
__device__ Numbers patch_pixels(
    const Affine<acc>& affine, acc ix, acc iy, const Range<acc>& us, const Range<acc>& vs, bool flat, int64_t size) {
  const acc a = ix * (us.low - affine.x0), b = ix * (us.high - affine.x0);
  const acc c = iy * (vs.low - affine.y0), d = iy * (vs.high - affine.y0);
  // Half a pixel for the samples around a centre, and what rounding may cost.
  const acc slack = acc(0.6) + acc(2e-5) * (magnitude(ix * affine.x0) + magnitude(a) + magnitude(b) +
                                            magnitude(iy * affine.y0) + magnitude(c) + magnitude(d));
  const acc low = ::ceil((a < b ? a : b) + (c < d ? c : d) - slack);
  const acc high = floor_of((a < b ? b : a) + (c < d ? d : c) + slack);
  const acc last = static_cast<acc>(size - 1);
  return {
      !flat && low > acc(0) ? static_cast<int32_t>(low < last ? low : last) : 0,
      !flat && high < last ? static_cast<int32_t>(high > acc(-1) ? high : acc(-1)) : static_cast<int32_t>(size - 1)};
}

// The search for the samples of a patch that reach one pixel of the picture.
template <typename acc>
struct Search {
  const Job<acc>& job;
  const Image& image;  // its size
  const Affine<acc> affine;
  const Samples<acc> samples;
  const Range<acc> span_x, span_y;
  const int64_t n;
  bool whole;  // all copies of the picture at once
  bool flat;
  acc inverse[4];

  __device__ Search(const Job<acc>& job, const Image& image, int64_t n)
      : job(job), image(image), affine(Affine<acc>::load(job.transforms + n * 6)),
        samples(samples_of(affine, job.options)), span_x(span_of(affine.xx, affine.xy, affine.x0, job.shape)),
        span_y(span_of(affine.yx, affine.yy, affine.y0, job.shape)), n(n), whole(false) {
    const acc det = affine.xx * affine.yy - affine.xy * affine.yx;
    const acc size = (magnitude(affine.xx) + magnitude(affine.xy)) * (magnitude(affine.yx) + magnitude(affine.yy));
    const acc scale = acc(1) / det;
    flat = !(magnitude(det) > acc(1e-2) * size) || scale == acc(0);
    inverse[0] = affine.yy * scale;
    inverse[1] = -affine.xy * scale;
    inverse[2] = -affine.yx * scale;
    inverse[3] = affine.xx * scale;
  }

  __device__ static acc weight_at(const Tap<acc>& tap, int32_t at) {
    return tap.base == at ? tap.near : (tap.base + 1 == at ? tap.far : acc(0));
  }

  // Adds what pixel (px, py) gets from the copies (kx, ky) of the picture.
  __device__ void add(acc (&sums)[kChannelBlock<acc>], int32_t px, int32_t py, acc kx, acc ky, int64_t begin) const {
    const Padding padding = job.options.padding;
    const Range<acc> us = whole ? span_x : reach_of(px, image.width, padding, kx).cut(span_x);
    const Range<acc> vs = whole ? span_y : reach_of(py, image.height, padding, ky).cut(span_y);
    if (us.low > us.high || vs.low > vs.high) {
      return;
    }
    const Numbers xs = patch_pixels(affine, inverse[0], inverse[1], us, vs, flat || whole, job.shape.width);
    const Numbers ys = patch_pixels(affine, inverse[2], inverse[3], us, vs, flat || whole, job.shape.height);
    const bool mirrors = padding == Padding::reflect && !whole;
    for (int32_t y = ys.first; y <= ys.last; ++y) {
      for (int32_t x = xs.first; x <= xs.last; ++x) {
        acc weight = 0;
        for (int32_t i = 0; i < samples.count(); ++i) {
          const Sample<acc> s = sample_at(affine, samples, i, x, y, image, job.options);
          const bool counts = !mirrors || (s.tap_x.copy == kx && s.tap_y.copy == ky);
          weight += counts ? weight_at(s.tap_x, px) * weight_at(s.tap_y, py) : acc(0);
        }
        if (weight != acc(0)) {
          const acc* g = job.grad + ((n * job.grad_channels + begin) * job.shape.height + y) * job.shape.width + x;
#pragma unroll
          for (int c = 0; c < kChannelBlock<acc>; ++c) {
            if (begin + c < job.shape.channels) {
              sums[c] += weight * g[c * job.shape.pixels()];
            }
          }
        }
      }
    }
  }
};

// The first and the last copy of the picture that a span of coordinates touches; whole: too many to search one by one.
template <typename acc>
__device__ Range<acc> copies_of(const Range<acc>& span, int32_t size, Padding padding, bool* whole) {
  if (padding != Padding::reflect || size == 1) {
    return {acc(0), acc(0)};
  }
  acc first = 0, last = 0, unused = 0;
  reflected(span.low, static_cast<acc>(size - 1), &first, &unused);
  reflected(span.high, static_cast<acc>(size - 1), &last, &unused);
  *whole = *whole || !(last - first < acc(kMaxCopies));
  return {first, last};
}

// One block owns a tile of one picture and up to kChannelBlock of its channels, one thread one pixel: it gathers from
// the patches in their order, so there are no atomics and the bits are the same every time. The patches that may reach
// the tile are listed in shared memory, kThreads of them at a time. grads is (images, C, H, W), dense.
template <typename acc>
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
      wanted = span_of(affine.xx, affine.xy, affine.x0, job.shape).meets(tile_u) &&
          span_of(affine.yx, affine.yy, affine.y0, job.shape).meets(tile_v);
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
      Search<acc> search(job, image, n);
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

// One launch for a batch, one per picture for a list.
template <typename acc>
void images_backward(
    const Job<acc>& job, const Levels<acc>& levels, const std::vector<Tensor>& grads, cudaStream_t stream) {
  const int64_t channel_blocks = ceil_div(job.shape.channels, kChannelBlock<acc>);
  for (size_t i = 0; i < grads.size(); ++i) {
    const Image image = image_at(grads[i]);
    const int64_t count = grads[i].dim() == 4 ? job.shape.images : 1;
    const int64_t tiles_x = ceil_div(image.width, kTileWidth), tiles_y = ceil_div(image.height, kTileHeight);
    const int64_t blocks = count * channel_blocks * tiles_x * tiles_y;
    PYPOSE_OPS_CHECK(blocks <= kMaxGridX, "crop_patches: images are too large for backward, got ", blocks, " blocks");
    if (blocks > 0) {
      launch(
          images_backward_kernel<acc>, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream,
          grads[i].mutable_data_ptr<acc>(), job, levels, image, static_cast<int64_t>(i), tiles_x, tiles_y,
          channel_blocks);
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
  const std::vector<Tensor> grads = new_grads(images, acc_type);
  const Tensor dense = as_dense(grad, acc_type), affine = as_dense(transforms, acc_type);
  const std::optional<Tensor> index = dense_index(image_index);
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
  __shared__ acc partial[kWarps][6];
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
#pragma unroll
  for (int k = 0; k < 6; ++k) {
    const acc sum = warp_reduce(sums[k], [](acc a, acc b) { return a + b; });
    if (threadIdx.x % kWarpSize == 0) {
      partial[threadIdx.x / kWarpSize][k] = sum;
    }
  }
  __syncthreads();
  if (threadIdx.x < 6) {
    acc sum = 0;
    for (int w = 0; w < kWarps; ++w) {
      sum += partial[w][threadIdx.x];
    }
    out[n * 6 + threadIdx.x] = sum / static_cast<acc>(count);
  }
}

template <typename T, typename acc>
void transforms_backward(
    const Job<acc>& job, const Levels<acc>& levels, const ImageTable& table, acc* out, cudaStream_t stream) {
  PYPOSE_OPS_CHECK(
      job.shape.patches <= kMaxGridX, "crop_patches: too many patches for backward, got ", job.shape.patches);
  for (size_t i = 0; i < table.images.size() && job.shape.patches > 0; ++i) {
    launch(
        transforms_backward_kernel<T, acc>, dim3(static_cast<unsigned>(job.shape.patches)), dim3(kThreads), 0, stream,
        out, job, levels, table.images[i], table.stride, static_cast<int64_t>(i), table.batch);
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
  const Tensor out = torch::stable::new_zeros(transforms, {shape.patches, 2, 3}, acc_type);
  const Tensor dense = as_dense(grad, acc_type), affine = as_dense(transforms, acc_type);
  const std::optional<Tensor> index = dense_index(image_index);
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

#include <torch/csrc/stable/library.h>

#include "common/tasks.h"
#include "patches/crop_checks.h"
#include "patches/crop_cubic_rows.h"

namespace pypose_ops {
namespace {

using namespace patches;

constexpr int64_t kChannelBlock = 8;

template <typename acc>
struct Job {
  const acc* grad;  // (N, grad_channels, h, w)
  const acc* transforms;
  const int64_t* index;
  Levels<acc> levels;
  Options options;
  Shape shape;
  int64_t grad_channels;

  const acc* grad_row(int64_t n, int64_t channel, int64_t y) const {
    return grad + ((n * grad_channels + channel) * shape.height + y) * shape.width;
  }
};

// Images: one task owns some channels of one image and adds the patches in their order, so no two threads meet and the
// bits are the same for any number of them.

template <typename acc>
void scatter_row(
    acc* plane, const Plane<acc, int64_t>& steps, const RowTaps<acc, int64_t>& taps, const acc* grad, acc scale,
    int64_t width) {
  for (int64_t x = 0; x < width; ++x) {
    const acc g = grad[x] * scale;
    acc* at = plane + taps.offset[x];
    const acc w00 = taps.w00[x], w01 = taps.w01[x], w10 = taps.w10[x], w11 = taps.w11[x];
    // A weight of 0 is a pixel that was not read: NaN must not pass.
    at[0] += w00 != acc(0) ? w00 * g : acc(0);
    at[steps.stride_x] += w01 != acc(0) ? w01 * g : acc(0);
    at[steps.stride_y] += w10 != acc(0) ? w10 * g : acc(0);
    at[steps.stride_y + steps.stride_x] += w11 != acc(0) ? w11 * g : acc(0);
  }
}

// Channels [begin, end) of patch n; image holds the shape of the dense gradient, planes its first channel.
template <typename acc>
void scatter_patch(
    const Job<acc>& job, acc* planes, const Image& image, int64_t n, int64_t begin, int64_t end,
    RowTaps<acc, int64_t>& taps) {
  const Affine<acc> affine = Affine<acc>::load(job.transforms + n * 6);
  const Samples<acc> samples = samples_of(affine, job.options);
  const int count = samples.count();
  const int32_t width = static_cast<int32_t>(job.shape.width);
  const auto steps = plane_of<acc, int64_t>(image, 0);
  for (int64_t y = 0; y < job.shape.height; ++y) {
    for (int i = 0; i < count; ++i) {
      const acc row = static_cast<acc>(y) + samples.down(i);
      const acc along = samples.along(i);
      fill_taps(
          taps.pointers(), affine.line_x(row).moved(along), affine.line_y(row).moved(along), image, 0, width,
          job.options);
      for (int64_t c = begin; c < end; ++c) {
        const acc scale = job.levels.scale[job.levels.at(c)] / static_cast<acc>(count);
        scatter_row(planes + c * image.stride_c, steps, taps, job.grad_row(n, c, y), scale, width);
      }
    }
  }
}

template <typename acc>
void scatter_cubic_row(
    acc* plane, const CubicTable<acc, int64_t>& across, const CubicTable<acc, int64_t>& down, const acc* grad, acc scale) {
  const int64_t width = across.width;
  for (int32_t ky = 0; ky < down.count; ++ky) {
    for (int32_t kx = 0; kx < across.count; ++kx) {
      const acc *wx = across.weight.data() + kx * width, *wy = down.weight.data() + ky * width;
      const int64_t *ox = across.offset.data() + kx * width, *oy = down.offset.data() + ky * width;
      for (int64_t x = 0; x < width; ++x) {
        const acc weight = wx[x] * wy[x];
        plane[ox[x] + oy[x]] += weight != acc(0) ? weight * (grad[x] * scale) : acc(0);
      }
    }
  }
}

template <typename acc>
void scatter_cubic_patch(const Job<acc>& job, acc* planes, const Image& image, int64_t n, int64_t begin, int64_t end) {
  const Affine<acc> affine = Affine<acc>::load(job.transforms + n * 6);
  const Stretch<acc> stretch = Stretch<acc>::of(affine, job.options);
  const int32_t width = static_cast<int32_t>(job.shape.width);
  CubicTable<acc, int64_t> across, down;
  for (int64_t y = 0; y < job.shape.height; ++y) {
    const acc row = static_cast<acc>(y);
    across.fill(affine.line_x(row), image.width, image.stride_x, stretch.x, job.options, width);
    down.fill(affine.line_y(row), image.height, image.stride_y, stretch.y, job.options, width);
    for (int64_t c = begin; c < end; ++c) {
      const acc scale = job.levels.scale[job.levels.at(c)];
      scatter_cubic_row(planes + c * image.stride_c, across, down, job.grad_row(n, c, y), scale);
    }
  }
}

template <typename acc>
void images_backward(const Job<acc>& job, const std::vector<Tensor>& grads) {
  const bool batch = grads[0].dim() == 4;
  // Channels that share their taps, where there are tasks enough.
  const int64_t channels = job.shape.channels;
  const int64_t block = job.shape.images * channels >= 16 * kChannelBlock ? kChannelBlock : 1;
  const int64_t blocks = (channels + block - 1) / block;
  share_tasks(job.shape.images * blocks, [&](Tasks& tasks) {
    RowTaps<acc, int64_t> taps(job.shape.width);
    for (int64_t task; tasks.take(task);) {
      const int64_t number = task / blocks, begin = task % blocks * block;
      const Tensor& grad = grads[batch ? 0 : number];
      acc* planes = grad.mutable_data_ptr<acc>() + (batch ? number * grad.stride(0) : 0);
      for (int64_t n = 0; n < job.shape.patches; ++n) {
        const int64_t end = std::min(begin + block, channels);
        if (image_of(job.index, job.shape, n) != number) {
          continue;
        }
        if (job.options.mode == Mode::bicubic) {
          scatter_cubic_patch(job, planes, image_at(grad), n, begin, end);
        } else {
          scatter_patch(job, planes, image_at(grad), n, begin, end, taps);
        }
      }
    }
  });
}

std::vector<Tensor> crop_patches_images_backward_cpu(
    const Tensor& grad, const std::vector<Tensor>& images, const Tensor& transforms,
    const std::optional<Tensor>& image_index, int64_t mode, int64_t padding, const std::vector<double>& std,
    bool antialias) {
  constexpr const char* op = "_crop_patches_images_backward";
  const Shape shape = check_crop_grad(op, grad, images, transforms, image_index);
  const Options options = check_options(op, mode, padding, antialias);
  check_levels(op, {}, {}, std, shape.channels);
  const ScalarType type = images[0].scalar_type();
  check_floating(op, "images", images[0]);
  const ScalarType acc_type = arithmetic_of(type, grad.scalar_type());
  const std::vector<Tensor> grads = new_grads(images, acc_type, true);
  const Tensor dense = as_contiguous(grad, acc_type), affine = as_contiguous(transforms, acc_type);
  const std::optional<Tensor> index = as_contiguous(image_index);
  const auto run = [&](auto zero) {
    using acc = decltype(zero);
    images_backward<acc>(
        {dense.const_data_ptr<acc>(), affine.const_data_ptr<acc>(), index ? index->const_data_ptr<int64_t>() : nullptr,
         levels_of<acc>({}, {}, std), options, shape, grad.size(1)},
        grads);
  };
  acc_type == ScalarType::Double ? run(0.0) : run(0.0f);
  return as_type(grads, type);
}

// Transforms: one task owns one patch.

// A row's derivatives to the image coordinates u and v, summed over the channels: per pixel and tap what multiplies the
// image's pixel, and what multiplies the fill.
template <typename acc>
struct RowSlopes {
  std::vector<acc> u[4], v[4], fill_u, fill_v, du, dv;

  explicit RowSlopes(int64_t width) : fill_u(width), fill_v(width), du(width), dv(width) {
    for (int k = 0; k < 4; ++k) {
      u[k].resize(width);
      v[k].resize(width);
    }
  }
  void set(int64_t x, const Tap<acc>& tx, const Tap<acc>& ty) {
    u[0][x] = ty.near * tx.near_slope;
    u[1][x] = ty.near * tx.far_slope;
    u[2][x] = ty.far * tx.near_slope;
    u[3][x] = ty.far * tx.far_slope;
    v[0][x] = tx.near * ty.near_slope;
    v[1][x] = tx.far * ty.near_slope;
    v[2][x] = tx.near * ty.far_slope;
    v[3][x] = tx.far * ty.far_slope;
    fill_u[x] = (tx.near_slope + tx.far_slope) * (ty.near + ty.far);
    fill_v[x] = (ty.near_slope + ty.far_slope) * (tx.near + tx.far);
    du[x] = dv[x] = 0;
  }
};

// A pixel with no say in the sample counts as 0 when it is not finite.
template <typename acc, typename T>
PYPOSE_OPS_HOST_DEVICE acc heard(T pixel, acc weight) {
  const acc value = static_cast<acc>(pixel_of(pixel));
  return weight == acc(0) && !(value - value == acc(0)) ? acc(0) : value;
}

// Adds one channel's share to slopes.du and slopes.dv.
template <typename T, typename acc>
void add_slopes(
    const Plane<T, int64_t>& plane, RowTaps<acc, int64_t>& taps, RowSlopes<acc>& slopes, const acc* grad, acc scale,
    acc fill, int32_t count) {
  const TapPointers<acc, int64_t> pointers = taps.pointers();
  simd_call<true>([&, pointers]() __attribute__((always_inline)) {
    const auto [offset, w00, w01, w10, w11] = pointers;
    const T *p00 = plane.data, *p01 = p00 + plane.stride_x, *p10 = p00 + plane.stride_y, *p11 = p10 + plane.stride_x;
    const acc *u0 = slopes.u[0].data(), *u1 = slopes.u[1].data(), *u2 = slopes.u[2].data(), *u3 = slopes.u[3].data();
    const acc *v0 = slopes.v[0].data(), *v1 = slopes.v[1].data(), *v2 = slopes.v[2].data(), *v3 = slopes.v[3].data();
    const acc *fill_u = slopes.fill_u.data(), *fill_v = slopes.fill_v.data(), *g = grad;
    acc *du = slopes.du.data(), *dv = slopes.dv.data();
    const acc factor = scale, filled = fill;
    const int32_t width = count;
    PYPOSE_OPS_INDEPENDENT
    for (int32_t x = 0; x < width; ++x) {
      const int64_t o = offset[x];
      const acc a = heard(p00[o], w00[x]), b = heard(p01[o], w01[x]);
      const acc c = heard(p10[o], w10[x]), d = heard(p11[o], w11[x]);
      const acc weight = g[x] * factor;
      du[x] += weight * (u0[x] * a + u1[x] * b + u2[x] * c + u3[x] * d - filled * fill_u[x]);
      dv[x] += weight * (v0[x] * a + v1[x] * b + v2[x] * c + v3[x] * d - filled * fill_v[x]);
    }
  });
}

// What is the same for every type of image is compiled once, and called once a row or a pixel.

// Taps and slopes of row y, sample i of each pixel.
template <typename acc>
[[gnu::noinline]] void fill_slopes(
    const Job<acc>& job, const Affine<acc>& affine, const Samples<acc>& samples, int i, int64_t y, const Image& image,
    RowTaps<acc, int64_t>& taps, RowSlopes<acc>& slopes) {
  const int32_t width = static_cast<int32_t>(job.shape.width);
  for (int32_t x = 0; x < width; ++x) {
    const Sample<acc> s = sample_at(affine, samples, i, x, y, image, job.options);
    taps.offset[x] = s.tap_y.base * image.stride_y + s.tap_x.base * image.stride_x;
    taps.w00[x] = s.tap_y.near * s.tap_x.near;
    taps.w01[x] = s.tap_y.near * s.tap_x.far;
    taps.w10[x] = s.tap_y.far * s.tap_x.near;
    taps.w11[x] = s.tap_y.far * s.tap_x.far;
    slopes.set(x, s.tap_x, s.tap_y);
  }
}

// The derivatives to the six entries of a transform.
struct TransformSums {
  double value[6] = {};

  void add(double du, double dv, double x, double y) {
    const double shares[6] = {du * x, du * y, du, dv * x, dv * y, dv};
    for (int k = 0; k < 6; ++k) {
      value[k] += shares[k];
    }
  }
  template <typename acc>
  [[gnu::noinline]] void add_row(const RowSlopes<acc>& slopes, double along, double row, int64_t width) {
    for (int64_t x = 0; x < width; ++x) {
      add(slopes.du[x], slopes.dv[x], x + along, row);
    }
  }
  template <typename acc>
  void store(acc* out, int count) const {
    for (int k = 0; k < 6; ++k) {
      out[k] = static_cast<acc>(value[k] / count);
    }
  }
};

template <typename T, typename acc>
void patch_backward(
    const Job<acc>& job, const Image& image, int64_t n, acc* out, RowTaps<acc, int64_t>& taps, RowSlopes<acc>& slopes) {
  const Affine<acc> affine = Affine<acc>::load(job.transforms + n * 6);
  const Samples<acc> samples = samples_of(affine, job.options);
  const int count = samples.count();
  const int32_t width = static_cast<int32_t>(job.shape.width);
  TransformSums sums;
  for (int64_t y = 0; y < job.shape.height; ++y) {
    for (int i = 0; i < count; ++i) {
      fill_slopes(job, affine, samples, i, y, image, taps, slopes);
      for (int64_t c = 0; c < job.shape.channels; ++c) {
        const int level = job.levels.at(c);
        add_slopes(
            plane_of<T, int64_t>(image, c), taps, slopes, job.grad_row(n, c, y), job.levels.scale[level],
            job.levels.fill[level], width);
      }
      sums.add_row(slopes, samples.along(i), static_cast<double>(y) + samples.down(i), width);
    }
  }
  sums.store(out, count);
}

template <typename acc>
[[gnu::noinline]] CubicAxis<acc> axis_at(
    const Line<acc>& line, int64_t x, int32_t size, acc stretch, const Options& options) {
  return cubic_at(line.at(x), line.whole, size, stretch, options);
}

template <typename T, typename acc>
void cubic_patch_backward(const Job<acc>& job, const Image& image, int64_t n, acc* out) {
  const Affine<acc> affine = Affine<acc>::load(job.transforms + n * 6);
  const Stretch<acc> stretch = Stretch<acc>::of(affine, job.options);
  TransformSums sums;
  double wider[2] = {};
  for (int64_t y = 0; y < job.shape.height; ++y) {
    const Line<acc> lx = affine.line_x(static_cast<acc>(y)), ly = affine.line_y(static_cast<acc>(y));
    for (int64_t x = 0; x < job.shape.width; ++x) {
      const CubicAxis<acc> across = axis_at(lx, x, image.width, stretch.x, job.options);
      const CubicAxis<acc> down = axis_at(ly, x, image.height, stretch.y, job.options);
      double du = 0, dv = 0;
      for (int64_t c = 0; c < job.shape.channels; ++c) {
        const int level = job.levels.at(c);
        const acc weight = job.grad_row(n, c, y)[x] * job.levels.scale[level];
        const auto slopes = cubic_gradient<T>(image, c, across, down, job.levels.fill[level]);
        du += weight * slopes.u;
        dv += weight * slopes.v;
        wider[0] += weight * slopes.stretch_x;
        wider[1] += weight * slopes.stretch_y;
      }
      sums.add(du, dv, x, y);
    }
  }
  sums.value[0] += wider[0] * Stretch<acc>::slope(stretch.x, affine.xx);
  sums.value[1] += wider[0] * Stretch<acc>::slope(stretch.x, affine.xy);
  sums.value[3] += wider[1] * Stretch<acc>::slope(stretch.y, affine.yx);
  sums.value[4] += wider[1] * Stretch<acc>::slope(stretch.y, affine.yy);
  sums.store(out, 1);
}

template <typename T, typename acc>
void transforms_backward(const Job<acc>& job, const std::vector<Tensor>& images, acc* out) {
  const ImageTable table(images);
  share_tasks(job.shape.patches, [&](Tasks& tasks) {
    RowTaps<acc, int64_t> taps(job.shape.width);
    RowSlopes<acc> slopes(job.shape.width);
    for (int64_t n; tasks.take(n);) {
      const int64_t number = image_of(job.index, job.shape, n);
      if (number < 0) {
        continue;  // zeroed already
      }
      if (job.options.mode == Mode::bicubic) {
        cubic_patch_backward<T>(job, table.at<T>(number), n, out + n * 6);
      } else {
        patch_backward<T>(job, table.at<T>(number), n, out + n * 6, taps, slopes);
      }
    }
  });
}

template <typename acc>
void run_transforms_backward(const Job<acc>& job, const std::vector<Tensor>& images, acc* out) {
  switch (images[0].scalar_type()) {
    case ScalarType::Byte:
      return transforms_backward<uint8_t>(job, images, out);
    case ScalarType::Half:
      return transforms_backward<Half>(job, images, out);
    case ScalarType::BFloat16:
      return transforms_backward<BFloat16>(job, images, out);
    case ScalarType::Float:
      return transforms_backward<float>(job, images, out);
    default:
      if constexpr (std::is_same_v<acc, double>) {
        return transforms_backward<double>(job, images, out);
      }
  }
}

Tensor crop_patches_transforms_backward_cpu(
    const Tensor& grad, const std::vector<Tensor>& images, const Tensor& transforms,
    const std::optional<Tensor>& image_index, int64_t mode, int64_t padding, const std::vector<double>& fill,
    const std::vector<double>& std, bool antialias) {
  constexpr const char* op = "_crop_patches_transforms_backward";
  const Shape shape = check_crop_grad(op, grad, images, transforms, image_index);
  const Options options = check_options(op, mode, padding, antialias);
  check_levels(op, fill, {}, std, shape.channels);
  const ScalarType acc_type = arithmetic_of(images[0].scalar_type(), grad.scalar_type());
  const Tensor out = zeros_beside(transforms, {shape.patches, 2, 3}, acc_type);
  const Tensor dense = as_contiguous(grad, acc_type), affine = as_contiguous(transforms, acc_type);
  const std::optional<Tensor> index = as_contiguous(image_index);
  const auto run = [&](auto zero) {
    using acc = decltype(zero);
    run_transforms_backward<acc>(
        {dense.const_data_ptr<acc>(), affine.const_data_ptr<acc>(), index ? index->const_data_ptr<int64_t>() : nullptr,
         levels_of<acc>(fill, {}, std), options, shape, grad.size(1)},
        images, out.mutable_data_ptr<acc>());
  };
  acc_type == ScalarType::Double ? run(0.0) : run(0.0f);
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "_crop_patches_images_backward(Tensor grad, Tensor[] images, Tensor transforms, Tensor? image_index, int mode, "
      "int padding, float[] std, bool antialias) -> Tensor[]");
  m.def(
      "_crop_patches_transforms_backward(Tensor grad, Tensor[] images, Tensor transforms, Tensor? image_index, int mode, "
      "int padding, float[] fill, float[] std, bool antialias) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("_crop_patches_images_backward", TORCH_BOX(&crop_patches_images_backward_cpu));
  m.impl("_crop_patches_transforms_backward", TORCH_BOX(&crop_patches_transforms_backward_cpu));
}

}  // namespace pypose_ops

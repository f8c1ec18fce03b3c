#include <torch/csrc/stable/library.h>

#include "patches/crop_patches.h"
#include "patches/crop_rows.h"

namespace pypose_ops {
namespace {

using namespace patches;

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

// Images: one task owns one channel of one picture and adds the patches in their order, so no two threads meet and the
// bits are the same for any number of them.

template <typename acc>
void scatter_row(
    acc* plane, const Plane<uint8_t, int64_t>& steps, const RowTaps<acc, int64_t>& taps, const acc* grad, acc scale,
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

// image holds the strides of the dense gradient.
template <typename acc>
void scatter_patch(
    const Job<acc>& job, acc* plane, const Image& image, int64_t n, int64_t channel, RowTaps<acc, int64_t>& taps) {
  const Affine<acc> affine = Affine<acc>::load(job.transforms + n * 6);
  const Samples<acc> samples = samples_of(affine, job.options);
  const int count = samples.count();
  const acc scale = job.levels.scale[job.levels.at(channel)] / static_cast<acc>(count);
  const int32_t width = static_cast<int32_t>(job.shape.width);
  const auto steps = plane_of<uint8_t, int64_t>(image, 0);
  for (int64_t y = 0; y < job.shape.height; ++y) {
    for (int i = 0; i < count; ++i) {
      const acc row = static_cast<acc>(y) + samples.down(i);
      const acc along = samples.along(i);
      fill_taps(taps, affine.line_x(row).moved(along), affine.line_y(row).moved(along), image, width, job.options);
      scatter_row(plane, steps, taps, job.grad_row(n, channel, y), scale, width);
    }
  }
}

template <typename acc>
void images_backward(const Job<acc>& job, const std::vector<Tensor>& grads) {
  const bool batch = grads[0].dim() == 4;
  torch::stable::parallel_for(0, job.shape.images * job.shape.channels, 1, [&](int64_t begin, int64_t end) {
    RowTaps<acc, int64_t> taps(job.shape.width);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t number = task / job.shape.channels, channel = task % job.shape.channels;
      const Tensor& grad = grads[batch ? 0 : number];
      const Image image = image_at(grad);
      acc* plane = grad.mutable_data_ptr<acc>() + (batch ? number * grad.stride(0) : 0) + channel * image.stride_c;
      for (int64_t n = 0; n < job.shape.patches; ++n) {
        if (image_of(job.index, job.shape, n) == number) {
          scatter_patch(job, plane, image, n, channel, taps);
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
  const std::vector<Tensor> grads = new_grads(images, acc_type);
  const Tensor dense = as_dense(grad, acc_type), affine = as_dense(transforms, acc_type);
  const std::optional<Tensor> index = dense_index(image_index);
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

template <typename T, typename acc>
void patch_backward(const Job<acc>& job, const Image& image, int64_t n, acc* out) {
  const Affine<acc> affine = Affine<acc>::load(job.transforms + n * 6);
  const Samples<acc> samples = samples_of(affine, job.options);
  const int count = samples.count();
  double sums[6] = {};
  for (int64_t y = 0; y < job.shape.height; ++y) {
    for (int i = 0; i < count; ++i) {
      for (int64_t x = 0; x < job.shape.width; ++x) {
        const Sample<acc> sample = sample_at(affine, samples, i, x, y, image, job.options);
        acc du = 0, dv = 0;
        for (int64_t c = 0; c < job.shape.channels; ++c) {
          const int level = job.levels.at(c);
          const acc g = job.grad_row(n, c, y)[x] * job.levels.scale[level];
          const Corners<T, acc> corners(image, c, sample);
          du += g * corners.slope_u(sample.tap_x, sample.tap_y, job.levels.fill[level]);
          dv += g * corners.slope_v(sample.tap_x, sample.tap_y, job.levels.fill[level]);
        }
        const acc shares[6] = {du * sample.x, du * sample.y, du, dv * sample.x, dv * sample.y, dv};
        for (int k = 0; k < 6; ++k) {
          sums[k] += shares[k];
        }
      }
    }
  }
  for (int k = 0; k < 6; ++k) {
    out[k] = static_cast<acc>(sums[k] / count);
  }
}

template <typename T, typename acc>
void transforms_backward(const Job<acc>& job, const std::vector<Tensor>& images, acc* out) {
  const ImageTable table(images);
  torch::stable::parallel_for(0, job.shape.patches, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const int64_t number = image_of(job.index, job.shape, n);
      if (number < 0) {
        continue;  // zeroed already
      }
      patch_backward<T>(job, table.at<T>(number), n, out + n * 6);
    }
  });
}

template <typename acc>
void launch_transforms_backward(const Job<acc>& job, const std::vector<Tensor>& images, acc* out) {
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
  const Tensor out = torch::stable::new_zeros(transforms, {shape.patches, 2, 3}, acc_type);
  const Tensor dense = as_dense(grad, acc_type), affine = as_dense(transforms, acc_type);
  const std::optional<Tensor> index = dense_index(image_index);
  const auto run = [&](auto zero) {
    using acc = decltype(zero);
    launch_transforms_backward<acc>(
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

// decode_heatmaps: checks and options, shared by the CPU and CUDA kernels.
#pragma once

#include <vector>

#include "common/tensors.h"
#include "peaks/refine.h"

namespace pypose_ops {
namespace peaks {

template <typename scalar>
struct Arguments {
  using acc = acc_t<scalar>;
  const scalar* maps;      // (B, K, H, W), with offsets (B, 3K, H, W)
  const scalar* flipped;   // the same or null
  const acc* transform;    // (B, 2, 3) or null; transform_stride 0: (2, 3)
  acc* coords;             // (B, K, 2)
  acc* scores;             // (B, K)
  acc* covariance;         // (B, K, 2, 2) or null
  int64_t* pixels;         // (B, K, 2) or null
  int64_t transform_stride;
  int joints, height, width;
  int channels;  // of a joint
  bool flip_shift;
  acc threshold, missing;
  Refinement<acc> refinement;

  template <typename Index>
  PYPOSE_OPS_HOST_DEVICE MapView<scalar> view(const Index& flip_index, int64_t number, int channel = 0) const {
    const int64_t size = static_cast<int64_t>(height) * width;
    const int64_t joint = number % joints;
    return {
        maps + (number * channels + channel) * size,
        flipped == nullptr ? nullptr : flipped + ((number - joint + flip_index[joint]) * channels + channel) * size,
        height, width, flip_shift};
  }
};

// A covariance through the linear part of an affine, row-major.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE void write_covariance(acc* out, const Refined<acc>& r, const acc* m) {
  if (m == nullptr) {
    out[0] = r.xx;
    out[1] = out[2] = r.xy;
    out[3] = r.yy;
    return;
  }
  const auto product = [&r](const acc* a, const acc* b) {
    return a[0] * (r.xx * b[0] + r.xy * b[1]) + a[1] * (r.xy * b[0] + r.yy * b[1]);
  };
  out[0] = product(m, m);
  out[1] = out[2] = product(m, m + 3);
  out[3] = product(m + 3, m + 3);
}

template <typename scalar, typename acc>
PYPOSE_OPS_HOST_DEVICE
void write_peak(const Arguments<scalar>& args, int64_t map, Peak<acc> peak, const Refined<acc>& refined) {
  const acc* m = args.transform == nullptr ? nullptr : args.transform + map / args.joints * args.transform_stride;
  const Step<acc> place = peak.found() ? placed(peak.index, args.width, refined.step, m)
                                       : Step<acc>{args.missing, args.missing};
  args.coords[2 * map] = place.x;
  args.coords[2 * map + 1] = place.y;
  args.scores[map] = peak.found() ? peak.value : acc(0);
  if (args.pixels != nullptr) {
    args.pixels[2 * map] = peak.found() ? peak.index % args.width : -1;
    args.pixels[2 * map + 1] = peak.found() ? peak.index / args.width : -1;
  }
  if (args.covariance != nullptr) {
    write_covariance(args.covariance + 4 * map, refined, m);
  }
}

constexpr const char* kOp = "decode_heatmaps";

inline void check_flipped(
    const Tensor& heatmaps, int64_t joints, const Tensor& flipped,
    const std::optional<std::vector<int64_t>>& flip_index) {
  check_same_device(kOp, "flipped", flipped, "heatmaps", heatmaps);
  PYPOSE_OPS_CHECK(
      flipped.scalar_type() == heatmaps.scalar_type(), kOp, ": flipped must have the dtype of heatmaps, ",
      torch::headeronly::toString(heatmaps.scalar_type()), ", got ",
      torch::headeronly::toString(flipped.scalar_type()));
  check_dim(kOp, "flipped", flipped, 4, "(B, K, H, W)");
  for (int64_t dim = 0; dim < 4; ++dim) {
    check_size(kOp, "flipped", flipped, dim, heatmaps.size(dim));
  }
  PYPOSE_OPS_CHECK(flip_index.has_value(), kOp, ": flip_index is required when flipped is given");
  PYPOSE_OPS_CHECK(
      static_cast<int64_t>(flip_index->size()) == joints, kOp, ": flip_index must have one entry for each of the ",
      joints, " joints, got ", flip_index->size());
  std::vector<bool> seen(flip_index->size(), false);
  for (const int64_t joint : *flip_index) {
    PYPOSE_OPS_CHECK(
        joint >= 0 && joint < joints && !seen[static_cast<size_t>(joint)], kOp,
        ": flip_index must be a permutation of the ", joints, " joints, got joint ", joint,
        " out of range or for the second time");
    seen[static_cast<size_t>(joint)] = true;
  }
}

inline RefineOptions check_arguments(
    const Tensor& heatmaps, int64_t refine, int64_t compat, int64_t kernel_size, const std::optional<Tensor>& flipped,
    const std::optional<std::vector<int64_t>>& flip_index, const std::optional<Tensor>& transform,
    const std::optional<double>& max_offset, double threshold) {
  check_maps(kOp, heatmaps);
  check_threshold(kOp, threshold);
  const RefineOptions options = check_refine(kOp, refine, compat, kernel_size, max_offset);
  if (flipped.has_value()) {
    check_flipped(heatmaps, heatmaps.size(1), *flipped, flip_index);
  }
  if (transform.has_value()) {
    check_transform(kOp, heatmaps, *transform);
  }
  return options;
}

// The inputs as the kernels want them, contiguous, and the outputs; they own what Arguments points to.
struct Tensors {
  Tensor heatmaps;
  std::optional<Tensor> flipped, transform;
  Tensor coords, scores, covariance, pixels;
};

inline void make_contiguous(Tensors& tensors) {
  tensors.heatmaps = as_contiguous(tensors.heatmaps);
  if (tensors.flipped.has_value()) {
    tensors.flipped = as_contiguous(*tensors.flipped);
  }
  tensors.transform = as_contiguous(tensors.transform, tensors.coords.scalar_type());
}

inline Tensors allocate(
    const Tensor& heatmaps, const std::optional<Tensor>& flipped, const std::optional<Tensor>& transform,
    bool covariance, bool pixels, int64_t channels = 1) {
  const int64_t batch = heatmaps.size(0);
  const int64_t joints = heatmaps.size(1) / channels;
  const ScalarType acc = acc_scalar_type(heatmaps.scalar_type());
  return {
      heatmaps, flipped, transform, empty_beside(heatmaps, {batch, joints, 2}, acc),
      empty_beside(heatmaps, {batch, joints}, acc),
      covariance ? empty_beside(heatmaps, {batch, joints, 2, 2}, acc) : empty_beside(heatmaps, {0}, acc),
      pixels ? empty_beside(heatmaps, {batch, joints, 2}, ScalarType::Long)
             : empty_beside(heatmaps, {0}, ScalarType::Long)};
}

template <typename scalar>
Arguments<scalar> make_arguments(const Tensors& tensors, bool flip_shift, double threshold, double missing) {
  using acc = acc_t<scalar>;
  Arguments<scalar> args = {};
  args.maps = tensors.heatmaps.template const_data_ptr<scalar>();
  args.flipped = tensors.flipped.has_value() ? tensors.flipped->template const_data_ptr<scalar>() : nullptr;
  if (tensors.transform.has_value()) {
    args.transform = tensors.transform->template const_data_ptr<acc>();
    args.transform_stride = tensors.transform->dim() == 3 ? 6 : 0;
  }
  args.coords = tensors.coords.template mutable_data_ptr<acc>();
  args.scores = tensors.scores.template mutable_data_ptr<acc>();
  args.covariance = tensors.covariance.dim() == 4 ? tensors.covariance.template mutable_data_ptr<acc>() : nullptr;
  args.pixels = tensors.pixels.dim() == 3 ? tensors.pixels.template mutable_data_ptr<int64_t>() : nullptr;
  args.joints = static_cast<int>(tensors.scores.size(1));
  args.channels = static_cast<int>(tensors.heatmaps.size(1) / tensors.scores.size(1));
  args.height = static_cast<int>(tensors.heatmaps.size(2));
  args.width = static_cast<int>(tensors.heatmaps.size(3));
  args.flip_shift = flip_shift;
  args.threshold = static_cast<acc>(threshold);
  args.missing = static_cast<acc>(missing);
  return args;
}

}  // namespace peaks
}  // namespace pypose_ops

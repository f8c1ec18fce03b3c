// decode_heatmaps: checks and options, shared by the CPU and CUDA kernels.
#pragma once

#include <vector>

#include "peaks/refine.h"

namespace pypose_ops {
namespace peaks {

template <typename scalar>
struct Arguments {
  using acc = acc_t<scalar>;
  const scalar* maps;      // (B, K, H, W)
  const scalar* flipped;   // (B, K, H, W) or null
  const acc* transform;    // (B, 2, 3) or null; transform_stride 0: (2, 3)
  acc* coords;             // (B, K, 2)
  acc* scores;             // (B, K)
  int64_t transform_stride;
  int joints, height, width;
  bool flip_shift;
  Refinement<acc> refinement;

  template <typename Index>
  POSE_HD MapView<scalar> view(const Index& flip_index, int64_t number) const {
    const int64_t pixels = static_cast<int64_t>(height) * width;
    const int64_t joint = number % joints;
    return {
        maps + number * pixels,
        flipped == nullptr ? nullptr : flipped + (number - joint + flip_index[joint]) * pixels, height, width,
        flip_shift};
  }
};

template <typename scalar, typename acc>
POSE_HD void write_peak(const Arguments<scalar>& args, int64_t map, Peak<acc> peak, Step<acc> step) {
  Step<acc> place = {-1, -1};
  if (peak.value > 0) {
    const acc* m =
        args.transform == nullptr ? nullptr : args.transform + map / args.joints * args.transform_stride;
    place = placed(peak.index, args.width, step, m);
  }
  args.coords[2 * map] = place.x;
  args.coords[2 * map + 1] = place.y;
  args.scores[map] = peak.value;
}

constexpr const char* kOp = "decode_heatmaps";

inline void check_flipped(
    const Tensor& heatmaps, const Tensor& flipped, const std::optional<std::vector<int64_t>>& flip_index) {
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
  const int64_t joints = heatmaps.size(1);
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
    const Tensor& heatmaps, int64_t refine, int64_t kernel_size, const std::optional<Tensor>& flipped,
    const std::optional<std::vector<int64_t>>& flip_index, const std::optional<Tensor>& transform,
    const std::optional<double>& max_offset) {
  check_maps(kOp, heatmaps);
  const RefineOptions options = check_refine(kOp, refine, kernel_size, max_offset);
  if (flipped.has_value()) {
    check_flipped(heatmaps, *flipped, flip_index);
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
  Tensor coords, scores;
};

inline void make_contiguous(Tensors& tensors) {
  tensors.heatmaps = as_contiguous(tensors.heatmaps);
  if (tensors.flipped.has_value()) {
    tensors.flipped = as_contiguous(*tensors.flipped);
  }
  tensors.transform = as_type(tensors.transform, tensors.coords.scalar_type());
}

inline Tensors allocate(
    const Tensor& heatmaps, const std::optional<Tensor>& flipped, const std::optional<Tensor>& transform) {
  const int64_t batch = heatmaps.size(0);
  const int64_t joints = heatmaps.size(1);
  const ScalarType acc = acc_scalar_type(heatmaps.scalar_type());
  return {
      heatmaps, flipped, transform, torch::stable::new_empty(heatmaps, {batch, joints, 2}, acc),
      torch::stable::new_empty(heatmaps, {batch, joints}, acc)};
}

template <typename scalar>
Arguments<scalar> make_arguments(const Tensors& tensors, const RefineOptions& options, bool flip_shift) {
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
  args.joints = static_cast<int>(tensors.heatmaps.size(1));
  args.height = static_cast<int>(tensors.heatmaps.size(2));
  args.width = static_cast<int>(tensors.heatmaps.size(3));
  args.flip_shift = flip_shift;
  args.refinement = options.as<acc>();
  return args;
}

}  // namespace peaks
}  // namespace pypose_ops

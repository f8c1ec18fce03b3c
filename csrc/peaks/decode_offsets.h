// decode_heatmaps of maps with offsets, UDP's "combined" targets: three channels per joint, a class map that is 1 in a disc
// around the joint and the vector from every pixel to the joint, in radii (Huang et al., "The Devil is in the Details",
// CVPR 2020). The highest pixel of the blurred class map is corrected by its own vector.
#pragma once

#include "peaks/decode_heatmaps.h"

namespace pypose_ops {
namespace peaks {

constexpr int kOffsetChannels = 3;
constexpr int kMaxOffsetKernelSize = 31;  // the blur has 2 * 31 + 1 taps

// Offset maps (B, K, 2, H, W) of any strides: of each joint one read at one pixel, so that a copy would cost more.
template <typename scalar>
struct OffsetMaps {
  const scalar* data;  // null: none
  int64_t strides[5];

  template <typename acc = acc_t<scalar>>
  PYPOSE_OPS_HOST_DEVICE Step<acc> at(int64_t item, int64_t joint, int x, int y) const {
    const scalar* pixel =
        data + item * strides[0] + joint * strides[1] + y * strides[3] + static_cast<int64_t>(x) * strides[4];
    return {static_cast<acc>(pixel[0]), static_cast<acc>(pixel[strides[2]])};
  }
};

template <typename scalar>
struct Offsets {
  OffsetMaps<scalar> maps, flipped;
  acc_t<scalar> radius;
};

// The vector of a pixel, in pixels. In the mirrored twin x points the other way.
template <typename scalar, typename Index, typename acc = acc_t<scalar>>
PYPOSE_OPS_HOST_DEVICE Step<acc> offset_step(
    const Arguments<scalar>& args, const Offsets<scalar>& offsets, const Index& flip_index, int64_t number, int index) {
  const int x = index % args.width;
  const int y = index / args.width;
  const int64_t item = number / args.joints;
  const int64_t joint = number % args.joints;
  Step<acc> step = offsets.maps.at(item, joint, x, y);
  if (offsets.flipped.data != nullptr) {
    const Step<acc> twin =
        offsets.flipped.at(item, flip_index[joint], mirrored_column(x, args.width, args.flip_shift), y);
    step = {merged(step.x, -twin.x), merged(step.y, twin.y)};
  }
  return limited(Step<acc>{offsets.radius * step.x, offsets.radius * step.y}, args.refinement.max_offset);
}

// Offsets that stand apart from their heatmaps.
inline void check_offset_maps(const char* name, const Tensor& offsets, const Tensor& heatmaps) {
  check_same_device(kOp, name, offsets, "heatmaps", heatmaps);
  PYPOSE_OPS_CHECK(
      offsets.scalar_type() == heatmaps.scalar_type(), kOp, ": ", name, " must have the dtype of heatmaps, ",
      torch::headeronly::toString(heatmaps.scalar_type()), ", got ",
      torch::headeronly::toString(offsets.scalar_type()));
  check_dim(kOp, name, offsets, 5, "(B, K, 2, H, W)");
  const int64_t sizes[5] = {heatmaps.size(0), heatmaps.size(1), 2, heatmaps.size(2), heatmaps.size(3)};
  for (int64_t dim = 0; dim < 5; ++dim) {
    check_size(kOp, name, offsets, dim, sizes[dim]);
  }
}

// Without a kernel size there is no blur.
inline RefineOptions check_offsets(
    const Tensor& heatmaps, const std::optional<Tensor>& offsets, std::optional<int64_t> kernel_size, double radius,
    const std::optional<Tensor>& flipped, const std::optional<Tensor>& flipped_offsets,
    const std::optional<std::vector<int64_t>>& flip_index, const std::optional<Tensor>& transform,
    const std::optional<double>& max_offset, double threshold) {
  check_maps(kOp, heatmaps);
  check_threshold(kOp, threshold);
  if (offsets.has_value()) {
    check_offset_maps("offsets", *offsets, heatmaps);
    PYPOSE_OPS_CHECK(
        flipped.has_value() == flipped_offsets.has_value(), kOp, ": flipped_offsets and flipped go together");
    if (flipped_offsets.has_value()) {
      check_offset_maps("flipped_offsets", *flipped_offsets, heatmaps);
    }
  } else {
    PYPOSE_OPS_CHECK(!flipped_offsets.has_value(), kOp, ": flipped_offsets need offsets");
    PYPOSE_OPS_CHECK(
        heatmaps.size(1) % kOffsetChannels == 0, kOp,
        ": heatmaps with offsets must be (B, 3 K, H, W), a class map and two offset maps per joint, got shape ",
        shape_of(heatmaps));
  }
  if (kernel_size.has_value()) {
    check_kernel_size(kOp, *kernel_size, kMaxOffsetKernelSize);
  }
  PYPOSE_OPS_CHECK(
      radius > 0 && radius < std::numeric_limits<double>::infinity(), kOp, ": radius must be positive and finite, got ",
      radius);
  if (flipped.has_value()) {
    check_flipped(heatmaps, heatmaps.size(1) / (offsets.has_value() ? 1 : kOffsetChannels), *flipped, flip_index);
  }
  if (transform.has_value()) {
    check_transform(kOp, heatmaps, *transform);
  }
  return {
      Refine::dark, Compat::none, kernel_size.has_value() ? 2 * static_cast<int>(*kernel_size) + 1 : 1,
      check_max_offset(kOp, max_offset)};
}

template <typename scalar>
OffsetMaps<scalar> separate_offsets(const std::optional<Tensor>& offsets) {
  if (!offsets.has_value()) {
    return {};
  }
  OffsetMaps<scalar> maps = {offsets->template const_data_ptr<scalar>(), {}};
  for (int64_t dim = 0; dim < 5; ++dim) {
    maps.strides[dim] = offsets->stride(dim);
  }
  return maps;
}

// The second and third of every three contiguous channels.
template <typename scalar>
OffsetMaps<scalar> combined_offsets(const Arguments<scalar>& args, const scalar* maps) {
  const int64_t size = static_cast<int64_t>(args.height) * args.width;
  return {
      maps == nullptr ? nullptr : maps + size,
      {args.joints * kOffsetChannels * size, kOffsetChannels * size, size, args.width, 1}};
}

template <typename scalar>
Offsets<scalar> make_offsets(
    const Arguments<scalar>& args, const std::optional<Tensor>& offsets, const std::optional<Tensor>& flipped_offsets,
    double radius) {
  using acc = acc_t<scalar>;
  if (offsets.has_value()) {
    return {
        separate_offsets<scalar>(offsets), separate_offsets<scalar>(flipped_offsets), static_cast<acc>(radius)};
  }
  return {combined_offsets(args, args.maps), combined_offsets(args, args.flipped), static_cast<acc>(radius)};
}

}  // namespace peaks
}  // namespace pypose_ops

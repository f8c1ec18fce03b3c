// decode_heatmaps of maps with offsets, UDP's "combined" targets: three channels per joint, a class map that is 1 in a disc
// round the joint and the vector from every pixel to the joint, in radii (Huang et al., "The Devil is in the Details",
// CVPR 2020). The highest pixel of the blurred class map is corrected by its own vector.
#pragma once

#include "peaks/decode_heatmaps.h"

namespace pypose_ops {
namespace peaks {

constexpr int kOffsetChannels = 3;
constexpr int kMaxOffsetKernelSize = 31;  // the blur has 2 * 31 + 1 taps

// The vector of a pixel, in pixels. In the mirrored twin x points the other way.
template <typename scalar, typename Index, typename acc = acc_t<scalar>>
PYPOSE_OPS_HOST_DEVICE Step<acc> offset_step(
    const Arguments<scalar>& args, const Index& flip_index, int64_t number, int index, acc radius) {
  const MapView<scalar> dx = args.view(flip_index, number, 1);
  const MapView<scalar> dy = args.view(flip_index, number, 2);
  const int x = index % args.width;
  const int y = index / args.width;
  acc step_x = static_cast<acc>(dx.map[index]);
  if (dx.twin != nullptr) {
    step_x = merged(
        step_x, -static_cast<acc>(dx.twin[y * args.width + mirrored_column(x, args.width, args.flip_shift)]));
  }
  return limited(Step<acc>{radius * step_x, radius * dy(x, y)}, args.refinement.max_offset);
}

inline RefineOptions check_offsets(
    const Tensor& heatmaps, int64_t kernel_size, double radius, const std::optional<Tensor>& flipped,
    const std::optional<std::vector<int64_t>>& flip_index, const std::optional<Tensor>& transform,
    const std::optional<double>& max_offset) {
  check_maps(kOp, heatmaps);
  PYPOSE_OPS_CHECK(
      heatmaps.size(1) % kOffsetChannels == 0, kOp,
      ": heatmaps with offsets must be (B, 3 K, H, W), a class map and two offset maps per joint, got shape ",
      shape_of(heatmaps));
  check_kernel_size(kOp, kernel_size, kMaxOffsetKernelSize);
  PYPOSE_OPS_CHECK(
      radius > 0 && radius < std::numeric_limits<double>::infinity(), kOp, ": radius must be positive and finite, got ",
      radius);
  if (flipped.has_value()) {
    check_flipped(heatmaps, heatmaps.size(1) / kOffsetChannels, *flipped, flip_index);
  }
  if (transform.has_value()) {
    check_transform(kOp, heatmaps, *transform);
  }
  return {
      Refine::dark, Compat::none, 2 * static_cast<int>(kernel_size) + 1, check_max_offset(kOp, max_offset)};
}

}  // namespace peaks
}  // namespace pypose_ops

// decode_roi_heatmaps: the highest pixel of every map after bicubic interpolation to the size of its box; shapes, formulas
// and checks, shared by the CPU and CUDA kernels.
//
// A cell lies between the centres of four pixels of the map. All resized pixels in it come from the same 4 x 4 pixels, those
// beyond the map being the outermost ones, by a polynomial that is cubic along x and y. Written as a Bezier surface it has 4 x 4
// control points, and nowhere in the cell is it higher than the highest of them. So only cells are resized that have a control
// point above the best pixel found so far: few, in noise too. The result is that of resizing them all.
#pragma once

#include "common/math.h"
#include "peaks/refine.h"

namespace pypose_ops {
namespace peaks {

constexpr const char* kRoi = "decode_roi_heatmaps";

// Resized pixels along an axis: a resized map's are numbered by 32 bits. Larger boxes have no peak.
constexpr int kMostResized = 1 << 15;
// Torch's cubic convolution: the slope at a pixel is this times the difference of its two neighbours.
constexpr double kCubicSlope = 0.75;
// What rounding can raise a resized pixel by, in units of the arithmetic's rounding of the map's largest pixel.
constexpr int kResizedUlps = 64;

// One axis of a box: where its resized pixels lie in the map, and in the image.
template <typename acc>
struct RoiAxis {
  int size;    // resized pixels; 0: the box is not finite, or too large
  int pixels;  // of the map
  acc step;    // from one resized pixel to the next, in the map's
  acc ratio;   // the same in the image
  acc start;   // the edge of the box

  static PYPOSE_OPS_HOST_DEVICE RoiAxis of(acc low, acc high, int pixels) {
    const acc length = high - low;
    const acc extent = length > acc(1) ? length : acc(1);
    const bool usable = is_finite(low) && is_finite(high) && extent <= acc(kMostResized);
    const int size = usable ? static_cast<int>(::ceil(extent)) : 0;
    return {size, pixels, acc(pixels) / acc(size), extent / acc(size), low};
  }

  // The position of a resized pixel in the map, as torch computes it.
  PYPOSE_OPS_HOST_DEVICE acc at(int place) const {
    return step * (acc(place) + acc(0.5)) - acc(0.5);
  }
  // The first resized pixel in this cell or a later one; cell c lies between the pixels c and c + 1, the first is -1.
  PYPOSE_OPS_HOST_DEVICE int first(int cell) const {
    if (cell < 0 || cell >= pixels) {
      return cell < 0 ? 0 : size;
    }
    const acc guess = (acc(cell) + acc(0.5)) / step - acc(0.5);
    int place = guess < acc(size) ? static_cast<int>(guess) : size;
    while (place > 0 && at(place - 1) >= acc(cell)) {
      --place;
    }
    while (place < size && at(place) < acc(cell)) {
      ++place;
    }
    return place;
  }
  // The cell of the resized pixel nearest to a pixel of the map.
  PYPOSE_OPS_HOST_DEVICE int nearest_cell(int pixel) const {
    const int place = static_cast<int>((acc(pixel) + acc(0.5)) / step);
    const int cell = static_cast<int>(::floor(at(place < size ? place : size - 1)));
    return cell < pixels ? cell : pixels - 1;
  }
  PYPOSE_OPS_HOST_DEVICE acc in_image(int place) const {
    return (acc(place) + acc(0.5)) * ratio + start;
  }
};

// One number, where others are vectors: compilers lose attributes of vector types that are template arguments.
template <typename number>
struct Single {
  using acc = number;
  using real = number;
};

// Weights of the differences between three pixels and the one before a position: of a constant map every resized pixel is
// exactly that constant.
template <typename Kind>
struct CubicWeights {
  using acc = typename Kind::acc;
  using real = typename Kind::real;

  real before, next, last;

  // From the way from that pixel to the next, 0 to 1.
  static PYPOSE_OPS_HOST_DEVICE CubicWeights at(real t) {
    constexpr acc slope = acc(kCubicSlope);
    const real s = acc(1) - t;
    const real product = -slope * t * s;
    return {product * s, t * ((acc(3) - 2 * slope - (acc(2) - slope) * t) * t + slope), product * t};
  }
  PYPOSE_OPS_HOST_DEVICE real of(real p0, real p1, real p2, real p3) const {
    return p1 + (before * (p0 - p1) + next * (p2 - p1) + last * (p3 - p1));
  }
};

// The part of the way through its cell, whatever the rounding.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc part_of_cell(acc position, int cell) {
  const acc t = position - acc(cell);
  return t > acc(0) ? (t < acc(1) ? t : acc(1)) : acc(0);
}

// The control points that a pixel has in the four cells around it. Pixels are read by (dx, dy) from there.
template <typename acc>
struct Controls {
  acc pixel, x, y, xy;

  template <typename Read>
  static PYPOSE_OPS_HOST_DEVICE Controls of(const Read& read) {
    constexpr acc third = acc(kCubicSlope / 3);
    return {
        read(0, 0), third * (read(1, 0) - read(-1, 0)), third * (read(0, 1) - read(0, -1)),
        third * third * ((read(1, 1) - read(1, -1)) - (read(-1, 1) - read(-1, -1)))};
  }
  // The highest in the cell to the right (1) or left (-1) and below (1) or above (-1); NaN if one is.
  PYPOSE_OPS_HOST_DEVICE acc highest(int right, int down) const {
    const acc dx = acc(right) * x, dy = acc(down) * y;
    const acc sum = dx + dy + acc(right * down) * xy;
    acc top = dx > acc(0) ? dx : acc(0);
    top = dy > top ? dy : top;
    top = top > sum ? top : sum;
    return pixel + top;
  }
};

template <typename scalar>
struct RoiArguments {
  using acc = acc_t<scalar>;
  const scalar* maps;  // (B, K, H, W)
  const acc* boxes;    // (B, 4)
  acc* coords;         // (B, K, 2)
  acc* scores;         // (B, K)
  int64_t joints;
  int height, width;

  PYPOSE_OPS_HOST_DEVICE const scalar* map(int64_t number) const {
    return maps + number * height * width;
  }
  PYPOSE_OPS_HOST_DEVICE RoiAxis<acc> x(int64_t roi) const {
    return RoiAxis<acc>::of(boxes[4 * roi], boxes[4 * roi + 2], width);
  }
  PYPOSE_OPS_HOST_DEVICE RoiAxis<acc> y(int64_t roi) const {
    return RoiAxis<acc>::of(boxes[4 * roi + 1], boxes[4 * roi + 3], height);
  }
  PYPOSE_OPS_HOST_DEVICE
  void write(int64_t number, const RoiAxis<acc>& x, const RoiAxis<acc>& y, Indexed<acc> best) const {
    const acc nan = std::numeric_limits<acc>::quiet_NaN();
    coords[2 * number] = best.found() ? x.in_image(best.index % x.size) : nan;
    coords[2 * number + 1] = best.found() ? y.in_image(best.index / x.size) : nan;
    scores[number] = best.found() ? best.value : acc(0);
  }
};

template <typename acc>
PYPOSE_OPS_HOST_DEVICE Indexed<acc> nothing_found() {
  return {-std::numeric_limits<acc>::infinity(), kNowhere};
}

// The inputs as the kernels want them, and the outputs; they own what RoiArguments points to.
struct RoiTensors {
  Tensor heatmaps, boxes, coords, scores;

  RoiTensors(const Tensor& maps, const Tensor& rois)
      : heatmaps(as_contiguous(maps)), boxes(as_contiguous(rois, acc_scalar_type(maps.scalar_type()))),
        coords(empty_beside(maps, {maps.size(0), maps.size(1), 2}, boxes.scalar_type())),
        scores(empty_beside(maps, {maps.size(0), maps.size(1)}, boxes.scalar_type())) {}

  template <typename scalar>
  RoiArguments<scalar> arguments() {
    using acc = acc_t<scalar>;
    RoiArguments<scalar> args = {};
    args.maps = heatmaps.const_data_ptr<scalar>();
    args.boxes = boxes.const_data_ptr<acc>();
    args.coords = coords.mutable_data_ptr<acc>();
    args.scores = scores.mutable_data_ptr<acc>();
    args.joints = heatmaps.size(1);
    args.height = static_cast<int>(heatmaps.size(2));
    args.width = static_cast<int>(heatmaps.size(3));
    return args;
  }
};

inline void check_roi(const Tensor& heatmaps, const Tensor& boxes) {
  check_maps(kRoi, heatmaps);
  check_same_device(kRoi, "boxes", boxes, "heatmaps", heatmaps);
  check_coordinates(kRoi, "boxes", boxes);
  PYPOSE_OPS_CHECK(
      boxes.dim() == 2 && boxes.size(0) == heatmaps.size(0) && boxes.size(1) == 4, kRoi, ": boxes must be (",
      heatmaps.size(0), ", 4), got shape ", shape_of(boxes));
}

}  // namespace peaks
}  // namespace pypose_ops

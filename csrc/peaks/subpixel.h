// Steps from a peak to a place between the pixels: the formulas that the peak operators share.
#pragma once

#include <cmath>
#include <limits>

#include "common/math.h"

namespace pypose_ops {
namespace peaks {

// In the order of the names in pypose_ops/ops/decode_heatmaps.py.
enum class Refine : int { none, quarter, parabola, dark, dark_udp, centroid };
constexpr int kRefines = 6;
enum class Compat : int { none, hrnet, mmpose, mmpose0, hf };
constexpr int kCompats = 5;
// What lies outside of a map that is blurred: 0; dcb|abcd|cba; cba|abcd|dcb.
enum class Border : int { zeros, reflect101, reflect };

constexpr int kMaxKernelSize = 63;
constexpr int kReach = 2;  // DARK's differences look this far from the peak, in both axes
constexpr int kSpan = 2 * kReach + 1;

// The blur's weights between kSpan - 1 zeros, so that one pixel is weighted for kSpan neighbouring outputs at once,
// without asking which of them it belongs to.
template <typename acc>
struct Taps {
  int size;
  acc padded[kMaxKernelSize + 2 * (kSpan - 1)];

  PYPOSE_OPS_HOST_DEVICE acc operator[](int i) const {
    return padded[i + kSpan - 1];
  }
  // The same, and 0 further than `reach` from the middle.
  PYPOSE_OPS_HOST_DEVICE acc within(int i, int reach) const {
    const int distance = i - size / 2;
    return distance >= -reach && distance <= reach ? padded[i + kSpan - 1] : acc(0);
  }
};

// A search begins with the threshold as its value, at kNowhere: what takes the lead is above it.
template <typename acc>
using Peak = Indexed<acc>;

template <typename acc>
PYPOSE_OPS_HOST_DEVICE Peak<acc> no_peak(acc threshold) {
  return {threshold, kNowhere};
}

template <typename acc>
struct Step {
  acc x, y;
};

// A step and, where a Hessian H of the log of a Gaussian gave it, the Gaussian's covariance -H^-1; else NaN.
template <typename acc>
struct Refined {
  Step<acc> step;
  acc xx, xy, yy;
};

// How to refine, as the kernels take it.
template <typename acc>
struct Refinement {
  Refine refine;
  Border border;
  bool joint_border;  // quarter: HRNet's border rule
  bool definite;      // dark, dark_udp: steps only where H is negative definite
  bool rescale;       // dark_udp: the blurred map gets the height of the map back
  bool edges;         // dark_udp: at the border the border's pixels are repeated
  bool inward;        // dark, dark_udp: at the border differences and blur keep to the map
  acc low, high;      // the blurred map is clamped to these before the logarithm
  acc ridge;          // added to the diagonal of H
  acc max_offset;
  int window;         // centroid: its side
  Taps<acc> taps;
};

// The column of the flipped twin that lands on column x. With the shift the mirrored map moves right by one pixel (the
// half-pixel error of MSRA's convention, twice) and its column 0 stays.
PYPOSE_OPS_HOST_DEVICE int mirrored_column(int x, int width, bool shift) {
  return width - 1 - x + (shift && x > 0 ? 1 : 0);
}

template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc merged(acc value, acc mirrored) {
  return acc(0.5) * value + acc(0.5) * mirrored;  // the sum of two large ones would overflow
}

// One map of a call. A pixel is the merged one: where a flipped twin is given, the mean of the map and the mirrored twin.
template <typename scalar>
struct MapView {
  using acc = acc_t<scalar>;
  const scalar* map;
  const scalar* twin;  // the flipped map of the mirrored joint, or null
  int height, width;
  bool shift;

  PYPOSE_OPS_HOST_DEVICE bool contains(int x, int y) const {
    return x >= 0 && x < width && y >= 0 && y < height;
  }

  PYPOSE_OPS_HOST_DEVICE acc operator()(int x, int y) const {
    const int row = y * width;
    const acc value = static_cast<acc>(map[row + x]);
    return twin == nullptr ? value
                           : merged(value, static_cast<acc>(twin[row + mirrored_column(x, width, shift)]));
  }
};

// Whether a pixel takes the lead from the peak so far: never one that is not finite, and of equals the first.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE bool leads(acc value, acc best) {
  return value > best && value < std::numeric_limits<acc>::infinity();
}

// A quarter pixel towards the higher neighbour (Newell et al., ECCV 2016). MMPose 1.x: each axis skips its own first two
// and last pixels and the first row (column) of the other. HRNet: both skip the first two and last ones of both.
template <typename scalar, typename acc = acc_t<scalar>>
PYPOSE_OPS_HOST_DEVICE Step<acc> quarter_step(const MapView<scalar>& map, int x, int y, bool joint_border) {
  const auto towards = [](acc low, acc high) { return acc(0.25) * (acc(high > low) - acc(high < low)); };
  const bool inside_x = x > 1 && x < map.width - 1;
  const bool inside_y = y > 1 && y < map.height - 1;
  Step<acc> step = {0, 0};
  if (inside_x && (joint_border ? inside_y : y > 0)) {
    step.x = towards(map(x - 1, y), map(x + 1, y));
  }
  if (inside_y && (joint_border ? inside_x : x > 0)) {
    step.y = towards(map(x, y - 1), map(x, y + 1));
  }
  return step;
}

// To the top of the parabola through three pixels; none where they do not curve down.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc parabola_top(acc before, acc peak, acc after) {
  const acc curvature = before - 2 * peak + after;
  return curvature < 0 ? acc(0.5) * (before - after) / curvature : acc(0);
}

template <typename scalar, typename acc = acc_t<scalar>>
PYPOSE_OPS_HOST_DEVICE Step<acc> parabola_step(const MapView<scalar>& map, int x, int y) {
  const acc peak = map(x, y);
  Step<acc> step = {0, 0};
  if (x > 0 && x < map.width - 1) {
    step.x = parabola_top(map(x - 1, y), peak, map(x + 1, y));
  }
  if (y > 0 && y < map.height - 1) {
    step.y = parabola_top(map(x, y - 1), peak, map(x, y + 1));
  }
  return step;
}

// A pixel's distance from the middle of a centroid's window along one axis, and its weight. An even window of n is one of
// n x n points between the pixels, read bilinearly: the two outermost pixels belong to one such point each, the others to
// two.
template <typename acc>
struct WindowPixel {
  acc distance, weight;

  PYPOSE_OPS_HOST_DEVICE WindowPixel(int away, int window) : distance(acc(away)), weight(1) {
    if (window % 2 == 0 && (away == window / 2 || away == -window / 2)) {
      distance += away > 0 ? acc(-0.5) : acc(0.5);
      weight = acc(0.5);
    }
  }
};

// To the centroid of a window, clipped to the map; the weights are its positive finite pixels.
template <typename scalar, typename acc = acc_t<scalar>>
PYPOSE_OPS_HOST_DEVICE Step<acc> centroid_step(const MapView<scalar>& map, int x, int y, int window) {
  const int radius = window / 2;
  acc sum = 0;
  acc sum_x = 0;
  acc sum_y = 0;
  for (int dy = y < radius ? -y : -radius; dy <= radius && y + dy < map.height; ++dy) {
    for (int dx = x < radius ? -x : -radius; dx <= radius && x + dx < map.width; ++dx) {
      const acc value = map(x + dx, y + dy);
      const WindowPixel<acc> across(dx, window);
      const WindowPixel<acc> down(dy, window);
      const acc weight =
          value > 0 && value < std::numeric_limits<acc>::infinity() ? value * (across.weight * down.weight) : acc(0);
      sum += weight;
      sum_x += weight * across.distance;
      sum_y += weight * down.distance;
    }
  }
  return {sum_x / sum, sum_y / sum};
}

// The refinements that look at the map as it is.
template <typename scalar, typename acc>
PYPOSE_OPS_HOST_DEVICE
Step<acc> plain_step(const MapView<scalar>& map, const Refinement<acc>& refinement, int x, int y) {
  switch (refinement.refine) {
    case Refine::quarter:
      return quarter_step(map, x, y, refinement.joint_border);
    case Refine::parabola:
      return parabola_step(map, x, y);
    case Refine::centroid:
      return centroid_step(map, x, y, refinement.window);
    default:
      return {0, 0};
  }
}

// Where DARK's differences are taken, and how far their blur reaches along each axis.
struct Stencil {
  int x, y;
  int reach_x, reach_y;
};

// How far the differences reach.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE int dark_reach(const Refinement<acc>& refinement) {
  return refinement.refine == Refine::dark ? kReach : refinement.edges ? 0 : 1;
}

// DARK steps only where all of its differences stay inside the map, or can be moved there.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE bool dark_applies(const Refinement<acc>& refinement, int x, int y, int width, int height) {
  const int reach = dark_reach(refinement);
  if (refinement.inward) {
    return width > 2 * reach && height > 2 * reach;
  }
  return x >= reach && x < width - reach && y >= reach && y < height - reach;
}

// As near to `peak` as differences that reach `reach` stay inside a line of n.
PYPOSE_OPS_HOST_DEVICE int moved_inward(int peak, int reach, int n) {
  return peak < reach ? reach : peak > n - 1 - reach ? n - 1 - reach : peak;
}

// How far a blur round `center` can reach, `most` at best, without leaving the line.
PYPOSE_OPS_HOST_DEVICE int room(int center, int reach, int n, int most) {
  const int left = center - reach;
  const int right = n - 1 - reach - center;
  const int least = left < right ? left : right;
  return least < most ? least : most;
}

// The logarithm of a Gaussian has the same parabola everywhere: near a border it is read further inside. Blurring
// zeros from outside the map would distort it, so the blur is truncated at the border, down to no blur at all.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE Stencil stencil_at(const Refinement<acc>& refinement, int x, int y, int width, int height) {
  const int most = refinement.taps.size / 2;
  if (!refinement.inward) {
    return {x, y, most, most};
  }
  const int reach = dark_reach(refinement);
  const int center_x = moved_inward(x, reach, width);
  const int center_y = moved_inward(y, reach, height);
  return {center_x, center_y, room(center_x, reach, width, most), room(center_y, reach, height, most)};
}

// Which pixel of a line of n stands outside of it; -1: none, a zero.
PYPOSE_OPS_HOST_DEVICE int outside(int i, int n, Border border) {
  if (border == Border::zeros) {
    return i < 0 || i >= n ? -1 : i;
  }
  const int repeat = border == Border::reflect ? 1 : 0;
  while (i < 0 || i >= n) {
    if (n == 1) {
      return 0;
    }
    i = i < 0 ? -i - repeat : 2 * n - 2 - i + repeat;
  }
  return i;
}

// log of a blurred pixel; NaN where it is not finite. One such pixel in the patch that DARK reads, kernel size + 4 wide and
// high, also where its tap is 0, makes a log NaN and so the step: there is none then.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc log_blurred(acc blurred, acc low, acc high) {
  const acc clamped = blurred < low ? low : blurred > high ? high : blurred;
  return logarithm(clamped) + (blurred - blurred);
}

// The smallest significant curvature: logs, and differences of several of them, are accurate to some units in
// the last place of 1 and of themselves.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc least_curvature(acc log) {
  return 64 * std::numeric_limits<acc>::epsilon() * (1 + std::abs(log));
}

// The slope and the curvature of the logs around a peak.
template <typename acc>
struct Derivatives {
  acc dx, dy, dxx, dyy, dxy;
};

// h[y][x] around the peak; only |x| + |y| <= kReach is read, 13 of the 25.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE Derivatives<acc> dark_derivatives(const acc (&h)[kSpan][kSpan]) {
  return {
      acc(0.5) * (h[2][3] - h[2][1]), acc(0.5) * (h[3][2] - h[1][2]),
      acc(0.25) * (h[2][4] - 2 * h[2][2] + h[2][0]), acc(0.25) * (h[4][2] - 2 * h[2][2] + h[0][2]),
      acc(0.25) * (h[3][3] - h[1][3] - h[3][1] + h[1][1])};
}

// UDP's narrower differences, of seven pixels; those outside of the map are its border's.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE
Derivatives<acc> udp_derivatives(const acc (&h)[kSpan][kSpan], int x, int y, int width, int height) {
  const int l = x > 0 ? 1 : 2;
  const int r = x < width - 1 ? 3 : 2;
  const int t = y > 0 ? 1 : 2;
  const int b = y < height - 1 ? 3 : 2;
  const acc twice = 2 * h[2][2];
  // Not needed, but the patch's outer columns are in these alone: NaN in them means no top, as for DARK.
  const acc spoilt = (h[2][0] - h[2][0]) + (h[2][4] - h[2][4]);
  return {
      acc(0.5) * (h[2][r] - h[2][l]), acc(0.5) * (h[b][2] - h[t][2]), h[2][r] - twice + h[2][l] + spoilt,
      h[b][2] - twice + h[t][2],
      acc(0.5) * (h[b][r] - h[2][r] - h[b][2] + twice - h[2][l] - h[t][2] + h[t][l])};
}

template <typename acc>
PYPOSE_OPS_HOST_DEVICE Refined<acc> no_covariance(Step<acc> step) {
  constexpr acc nan = std::numeric_limits<acc>::quiet_NaN();
  return {step, nan, nan, nan};
}

// The Newton step -H^-1 g to the top of the Gaussian whose logs are h (Zhang et al., "Distribution-Aware Coordinate
// Representation", CVPR 2020, eq. 4-8; Huang et al., "The Devil is in the Details", CVPR 2020).
// Beyond the papers: no step where H is not negative definite, the peak then being no maximum of a Gaussian, nor where it is
// so by rounding alone: determinant / trace lies between half of the lesser curvature and the whole. The step is that from
// the peak (x, y), wherever the stencil is.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE Refined<acc> newton_step(
    const Refinement<acc>& refinement, const acc (&h)[kSpan][kSpan], const Stencil& stencil, int x, int y, int width,
    int height) {
  Derivatives<acc> d = refinement.refine == Refine::dark
      ? dark_derivatives(h)
      : udp_derivatives(h, stencil.x, stencil.y, width, height);
  d.dxx += refinement.ridge;
  d.dyy += refinement.ridge;
  const acc determinant = d.dxx * d.dyy - d.dxy * d.dxy;
  const acc least = -(d.dxx + d.dyy) * least_curvature(h[kReach][kReach]);
  const bool maximum = d.dxx < 0 && d.dyy < 0 && least < determinant;
  if (refinement.definite && !maximum) {
    return no_covariance(Step<acc>{0, 0});
  }
  const Step<acc> step = {
      acc(stencil.x - x) + (d.dxy * d.dy - d.dyy * d.dx) / determinant,
      acc(stencil.y - y) + (d.dxy * d.dx - d.dxx * d.dy) / determinant};
  if (!maximum) {
    return no_covariance(step);
  }
  return {step, -d.dyy / determinant, d.dxy / determinant, -d.dxx / determinant};
}

// Never longer than max_offset, and none at all where it is not finite.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE Step<acc> limited(Step<acc> step, acc max_offset) {
  constexpr acc endless = std::numeric_limits<acc>::infinity();
  if (!(std::abs(step.x) < endless && std::abs(step.y) < endless)) {
    return {0, 0};
  }
  const acc length = std::sqrt(step.x * step.x + step.y * step.y);
  const acc scale = length > max_offset ? max_offset / length : acc(1);
  return {step.x * scale, step.y * scale};
}

template <typename acc>
PYPOSE_OPS_HOST_DEVICE Step<acc> transformed(acc x, acc y, const acc* m) {
  return {m[0] * x + m[1] * y + m[2], m[3] * x + m[4] * y + m[5]};
}

// The peak at pixel `index` after its step, through the map's affine where there is one.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE Step<acc> placed(int index, int width, Step<acc> step, const acc* transform) {
  const acc x = acc(index % width) + step.x;
  const acc y = acc(index / width) + step.y;
  return transform == nullptr ? Step<acc>{x, y} : transformed(x, y, transform);
}

}  // namespace peaks
}  // namespace pypose_ops

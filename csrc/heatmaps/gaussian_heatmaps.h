// gaussian_heatmaps: checks, options and the formulas of one keypoint's blob, shared by the CPU and CUDA kernels.
//
// A blob is separable: value(x, y) = axis_x(x) * axis_y(y). Both devices tabulate the two axes (H + W exponentials
// instead of H * W) and form the product per pixel.
#pragma once

#include <cmath>
#include <limits>
#include <optional>

#include "common/check.h"
#include "common/dispatch.h"
#include "common/math.h"
#include "common/tensors.h"

namespace pypose_ops {
namespace heatmaps {

enum class Profile : int { gaussian, disc };
enum class Center : int { exact, rounded };
enum class Combine : int { max, sum, sum_clip };
enum class Normalization : int { peak, sum };

struct Options {
  Profile profile;
  Center center;
  Combine combine;
  Normalization normalize;
  double truncate;  // in sigmas, infinity for none
  double sigma;     // used where no sigma tensor was given
  double scale = 1; // what the maps are multiplied by, after the sum is clipped
};

struct Shape {
  int64_t batch, people, joints, height, width;

  PYPOSE_OPS_HOST_DEVICE int64_t maps() const {
    return batch * joints;
  }
  PYPOSE_OPS_HOST_DEVICE int64_t pixels() const {
    return height * width;
  }
};

// Keypoints, sigmas and visibility as strided views, so that expanded tensors are never copied.
template <typename acc>
struct People {
  const acc* keypoints;
  const acc* sigma;     // null: Options::sigma
  const bool* visible;  // null: all
  int64_t keypoint_stride[4];
  int64_t sigma_stride[4];
  int64_t visible_stride[3];
};

// One axis of one blob.
template <typename acc>
struct Axis {
  acc center, sigma, reach;  // reach: half width of the window, infinity for none

  // (i - center) / sigma. A division: the inverse of a subnormal sigma overflows.
  template <typename Index>
  PYPOSE_OPS_HOST_DEVICE acc offset(Index i) const {
    return (static_cast<acc>(i) - center) / sigma;
  }
  template <typename Index>
  PYPOSE_OPS_HOST_DEVICE bool inside(Index i) const {
    const acc distance = static_cast<acc>(i) - center;
    return distance <= reach && distance >= -reach;
  }
  template <typename Index>
  PYPOSE_OPS_HOST_DEVICE acc gaussian(Index i) const {
    const acc u = offset(i);
    const acc exponent = acc(-0.5) * u * u;
    const acc value = exponential(exponent);
    return inside(i) ? value : acc(0);
  }
  // Squared distance in units of the radius; the disc is where the two axes add up to at most 1.
  template <typename Index>
  PYPOSE_OPS_HOST_DEVICE acc disc(Index i) const {
    const acc u = offset(i);
    return inside(i) ? u * u : std::numeric_limits<acc>::infinity();
  }
  template <typename Index>
  PYPOSE_OPS_HOST_DEVICE acc value(Profile profile, Index i) const {
    return profile == Profile::gaussian ? gaussian(i) : disc(i);
  }
};

template <typename acc>
struct Blob {
  Axis<acc> x, y;
  bool drawn;
};

// A keypoint that is invisible, not finite, or whose sigma is not a positive finite number draws nothing.
// The comparisons are written so that NaN takes the safe branch.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE
Blob<acc> blob_of(const People<acc>& people, const Options& options, int64_t b, int64_t p, int64_t k) {
  const acc huge = std::numeric_limits<acc>::max();
  const int64_t* ks = people.keypoint_stride;
  const acc* keypoint = people.keypoints + b * ks[0] + p * ks[1] + k * ks[2];
  const acc x = keypoint[0];
  const acc y = keypoint[ks[3]];
  acc sigma_x = static_cast<acc>(options.sigma);
  acc sigma_y = sigma_x;
  if (people.sigma) {
    const int64_t* ss = people.sigma_stride;
    const acc* sigma = people.sigma + b * ss[0] + p * ss[1] + k * ss[2];
    sigma_x = sigma[0];
    sigma_y = sigma[ss[3]];
  }
  bool drawn = x >= -huge && x <= huge && y >= -huge && y <= huge;
  drawn = drawn && sigma_x > 0 && sigma_x <= huge && sigma_y > 0 && sigma_y <= huge;
  if (people.visible) {
    const int64_t* vs = people.visible_stride;
    drawn = drawn && people.visible[b * vs[0] + p * vs[1] + k * vs[2]];
  }
  const bool rounded = options.center == Center::rounded;
  const acc truncate = static_cast<acc>(options.truncate);
  return {
      {rounded ? round_half_up(x) : x, sigma_x, truncate * sigma_x},
      {rounded ? round_half_up(y) : y, sigma_y, truncate * sigma_y},
      drawn};
}

// Added to each axis' sum before dividing by it, so that a blob far outside the map fades instead of piling up at the
// border (kornia's render_gaussian2d has the same constant).
constexpr double kSumEpsilon = 1e-8;

// What sum normalisation does to one axis: the factor it is scaled by, and the relative derivatives of (its sum +
// epsilon) to centre and sigma. The defaults are peak normalisation.
//
// With u = (x - cx) / sx and v the drawn value:
//   d v / d cx = v (u / sx - center),  d v / d sx = v (u^2 / sx - sigma)
template <typename acc>
struct AxisSum {
  acc factor = 1, center = 0, sigma = 0;

  // From the sums of g, g u and g u^2 over the axis.
  static PYPOSE_OPS_HOST_DEVICE AxisSum of(const Axis<acc>& axis, acc sum, acc first, acc second) {
    const acc factor = acc(1) / (sum + static_cast<acc>(kSumEpsilon));
    return {factor, first * factor / axis.sigma, second * factor / axis.sigma};
  }
};

// Sums of G v {1, ux, ux^2, uy, uy^2} over the pixels a blob owns, G the incoming gradient -> gradients {x, y}.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE void blob_gradients(
    const Blob<acc>& blob, const acc (&moments)[5], const AxisSum<acc>& sum_x, const AxisSum<acc>& sum_y, Center center,
    acc* grad_keypoint, acc* grad_sigma) {
  const bool exact = center == Center::exact;
  grad_keypoint[0] = exact ? moments[1] / blob.x.sigma - moments[0] * sum_x.center : acc(0);
  grad_keypoint[1] = exact ? moments[3] / blob.y.sigma - moments[0] * sum_y.center : acc(0);
  grad_sigma[0] = moments[2] / blob.x.sigma - moments[0] * sum_x.sigma;
  grad_sigma[1] = moments[4] / blob.y.sigma - moments[0] * sum_y.sigma;
}

// How many pixels of row y the disc covers: the widest interval around the centre whose ends still satisfy the very
// predicate that draws them. The search starts outside of it: four roundings, each of half an epsilon of a sum of 1 and of
// the coordinates, move the edge no further.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE int64_t disc_row_count(const Blob<acc>& blob, int64_t y, int64_t width) {
  const acc row = blob.y.disc(y);
  if (!(row <= acc(1))) {
    return 0;
  }
  constexpr acc rounding = 4 * std::numeric_limits<acc>::epsilon();
  const acc half = blob.x.sigma * ::sqrt(acc(1) - row + rounding);
  const acc slack = acc(1) + rounding * (::fabs(blob.x.center) + half);
  const acc last = static_cast<acc>(width - 1);
  const acc low = ::ceil(blob.x.center - half) - slack;
  const acc high = ::floor(blob.x.center + half) + slack;
  int64_t first = low > 0 ? (low < last ? static_cast<int64_t>(low) : width - 1) : 0;
  int64_t end = high < last ? (high > 0 ? static_cast<int64_t>(high) : 0) : width - 1;
  while (first <= end && !(blob.x.disc(first) + row <= acc(1))) {
    ++first;
  }
  while (end >= first && !(blob.x.disc(end) + row <= acc(1))) {
    --end;
  }
  return end - first + 1;
}

// The integers from `low` to `high`, cut to [0, size): first and one past the last.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE void pixel_range(acc low, acc high, int64_t size, int32_t& first, int32_t& end) {
  const acc last = static_cast<acc>(size - 1);
  first = low > 0 ? (low < last ? static_cast<int32_t>(::ceil(low)) : static_cast<int32_t>(size - 1)) : 0;
  end = high < last ? (high >= 0 ? static_cast<int32_t>(::floor(high)) + 1 : 0) : static_cast<int32_t>(size);
  end = low > last || end < first ? first : end;
}

// Choices cross the operator boundary as the enumerators' numbers: strings would double the cost of a small call.
inline Options check_options(
    const char* op, int64_t profile, int64_t center, std::optional<double> truncate, int64_t combine,
    int64_t normalize, double sigma, bool has_sigma_tensor) {
  PYPOSE_OPS_CHECK(
      has_sigma_tensor || (sigma > 0 && std::isfinite(sigma)), op, ": sigma must be positive and finite, got ", sigma);
  PYPOSE_OPS_CHECK(!truncate || *truncate > 0, op, ": truncate must be positive, got ", *truncate);
  Options options;
  options.profile = check_choice<Profile>(op, "profile", profile, 2);
  options.center = check_choice<Center>(op, "center", center, 2);
  options.combine = check_choice<Combine>(op, "combine", combine, 3);
  options.normalize = check_choice<Normalization>(op, "normalize", normalize, 2);
  options.truncate = truncate.value_or(std::numeric_limits<double>::infinity());
  options.sigma = sigma;
  return options;
}

inline double check_scale(const char* op, double scale) {
  PYPOSE_OPS_CHECK(scale > 0 && std::isfinite(scale), op, ": scale must be positive and finite, got ", scale);
  return scale;
}

// Positions within a map's row or column are 32-bit on both devices; the maps as a whole are not limited.
constexpr int64_t kMaxSide = int64_t(1) << 30;

inline void check_map_type(const char* op, ScalarType dtype) {
  PYPOSE_OPS_CHECK(
      is_floating(dtype), op, ": dtype must be float16, bfloat16, float32 or float64, got ",
      torch::headeronly::toString(dtype));
}

// keypoints (B, K, 2) or (B, P, K, 2); sigma, when given, of the same shape; visible of that shape without the last axis.
inline Shape check_people(
    const char* op, const Tensor& keypoints, const std::optional<Tensor>& sigma, const std::optional<Tensor>& visible,
    int64_t height, int64_t width) {
  PYPOSE_OPS_CHECK(
      (keypoints.dim() == 3 || keypoints.dim() == 4) && keypoints.size(keypoints.dim() - 1) == 2, op,
      ": keypoints must be (B, K, 2) or (B, P, K, 2), got shape ", shape_of(keypoints));
  check_coordinates(op, "keypoints", keypoints);
  const int64_t dims = keypoints.dim();
  if (sigma) {
    check_dim(op, "sigma", *sigma, dims, "expanded to the shape of keypoints");
    check_coordinates(op, "sigma", *sigma);
    check_same_device(op, "sigma", *sigma, "keypoints", keypoints);
    for (int64_t d = 0; d < dims; ++d) {
      check_size(op, "sigma", *sigma, d, keypoints.size(d));
    }
  }
  if (visible) {
    check_dim(op, "visible", *visible, dims - 1, "expanded to the shape of keypoints without its last axis");
    PYPOSE_OPS_CHECK(
        visible->scalar_type() == ScalarType::Bool, op, ": visible must be bool, got ",
        torch::headeronly::toString(visible->scalar_type()));
    check_same_device(op, "visible", *visible, "keypoints", keypoints);
    for (int64_t d = 0; d < dims - 1; ++d) {
      check_size(op, "visible", *visible, d, keypoints.size(d));
    }
  }
  PYPOSE_OPS_CHECK(
      height > 0 && width > 0, op, ": size must be positive (height, width), got (", height, ", ", width, ")");
  PYPOSE_OPS_CHECK(
      height <= kMaxSide && width <= kMaxSide, op, ": size must be at most ", kMaxSide, " a side, got (", height, ", ",
      width, ")");
  const bool has_people = dims == 4;
  return {keypoints.size(0), has_people ? keypoints.size(1) : 1, keypoints.size(dims - 2), height, width};
}

inline Shape check_backward(
    const char* op, const Tensor& grad, const Tensor& keypoints, const std::optional<Tensor>& sigma,
    const std::optional<Tensor>& visible) {
  check_dim(op, "grad", grad, 4, "(B, K, H, W)");
  check_floating(op, "grad", grad);
  check_same_device(op, "grad", grad, "keypoints", keypoints);
  const Shape shape = check_people(op, keypoints, sigma, visible, grad.size(2), grad.size(3));
  check_size(op, "grad", grad, 0, shape.batch);
  check_size(op, "grad", grad, 1, shape.joints);
  return shape;
}

// gaussian_heatmaps on the CPU, of every joint that is finite.
Tensor draw_gaussians(
    const Tensor& keypoints, double sigma, int64_t height, int64_t width, int64_t center,
    std::optional<double> truncate, double scale, ScalarType dtype);

// keypoints and sigma in the arithmetic's dtype; views of the input whenever they have it already.
struct PeopleTensors {
  Tensor keypoints;
  std::optional<Tensor> sigma;
  std::optional<Tensor> visible;

  PeopleTensors(
      const Tensor& keypoints, const std::optional<Tensor>& sigma, const std::optional<Tensor>& visible,
      ScalarType acc_type)
      : keypoints(as_type(keypoints, acc_type)),
        sigma(sigma ? std::optional(as_type(*sigma, acc_type)) : std::nullopt),
        visible(visible) {}

  template <typename acc>
  People<acc> view() const {
    People<acc> people{};
    people.keypoints = keypoints.const_data_ptr<acc>();
    strides_of(keypoints, 4, people.keypoint_stride);
    if (sigma) {
      people.sigma = sigma->const_data_ptr<acc>();
      strides_of(*sigma, 4, people.sigma_stride);
    }
    if (visible) {
      people.visible = visible->const_data_ptr<bool>();
      strides_of(*visible, 3, people.visible_stride);
    }
    return people;
  }

 private:
  // Strides with the people axis always at position 1; a tensor without one has a single person.
  static void strides_of(const Tensor& tensor, int64_t dims, int64_t* strides) {
    const bool has_people = tensor.dim() == dims;
    for (int64_t d = 0; d < dims; ++d) {
      strides[d] = has_people ? tensor.stride(d) : (d == 1 ? 0 : tensor.stride(d > 1 ? d - 1 : d));
    }
  }
};

}  // namespace heatmaps
}  // namespace pypose_ops

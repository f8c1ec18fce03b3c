// soft_argmax and its backward: checks and formulas, shared by the CPU and CUDA kernels.
//
// With z the map, b the temperature and p = softmax(b z) over the region, the whole map or a window round its peak:
//   mean = sum p x,  variance = sum p (x - mean)^2,  and the same for y,
//   d mean / d z_i = b p_i (x_i - mean),  d variance / d z_i = b p_i ((x_i - mean)^2 - variance).
// Pixels that are not finite have p = 0.
#pragma once

#include "peaks/refine.h"

namespace pypose_ops {
namespace peaks {

// What larger temperatures count as: their products with log2 e would overflow, and infinity times 0 is NaN.
template <typename acc>
acc limited_temperature(double temperature) {
  const double most = std::ldexp(1.0, std::numeric_limits<acc>::max_exponent - 1);
  return static_cast<acc>(temperature < most ? temperature : most);
}

// The pixels that are summed over.
struct Region {
  int left, top, width, height;

  // A window of 0: the whole map; else odd, round pixel (x, y), clipped to the map.
  PYPOSE_OPS_HOST_DEVICE Region(int window, int x, int y, int map_width, int map_height)
      : left(0), top(0), width(map_width), height(map_height) {
    if (window > 0) {
      const int reach = window / 2;
      left = x < reach ? 0 : x - reach;
      top = y < reach ? 0 : y - reach;
      width = (map_width - 1 - x < reach ? map_width : x + reach + 1) - left;
      height = (map_height - 1 - y < reach ? map_height : y + reach + 1) - top;
    }
  }

  PYPOSE_OPS_HOST_DEVICE bool has(int x, int y) const {
    return x >= left && x < left + width && y >= top && y < top + height;
  }
  // Whether it has one of `count` pixels from (x, y) on.
  PYPOSE_OPS_HOST_DEVICE bool meets(int x, int count, int y) const {
    return x + count > left && x < left + width && y >= top && y < top + height;
  }
};

template <typename scalar>
struct SoftArguments {
  using acc = acc_t<scalar>;
  const scalar* maps;  // (B, K, H, W)
  acc* coords;         // (B, K, 2)
  acc* variance;       // (B, K, 2)
  acc* stats;          // (B, K, 2): the highest pixel, and the sum of exp(b (z - highest)); 0 where no pixel is finite
  int64_t* index;      // (B, K): of the highest pixel
  int height, width, window;
  acc temperature, missing;
};

template <typename scalar>
struct SoftBackwardArguments {
  using acc = acc_t<scalar>;
  const scalar* maps;
  const acc *coords, *variance, *stats, *grad_coords, *grad_variance;
  const int64_t* index;
  scalar* grad;  // (B, K, H, W)
  int height, width, window;
  acc temperature;
};

// The logarithm of a pixel's weight.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc log_weight(acc value, acc highest, acc temperature) {
  return is_finite(value) ? temperature * (value - highest) : -std::numeric_limits<acc>::infinity();
}

// Sums of weights, and of weights times powers of the distance to the highest pixel.
template <typename acc>
struct Moments {
  acc sum, x, y, xx, yy;
};

template <typename scalar, typename acc>
PYPOSE_OPS_HOST_DEVICE void write_soft(
    const SoftArguments<scalar>& args, int64_t number, Peak<acc> peak, const Moments<acc>& moments) {
  const bool valid = moments.sum > 0;
  const acc x = valid ? moments.x / moments.sum : acc(0);
  const acc y = valid ? moments.y / moments.sum : acc(0);
  const acc xx = valid ? moments.xx / moments.sum - x * x : acc(0);
  const acc yy = valid ? moments.yy / moments.sum - y * y : acc(0);
  args.coords[2 * number] = valid ? acc(peak.index % args.width) + x : args.missing;
  args.coords[2 * number + 1] = valid ? acc(peak.index / args.width) + y : args.missing;
  args.variance[2 * number] = xx > 0 ? xx : acc(0);
  args.variance[2 * number + 1] = yy > 0 ? yy : acc(0);
  args.stats[2 * number] = valid ? peak.value : acc(0);
  args.stats[2 * number + 1] = valid ? moments.sum : acc(0);
  args.index[number] = peak.index;
}

// One axis of the derivative: what the pixel at a distance from the mean adds.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc axis_slope(acc distance, acc variance, acc grad_mean, acc grad_variance) {
  return grad_mean * distance + grad_variance * (distance * distance - variance);
}

constexpr const char* kSoft = "soft_argmax";

inline void check_soft(const Tensor& heatmaps, double temperature, int64_t window) {
  check_maps(kSoft, heatmaps);
  PYPOSE_OPS_CHECK(
      temperature > 0 && temperature < std::numeric_limits<double>::infinity(), kSoft,
      ": temperature must be positive and finite, got ", temperature);
  PYPOSE_OPS_CHECK(
      window == 0 || (window > 0 && window % 2 == 1 && window < int64_t{1} << 30), kSoft,
      ": window must be None or odd and positive, got ", window);
}

// What the forward hands to the backward.
struct SoftTensors {
  Tensor heatmaps, coords, variance, stats, index;

  explicit SoftTensors(const Tensor& heatmaps) : heatmaps(heatmaps) {
    const int64_t batch = heatmaps.size(0);
    const int64_t joints = heatmaps.size(1);
    const ScalarType acc = acc_scalar_type(heatmaps.scalar_type());
    coords = empty_beside(heatmaps, {batch, joints, 2}, acc);
    variance = empty_beside(heatmaps, {batch, joints, 2}, acc);
    stats = empty_beside(heatmaps, {batch, joints, 2}, acc);
    index = empty_beside(heatmaps, {batch, joints}, ScalarType::Long);
  }

  template <typename scalar>
  SoftArguments<scalar> arguments(double temperature, int64_t window, double missing) {
    using acc = acc_t<scalar>;
    heatmaps = as_contiguous(heatmaps);
    return {
        heatmaps.template const_data_ptr<scalar>(), coords.template mutable_data_ptr<acc>(),
        variance.template mutable_data_ptr<acc>(), stats.template mutable_data_ptr<acc>(),
        index.template mutable_data_ptr<int64_t>(), static_cast<int>(heatmaps.size(2)),
        static_cast<int>(heatmaps.size(3)), static_cast<int>(window), limited_temperature<acc>(temperature),
        static_cast<acc>(missing)};
  }
};

struct SoftBackwardTensors {
  Tensor grad_coords, grad_variance, heatmaps, coords, variance, stats, index, grad;

  void check() const {
    const ScalarType acc = acc_scalar_type(heatmaps.scalar_type());
    for (const Tensor* tensor : {&grad_coords, &grad_variance, &coords, &variance, &stats}) {
      check_same_device(kSoft, "grad", *tensor, "heatmaps", heatmaps);
      check_dim(kSoft, "grad", *tensor, 3, "(B, K, 2)");
      check_size(kSoft, "grad", *tensor, 0, heatmaps.size(0));
      check_size(kSoft, "grad", *tensor, 1, heatmaps.size(1));
      check_size(kSoft, "grad", *tensor, 2, 2);
      PYPOSE_OPS_CHECK(
          tensor->scalar_type() == acc, kSoft, ": grad must have the dtype of the coordinates, got ",
          torch::headeronly::toString(tensor->scalar_type()));
    }
    check_same_device(kSoft, "index", index, "heatmaps", heatmaps);
    check_dim(kSoft, "index", index, 2, "(B, K)");
    check_size(kSoft, "index", index, 0, heatmaps.size(0));
    check_size(kSoft, "index", index, 1, heatmaps.size(1));
    PYPOSE_OPS_CHECK(index.scalar_type() == ScalarType::Long, kSoft, ": index must be int64");
  }

  void allocate() {
    grad = empty_beside(
        heatmaps, {heatmaps.size(0), heatmaps.size(1), heatmaps.size(2), heatmaps.size(3)}, heatmaps.scalar_type());
  }

  template <typename scalar>
  SoftBackwardArguments<scalar> arguments(double temperature, int64_t window) {
    using acc = acc_t<scalar>;
    for (Tensor* tensor : {&grad_coords, &grad_variance, &heatmaps, &coords, &variance, &stats, &index}) {
      *tensor = as_contiguous(*tensor);
    }
    SoftBackwardArguments<scalar> args = {};
    args.maps = heatmaps.template const_data_ptr<scalar>();
    args.coords = coords.template const_data_ptr<acc>();
    args.variance = variance.template const_data_ptr<acc>();
    args.stats = stats.template const_data_ptr<acc>();
    args.grad_coords = grad_coords.template const_data_ptr<acc>();
    args.grad_variance = grad_variance.template const_data_ptr<acc>();
    args.index = index.template const_data_ptr<int64_t>();
    args.grad = grad.template mutable_data_ptr<scalar>();
    args.height = static_cast<int>(heatmaps.size(2));
    args.width = static_cast<int>(heatmaps.size(3));
    args.window = static_cast<int>(window);
    args.temperature = limited_temperature<acc>(temperature);
    return args;
  }
};

}  // namespace peaks
}  // namespace pypose_ops

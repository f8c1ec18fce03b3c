#include <algorithm>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/library.h>

#include "heatmaps/gaussian_heatmaps.h"
#include "heatmaps/gaussian_tables.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

// See blob_gradients.
template <typename acc>
struct Moments {
  acc sums[5] = {};
};

template <typename acc>
AxisSum<acc> axis_sum(const Axis<acc>& axis, int64_t n) {
  acc sum = 0, first = 0, second = 0;
  for (int64_t i = 0; i < n; ++i) {
    const acc value = axis.gaussian(i);
    if (value > 0) {  // u may overflow where the value is 0
      const acc u = axis.offset(i);
      sum += value;
      first += value * u;
      second += value * u * u;
    }
  }
  return AxisSum<acc>::of(axis, sum, first, second);
}

// Which blob each pixel of the row belongs to: the first maximum, or -1 where a clipped sum has no slope.
template <typename acc>
void row_owners(Tables<acc>& tables, const Options& options, int64_t y, acc* row, int32_t* owner) {
  const int64_t width = tables.width;
  std::fill(row, row + width, acc(0));
  std::fill(owner, owner + width, 0);
  for (size_t i = 0; i < tables.blobs.size(); ++i) {
    const acc* tx = tables.row_x(i);
    const acc ty = tables.row_y(i)[y];
    for (int64_t x = 0; x < width; ++x) {
      const acc value = tx[x] * ty;
      if (options.combine == Combine::max) {
        owner[x] = value > row[x] ? static_cast<int32_t>(i) : owner[x];
        row[x] = value > row[x] ? value : row[x];
      } else {
        row[x] += value;
        owner[x] = row[x] > acc(1) ? -1 : 0;
      }
    }
  }
}

// Adds row y's share of blob i's moments. The lanes keep the order of the sums independent of the instruction set.
template <typename T, typename acc = acc_t<T>>
void row_moments(
    const T* grad, const acc* tx, acc ty, const Axis<acc>& ax, acc uy, int64_t width, const int32_t* owner,
    int32_t wanted, Moments<acc>& moments) {
  constexpr int kLanes = 16;
  acc one[kLanes] = {}, ux[kLanes] = {}, uxx[kLanes] = {};
  simd_call([&] {
    for (int64_t base = 0; base < width; base += kLanes) {
      const int64_t n = std::min<int64_t>(kLanes, width - base);
      for (int64_t j = 0; j < n; ++j) {
        const int64_t x = base + j;
        const acc value = tx[x] * ty;
        const bool mine = value > 0 && (!owner || owner[x] == wanted);
        const acc g = mine ? simd::load(grad[x]) * value : acc(0);
        const acc u = mine ? ax.offset(x) : acc(0);
        one[j] += g;
        ux[j] += g * u;
        uxx[j] += g * u * u;
      }
    }
  });
  acc sum = 0, sum_ux = 0, sum_uxx = 0;
  for (int j = 0; j < kLanes; ++j) {
    sum += one[j];
    sum_ux += ux[j];
    sum_uxx += uxx[j];
  }
  const acc shares[5] = {sum, sum_ux, sum_uxx, sum * uy, sum * uy * uy};
  for (int i = 0; i < 5; ++i) {
    moments.sums[i] += shares[i];
  }
}

// Gradients of one map. grad_keypoints and grad_sigma are (B, P, K, 2), zeroed before.
template <typename T, typename acc = acc_t<T>>
void map_backward(
    const T* grad, acc* grad_keypoints, acc* grad_sigma, Tables<acc>& tables, std::vector<acc>& row,
    std::vector<int32_t>& owner, const Options& options, const Shape& shape, int64_t b, int64_t k) {
  const bool competing = tables.blobs.size() > 1 && options.combine != Combine::sum;
  std::vector<Moments<acc>> moments(tables.blobs.size());
  for (int64_t y = 0; y < shape.height; ++y) {
    if (competing) {
      row_owners(tables, options, y, row.data(), owner.data());
    }
    for (size_t i = 0; i < tables.blobs.size(); ++i) {
      const acc ty = tables.row_y(i)[y];
      if (ty > 0) {
        const int32_t wanted = options.combine == Combine::max ? static_cast<int32_t>(i) : 0;
        row_moments(
            grad + y * shape.width, tables.row_x(i), ty, tables.blobs[i].x, tables.blobs[i].y.offset(y), shape.width,
            competing ? owner.data() : nullptr, wanted, moments[i]);
      }
    }
  }
  for (size_t i = 0; i < tables.blobs.size(); ++i) {
    AxisSum<acc> sum_x, sum_y;
    if (options.normalize == Normalize::sum) {
      sum_x = axis_sum(tables.blobs[i].x, shape.width);
      sum_y = axis_sum(tables.blobs[i].y, shape.height);
    }
    const int64_t at = ((b * shape.people + tables.persons[i]) * shape.joints + k) * 2;
    blob_gradients(
        tables.blobs[i], moments[i].sums, sum_x, sum_y, options.center, grad_keypoints + at, grad_sigma + at);
  }
}

template <typename T>
void launch_backward(
    const Tensor& grad, const Tensor& grad_keypoints, const Tensor& grad_sigma, const PeopleTensors& tensors,
    const Options& options, const Shape& shape) {
  using acc = acc_t<T>;
  const T* grad_data = grad.const_data_ptr<T>();
  acc* keypoints_data = grad_keypoints.mutable_data_ptr<acc>();
  acc* sigma_data = grad_sigma.mutable_data_ptr<acc>();
  const People<acc> people = tensors.view<acc>();
  const int64_t grain = std::max<int64_t>(1, kGrainPixels / shape.pixels());
  torch::stable::parallel_for(0, shape.maps(), grain, [&](int64_t begin, int64_t end) {
    const FlushSubnormals flush;
    Tables<acc> tables(shape);
    std::vector<acc> row(shape.width);
    std::vector<int32_t> owner(shape.width);
    for (int64_t map = begin; map < end; ++map) {
      const int64_t b = map / shape.joints;
      const int64_t k = map % shape.joints;
      tables.fill(people, options, shape, b, k);
      map_backward(
          grad_data + map * shape.pixels(), keypoints_data, sigma_data, tables, row, owner, options, shape, b, k);
    }
  });
}

std::tuple<Tensor, Tensor> gaussian_heatmaps_backward_cpu(
    const Tensor& grad, const Tensor& keypoints, const std::optional<Tensor>& sigma, double sigma_value,
    const std::optional<Tensor>& visible, int64_t center, std::optional<double> truncate, int64_t combine,
    int64_t normalize) {
  constexpr const char* op = "_gaussian_heatmaps_backward";
  const Shape shape = check_backward(op, grad, keypoints, sigma, visible);
  const Options options = check_options(op, 0, center, truncate, combine, normalize, sigma_value, !!sigma);
  const ScalarType acc_type = acc_scalar_type(grad.scalar_type());
  Tensor grad_keypoints =
      torch::stable::new_zeros(keypoints, {shape.batch, shape.people, shape.joints, 2}, acc_type);
  Tensor grad_sigma = torch::stable::new_zeros(keypoints, {shape.batch, shape.people, shape.joints, 2}, acc_type);
  if (grad_keypoints.numel() == 0) {
    return {grad_keypoints, grad_sigma};
  }
  const PeopleTensors people(keypoints, sigma, visible, acc_type);
  const Tensor dense = torch::stable::contiguous(grad);
  PYPOSE_OPS_DISPATCH_FLOATING(grad.scalar_type(), op, [&] {
    launch_backward<scalar_t>(dense, grad_keypoints, grad_sigma, people, options, shape);
  });
  return {grad_keypoints, grad_sigma};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "_gaussian_heatmaps_backward(Tensor grad, Tensor keypoints, Tensor? sigma, float sigma_value, Tensor? visible, "
      "int center, float? truncate, int combine, int normalize) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("_gaussian_heatmaps_backward", TORCH_BOX(&gaussian_heatmaps_backward_cpu));
}

}  // namespace pypose_ops

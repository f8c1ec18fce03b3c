#include "heatmaps/simcc_labels.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/library.h>

#include "common/outputs.h"
#include "heatmaps/gaussian_tables.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

// The bins where a Gaussian is not 0, widened to whole vectors: further out its exponential, of less than the smallest
// normal number, is exactly 0 (in double: of less than the smallest subnormal one).
template <typename acc>
void support_of(const Label<acc>& label, int32_t bins, int32_t& first, int32_t& end) {
  constexpr acc kSigmas = sizeof(acc) == 4 ? acc(13.25) : acc(38.75);  // squared and halved: more than 87.4, than 745.2
  constexpr int32_t kLanes = simd::kMostLanes<acc>;
  const acc reach = kSigmas * label.sigma + acc(1);
  const acc low = ::floor(label.center - reach), high = ::ceil(label.center + reach), last = static_cast<acc>(bins);
  first = low > 0 ? (low < last ? static_cast<int32_t>(low) : bins) : 0;
  end = high < last ? (high > 0 ? static_cast<int32_t>(high) : 0) : bins;
  first = first / kLanes * kLanes;
  end = std::min((end + kLanes - 1) / kLanes * kLanes, bins);
  end = std::max(first, end);
}

template <typename T, typename acc = acc_t<T>>
void draw(T* out, const Label<acc>& label, LabelProfile profile, acc* row, int64_t bins) {
  if (!label.drawn) {
    std::memset(static_cast<void*>(out), 0, bins * sizeof(T));
    return;
  }
  const int32_t n = static_cast<int32_t>(bins);
  int32_t first = 0, end = n;
  if (profile == LabelProfile::gaussian) {
    support_of(label, n, first, end);
    std::memset(static_cast<void*>(out), 0, first * sizeof(T));
    std::memset(static_cast<void*>(out + end), 0, (n - end) * sizeof(T));
  }
  simd_call([=](auto isa) {
    if (profile == LabelProfile::gaussian) {
      for (int32_t i = first; i < end; ++i) {
        row[i] = label.gaussian(i);
      }
    } else {
      for (int32_t i = 0; i < n; ++i) {
        row[i] = label.one_hot(i);
      }
    }
    store_row(isa, out + first, end - first, row + first);
  });
}

template <typename T>
void run_draw(
    const Tensor& x, const Tensor& y, const PeopleTensors& tensors, const LabelOptions& options,
    const LabelShape& shape) {
  using acc = acc_t<T>;
  T* const out[2] = {x.mutable_data_ptr<T>(), y.mutable_data_ptr<T>()};
  const People<acc> people = tensors.view<acc>();
  const int64_t bins = shape.bins[0] + shape.bins[1];
  torch::stable::parallel_for(
      0, shape.batch * shape.joints, std::max<int64_t>(1, kGrainPixels / bins), [&](int64_t begin, int64_t end) {
        const FlushSubnormals flush;
        std::vector<acc> row(std::max(shape.bins[0], shape.bins[1]));
        for (int64_t i = begin; i < end; ++i) {
          for (int axis = 0; axis < 2; ++axis) {
            const Label<acc> label = label_of(people, options, shape, i / shape.joints, i % shape.joints, axis);
            draw(out[axis] + i * shape.bins[axis], label, options.profile, row.data(), shape.bins[axis]);
          }
        }
      });
}

std::tuple<Tensor, Tensor> simcc_labels_cpu(
    const std::optional<Tensor>& given_x, const std::optional<Tensor>& given_y, const Tensor& keypoints,
    const std::optional<Tensor>& sigma, double sigma_x, double sigma_y, const std::optional<Tensor>& visible,
    int64_t bins_x, int64_t bins_y, double ratio, int64_t profile, int64_t center, int64_t normalize, double smoothing,
    ScalarType dtype) {
  constexpr const char* op = "simcc_labels";
  const LabelShape shape = check_labels(op, keypoints, sigma, visible, bins_x, bins_y);
  const LabelOptions options =
      check_label_options(op, sigma.has_value(), sigma_x, sigma_y, ratio, profile, center, normalize, smoothing);
  check_map_type(op, dtype);
  const Tensor x = output_of(op, given_x, keypoints, {shape.batch, shape.joints, bins_x}, dtype);
  const Tensor y = output_of(op, given_y, keypoints, {shape.batch, shape.joints, bins_y}, dtype);
  if (x.numel() == 0) {
    return {x, y};
  }
  const PeopleTensors people(keypoints, sigma, visible, acc_scalar_type(dtype));
  PYPOSE_OPS_DISPATCH_FLOATING(dtype, op, [&] { run_draw<scalar_t>(x, y, people, options, shape); });
  return {x, y};
}

}  // namespace

#define PYPOSE_OPS_ARGUMENTS \
  "Tensor keypoints, Tensor? sigma, float sigma_x, float sigma_y, Tensor? visible, SymInt bins_x, SymInt " \
  "bins_y, float ratio, int profile, int center, int normalize, float smoothing, ScalarType dtype"

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def("simcc_labels(" PYPOSE_OPS_ARGUMENTS ") -> (Tensor, Tensor)");
  m.def("simcc_labels.out(Tensor(a!) out_x, Tensor(b!) out_y, " PYPOSE_OPS_ARGUMENTS ") -> ()");
}
#undef PYPOSE_OPS_ARGUMENTS

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  using Op = Drawn<&simcc_labels_cpu>;
  m.impl("simcc_labels", TORCH_BOX(&Op::returned));
  m.impl("simcc_labels.out", TORCH_BOX(&Op::into));
}

}  // namespace pypose_ops

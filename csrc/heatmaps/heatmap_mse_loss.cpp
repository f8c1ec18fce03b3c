#include "heatmaps/heatmap_mse_loss.h"

#include <algorithm>
#include <vector>

#include <torch/csrc/stable/library.h>

#include "heatmaps/gaussian_tables.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

// A sum whose order depends on the row's width and the instruction set alone: whole vectors lane by lane, the rest one by
// one.
template <typename acc>
struct LaneSum {
  acc lanes[simd::kMostLanes<acc>] = {};
  acc rest = 0;

  acc total() const {
    acc sum = rest;
    for (const acc lane : lanes) {
      sum += lane;
    }
    return sum;
  }
};

// Adds the squared differences of one row: vector_at(x) and scalar_at(x) are the target.
template <typename Isa, typename T, typename Vector, typename Scalar, typename acc = acc_t<T>>
PYPOSE_OPS_HOST_DEVICE void add_row(
    Isa isa, LaneSum<acc>& sum, const T* pred, int64_t width, const Vector& vector_at, const Scalar& scalar_at) {
  constexpr int kLanes = simd::lanes<acc, Isa>;
  simd::vec<acc, Isa> lanes = {};  // the row's own: rows do not wait for each other, and small sums meet first
  int64_t x = 0;
  for (; x + kLanes <= width; x += kLanes) {
    const auto difference = isa.load(pred + x) - vector_at(x);
    lanes += difference * difference;
  }
  acc rest = 0;
  for (; x < width; ++x) {
    const acc difference = simd::load(pred[x]) - scalar_at(x);
    rest += difference * difference;
  }
  isa.store(sum.lanes, isa.load(sum.lanes) + lanes);
  sum.rest += rest;
}

template <typename T, typename acc = acc_t<T>>
acc single_sum(const T* pred, const acc* tx, const acc* ty, int64_t height, int64_t width) {
  LaneSum<acc> sum;
  simd_call([&](auto isa) {
    LaneSum<acc> local;
    for (int64_t y = 0; y < height; ++y) {
      const acc scale = ty[y];
      add_row(
          isa, local, pred + y * width, width, [=](int64_t x) { return isa.load(tx + x) * scale; },
          [=](int64_t x) { return tx[x] * scale; });
    }
    sum = local;
  });
  return sum.total();
}

// One map's target against every stage's prediction; sums has one entry per stage.
template <typename T, typename acc = acc_t<T>>
void add_stages(
    std::vector<LaneSum<acc>>& sums, const T* pred, int64_t stage_stride, const Tables<acc>& tables, acc* row,
    const Options& options) {
  const int64_t width = tables.width;
  for (int64_t y = 0; y < tables.height; ++y) {
    simd_call([&](auto isa) {
      draw_row(row, tables, options, y);
      for (size_t s = 0; s < sums.size(); ++s) {
        add_row(
            isa, sums[s], pred + s * stage_stride + y * width, width, [=](int64_t x) { return isa.load(row + x); },
            [=](int64_t x) { return row[x]; });
      }
    });
  }
}

template <typename T, typename acc = acc_t<T>>
void loss(
    acc* losses, const T* pred, const People<acc>& people, const PerMap<acc>& weights, const Options& options,
    const LossShape& shape) {
  const Shape& target = shape.target;
  const int64_t pixels = target.pixels();
  const int64_t stage_stride = target.maps() * pixels;
  const int64_t grain = std::max<int64_t>(1, kGrainPixels / (pixels * std::max<int64_t>(1, shape.stages)));
  torch::stable::parallel_for(0, target.maps(), grain, [&](int64_t begin, int64_t end) {
    const FlushSubnormals flush;
    Tables<acc> tables(target);
    std::vector<acc> row(target.width);
    std::vector<LaneSum<acc>> sums(shape.stages);
    for (int64_t map = begin; map < end; ++map) {
      const int64_t b = map / target.joints, k = map % target.joints;
      if (!has_target(people, options, shape, b, k)) {
        for (int64_t s = 0; s < shape.stages; ++s) {
          losses[shape.index(s, b, k)] = 0;
        }
        continue;
      }
      tables.fill(people, options, target, b, k);
      const bool single = tables.blobs.size() == 1 && options.profile == Profile::gaussian;
      if (!single) {
        std::fill(sums.begin(), sums.end(), LaneSum<acc>());
        add_stages(sums, pred + map * pixels, stage_stride, tables, row.data(), options);
      }
      for (int64_t s = 0; s < shape.stages; ++s) {
        const acc weight = weight_of(weights, s, b, k);
        acc sum = 0;
        if (weight > 0) {  // the prediction may be anything where it is 0
          const T* own = pred + shape.index(s, b, k) * pixels;
          sum = single ? single_sum(own, tables.row_x(0), tables.row_y(0), target.height, target.width)
                       : sums[s].total();
        }
        losses[shape.index(s, b, k)] = weight * (sum / static_cast<acc>(pixels));
      }
    }
  });
}

template <typename T>
void run_loss(
    const Tensor& losses, const Tensor& pred, const PeopleTensors& people, const std::optional<Tensor>& weight,
    const Options& options, const LossShape& shape) {
  using acc = acc_t<T>;
  loss(
      losses.mutable_data_ptr<acc>(), pred.const_data_ptr<T>(), people.view<acc>(), per_map<acc>(weight), options,
      shape);
}

Tensor heatmap_mse_loss_cpu(
    const Tensor& pred, const Tensor& keypoints, const std::optional<Tensor>& sigma, double sigma_value,
    const std::optional<Tensor>& weight, const std::optional<Tensor>& visible, int64_t profile, int64_t center,
    std::optional<double> truncate, int64_t combine, int64_t normalize) {
  constexpr const char* op = "heatmap_mse_loss";
  const LossShape shape = check_loss(op, pred, keypoints, sigma, weight, visible);
  const Options options = check_options(op, profile, center, truncate, combine, normalize, sigma_value, !!sigma);
  Tensor losses = new_losses(pred);
  if (losses.numel() == 0) {
    return losses;
  }
  const Tensor dense = as_contiguous(pred);
  const PeopleTensors people(keypoints, sigma, visible, acc_scalar_type(pred.scalar_type()));
  PYPOSE_OPS_DISPATCH_FLOATING(
      pred.scalar_type(), op, [&] { run_loss<scalar_t>(losses, dense, people, weight, options, shape); });
  return losses;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "heatmap_mse_loss(Tensor pred, Tensor keypoints, Tensor? sigma, float sigma_value, Tensor? weight, "
      "Tensor? visible, int profile, int center, float? truncate, int combine, int normalize) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("heatmap_mse_loss", TORCH_BOX(&heatmap_mse_loss_cpu));
}

}  // namespace pypose_ops

// oks_nms on the CPU: one thread takes an image. The best person left is kept and compared with all others at once.
#include <algorithm>
#include <tuple>

#include <torch/csrc/stable/library.h>

#include "grouping/oks.h"

namespace pypose_ops {
namespace {

using namespace grouping;

// One image's people with the joints outermost, so that the loops over people are flat; columns are padded to whole
// vectors.
template <typename acc>
struct Crowd {
  int people, joints, stride;
  std::vector<acc> x, y, counted, area, oks, count, score;

  Crowd(const NmsShape& shape)
      : people(static_cast<int>(shape.people)), joints(static_cast<int>(shape.joints)) {
    const int lanes = simd::kMostLanes<acc>;
    stride = (people + lanes - 1) / lanes * lanes;
    for (std::vector<acc>* values : {&x, &y, &counted}) {
      values->resize(static_cast<size_t>(stride) * joints);
    }
    for (std::vector<acc>* values : {&area, &oks, &count, &score}) {
      values->resize(stride);
    }
  }

  void fill(const acc* keypoints, const acc* scores, const acc* areas, const bool* visible) {
    constexpr acc kNever = -std::numeric_limits<acc>::infinity();
    for (int n = 0; n < people; ++n) {
      area[n] = usable_area(areas[n]);
      score[n] = is_finite(scores[n]) ? scores[n] : kNever;
      for (int k = 0; k < joints; ++k) {
        const int i = n * joints + k;
        const bool on = is_finite(keypoints[2 * i]) && is_finite(keypoints[2 * i + 1]) && (!visible || visible[i]);
        x[k * stride + n] = on ? keypoints[2 * i] : acc(0);
        y[k * stride + n] = on ? keypoints[2 * i + 1] : acc(0);
        counted[k * stride + n] = on ? acc(1) : acc(0);
      }
    }
    std::fill(score.begin() + people, score.end(), kNever);
  }

  // The highest score, the first of equals; -1 when none is left.
  int best() const {
    int found = -1;
    acc highest = -std::numeric_limits<acc>::infinity();
    for (int n = 0; n < people; ++n) {
      found = score[n] > highest ? n : found;
      highest = score[n] > highest ? score[n] : highest;
    }
    return found;
  }

  // oks[n]: of person n with person i.
  void compare(int i, const double* sigmas) {
    const int stride = this->stride;
    const int joints = this->joints;
    const acc* areas = area.data();
    const acc* all_x = x.data();
    const acc* all_y = y.data();
    const acc* all_counted = counted.data();
    acc* sums = oks.data();
    acc* counts = count.data();
    simd_call([=] {
      for (int n = 0; n < stride; ++n) {
        sums[n] = 0;
        counts[n] = 0;
      }
      for (int k = 0; k < joints; ++k) {
        const acc* xs = all_x + k * stride;
        const acc* ys = all_y + k * stride;
        const acc* on = all_counted + k * stride;
        if (on[i] == acc(0)) {
          continue;
        }
        const acc px = xs[i];
        const acc py = ys[i];
        const acc own = areas[i];
        const acc unit = oks_scale(sigma_factor<acc>(sigmas[k]), acc(1) - static_cast<acc>(kAreaEpsilon));
        for (int n = 0; n < stride; ++n) {
          const acc dx = xs[n] - px;
          const acc dy = ys[n] - py;
          const acc mean = (own + areas[n]) / 2 + static_cast<acc>(kAreaEpsilon);
          sums[n] += on[n] * similarity((dx * dx + dy * dy) * unit / mean);
          counts[n] += on[n];
        }
      }
      for (int n = 0; n < stride; ++n) {
        sums[n] = counts[n] > 0 ? sums[n] / counts[n] : acc(0);
      }
    });
  }
};

template <typename acc>
void suppress(
    const OksInput<acc>& in, const acc* scores, const double* sigmas, const NmsShape& shape, const NmsOptions& options,
    bool* mask, acc* out) {
  torch::stable::parallel_for(0, shape.batch, 1, [&](int64_t begin, int64_t end) {
    const FlushSubnormals flush;
    Crowd<acc> crowd(shape);
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * shape.people;
      const int64_t joint = first * shape.joints;
      crowd.fill(
          in.pred + 2 * joint, scores + first, in.area + first, in.visible ? in.visible + joint : nullptr);
      std::copy(scores + first, scores + first + shape.people, out + first);
      for (int64_t kept = 0; kept < options.max_people; ++kept) {
        const int i = crowd.best();
        if (i < 0) {
          break;
        }
        mask[first + i] = true;
        crowd.score[i] = -std::numeric_limits<acc>::infinity();
        crowd.compare(i, sigmas);
        for (int n = 0; n < crowd.people; ++n) {
          if (crowd.score[n] > -std::numeric_limits<acc>::infinity()) {
            crowd.score[n] = score_beside(crowd.score[n], crowd.oks[n], options);
            if (options.soft) {
              out[first + n] = crowd.score[n];
            }
          }
        }
      }
    }
  });
}

template <typename acc>
void run_suppress(
    const OksTensors& tensors, const Tensor& scores, const std::vector<double>& sigmas, const NmsShape& shape,
    const NmsOptions& options, const Tensor& mask, const Tensor& out) {
  suppress(
      tensors.view<acc>(), scores.const_data_ptr<acc>(), sigmas.data(), shape, options, mask.mutable_data_ptr<bool>(),
      out.mutable_data_ptr<acc>());
}

std::tuple<Tensor, Tensor> oks_nms_cpu(
    const Tensor& keypoints, const Tensor& scores, const Tensor& area, const std::optional<Tensor>& visible,
    const std::vector<double>& sigmas, double threshold, bool soft, int64_t max_people) {
  constexpr const char* op = "oks_nms";
  const NmsShape shape = check_nms(op, keypoints, scores, area, visible, sigmas, threshold, max_people);
  Tensor mask = zeros_beside(keypoints, {shape.batch, shape.people}, ScalarType::Bool);
  Tensor out = empty_beside(scores, {shape.batch, shape.people});
  if (out.numel() == 0) {
    return {mask, out};
  }
  const NmsOptions options{threshold, soft, max_people};
  const OksTensors tensors(keypoints, keypoints, area, visible, std::nullopt);
  const Tensor contiguous = as_contiguous(scores);
  if (keypoints.scalar_type() == ScalarType::Double) {
    run_suppress<double>(tensors, contiguous, sigmas, shape, options, mask, out);
  } else {
    run_suppress<float>(tensors, contiguous, sigmas, shape, options, mask, out);
  }
  return {mask, out};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "oks_nms(Tensor keypoints, Tensor scores, Tensor area, Tensor? visible, float[] sigmas, float threshold, "
      "bool soft, SymInt max_people) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("oks_nms", TORCH_BOX(&oks_nms_cpu));
}

}  // namespace pypose_ops

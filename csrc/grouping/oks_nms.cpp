// oks_nms on the CPU: one thread takes an image. The best person left is kept and compared with all others in reach at once.
//
// People stand in the order of where they begin along the longer side of the crowd, so that those in reach are neighbours: a
// pair whose boxes are further apart than any joint could bridge has an OKS that changes nothing, exactly.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include <torch/csrc/stable/library.h>

#include "common/tasks.h"
#include "grouping/oks.h"

namespace pypose_ops {
namespace {

using namespace grouping;

// Places in the crowd, from the first to before the last.
struct Range {
  int first, last;
};

// One image's people with the joints outermost, so that the loops over people are flat; columns are padded to whole
// vectors.
template <typename acc>
struct Crowd {
  static constexpr acc kNever = -std::numeric_limits<acc>::infinity();
  static constexpr double kEndless = std::numeric_limits<double>::infinity();
  static constexpr int kLanes = simd::kMostLanes<acc>;

  int people, joints, stride;
  std::vector<acc> x, y, counted, area, oks, count, score;
  std::vector<int> numbers;       // the people in the order of this crowd
  std::vector<double> low, high;  // where they begin and end along the longer side; endless without joints
  double longest, largest;        // of all, from low to high; the area

  Crowd(const NmsShape& shape)
      : people(static_cast<int>(shape.people)), joints(static_cast<int>(shape.joints)),
        stride((people + kLanes - 1) / kLanes * kLanes), numbers(people), low(people), high(people) {
    for (std::vector<acc>* values : {&x, &y, &counted}) {
      values->resize(static_cast<size_t>(stride) * joints);
    }
    for (std::vector<acc>* values : {&area, &oks, &count, &score}) {
      values->resize(stride);
    }
  }

  void fill(const acc* keypoints, const acc* scores, const acc* areas, const bool* visible) {
    const auto on = [=](int i) {
      return is_finite(keypoints[2 * i]) && is_finite(keypoints[2 * i + 1]) && (!visible || visible[i]);
    };
    put_in_order(keypoints, on);
    largest = 0;
    for (int n = 0; n < people; ++n) {
      const int number = numbers[n];
      area[n] = usable_area(areas[number]);
      largest = std::max(largest, static_cast<double>(area[n]));
      score[n] = is_finite(scores[number]) ? scores[number] : kNever;
      for (int k = 0; k < joints; ++k) {
        const int i = number * joints + k;
        x[k * stride + n] = on(i) ? keypoints[2 * i] : acc(0);
        y[k * stride + n] = on(i) ? keypoints[2 * i + 1] : acc(0);
        counted[k * stride + n] = on(i) ? acc(1) : acc(0);
      }
    }
    std::fill(score.begin() + people, score.end(), kNever);
  }

  // The place of the highest score, of equals the first of the input; -1 when none is left.
  int best() const {
    const acc highest = *std::max_element(score.begin(), score.begin() + people);
    int found = -1;
    for (int n = 0; n < people && highest > kNever; ++n) {
      found = score[n] == highest && (found < 0 || numbers[n] < numbers[found]) ? n : found;
    }
    return found;
  }

  // Places by falling score, of equals in the order of the input.
  std::vector<int> by_score() const {
    std::vector<int> places(people);
    std::iota(places.begin(), places.end(), 0);
    std::sort(places.begin(), places.end(), [this](int a, int b) {
      return score[a] > score[b] || (score[a] == score[b] && numbers[a] < numbers[b]);
    });
    return places;
  }

  // Who may reach an OKS of exp(-e) with person i, whole vectors of them: d^2 <= e factor (mean of their areas) for a joint.
  Range near(int i, double e, double factor) const {
    constexpr double kMargin = 1.001;  // more than all roundings of an OKS
    const double reach = kMargin * std::sqrt(e * factor * ((area[i] + largest) / 2 + kAreaEpsilon));
    if (!(reach < kEndless)) {
      return {0, stride};
    }
    const auto begin = std::lower_bound(low.begin(), low.end(), low[i] - reach - kMargin * longest);
    const auto end = std::upper_bound(begin, low.end(), high[i] + reach);
    const int first = static_cast<int>(begin - low.begin()), last = static_cast<int>(end - low.begin());
    return {first / kLanes * kLanes, (last + kLanes - 1) / kLanes * kLanes};
  }

  // oks[n]: of person n, in the range, with person i.
  void compare(int i, Range range, const double* sigmas) {
    const int first = range.first, last = range.last;
    const int stride = this->stride;
    const int joints = this->joints;
    const acc* areas = area.data();
    const acc* all_x = x.data();
    const acc* all_y = y.data();
    const acc* all_counted = counted.data();
    acc* sums = oks.data();
    acc* counts = count.data();
    simd_call([=] {
      for (int n = first; n < last; ++n) {
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
        for (int n = first; n < last; ++n) {
          const acc dx = xs[n] - px;
          const acc dy = ys[n] - py;
          const acc mean = (own + areas[n]) / 2 + static_cast<acc>(kAreaEpsilon);
          sums[n] += on[n] * similarity((dx * dx + dy * dy) * unit / mean);
          counts[n] += on[n];
        }
      }
      for (int n = first; n < last; ++n) {
        sums[n] = counts[n] > 0 ? sums[n] / counts[n] : acc(0);
      }
    });
  }

 private:
  // Sorts the people by where they begin along the side on which the crowd is longer.
  template <typename On>
  void put_in_order(const acc* keypoints, const On& on) {
    double extent[2];
    std::vector<double> lows[2], highs[2];
    for (int axis = 0; axis < 2; ++axis) {
      lows[axis].assign(people, kEndless);
      highs[axis].assign(people, kEndless);
      double first = kEndless, last = -kEndless;
      for (int n = 0; n < people; ++n) {
        for (int i = n * joints; i < (n + 1) * joints; ++i) {
          if (on(i)) {
            const double at = keypoints[2 * i + axis];
            highs[axis][n] = lows[axis][n] == kEndless ? at : std::max(highs[axis][n], at);
            lows[axis][n] = std::min(lows[axis][n], at);
          }
        }
        first = std::min(first, lows[axis][n]);
        last = lows[axis][n] < kEndless ? std::max(last, highs[axis][n]) : last;
      }
      extent[axis] = last - first;
    }
    const int axis = extent[1] > extent[0] ? 1 : 0;
    std::iota(numbers.begin(), numbers.end(), 0);
    std::sort(numbers.begin(), numbers.end(), [&](int a, int b) {
      return lows[axis][a] < lows[axis][b] || (lows[axis][a] == lows[axis][b] && a < b);
    });
    longest = 0;
    for (int n = 0; n < people; ++n) {
      low[n] = lows[axis][numbers[n]];
      high[n] = highs[axis][numbers[n]];
      longest = low[n] < kEndless ? std::max(longest, high[n] - low[n]) : longest;
    }
  }
};

// The largest e of an OKS exp(-e) that changes anything: hard, one above the threshold; soft, one whose factor is not 1.
template <typename acc>
double farthest(const NmsOptions& options) {
  const double factor_of_1 = std::sqrt(options.threshold * std::numeric_limits<acc>::epsilon()) / 8;
  const double least = options.soft ? factor_of_1 : options.threshold;
  return least > 0 ? std::max(0.0, -std::log(least)) : std::numeric_limits<double>::infinity();
}

template <typename acc>
void suppress_in(
    Crowd<acc>& crowd, const double* sigmas, double factor, const NmsOptions& options, bool* mask, acc* out) {
  const double e = farthest<acc>(options);
  const std::vector<int> order = options.soft ? std::vector<int>() : crowd.by_score();
  size_t next = 0;
  for (int64_t kept = 0; kept < options.max_people; ++kept) {
    int i = -1;
    if (options.soft) {
      i = crowd.best();
    } else {
      while (next < order.size() && !(crowd.score[order[next]] > crowd.kNever)) {
        ++next;
      }
      i = next < order.size() ? order[next] : -1;
    }
    if (i < 0) {
      return;
    }
    mask[crowd.numbers[i]] = true;
    crowd.score[i] = crowd.kNever;
    const Range range = crowd.near(i, e, factor);
    crowd.compare(i, range, sigmas);
    for (int n = range.first; n < range.last; ++n) {
      if (crowd.score[n] > crowd.kNever) {
        crowd.score[n] = score_beside(crowd.score[n], crowd.oks[n], options);
        if (options.soft) {
          out[crowd.numbers[n]] = crowd.score[n];
        }
      }
    }
  }
}

template <typename acc>
void suppress(
    const OksInput<acc>& in, const acc* scores, const double* sigmas, const NmsShape& shape, const NmsOptions& options,
    bool* mask, acc* out) {
  double widest = 0;
  for (int64_t k = 0; k < shape.joints; ++k) {
    widest = std::max(widest, sigmas[k]);
  }
  share_tasks(shape.batch, [&](Tasks& tasks) {
    const FlushSubnormals flush;
    Crowd<acc> crowd(shape);
    for (int64_t b; tasks.take(b);) {
      const int64_t first = b * shape.people;
      const int64_t joint = first * shape.joints;
      crowd.fill(
          in.pred + 2 * joint, scores + first, in.area + first, in.visible ? in.visible + joint : nullptr);
      std::copy(scores + first, scores + first + shape.people, out + first);
      suppress_in(crowd, sigmas, sigma_factor<double>(widest), options, mask + first, out + first);
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

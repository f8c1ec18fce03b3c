// _match_people and _coco_ap: COCO's evaluation of people on the host, for pypose_ops.metrics.
#include "grouping/match_people.h"

#include <torch/csrc/stable/library.h>

namespace pypose_ops {
namespace {

using namespace grouping;

constexpr int64_t kGrainImages = 64;
constexpr size_t kMostThresholds = 31;

// The arguments of an operator with what has to live as long as the pointers to it.
struct People {
  Tensor scores, pred_image, target_image, visible;
  std::optional<Tensor> crowd;
  Crowds crowds;

  People(
      const Tensor& pred, const Tensor& scores, const Tensor& pred_image, const Tensor& target, const Tensor& area,
      const Tensor& target_image, const Tensor& visible, const std::optional<Tensor>& boxes,
      const std::optional<Tensor>& crowd)
      : scores(as_contiguous(scores, ScalarType::Double)),
        pred_image(as_contiguous(pred_image, ScalarType::Long)),
        target_image(as_contiguous(target_image, ScalarType::Long)),
        visible(as_contiguous(visible, ScalarType::Bool)),
        crowd(as_contiguous(crowd, ScalarType::Bool)),
        crowds{
            pred.size(0),
            target.size(0),
            pred.size(1),
            Numbers(pred),
            Numbers(target),
            Numbers(area),
            this->scores.const_data_ptr<double>(),
            this->pred_image.const_data_ptr<int64_t>(),
            this->target_image.const_data_ptr<int64_t>(),
            this->visible.const_data_ptr<bool>(),
            boxes ? std::optional(Numbers(*boxes)) : std::nullopt,
            this->crowd ? this->crowd->const_data_ptr<bool>() : nullptr} {}
};

void check_crowds(
    const char* op, const Tensor& pred, const Tensor& scores, const Tensor& pred_image, const Tensor& target,
    const Tensor& area, const Tensor& target_image, const Tensor& visible, const std::optional<Tensor>& boxes,
    const std::optional<Tensor>& crowd, const MatchOptions& options) {
  const int64_t joints = static_cast<int64_t>(options.sigmas.size());
  check_dim(op, "pred", pred, 3, "(D, K, 2)");
  check_dim(op, "target", target, 3, "(G, K, 2)");
  const int64_t preds = pred.size(0);
  const int64_t targets = target.size(0);
  check_like(op, "pred", pred, "(D, K, 2)", {preds, joints, 2}, "pred", pred);
  check_like(op, "scores", scores, "(D,)", {preds}, "pred", pred);
  check_like(op, "pred_image", pred_image, "(D,)", {preds}, "pred", pred);
  check_like(op, "target", target, "(G, K, 2)", {targets, joints, 2}, "pred", pred);
  check_like(op, "area", area, "(G,)", {targets}, "pred", pred);
  check_like(op, "target_image", target_image, "(G,)", {targets}, "pred", pred);
  check_like(op, "visible", visible, "(G, K)", {targets, joints}, "pred", pred);
  if (boxes) {
    check_like(op, "boxes", *boxes, "(G, 4)", {targets, 4}, "pred", pred);
  }
  if (crowd) {
    check_like(op, "crowd", *crowd, "(G,)", {targets}, "pred", pred);
  }
  check_sigmas(op, options.sigmas, joints);
  const std::vector<double>& thresholds = options.thresholds;
  PYPOSE_OPS_CHECK(
      !thresholds.empty() && thresholds.size() <= kMostThresholds &&
          std::is_sorted(thresholds.begin(), thresholds.end()),
      op, ": thresholds must be 1 to ", kMostThresholds, " ascending numbers");
}

Masks match_images(const Crowds& crowds, const Groups& groups, const MatchOptions& options, int64_t* found) {
  Masks masks;
  masks.matched.assign(options.areas.size() * crowds.preds, 0);
  // Those beyond max_people are neither hits nor false alarms.
  masks.ignored.assign(options.areas.size() * crowds.preds, ~uint32_t(0));
  const int64_t images = static_cast<int64_t>(groups.preds.start.size()) - 1;
  torch::stable::parallel_for(0, images, kGrainImages, [&](int64_t begin, int64_t end) {
    const FlushSubnormals flush;
    ImageMatcher matcher(crowds, groups, options);
    for (int64_t i = begin; i < end; ++i) {
      matcher.match(i, masks, found);
    }
  });
  return masks;
}

// The precision at each of `recalls` and the last recall, for one range of areas and one threshold. Only hits matter:
// what is between two of them lowers the precision and leaves the recall.
void precision_at(
    const uint32_t* matched, const uint32_t* ignored, int64_t preds, int threshold, int64_t people,
    const std::vector<double>& recalls, std::vector<double>& precision, double* out, double* last) {
  if (people == 0) {
    std::fill(out, out + recalls.size(), -1.0);
    *last = -1;
    return;
  }
  precision.clear();
  int64_t misses = 0;
  for (int64_t i = 0; i < preds; ++i) {
    const uint32_t counted = ~ignored[i] >> threshold & 1;
    const uint32_t hit = counted & matched[i] >> threshold;
    misses += counted & ~hit;
    if (hit) {
      const double hits = static_cast<double>(precision.size() + 1);
      precision.push_back(hits / (hits + static_cast<double>(misses) + kAreaEpsilon));
    }
  }
  for (size_t i = precision.size(); i-- > 1;) {
    precision[i - 1] = std::max(precision[i - 1], precision[i]);
  }
  size_t hit = 0;
  for (size_t r = 0; r < recalls.size(); ++r) {
    while (hit < precision.size() && static_cast<double>(hit + 1) / static_cast<double>(people) < recalls[r]) {
      ++hit;
    }
    out[r] = hit < precision.size() ? precision[hit] : 0.0;
  }
  *last = static_cast<double>(precision.size()) / static_cast<double>(people);
}

std::vector<AreaRange> ranges_of(const std::vector<double>& lows, const std::vector<double>& highs) {
  PYPOSE_OPS_CHECK(lows.size() == highs.size(), "coco_ap: one highest area for each lowest");
  std::vector<AreaRange> ranges;
  for (size_t a = 0; a < lows.size(); ++a) {
    ranges.push_back({lows[a], highs[a]});
  }
  return ranges;
}

std::tuple<Tensor, Tensor> coco_ap_cpu(
    const Tensor& pred, const Tensor& scores, const Tensor& pred_image, const Tensor& target, const Tensor& area,
    const Tensor& target_image, const Tensor& visible, const std::optional<Tensor>& boxes,
    const std::optional<Tensor>& crowd, const std::vector<double>& sigmas, int64_t max_people,
    const std::vector<double>& thresholds, const std::vector<double>& lows, const std::vector<double>& highs,
    const std::vector<double>& recalls) {
  const MatchOptions options{sigmas, thresholds, ranges_of(lows, highs), max_people};
  check_crowds(
      "coco_ap", pred, scores, pred_image, target, area, target_image, visible, boxes, crowd, options);
  const People people(pred, scores, pred_image, target, area, target_image, visible, boxes, crowd);
  const Crowds& crowds = people.crowds;
  const Groups groups = group_by_image(crowds, max_people);
  const Masks masks = match_images(crowds, groups, options, nullptr);
  const int64_t ranges = static_cast<int64_t>(options.areas.size());
  const int64_t limits = static_cast<int64_t>(thresholds.size());
  std::vector<int64_t> counted(ranges, 0);
  for (int64_t g = 0; g < crowds.targets; ++g) {
    const bool uncounted = crowds.is_uncounted(g);
    for (int64_t a = 0; a < ranges; ++a) {
      counted[a] += !uncounted && !options.areas[a].excludes(crowds.area[g]);
    }
  }
  const int64_t steps = static_cast<int64_t>(recalls.size());
  Tensor precision = empty_beside(pred, {ranges, limits, steps}, ScalarType::Double);
  Tensor recall = empty_beside(pred, {ranges, limits}, ScalarType::Double);
  double* precisions = precision.mutable_data_ptr<double>();
  double* last = recall.mutable_data_ptr<double>();
  torch::stable::parallel_for(0, ranges * limits, 1, [&](int64_t begin, int64_t end) {
    std::vector<double> buffer;
    for (int64_t row = begin; row < end; ++row) {
      const int64_t a = row / limits;
      precision_at(
          masks.matched.data() + a * crowds.preds, masks.ignored.data() + a * crowds.preds, crowds.preds,
          static_cast<int>(row % limits), counted[a], recalls, buffer, precisions + row * steps, last + row);
    }
  });
  return {precision, recall};
}

Tensor match_people_cpu(
    const Tensor& pred, const Tensor& scores, const Tensor& pred_image, const Tensor& target, const Tensor& area,
    const Tensor& target_image, const Tensor& visible, const std::optional<Tensor>& boxes,
    const std::optional<Tensor>& crowd, const std::vector<double>& sigmas, int64_t max_people, double threshold) {
  const AreaRange all{-HUGE_VAL, HUGE_VAL};
  const MatchOptions options{sigmas, {threshold}, {all}, max_people};
  check_crowds(
      "match_people", pred, scores, pred_image, target, area, target_image, visible, boxes, crowd, options);
  const People people(pred, scores, pred_image, target, area, target_image, visible, boxes, crowd);
  Tensor found = empty_beside(pred, {people.crowds.targets}, ScalarType::Long);
  int64_t* of = found.mutable_data_ptr<int64_t>();
  std::fill(of, of + people.crowds.targets, int64_t(-1));
  match_images(people.crowds, group_by_image(people.crowds, max_people), options, of);
  return found;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "_coco_ap(Tensor pred, Tensor scores, Tensor pred_image, Tensor target, Tensor area, Tensor target_image, "
      "Tensor visible, Tensor? boxes, Tensor? crowd, float[] sigmas, int max_people, float[] thresholds, "
      "float[] lows, float[] highs, float[] recalls) -> (Tensor precision, Tensor recall)");
  m.def(
      "_match_people(Tensor pred, Tensor scores, Tensor pred_image, Tensor target, Tensor area, Tensor target_image, "
      "Tensor visible, Tensor? boxes, Tensor? crowd, float[] sigmas, int max_people, float threshold) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("_coco_ap", TORCH_BOX(&coco_ap_cpu));
  m.impl("_match_people", TORCH_BOX(&match_people_cpu));
}

}  // namespace pypose_ops

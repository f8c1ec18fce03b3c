// COCO's matching of predicted and annotated people on the CPU, image by image: what coco_ap and match_people share.
//
// A prediction, best first within an image, takes the free person of highest OKS at or above the threshold, counted
// people before those who are left out, the last one of equals. Thresholds are bits of a mask, so that all of them are
// matched in one pass; people are read where they are, and nothing is kept per pair.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <numeric>
#include <optional>
#include <vector>

#include "grouping/oks_cpu.h"

namespace pypose_ops {
namespace grouping {

// A contiguous tensor of float32 or float64, read as double.
class Numbers {
 public:
  explicit Numbers(const Tensor& tensor)
      : tensor_(as_contiguous(
            tensor, tensor.scalar_type() == ScalarType::Float ? ScalarType::Float : ScalarType::Double)),
        single_(tensor_.scalar_type() == ScalarType::Float),
        data_(tensor_.const_data_ptr()) {}

  double operator[](int64_t i) const {
    return single_ ? static_cast<const float*>(data_)[i] : static_cast<const double*>(data_)[i];
  }

 private:
  Tensor tensor_;
  bool single_;
  const void* data_;
};

// Annotated people whose area is from low to high count.
struct AreaRange {
  double low, high;

  bool excludes(double area) const {
    return area < low || area > high;
  }
};

struct MatchOptions {
  std::vector<double> sigmas, thresholds;  // thresholds in ascending order
  std::vector<AreaRange> areas;
  int64_t max_people;
};

// Predicted and annotated people. Contiguous.
struct Crowds {
  int64_t preds, targets, joints;
  Numbers pred, target, area;
  const double* scores;
  const int64_t* pred_image;
  const int64_t* target_image;
  const bool* visible;
  std::optional<Numbers> boxes;
  const bool* crowd;  // null: nobody

  bool is_uncounted(int64_t g) const {
    return (crowd != nullptr && crowd[g]) || std::none_of(visible + g * joints, visible + (g + 1) * joints, identity);
  }

  static bool identity(bool value) {
    return value;
  }
};

// The members of each image: those of image i from start[i] to start[i + 1].
struct Members {
  std::vector<int64_t> start, of;
};

struct Groups {
  std::vector<int64_t> ranked;  // predictions by falling score, ties by image and index
  Members preds;                // places in `ranked`, the best max_people of each image
  Members targets;              // indices, ascending
};

inline std::vector<int64_t> sorted_copy(const int64_t* ids, int64_t count) {
  std::vector<int64_t> sorted(ids, ids + count);
  if (!std::is_sorted(sorted.begin(), sorted.end())) {
    std::sort(sorted.begin(), sorted.end());
  }
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  return sorted;
}

// The place of each identifier among all of them; runs of one image and ascending images are not searched.
inline std::vector<int64_t> numbers_of(const int64_t* ids, int64_t count, const std::vector<int64_t>& known) {
  std::vector<int64_t> number(count);
  int64_t last = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (known[last] != ids[i]) {
      const bool next = last + 1 < static_cast<int64_t>(known.size()) && known[last + 1] == ids[i];
      last = next ? last + 1 : std::lower_bound(known.begin(), known.end(), ids[i]) - known.begin();
    }
    number[i] = last;
  }
  return number;
}

// Members in the order in which `at` names them, at most `limit` of an image.
template <typename At>
Members members_of(const std::vector<int64_t>& image, int64_t images, int64_t limit, const At& at) {
  Members members;
  members.start.assign(images + 1, 0);
  for (const int64_t i : image) {
    ++members.start[i + 1];
  }
  for (int64_t i = 0; i < images; ++i) {
    members.start[i + 1] = members.start[i] + std::min(limit, members.start[i + 1]);
  }
  members.of.resize(members.start[images]);
  std::vector<int64_t> next(members.start.begin(), members.start.end() - 1);
  for (int64_t n = 0; n < static_cast<int64_t>(image.size()); ++n) {
    const int64_t i = image[at(n)];
    if (next[i] < members.start[i + 1]) {
      members.of[next[i]++] = n;
    }
  }
  return members;
}

inline Groups group_by_image(const Crowds& crowds, int64_t max_people) {
  const std::vector<int64_t> pred_ids = sorted_copy(crowds.pred_image, crowds.preds);
  const std::vector<int64_t> target_ids = sorted_copy(crowds.target_image, crowds.targets);
  std::vector<int64_t> known;
  std::set_union(
      pred_ids.begin(), pred_ids.end(), target_ids.begin(), target_ids.end(), std::back_inserter(known));
  const int64_t images = static_cast<int64_t>(known.size());
  const int64_t limit = std::max<int64_t>(0, max_people);
  const std::vector<int64_t> pred_image = numbers_of(crowds.pred_image, crowds.preds, known);
  const std::vector<int64_t> target_image = numbers_of(crowds.target_image, crowds.targets, known);
  Groups groups;
  groups.ranked.resize(crowds.preds);
  std::iota(groups.ranked.begin(), groups.ranked.end(), int64_t(0));
  const double* scores = crowds.scores;
  std::sort(groups.ranked.begin(), groups.ranked.end(), [&](int64_t a, int64_t b) {
    if (scores[a] != scores[b]) {
      return scores[a] > scores[b];
    }
    return pred_image[a] != pred_image[b] ? pred_image[a] < pred_image[b] : a < b;
  });
  groups.preds = members_of(pred_image, images, limit, [&](int64_t n) { return groups.ranked[n]; });
  groups.targets = members_of(
      target_image, images, std::numeric_limits<int64_t>::max(), [](int64_t n) { return n; });
  return groups;
}

// Bit t: at threshold t. Arrays over (area range, place among the ranked predictions).
struct Masks {
  std::vector<uint32_t> matched, ignored;
};

// The people of one image after another.
class ImageMatcher {
 public:
  ImageMatcher(const Crowds& crowds, const Groups& groups, const MatchOptions& options)
      : crowds_(crowds), groups_(groups), options_(options), places_({1, 0, 0, crowds.joints}) {
    pred_.resize(2 * crowds.joints);
  }

  // found: per annotated person the prediction that is matched to it, for options of one threshold and one range; or
  // null.
  void match(int64_t image, Masks& masks, int64_t* found) {
    gather(image);
    const int64_t* preds = groups_.preds.of.data();
    for (int64_t m = groups_.preds.start[image]; m < groups_.preds.start[image + 1]; ++m) {
      const double extent = read_pred(groups_.ranked[preds[m]]);
      rank_targets();
      for (size_t a = 0; a < options_.areas.size(); ++a) {
        const Taken taken = take(a, groups_.ranked[preds[m]], found);
        const size_t place = a * crowds_.preds + preds[m];
        masks.matched[place] = taken.matched;
        masks.ignored[place] = taken.left_out | (options_.areas[a].excludes(extent) ? ~taken.matched : 0);
      }
    }
  }

 private:
  struct Taken {
    uint32_t matched, left_out;
  };
  struct Candidate {
    double similarity;
    int64_t target;    // within the image
    uint32_t passed;  // thresholds that the similarity reaches
  };

  void gather(int64_t image) {
    members_ = groups_.targets.of.data() + groups_.targets.start[image];
    const int64_t targets = groups_.targets.start[image + 1] - groups_.targets.start[image];
    const int64_t joints = crowds_.joints;
    shape_ = {1, 1, targets, joints};
    target_.resize(2 * targets * joints);
    area_.resize(targets);
    boxes_.resize(4 * targets);
    free_.assign(options_.areas.size() * targets, ~uint32_t(0));
    left_out_.resize(options_.areas.size() * targets);
    for (int64_t g = 0; g < targets; ++g) {
      const int64_t from = members_[g];
      for (int64_t k = 0; k < joints; ++k) {
        const bool visible = crowds_.visible[from * joints + k];
        for (int64_t c = 0; c < 2; ++c) {
          target_[2 * (g * joints + k) + c] =
              visible ? crowds_.target[2 * (from * joints + k) + c] : std::numeric_limits<double>::quiet_NaN();
        }
      }
      area_[g] = crowds_.area[from];
      for (int64_t c = 0; crowds_.boxes && c < 4; ++c) {
        boxes_[4 * g + c] = (*crowds_.boxes)[4 * from + c];
      }
      const bool uncounted = crowds_.is_uncounted(from);
      for (size_t a = 0; a < options_.areas.size(); ++a) {
        left_out_[a * targets + g] = uncounted || options_.areas[a].excludes(area_[g]);
      }
    }
    const OksInput<double> input{
        nullptr, target_.data(), area_.data(), nullptr, crowds_.boxes ? boxes_.data() : nullptr};
    places_.resize(shape_);
    places_.image = -1;
    places_.fill(input, shape_, options_.sigmas.data(), 0);
    values_.resize(places_.scale.size());
  }

  // The area of the box around the joints, NaN if one of them is.
  double read_pred(int64_t d) {
    double low[2] = {HUGE_VAL, HUGE_VAL}, high[2] = {-HUGE_VAL, -HUGE_VAL};
    bool is_nan = false;
    for (int64_t i = 0; i < 2 * crowds_.joints; ++i) {
      const double value = pred_[i] = crowds_.pred[2 * d * crowds_.joints + i];
      is_nan |= value != value;
      low[i % 2] = std::min(low[i % 2], value);
      high[i % 2] = std::max(high[i % 2], value);
    }
    return is_nan ? std::numeric_limits<double>::quiet_NaN() : (high[0] - low[0]) * (high[1] - low[1]);
  }

  // The people within reach of the lowest threshold, in the order of preference.
  void rank_targets() {
    similarities(pred_.data(), places_, shape_, values_.data());
    candidates_.clear();
    for (int64_t g = 0; g < shape_.targets; ++g) {
      const double similarity = mean_similarity(values_.data(), places_, shape_, g);
      uint32_t passed = 0;
      for (size_t t = 0; t < options_.thresholds.size() && similarity >= options_.thresholds[t]; ++t) {
        passed |= uint32_t(1) << t;
      }
      if (passed != 0) {
        candidates_.push_back({similarity, g, passed});
      }
    }
    if (candidates_.size() > 1) {
      std::sort(candidates_.begin(), candidates_.end(), [](const Candidate& a, const Candidate& b) {
        return a.similarity != b.similarity ? a.similarity > b.similarity : a.target > b.target;
      });
    }
  }

  Taken take(size_t range, int64_t pred, int64_t* found) {
    Taken taken{0, 0};
    uint32_t* free = free_.data() + range * shape_.targets;
    const char* left_out = left_out_.data() + range * shape_.targets;
    for (const char last : {0, 1}) {
      for (const Candidate& candidate : candidates_) {
        const int64_t g = candidate.target;
        if (left_out[g] != last) {
          continue;
        }
        const bool shared = crowds_.crowd != nullptr && crowds_.crowd[members_[g]];
        const uint32_t mask = candidate.passed & ~taken.matched & (shared ? ~uint32_t(0) : free[g]);
        free[g] &= ~mask;
        taken.matched |= mask;
        taken.left_out |= last ? mask : 0;
        if (found != nullptr && !last && mask != 0) {
          found[members_[g]] = pred;
        }
      }
    }
    return taken;
  }

  const Crowds& crowds_;
  const Groups& groups_;
  const MatchOptions& options_;
  const int64_t* members_ = nullptr;
  OksShape shape_{};
  Targets<double> places_;
  std::vector<double> pred_, target_, area_, boxes_, values_;
  std::vector<uint32_t> free_;
  std::vector<char> left_out_;
  std::vector<Candidate> candidates_;
};

}  // namespace grouping
}  // namespace pypose_ops

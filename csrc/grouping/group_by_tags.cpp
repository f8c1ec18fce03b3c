// group_by_tags: associative embedding (Newell, Huang and Deng 2017), on the host, as group_people is. Joint after
// joint, its peaks are assigned to the people found so far by the distance of their tags.
#include <cmath>

#include <torch/csrc/stable/library.h>

#include "common/tasks.h"
#include "grouping/assignment.h"
#include "grouping/people.h"
#include "grouping/score_limbs.h"

namespace pypose_ops {
namespace {

using namespace grouping;

struct TagOptions {
  double min_score, max_distance;
};

// A person with the sum of the tags of its joints.
struct Tagged {
  Person person;
  std::vector<double> sum;
};

constexpr double kFar = 1e4;    // tags that are farther apart than this are never the same person's
constexpr double kNever = 1e7;  // the cost of a new person

template <typename T>
class TagAssembly {
 public:
  TagAssembly(int64_t joints, int64_t peaks, int64_t dims, const TagOptions& options)
      : joints_(joints), peaks_(peaks), dims_(dims), options_(options) {}

  void start(const T* scores, const T* tags) {
    scores_ = scores;
    tags_ = tags;
    people_.clear();
  }

  void add_joint(int64_t joint, int64_t count) {
    candidates_.clear();
    for (int64_t m = 0; m < count; ++m) {
      const double score = score_of(joint, m);
      if (score > options_.min_score && std::isfinite(score)) {
        candidates_.push_back(static_cast<int>(m));
      }
    }
    const int rows = static_cast<int>(candidates_.size());
    const int known = static_cast<int>(people_.size());
    const int columns = std::max(rows, known);
    costs_.assign(int64_t(rows) * columns, kNever);
    distances_.assign(int64_t(rows) * columns, kNever);
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < known; ++c) {
        const double distance = distance_to(people_[c], joint, candidates_[r]);
        if (distance < kFar) {
          distances_[r * columns + c] = distance;
          // Whole steps of the tags' distance come first, then the better peak; the distance itself breaks the ties
          // that are left in HigherHRNet's rule; squared, as sums of distances on a line tie again.
          costs_[r * columns + c] =
              std::nearbyint(distance) * 100 - score_of(joint, candidates_[r]) + distance * distance / 1000;
        }
      }
    }
    const std::vector<int>& column = solver_.solve(rows, columns, costs_.data());
    for (int r = 0; r < rows; ++r) {
      if (distances_[r * columns + column[r]] < options_.max_distance) {
        add(people_[column[r]], joint, candidates_[r]);
      } else {
        people_.push_back({Person(joints_), std::vector<double>(dims_, 0.0)});
        add(people_.back(), joint, candidates_[r]);
      }
    }
  }

  std::vector<Person> finish() {
    std::vector<Person> out;
    for (Tagged& tagged : people_) {
      tagged.person.score /= static_cast<double>(joints_);
      out.push_back(std::move(tagged.person));
    }
    return out;
  }

 private:
  double score_of(int64_t joint, int64_t peak) const {
    return scores_[joint * peaks_ + peak];
  }

  const T* tag_of(int64_t joint, int64_t peak) const {
    return tags_ + (joint * peaks_ + peak) * dims_;
  }

  // From the peak's tag to the mean of the person's.
  double distance_to(const Tagged& tagged, int64_t joint, int peak) const {
    const T* tag = tag_of(joint, peak);
    double square = 0;
    for (int64_t t = 0; t < dims_; ++t) {
      const double difference = tag[t] - tagged.sum[t] / tagged.person.joints;
      square += difference * difference;
    }
    return std::sqrt(square);
  }

  void add(Tagged& tagged, int64_t joint, int peak) {
    tagged.person.peak[joint] = peak;
    tagged.person.joints += 1;
    tagged.person.score += score_of(joint, peak);
    const T* tag = tag_of(joint, peak);
    for (int64_t t = 0; t < dims_; ++t) {
      tagged.sum[t] += tag[t];
    }
  }

  int64_t joints_, peaks_, dims_;
  TagOptions options_;
  const T* scores_ = nullptr;
  const T* tags_ = nullptr;
  std::vector<Tagged> people_;
  std::vector<int> candidates_;
  std::vector<double> costs_, distances_;
  LinearAssignment solver_;
};

template <typename T>
void group(
    const Tensor& peak_scores, const Tensor& counts, const Tensor& tags, const std::vector<int64_t>& order,
    const TagOptions& options, const PeopleOut& out) {
  const int64_t joints = peak_scores.size(1);
  const int64_t peaks = peak_scores.size(2);
  const int64_t dims = tags.size(3);
  const T* score = peak_scores.const_data_ptr<T>();
  const T* tag = tags.const_data_ptr<T>();
  const int64_t* count = counts.const_data_ptr<int64_t>();
  share_tasks(peak_scores.size(0), [&](Tasks& tasks) {
    TagAssembly<T> assembly(joints, peaks, dims, options);
    for (int64_t b; tasks.take(b);) {
      assembly.start(score + b * joints * peaks, tag + b * joints * peaks * dims);
      for (const int64_t joint : order) {
        assembly.add_joint(joint, usable_count(count[b * joints + joint], peaks));
      }
      out.write<T>(b, assembly.finish());
    }
  });
}

void check_order(const char* op, const std::vector<int64_t>& order, int64_t joints) {
  std::vector<char> seen(joints, 0);
  for (const int64_t joint : order) {
    PYPOSE_OPS_CHECK(
        joint >= 0 && joint < joints && !seen[joint], op, ": joint_order must name different joints from 0 to ",
        joints - 1, ", got ", joint);
    seen[joint] = 1;
  }
}

PeopleTensors group_by_tags_cpu(
    const Tensor& peak_scores, const Tensor& counts, const Tensor& tags, const std::vector<int64_t>& order,
    double min_score, double max_distance, int64_t max_people) {
  constexpr const char* op = "group_by_tags";
  check_peaks(op, peak_scores, counts, max_people);
  check_dim(op, "tags", tags, 4, "(B, K, M, T)");
  for (int64_t d = 0; d < 3; ++d) {
    check_size(op, "tags", tags, d, peak_scores.size(d));
  }
  PYPOSE_OPS_CHECK(
      tags.scalar_type() == peak_scores.scalar_type(), op, ": tags must be ",
      torch::headeronly::toString(peak_scores.scalar_type()), " like peaks.scores, got ",
      torch::headeronly::toString(tags.scalar_type()));
  check_same_device(op, "tags", tags, "peaks.scores", peak_scores);
  check_order(op, order, peak_scores.size(1));
  PYPOSE_OPS_CHECK(!std::isnan(min_score), op, ": min_score must be a number, got ", min_score);
  PYPOSE_OPS_CHECK(
      max_distance > 0 && max_distance <= kFar, op, ": max_distance must be positive and at most ", kFar, ", got ",
      max_distance);
  const PeopleOut out(peak_scores, peak_scores.size(0), max_people, peak_scores.size(1));
  const Tensor score = as_contiguous(peak_scores);
  const Tensor count = as_contiguous(counts);
  const Tensor tag = as_contiguous(tags);
  const TagOptions options{min_score, max_distance};
  if (score.scalar_type() == ScalarType::Double) {
    group<double>(score, count, tag, order, options, out);
  } else {
    group<float>(score, count, tag, order, options, out);
  }
  return out.tensors();
}

GatheredPeople group_by_tags_gathered(
    const Tensor& coords, const Tensor& scores, const Tensor& counts, const Tensor& tags,
    const std::vector<int64_t>& order, double min_score, double max_distance, int64_t max_people, double missing) {
  constexpr const char* op = "group_by_tags";
  check_gathered(op, coords, scores);
  const Tensor peak_scores = as_type(scores, tags.scalar_type());
  const PeopleTensors people =
      group_by_tags_cpu(peak_scores, counts, tags, order, min_score, max_distance, max_people);
  return gather_joints(coords, scores, people, missing);
}

}  // namespace

#define PYPOSE_OPS_ARGUMENTS \
  "Tensor counts, Tensor tags, int[] order, float min_score, float max_distance, SymInt max_people"

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def("group_by_tags(Tensor peak_scores, " PYPOSE_OPS_ARGUMENTS ") -> (" PYPOSE_OPS_PEOPLE ")");
  m.def(
      "_group_by_tags(Tensor coords, Tensor scores, " PYPOSE_OPS_ARGUMENTS ", float missing) -> "
      "(" PYPOSE_OPS_GATHERED_PEOPLE ")");
}
#undef PYPOSE_OPS_ARGUMENTS

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("group_by_tags", TORCH_BOX(&group_by_tags_cpu));
  m.impl("_group_by_tags", TORCH_BOX(&group_by_tags_gathered));
}

}  // namespace pypose_ops

// group_people: from the scores of limbs to people, on the host. It has no CUDA kernel: an assignment is a chain of
// small dependent steps, and the tables are small.
#include <cmath>

#include <torch/csrc/stable/library.h>

#include "common/tasks.h"
#include "grouping/assignment.h"
#include "grouping/oks.h"
#include "grouping/people.h"
#include "grouping/score_limbs.h"

namespace pypose_ops {
namespace {

using namespace grouping;

enum class Assignment : int { optimal, greedy };

struct GroupOptions {
  Assignment assignment;
  double min_limb_score, min_score;
  int64_t min_joints;
};

// One image's peaks. owner[k * peaks + m] is the person that peak m of joint k belongs to, -1: none yet.
template <typename T>
class Assembly {
 public:
  Assembly(int64_t joints, int64_t peaks) : joints_(joints), peaks_(peaks) {}

  void start(const T* peak_scores) {
    peak_scores_ = peak_scores;
    people_.clear();
    owner_.assign(joints_ * peaks_, -1);
  }

  // A limb between peak i of joint a and peak j of joint b. It is left out where it contradicts the better limbs before
  // it: a person has one peak of each joint.
  void connect(int64_t a, int64_t b, int i, int j, double score) {
    const int first = owner_[a * peaks_ + i];
    const int second = owner_[b * peaks_ + j];
    if (first < 0 && second < 0) {
      people_.emplace_back(joints_);
      const int person = static_cast<int>(people_.size()) - 1;
      add(person, a, i);
      add(person, b, j);
      add_limb(person, score);
    } else if (second < 0) {
      extend(first, b, j, score);
    } else if (first < 0) {
      extend(second, a, i, score);
    } else if (first == second) {
      add_limb(first, score);
    } else {
      merge(first, second, score);
    }
  }

  std::vector<Person> finish(const GroupOptions& options) {
    std::vector<Person> kept;
    for (Person& person : people_) {
      person.score = person.joints > 0 ? person.score / person.joints : 0.0;
      if (person.joints >= std::max<int64_t>(1, options.min_joints) && person.score >= options.min_score) {
        kept.push_back(std::move(person));
      }
    }
    return kept;
  }

 private:
  void add(int person, int64_t joint, int32_t peak) {
    people_[person].peak[joint] = peak;
    people_[person].joints += 1;
    const double score = peak_scores_[joint * peaks_ + peak];
    people_[person].score += std::isfinite(score) ? score : 0.0;
    owner_[joint * peaks_ + peak] = person;
  }

  void add_limb(int person, double score) {
    people_[person].score += score;
    people_[person].limb_score += score;
  }

  void extend(int person, int64_t joint, int peak, double score) {
    if (people_[person].peak[joint] < 0) {
      add(person, joint, peak);
      add_limb(person, score);
    }
  }

  // Two halves of a person: only where they share no joint.
  void merge(int into, int from, double score) {
    Person& whole = people_[into];
    Person& part = people_[from];
    for (int64_t k = 0; k < joints_; ++k) {
      if (whole.peak[k] >= 0 && part.peak[k] >= 0) {
        return;
      }
    }
    for (int64_t k = 0; k < joints_; ++k) {
      if (part.peak[k] >= 0) {
        whole.peak[k] = part.peak[k];
        owner_[k * peaks_ + part.peak[k]] = into;
        part.peak[k] = -1;
      }
    }
    whole.joints += part.joints;
    whole.score += part.score;
    whole.limb_score += part.limb_score;
    add_limb(into, score);
    part.joints = 0;
  }

  int64_t joints_, peaks_;
  const T* peak_scores_ = nullptr;
  std::vector<Person> people_;
  std::vector<int> owner_;
};

template <typename T>
void group(
    const Tensor& peak_scores, const Tensor& counts, const Tensor& limb_scores, const std::vector<int64_t>& limbs,
    const GroupOptions& options, const PeopleOut& out) {
  const int64_t joints = peak_scores.size(1);
  const int64_t peaks = peak_scores.size(2);
  const int64_t limb_count = limb_scores.size(1);
  const T* peak = peak_scores.const_data_ptr<T>();
  const T* table = limb_scores.const_data_ptr<T>();
  const int64_t* count = counts.const_data_ptr<int64_t>();
  share_tasks(peak_scores.size(0), [&](Tasks& tasks) {
    Connector connector;
    Assembly<T> assembly(joints, peaks);
    for (int64_t b; tasks.take(b);) {
      assembly.start(peak + b * joints * peaks);
      for (int64_t l = 0; l < limb_count; ++l) {
        const int64_t from = limbs[2 * l];
        const int64_t to = limbs[2 * l + 1];
        const int rows = static_cast<int>(usable_count(count[b * joints + from], peaks));
        const int columns = static_cast<int>(usable_count(count[b * joints + to], peaks));
        const T* scores = table + (b * limb_count + l) * peaks * peaks;
        const auto& connections = options.assignment == Assignment::greedy
            ? connector.greedy(scores, rows, columns, peaks, options.min_limb_score)
            : connector.optimal(scores, rows, columns, peaks, options.min_limb_score);
        for (const Connection& c : connections) {
          assembly.connect(from, to, c.row, c.column, c.score);
        }
      }
      out.write<T>(b, assembly.finish(options));
    }
  });
}

PeopleTensors group_people_cpu(
    const Tensor& peak_scores, const Tensor& counts, const Tensor& limb_scores, const std::vector<int64_t>& limbs,
    int64_t assignment, double min_limb_score, int64_t min_joints, double min_score, int64_t max_people) {
  constexpr const char* op = "group_people";
  check_peaks(op, peak_scores, counts, max_people);
  check_limbs(op, limbs, peak_scores.size(1));
  const int64_t peaks = peak_scores.size(2);
  check_dim(op, "limb_scores", limb_scores, 4, "(B, L, M, M)");
  check_size(op, "limb_scores", limb_scores, 0, peak_scores.size(0));
  check_size(op, "limb_scores", limb_scores, 1, static_cast<int64_t>(limbs.size()) / 2);
  check_size(op, "limb_scores", limb_scores, 2, peaks);
  check_size(op, "limb_scores", limb_scores, 3, peaks);
  PYPOSE_OPS_CHECK(
      limb_scores.scalar_type() == peak_scores.scalar_type(), op, ": limb_scores must be ",
      torch::headeronly::toString(peak_scores.scalar_type()), " like peaks.scores, got ",
      torch::headeronly::toString(limb_scores.scalar_type()));
  check_same_device(op, "limb_scores", limb_scores, "peaks.scores", peak_scores);
  PYPOSE_OPS_CHECK(
      min_limb_score >= 0, op, ": min_limb_score must not be negative, got ", min_limb_score);
  PYPOSE_OPS_CHECK(!std::isnan(min_score), op, ": min_score must be a number, got ", min_score);
  const GroupOptions options{
      check_choice<Assignment>(op, "assignment", assignment, 2), min_limb_score, min_score, min_joints};
  const PeopleOut out(peak_scores, peak_scores.size(0), max_people, peak_scores.size(1));
  const Tensor peak = as_contiguous(peak_scores);
  const Tensor count = as_contiguous(counts);
  const Tensor table = as_contiguous(limb_scores);
  if (peak.scalar_type() == ScalarType::Double) {
    group<double>(peak, count, table, limbs, options, out);
  } else {
    group<float>(peak, count, table, limbs, options, out);
  }
  return out.tensors();
}

GatheredPeople group_people_gathered(
    const Tensor& coords, const Tensor& scores, const Tensor& counts, const Tensor& limb_scores,
    const std::vector<int64_t>& limbs, int64_t assignment, double min_limb_score, int64_t min_joints, double min_score,
    int64_t max_people, double missing) {
  constexpr const char* op = "group_people";
  check_gathered(op, coords, scores);
  const Tensor peak_scores = as_type(scores, limb_scores.scalar_type());
  const PeopleTensors people = group_people_cpu(
      peak_scores, counts, limb_scores, limbs, assignment, min_limb_score, min_joints, min_score, max_people);
  return gather_joints(coords, scores, people, missing);
}

}  // namespace

#define PYPOSE_OPS_ARGUMENTS \
  "Tensor counts, Tensor limb_scores, int[] limbs, int assignment, float min_limb_score, int min_joints, float " \
  "min_score, SymInt max_people"

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def("group_people(Tensor peak_scores, " PYPOSE_OPS_ARGUMENTS ") -> (" PYPOSE_OPS_PEOPLE ")");
  m.def(
      "_group_people(Tensor coords, Tensor scores, " PYPOSE_OPS_ARGUMENTS ", float missing) -> "
      "(" PYPOSE_OPS_GATHERED_PEOPLE ")");
}
#undef PYPOSE_OPS_ARGUMENTS

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("group_people", TORCH_BOX(&group_people_cpu));
  m.impl("_group_people", TORCH_BOX(&group_people_gathered));
}

}  // namespace pypose_ops

// The people of one image while they are put together, and the tensors they are written to.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <tuple>
#include <vector>

#include "common/check.h"
#include "common/tensors.h"

namespace pypose_ops {
namespace grouping {

struct Person {
  std::vector<int32_t> peak;  // per joint, -1: none
  double score = 0;           // sum until it is written
  int32_t joints = 0;

  explicit Person(int64_t count) : peak(count, -1) {}
};

// (B, P, K), (B, P), (B, P), (B,): peaks of the people, best first, -1 where there is none; scores; joints; people.
struct PeopleOut {
  Tensor peaks, scores, joints, counts;

  PeopleOut(const Tensor& like, int64_t batch, int64_t people, int64_t joints_each)
      : peaks(torch::stable::new_empty(like, {batch, people, joints_each}, ScalarType::Long)),
        scores(torch::stable::new_empty(like, {batch, people})),
        joints(torch::stable::new_empty(like, {batch, people}, ScalarType::Long)),
        counts(torch::stable::new_empty(like, {batch}, ScalarType::Long)) {}

  std::tuple<Tensor, Tensor, Tensor, Tensor> tensors() const {
    return {peaks, scores, joints, counts};
  }

  // The best people of image b, whose scores are final; ties keep the order in which they were found.
  template <typename T>
  void write(int64_t b, const std::vector<Person>& people) const {
    const int64_t rows = peaks.size(1);
    const int64_t columns = peaks.size(2);
    std::vector<int> order(people.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(
        order.begin(), order.end(), [&](int i, int j) { return people[i].score > people[j].score; });
    const int64_t found = std::min<int64_t>(rows, static_cast<int64_t>(people.size()));
    int64_t* peak = peaks.mutable_data_ptr<int64_t>() + b * rows * columns;
    T* score = scores.mutable_data_ptr<T>() + b * rows;
    int64_t* joint = joints.mutable_data_ptr<int64_t>() + b * rows;
    std::fill(peak, peak + rows * columns, int64_t(-1));
    std::fill(score, score + rows, T(0));
    std::fill(joint, joint + rows, int64_t(0));
    for (int64_t p = 0; p < found; ++p) {
      const Person& person = people[order[p]];
      std::copy(person.peak.begin(), person.peak.end(), peak + p * columns);
      score[p] = static_cast<T>(person.score);
      joint[p] = person.joints;
    }
    counts.mutable_data_ptr<int64_t>()[b] = found;
  }
};

// Rows of people in a result: more would only be memory.
constexpr int64_t kMaxPeople = int64_t(1) << 20;

inline void check_peaks(const char* op, const Tensor& peak_scores, const Tensor& counts, int64_t max_people) {
  check_dim(op, "peaks.scores", peak_scores, 3, "(B, K, M)");
  check_coordinates(op, "peaks.scores", peak_scores);
  check_dim(op, "peaks.counts", counts, 2, "(B, K)");
  check_size(op, "peaks.counts", counts, 0, peak_scores.size(0));
  check_size(op, "peaks.counts", counts, 1, peak_scores.size(1));
  PYPOSE_OPS_CHECK(
      counts.scalar_type() == ScalarType::Long, op, ": peaks.counts must be int64, got ",
      torch::headeronly::toString(counts.scalar_type()));
  check_same_device(op, "peaks.counts", counts, "peaks.scores", peak_scores);
  PYPOSE_OPS_CHECK(
      max_people >= 0 && max_people <= kMaxPeople, op, ": max_people must not be negative nor above ", kMaxPeople,
      ", got ", max_people);
}

}  // namespace grouping
}  // namespace pypose_ops

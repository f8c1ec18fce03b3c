// The people of one image while they are put together, and the tensors they are written to.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <tuple>
#include <vector>

#include "common/tensors.h"
#include "grouping/peak_counts.h"

namespace pypose_ops {
namespace grouping {

struct Person {
  std::vector<int32_t> peak;  // per joint, -1: none
  double score = 0;           // sum until it is written
  double limb_score = 0;      // sum
  int32_t joints = 0;

  explicit Person(int64_t count) : peak(count, -1) {}
};

using PeopleTensors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

// People, best first: their peaks (B, P, K), -1 where there is none; scores, numbers of joints (B, P); how many people
// there were (B,), also those without a row; sums of limb scores, and which was started first, second, ... (B, P).
struct PeopleOut {
  Tensor peaks, scores, joints, counts, limb_scores, order;

  PeopleOut(const Tensor& like, int64_t batch, int64_t people, int64_t joints_each)
      : peaks(empty_beside(like, {batch, people, joints_each}, ScalarType::Long)),
        scores(empty_beside(like, {batch, people})),
        joints(empty_beside(like, {batch, people}, ScalarType::Long)),
        counts(empty_beside(like, {batch}, ScalarType::Long)),
        limb_scores(empty_beside(like, {batch, people})),
        order(empty_beside(like, {batch, people}, ScalarType::Long)) {}

  PeopleTensors tensors() const {
    return {peaks, scores, joints, counts, limb_scores, order};
  }

  // The best people of image b, whose scores are final; ties keep the order in which they were found.
  template <typename T>
  void write(int64_t b, const std::vector<Person>& people) const {
    const int64_t rows = peaks.size(1);
    const int64_t columns = peaks.size(2);
    std::vector<int> ranked(people.size());
    std::iota(ranked.begin(), ranked.end(), 0);
    std::stable_sort(
        ranked.begin(), ranked.end(), [&](int i, int j) { return people[i].score > people[j].score; });
    const int64_t found = std::min<int64_t>(rows, static_cast<int64_t>(people.size()));
    int64_t* peak = peaks.mutable_data_ptr<int64_t>() + b * rows * columns;
    T* score = scores.mutable_data_ptr<T>() + b * rows;
    T* limb_score = limb_scores.mutable_data_ptr<T>() + b * rows;
    int64_t* joint = joints.mutable_data_ptr<int64_t>() + b * rows;
    int64_t* place = order.mutable_data_ptr<int64_t>() + b * rows;
    std::fill(peak, peak + rows * columns, int64_t(-1));
    std::fill(score, score + rows, T(0));
    std::fill(joint, joint + rows, int64_t(0));
    std::fill(limb_score, limb_score + rows, T(0));
    std::fill(place, place + rows, int64_t(-1));
    for (int64_t p = 0; p < found; ++p) {
      const Person& person = people[ranked[p]];
      std::copy(person.peak.begin(), person.peak.end(), peak + p * columns);
      score[p] = static_cast<T>(person.score);
      joint[p] = person.joints;
      limb_score[p] = static_cast<T>(person.limb_score);
      place[p] = ranked[p];
    }
    counts.mutable_data_ptr<int64_t>()[b] = static_cast<int64_t>(people.size());
  }
};

// Rows of people in a result: more would only be memory.
constexpr int64_t kMaxPeople = int64_t(1) << 20;

inline void check_peaks(const char* op, const Tensor& peak_scores, const Tensor& counts, int64_t max_people) {
  check_dim(op, "peaks.scores", peak_scores, 3, "(B, K, M)");
  check_coordinates(op, "peaks.scores", peak_scores);
  check_counts(op, counts, "peaks.scores", peak_scores);
  PYPOSE_OPS_CHECK(
      max_people >= 0 && max_people <= kMaxPeople, op, ": max_people must not be negative nor above ", kMaxPeople,
      ", got ", max_people);
}

// Where the peaks lie on the host, what a joint needs is gathered at once: every pass through the dispatcher costs more
// than the grouping of one image.
using GatheredPeople = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

inline void check_gathered(const char* op, const Tensor& coords, const Tensor& scores) {
  check_dim(op, "peaks.coords", coords, 4, "(B, K, M, 2)");
  check_size(op, "peaks.coords", coords, 3, 2);
  check_coordinates(op, "peaks.coords", coords);
  PYPOSE_OPS_CHECK(
      scores.sizes() == coords.sizes().slice(0, 3), op, ": peaks.scores must be ", shape_of(coords),
      " without its last axis, got shape ", shape_of(scores));
  PYPOSE_OPS_CHECK(
      scores.scalar_type() == coords.scalar_type(), op, ": peaks.scores must have the dtype of peaks.coords, ",
      torch::headeronly::toString(coords.scalar_type()), ", got ", torch::headeronly::toString(scores.scalar_type()));
}

template <typename T>
void gather_joints(
    const Tensor& coords, const Tensor& scores, const Tensor& index, T missing, const Tensor& coords_out,
    const Tensor& scores_out) {
  const int64_t joints = index.size(2), peaks = scores.size(2), rows = index.size(1);
  const T* from = coords.const_data_ptr<T>();
  const T* score = scores.const_data_ptr<T>();
  const int64_t* peak = index.const_data_ptr<int64_t>();
  T* to = coords_out.mutable_data_ptr<T>();
  T* score_to = scores_out.mutable_data_ptr<T>();
  const int64_t images = index.size(0);
  for (int64_t b = 0; b < images; ++b) {
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t k = 0; k < joints; ++k, ++peak, to += 2) {
        const bool found = *peak >= 0;
        const int64_t at = (b * joints + k) * peaks + *peak;
        to[0] = found ? from[2 * at] : missing;
        to[1] = found ? from[2 * at + 1] : missing;
        *score_to++ = found ? score[at] : T(0);
      }
    }
  }
}

// Coordinates and scores of people's joints, by the numbers of their peaks; `missing` and 0 for -1, none. The people's
// scores get the dtype of the peaks'.
inline GatheredPeople gather_joints(
    const Tensor& coords, const Tensor& scores, const PeopleTensors& people, double missing) {
  const auto& [index, person_scores, joint_counts, counts, limb_scores, order] = people;
  const ScalarType dtype = scores.scalar_type();
  const Tensor coords_out = empty_beside(coords, {index.size(0), index.size(1), index.size(2), 2});
  const Tensor scores_out = empty_beside(scores, {index.size(0), index.size(1), index.size(2)});
  const Tensor dense = as_contiguous(coords), dense_scores = as_contiguous(scores);
  if (dtype == ScalarType::Double) {
    gather_joints<double>(dense, dense_scores, index, missing, coords_out, scores_out);
  } else {
    gather_joints<float>(dense, dense_scores, index, static_cast<float>(missing), coords_out, scores_out);
  }
  return {
      coords_out, scores_out, as_type(person_scores, dtype), joint_counts, counts, index, as_type(limb_scores, dtype),
      order};
}

// As schemas name them.
#define PYPOSE_OPS_PEOPLE \
  "Tensor peaks, Tensor scores, Tensor joint_counts, Tensor counts, Tensor limb_scores, Tensor order"
#define PYPOSE_OPS_GATHERED_PEOPLE                                                                              \
  "Tensor coords, Tensor joint_scores, Tensor scores, Tensor joint_counts, Tensor counts, Tensor peaks, Tensor " \
  "limb_scores, Tensor order"

}  // namespace grouping
}  // namespace pypose_ops

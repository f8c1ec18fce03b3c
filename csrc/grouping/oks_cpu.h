// OKS on the CPU: the annotated people of one image as arrays for the vector code. Shared by oks and match_people.
#pragma once

#include <vector>

#include "grouping/oks.h"

namespace pypose_ops {
namespace grouping {

// The annotated people of one image as flat arrays over (g, k), rounded up to whole vectors, so that the loops that
// take the exponentials have no remainder.
template <typename acc>
struct Targets {
  int64_t image = -1;
  std::vector<acc> low_x, high_x, low_y, high_y, scale, counted;
  std::vector<acc> divisor;  // per person: only the sum is divided, so that joints without error make a similarity of 1

  explicit Targets(const OksShape& shape) {
    resize(shape);
  }

  void resize(const OksShape& shape) {
    const int64_t lanes = simd::kMostLanes<acc>;
    const size_t size = (shape.targets * shape.joints + lanes - 1) / lanes * lanes;
    for (std::vector<acc>* values : {&low_x, &high_x, &low_y, &high_y, &scale, &counted}) {
      values->resize(size);
    }
    divisor.resize(shape.targets);
  }

  void fill(const OksInput<acc>& in, const OksShape& shape, const double* sigmas, int64_t b) {
    if (image == b) {
      return;
    }
    image = b;
    for (int64_t g = 0; g < shape.targets; ++g) {
      const int64_t person = b * shape.targets + g;
      const int64_t count = count_joints(in, shape, person);
      const acc area = usable_area(in.area[person]);
      divisor[g] = oks_divisor<acc>(shape, count);
      for (int64_t k = 0; k < shape.joints; ++k) {
        const Place<acc> place = place_of(in, shape, person, k, count);
        const int64_t i = g * shape.joints + k;
        low_x[i] = place.x.low;
        high_x[i] = place.x.high;
        low_y[i] = place.y.low;
        high_y[i] = place.y.high;
        scale[i] = oks_scale(sigma_factor<acc>(sigmas[k]), area);
        counted[i] = place.counted ? acc(1) : acc(0);
      }
    }
  }
};

// values[g, k] = exp(-e) for one prediction, 0 where the joint does not count.
template <typename acc>
void similarities(const acc* pred, const Targets<acc>& t, const OksShape& shape, acc* values) {
  const int people = static_cast<int>(shape.targets);
  const int joints = static_cast<int>(shape.joints);
  const int padded = static_cast<int>(t.scale.size());
  const acc* low_x = t.low_x.data();
  const acc* high_x = t.high_x.data();
  const acc* low_y = t.low_y.data();
  const acc* high_y = t.high_y.data();
  const acc* scale = t.scale.data();
  const acc* counted = t.counted.data();
  simd_call([=] {
    for (int g = 0; g < people; ++g) {
      const int first = g * joints;
      for (int k = 0; k < joints; ++k) {
        const acc dx = offset_from(pred[2 * k], low_x[first + k], high_x[first + k]);
        const acc dy = offset_from(pred[2 * k + 1], low_y[first + k], high_y[first + k]);
        values[first + k] = (dx * dx + dy * dy) * scale[first + k];
      }
    }
    for (int i = 0; i < padded; ++i) {
      values[i] = counted[i] * similarity(values[i]);
    }
  });
}

// The similarity to person g, of these values.
template <typename acc>
acc mean_similarity(const acc* values, const Targets<acc>& t, const OksShape& shape, int64_t g) {
  acc sum = 0;
  for (int64_t k = 0; k < shape.joints; ++k) {
    sum += values[g * shape.joints + k];
  }
  return sum / t.divisor[g];
}

}  // namespace grouping
}  // namespace pypose_ops

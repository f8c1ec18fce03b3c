// Per-joint constants as a kernel parameter: no copy to the device, so that a call can be captured in a CUDA graph.
#pragma once

#include <vector>

#include "common/check.h"

namespace pypose_ops {
namespace grouping {

constexpr int kMaxJoints = 384;  // of the 4 KB that all parameters of a kernel may take

struct JointConstants {
  double value[kMaxJoints];

  JointConstants(const char* op, const std::vector<double>& values) : value{} {
    PYPOSE_OPS_CHECK(
        values.size() <= kMaxJoints, op, ": sigmas must be at most ", kMaxJoints, " on CUDA, got ", values.size());
    for (size_t k = 0; k < values.size(); ++k) {
      value[k] = values[k];
    }
  }
};

}  // namespace grouping
}  // namespace pypose_ops

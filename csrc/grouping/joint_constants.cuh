// What oks and oks_nms know of the joints, as a kernel parameter: no copy to the device, so that a call can be captured.
#pragma once

#include <vector>

#include "grouping/oks.h"

namespace pypose_ops {
namespace grouping {

constexpr int kMaxJoints = 1024;  // 8 KB of float64 in a kernel's parameters

template <typename acc>
struct SigmaFactors {
  acc value[kMaxJoints];

  SigmaFactors(const char* op, const std::vector<double>& sigmas) : value{} {
    PYPOSE_OPS_CHECK(
        sigmas.size() <= kMaxJoints, op, ": sigmas must be at most ", kMaxJoints, " on CUDA, got ", sigmas.size());
    for (size_t k = 0; k < sigmas.size(); ++k) {
      value[k] = sigma_factor<acc>(sigmas[k]);
    }
  }
};

}  // namespace grouping
}  // namespace pypose_ops

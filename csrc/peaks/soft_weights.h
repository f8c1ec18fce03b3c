// The weights of soft_argmax on the CPU, for the forward and the backward.
#pragma once

#include <limits>

#include "common/simd.h"

namespace pypose_ops {
namespace peaks {

constexpr double kLog2E = 1.44269504088896340736;

// 2^x for x <= 0, relative error below 3e-7; 2^-125 below that. The integer part goes to the exponent, the rest through the
// minimax polynomial on [-1/2, 1/2].
POSE_HD float exp2_down(float x) {
  const float in_range = x > -125.0f ? x : -125.0f;
  const float shifted = in_range + 12582912.0f;  // 1.5 * 2^23: rounds to an integer
  const float f = in_range - (shifted - 12582912.0f);
  float p = 1.326470031e-3f;
  p = p * f + 9.671514539e-3f;
  p = p * f + 5.550733832e-2f;
  p = p * f + 2.402224204e-1f;
  p = p * f + 6.931469775e-1f;
  p = p * f + 1.0f;
  return simd::bits_to<float>(simd::bits_to<uint32_t>(p) + (simd::bits_to<uint32_t>(shifted) << 23));
}
POSE_HD double exp2_down(double x) {
  return __builtin_exp2(x);
}

// exp(temperature (value - highest)) with scale = temperature log2 e; as good as 0 where the pixel is not finite: highest is
// the highest that is.
template <typename acc>
POSE_HD acc weight_of(acc value, acc highest, acc scale) {
  return exp2_down(value <= highest ? scale * (value - highest) : -std::numeric_limits<acc>::infinity());
}

}  // namespace peaks
}  // namespace pypose_ops

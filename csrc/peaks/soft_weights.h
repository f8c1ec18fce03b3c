// The weights of soft_argmax on the CPU, for the forward and the backward.
#pragma once

#include "common/simd.h"

namespace pypose_ops {
namespace peaks {

constexpr double kLog2E = 1.44269504088896340736;

// 2^x, relative error below 3e-7, for x from -125 to 0; 0 for every other x, NaN included. The integer part goes to the
// exponent, the rest through the minimax polynomial on [-1/2, 1/2].
PYPOSE_OPS_HOST_DEVICE float exp2_down(float x) {
  const float shifted = x + 12582912.0f;  // 1.5 * 2^23: rounds to an integer
  const float f = x - (shifted - 12582912.0f);
  float p = 1.326470031e-3f;
  p = p * f + 9.671514539e-3f;
  p = p * f + 5.550733832e-2f;
  p = p * f + 2.402224204e-1f;
  p = p * f + 6.931469775e-1f;
  p = p * f + 1.0f;
  const float power = simd::bits_to<float>(simd::bits_to<uint32_t>(p) + (simd::bits_to<uint32_t>(shifted) << 23));
  return static_cast<int>(x > -125.0f) & static_cast<int>(x <= 0.0f) ? power : 0.0f;
}
PYPOSE_OPS_HOST_DEVICE double exp2_down(double x) {
  return x <= 0 ? __builtin_exp2(x) : 0;
}

// exp(temperature (value - highest)) with scale = temperature log2 e. `highest` is the highest finite pixel: 0 for every
// pixel that is not finite.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc weight_of(acc value, acc highest, acc scale) {
  return exp2_down(scale * (value - highest));
}

}  // namespace peaks
}  // namespace pypose_ops

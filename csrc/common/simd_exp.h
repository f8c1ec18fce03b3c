// The exponential function in double for loops over arrays.
#pragma once

#include <cstdint>

#include "common/simd.h"

namespace pypose_ops {
namespace simd {

// e^x in double, |error| < 2 ulp, 0 below the smallest normal result. Cephes' reduction and rational function, without
// branches, so that loops vectorise.
PYPOSE_OPS_HOST_DEVICE double branchless_exp(double x) {
  const double in_range =
      x < -708.39641853226410 ? -708.39641853226410 : (x > 709.43613930310391 ? 709.43613930310391 : x);
  const double shifted = in_range * 1.44269504088896340736 + 6755399441055744.0;  // 1.5 * 2^52: rounds to an integer
  const double n = shifted - 6755399441055744.0;
  const double r = in_range - n * 6.93145751953125e-1 - n * 1.42860682030941723212e-6;
  const double square = r * r;
  const double p = r * ((1.26177193074810590878e-4 * square + 3.02994407707441961300e-2) * square + 1.0);
  const double q =
      ((3.00198505138664455042e-6 * square + 2.52448340349684104192e-3) * square + 2.27265548208155028766e-1) * square +
      2.0;
  const double scale = bits_to<double>((bits_to<uint64_t>(shifted) + 1023u) << 52);
  return x < -708.39641853226410 ? 0.0 : (1.0 + 2.0 * (p / (q - p))) * scale;
}
// In float simd::exp is so itself.
PYPOSE_OPS_HOST_DEVICE float branchless_exp(float x) {
  return exp(x);
}

}  // namespace simd
}  // namespace pypose_ops

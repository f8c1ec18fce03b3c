// Arithmetic that the formulas of several operators share, the same on both devices.
#pragma once

#include <cmath>
#include <limits>

#include "common/dispatch.h"
#ifndef __CUDA_ARCH__
#include "common/simd_exp.h"
#endif

namespace pypose_ops {

template <typename acc>
PYPOSE_OPS_HOST_DEVICE bool is_finite(acc value) {
  constexpr acc largest = std::numeric_limits<acc>::max();
  return value >= -largest && value <= largest;
}

template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc finite_or_zero(acc value) {
  return is_finite(value) ? value : acc(0);
}

PYPOSE_OPS_HOST_DEVICE float round_half_up(float value) {
  return ::floorf(value + 0.5f);
}
PYPOSE_OPS_HOST_DEVICE double round_half_up(double value) {
  return ::floor(value + 0.5);
}

// e^x: CUDA's function on the device, one that loops can vectorise on the host.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc exponential(acc x) {
#ifdef __CUDA_ARCH__
  return ::exp(x);
#else
  return simd::branchless_exp(x);
#endif
}

// log x of a positive normal number, likewise.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE acc logarithm(acc x) {
#ifdef __CUDA_ARCH__
  return ::log(x);
#else
  return simd::log(x);
#endif
}

constexpr int kNowhere = std::numeric_limits<int>::max();

// A value and where it was found. A search begins at kNowhere.
template <typename acc>
struct Indexed {
  acc value;
  int index;

  PYPOSE_OPS_HOST_DEVICE bool found() const {
    return index != kNowhere;
  }
};

// Of two the one with the higher value, of equals the one with the lower index.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE Indexed<acc> better(const Indexed<acc>& a, const Indexed<acc>& b) {
  return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}

}  // namespace pypose_ops

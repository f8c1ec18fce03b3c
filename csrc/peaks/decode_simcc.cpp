// decode_simcc on the CPU.
#include "peaks/decode_simcc.h"

#include <algorithm>
#include <tuple>
#include <type_traits>

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include "common/simd.h"
#include "peaks/refine_cpu.h"

namespace pypose_ops {
namespace {

using namespace peaks;

template <typename Isa, typename scalar, typename acc = acc_t<scalar>>
Peak<acc> find_bin(Isa isa, const scalar* row, int bins, acc threshold) {
  const auto whole = [row](int) { return row; };
  return threshold < 0 ? find_peak<true, scalar>(isa, bins, bins, threshold, whole)
                       : find_peak<false, scalar>(isa, bins, bins, threshold, whole);
}

// DARK's step from the bins first ... first + count - 1 around a peak.
template <typename acc>
acc step_in_line(
    const acc* line, int first, int count, const LineTaps<acc>& taps, const LineStencil& stencil, Peak<acc> peak,
    int bins, bool compat) {
  acc blurred[kSpan];
  for (int i = 0; i < kSpan; ++i) {
    const int center = clamped(stencil.center + i - kReach, bins) - first;
    blurred[i] = blurred_bin(line, count, taps, center, stencil.reach);
  }
  return line_step(blurred, peak.value, stencil.center - peak.index, compat);
}

template <typename scalar, typename acc>
acc refine_bin(const SimccArguments<scalar>& args, int axis, const scalar* row, Peak<acc> peak) {
  const int bins = args.bins[axis];
  if (!args.dark || !peak.found() || !line_dark_applies(bins, args.compat)) {
    return 0;
  }
  const LineTaps<acc>& taps = args.taps[axis];
  const LineStencil stencil(peak.index, bins, taps.size, args.compat);
  if constexpr (std::is_same_v<scalar, acc>) {
    return step_in_line(row, 0, bins, taps, stencil, peak, bins, args.compat);
  }
  // Every bin is read up to five times: converted once.
  const int reach = kReach + taps.size / 2;
  const int first = std::max(0, stencil.center - reach);
  const int count = std::min(bins, stencil.center + reach + 1) - first;
  acc line[kMaxLineKernelSize + 2 * kReach];
  for (int i = 0; i < count; ++i) {
    line[i] = simd::load(row[first + i]);
  }
  return step_in_line(line, first, count, taps, stencil, peak, bins, args.compat);
}

template <typename scalar>
void decode_simcc_kernel(const SimccArguments<scalar>& args, int64_t count) {
  using acc = acc_t<scalar>;
  const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 15) / (int64_t{args.bins[0]} + args.bins[1]));
  torch::stable::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    simd_call([&](auto isa) {
      for (int64_t number = begin; number < end; ++number) {
        const scalar* row_x = args.row(0, number);
        const scalar* row_y = args.row(1, number);
        const Peak<acc> x = find_bin(isa, row_x, args.bins[0], args.threshold);
        const Peak<acc> y = find_bin(isa, row_y, args.bins[1], args.threshold);
        args.write(number, x, y, {refine_bin(args, 0, row_x, x), refine_bin(args, 1, row_y, y)});
      }
    });
  });
}

std::tuple<Tensor, Tensor> decode_simcc_cpu(
    const Tensor& x, const Tensor& y, double split_ratio, bool dark, bool compat, int64_t kernel_x, int64_t kernel_y,
    std::optional<double> max_offset, const std::optional<Tensor>& transform, std::optional<double> threshold_or_none,
    std::optional<double> missing_or_nan) {
  const double missing = missing_or_nan.value_or(std::numeric_limits<double>::quiet_NaN());
  const double threshold = threshold_of(threshold_or_none);
  check_simcc(x, y, split_ratio, kernel_x, kernel_y, transform, threshold);
  const double limit = check_max_offset(kSimcc, max_offset);
  SimccTensors tensors(x, y, transform);
  const int64_t count = tensors.scores.numel();
  if (count > 0) {
    PYPOSE_OPS_DISPATCH_FLOATING(x.scalar_type(), kSimcc, [&] {
      decode_simcc_kernel(
          tensors.arguments<scalar_t>(split_ratio, dark, compat, kernel_x, kernel_y, limit, threshold, missing),
          count);
    });
  }
  return {tensors.coords, tensors.scores};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "decode_simcc(Tensor x, Tensor y, float split_ratio, bool dark, bool compat, int kernel_x, int kernel_y, "
      "float? max_offset, Tensor? transform, float? threshold, float? missing) -> (Tensor coords, Tensor scores)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("decode_simcc", TORCH_BOX(&decode_simcc_cpu));
}

}  // namespace pypose_ops

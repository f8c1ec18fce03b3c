// soft_argmax on the CPU: one thread takes whole maps, one after the other.
#include "peaks/soft_argmax.h"

#include <algorithm>
#include <cstring>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include "common/simd.h"
#include "peaks/refine_cpu.h"
#include "peaks/soft_weights.h"

namespace pypose_ops {
namespace {

using namespace peaks;

// The highest finite pixel, the first of equals. Where one is positive that is the cheaper question.
template <typename Isa, typename scalar, typename acc = acc_t<scalar>>
Peak<acc> highest_finite(Isa isa, const scalar* pixels, int count) {
  const auto chunk = [pixels](int i) { return pixels + i; };
  const Peak<acc> positive = find_peak<false, scalar>(isa, count, kChunk, acc(0), chunk);
  return positive.found()
      ? positive
      : find_peak<true, scalar>(isa, count, kChunk, -std::numeric_limits<acc>::infinity(), chunk);
}

// Sums down the columns, so that no loop over pixels is a reduction; the columns are summed at the end.
template <typename acc>
struct Columns {
  std::vector<acc> sum, y, yy;

  explicit Columns(int width) : sum(width), y(width), yy(width) {}
};

constexpr int kRows = 2;  // taken at a time: the sums are read and written once for all of them

template <typename scalar, typename acc>
Moments<acc> sum_region(const SoftArguments<scalar>& args, const scalar* map, Peak<acc> peak, Columns<acc>& columns) {
  const int peak_x = peak.index % args.width;
  const int peak_y = peak.index / args.width;
  const Region region(args.window, peak_x, peak_y, args.width, args.height);
  const acc scale = args.temperature * acc(kLog2E);
  const acc highest = peak.value;
  acc* __restrict__ sum = columns.sum.data();
  acc* __restrict__ sum_y = columns.y.data();
  acc* __restrict__ sum_yy = columns.yy.data();
  for (int i = 0; i < region.width; ++i) {
    sum[i] = sum_y[i] = sum_yy[i] = 0;
  }
  const int bottom = region.top + region.height;
  const scalar* __restrict__ row = map + region.top * args.width + region.left;
  int y = region.top;
  for (; y + kRows <= bottom; y += kRows, row += kRows * args.width) {
    const acc dy = acc(y - peak_y);
    const scalar* __restrict__ next = row + args.width;
    for (int i = 0; i < region.width; ++i) {
      const acc first = weight_of<acc>(simd::load(row[i]), highest, scale);
      const acc second = weight_of<acc>(simd::load(next[i]), highest, scale);
      const acc both = first + second;
      const acc moment = dy * both + second;
      sum[i] += both;
      sum_y[i] += moment;
      sum_yy[i] += dy * (moment + second) + second;
    }
  }
  for (; y < bottom; ++y, row += args.width) {
    const acc dy = acc(y - peak_y);
    for (int i = 0; i < region.width; ++i) {
      const acc weight = weight_of<acc>(simd::load(row[i]), highest, scale);
      sum[i] += weight;
      sum_y[i] += weight * dy;
      sum_yy[i] += weight * dy * dy;
    }
  }
  Moments<acc> moments = {0, 0, 0, 0, 0};
  for (int i = 0; i < region.width; ++i) {
    const acc dx = acc(region.left + i - peak_x);
    moments.sum += sum[i];
    moments.x += sum[i] * dx;
    moments.xx += sum[i] * dx * dx;
    moments.y += sum_y[i];
    moments.yy += sum_yy[i];
  }
  return moments;
}

template <typename scalar>
void soft_argmax_kernel(const SoftArguments<scalar>& args, int64_t maps) {
  using acc = acc_t<scalar>;
  const int pixels = args.height * args.width;
  const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 15) / pixels);
  torch::stable::parallel_for(0, maps, grain, [&](int64_t begin, int64_t end) {
    const FlushSubnormals flush;
    Columns<acc> columns(args.width);
    simd_call([&](auto isa) {
      for (int64_t number = begin; number < end; ++number) {
        const scalar* map = args.maps + number * pixels;
        const Peak<acc> peak = highest_finite(isa, map, pixels);
        if (!peak.found()) {
          write_soft(args, number, Peak<acc>{0, 0}, Moments<acc>{0, 0, 0, 0, 0});
        } else {
          write_soft(args, number, peak, sum_region(args, map, peak, columns));
        }
      }
    });
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> soft_argmax_cpu(
    const Tensor& heatmaps, double temperature, int64_t window, std::optional<double> missing_or_nan) {
  const double missing = missing_or_nan.value_or(std::numeric_limits<double>::quiet_NaN());
  check_soft(heatmaps, temperature, window);
  SoftTensors tensors(heatmaps);
  const int64_t maps = tensors.index.numel();
  if (maps > 0) {
    PYPOSE_OPS_DISPATCH_FLOATING(heatmaps.scalar_type(), kSoft, [&] {
      soft_argmax_kernel(tensors.arguments<scalar_t>(temperature, window, missing), maps);
    });
  }
  return {tensors.coords, tensors.variance, tensors.stats, tensors.index};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "soft_argmax(Tensor heatmaps, float temperature, int window, float? missing) -> "
      "(Tensor coords, Tensor variance, Tensor stats, Tensor index)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("soft_argmax", TORCH_BOX(&soft_argmax_cpu));
}

}  // namespace pypose_ops

// decode_heatmaps on the CPU: one thread takes whole maps, one after the other.
#include "peaks/decode_heatmaps.h"

#include <algorithm>
#include <tuple>
#include <type_traits>
#include <vector>

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include "common/simd.h"
#include "peaks/refine_cpu.h"

namespace pypose_ops {
namespace {

using namespace peaks;

template <typename Isa, typename scalar, typename acc>
void decode_map(
    Isa isa, const Arguments<scalar>& args, const int64_t* flip_index, int64_t number, int rows, acc* buffer) {
  const MapView<scalar> map = args.view(flip_index, number);
  const Peak<acc> peak = find_peak(isa, map, args.threshold, rows, buffer);
  write_peak(
      args, number, peak,
      peak.found() ? refined(map, args.refinement, peak.index) : no_covariance(Step<acc>{0, 0}));
}

template <typename scalar>
void decode_heatmaps_kernel(const Arguments<scalar>& args, const int64_t* flip_index, int64_t maps) {
  const int64_t pixels = static_cast<int64_t>(args.height) * args.width;
  const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 16) / pixels);  // some 10 us
  torch::stable::parallel_for(0, maps, grain, [&](int64_t begin, int64_t end) {
    const int rows = merged_rows(args.view(flip_index, begin));
    std::vector<acc_t<scalar>> buffer(static_cast<size_t>(rows) * args.width);
    simd_call([&](auto isa) {
      for (int64_t number = begin; number < end; ++number) {
        decode_map(isa, args, flip_index, number, rows, buffer.data());
      }
    });
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> decode_heatmaps_cpu(
    const Tensor& heatmaps, int64_t refine, int64_t compat, int64_t kernel_size, const std::optional<Tensor>& flipped,
    const std::optional<std::vector<int64_t>>& flip_index, bool flip_shift, const std::optional<Tensor>& transform,
    std::optional<double> max_offset, std::optional<double> threshold_or_none, std::optional<double> missing_or_nan, bool covariance, bool pixels) {
  const double missing = missing_or_nan.value_or(std::numeric_limits<double>::quiet_NaN());
  const double threshold = threshold_of(threshold_or_none);
  const RefineOptions options =
      check_arguments(heatmaps, refine, compat, kernel_size, flipped, flip_index, transform, max_offset, threshold);
  Tensors tensors = allocate(heatmaps, flipped, transform, covariance, pixels);
  const int64_t maps = tensors.scores.numel();
  if (maps > 0) {
    make_contiguous(tensors);
    PYPOSE_OPS_DISPATCH_FLOATING(heatmaps.scalar_type(), "decode_heatmaps", [&] {
      auto args = make_arguments<scalar_t>(tensors, flip_shift, threshold, missing);
      args.refinement = options.as<acc_t<scalar_t>>();
      decode_heatmaps_kernel(args, flip_index.has_value() ? flip_index->data() : nullptr, maps);
    });
  }
  return {tensors.coords, tensors.scores, tensors.covariance, tensors.pixels};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "decode_heatmaps(Tensor heatmaps, int refine, int compat, int kernel_size, Tensor? flipped, int[]? flip_index, "
      "bool flip_shift, Tensor? transform, float? max_offset, float? threshold, float? missing, bool covariance, "
      "bool pixels) -> (Tensor coords, Tensor scores, Tensor covariance, Tensor pixels)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("decode_heatmaps", TORCH_BOX(&decode_heatmaps_cpu));
}

}  // namespace pypose_ops

// decode_heatmaps of maps with offsets on the CPU: one thread takes whole maps, one after the other.
#include "peaks/decode_offsets.h"

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

// A row of the output is whole vectors; the blurs keep a vector's sum in a register.
template <typename acc>
int padded_width(int width) {
  constexpr int lanes = simd::kMostLanes<acc>;
  return (width + lanes - 1) / lanes * lanes;
}

// sum of taps[i] * rows(i)[x] for all x.
template <typename Isa, typename acc, typename Rows>
void weigh(Isa isa, const Taps<acc>& taps, int width, acc* out, const Rows& rows) {
  for (int x = 0; x < width; x += simd::lanes<acc, Isa>) {
    simd::vec<acc, Isa> sum = {};
    for (int i = 0; i < taps.size; ++i) {
      sum += taps[i] * isa.load(rows(i) + x);
    }
    isa.store(out + x, sum);
  }
}

// The class map blurred along its rows.
template <typename Isa, typename scalar, typename acc>
void blur_rows(Isa isa, const MapView<scalar>& map, const Taps<acc>& taps, acc* padded, acc* across) {
  const int width = map.width;
  const int reach = taps.size / 2;
  const int stride = padded_width<acc>(width);
  for (int y = 0; y < map.height; ++y) {
    load_row(map, y, 0, width, padded + reach);
    for (int x = 0; x < width; ++x) {
      padded[reach + x] = finite_or_zero(padded[reach + x]);
    }
    for (int i = 1; i <= reach; ++i) {
      padded[reach - i] = padded[reach + outside(-i, width, Border::reflect101)];
      padded[reach + width - 1 + i] = padded[reach + outside(width - 1 + i, width, Border::reflect101)];
    }
    weigh(isa, taps, stride, across + y * stride, [=](int i) { return padded + i; });
  }
}

// The highest pixel once it is blurred down the columns too. Not inlined: it is the same for all types of maps.
template <typename acc>
[[gnu::noinline]] Peak<acc> highest_of_columns(
    const acc* across, const Taps<acc>& taps, int height, int width, acc threshold, acc* row) {
  const int stride = padded_width<acc>(width);
  const acc* rows[2 * kMaxOffsetKernelSize + 1];
  Peak<acc> peak = no_peak(threshold);
  simd_call([&](auto isa) {
    for (int y = 0; y < height; ++y) {
      for (int i = 0; i < taps.size; ++i) {
        rows[i] = across + outside(y + i - taps.size / 2, height, Border::reflect101) * stride;
      }
      weigh(isa, taps, stride, row, [&](int i) { return rows[i]; });
      const auto line = [&](int) { return static_cast<const acc*>(row); };
      const Peak<acc> here = peak.value < 0 ? find_peak<true, acc>(isa, width, width, peak.value, line)
                                            : find_peak<false, acc>(isa, width, width, peak.value, line);
      if (here.found()) {
        peak = {here.value, y * width + here.index};
      }
    }
  });
  return peak;
}

template <typename scalar>
void decode_offsets_kernel(
    const Arguments<scalar>& args, const Offsets<scalar>& offsets, const int64_t* flip_index, int64_t maps) {
  using acc = acc_t<scalar>;
  const int64_t pixels = static_cast<int64_t>(args.height) * args.width;
  const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 13) / pixels);
  torch::stable::parallel_for(0, maps, grain, [&](int64_t begin, int64_t end) {
    const FlushSubnormals flush;
    const Taps<acc>& taps = args.refinement.taps;
    const int stride = padded_width<acc>(args.width);
    const bool blurs = taps.size > 1;
    const int merged = merged_rows(args.view(flip_index, begin));
    std::vector<acc> padded(stride + taps.size), across(blurs ? static_cast<size_t>(stride) * args.height : 0);
    std::vector<acc> row(std::max(stride, merged * args.width));
    simd_call([&](auto isa) {
      for (int64_t number = begin; number < end; ++number) {
        const MapView<scalar> map = args.view(flip_index, number);
        Peak<acc> peak;
        if (blurs) {
          blur_rows(isa, map, taps, padded.data(), across.data());
          peak = highest_of_columns(across.data(), taps, args.height, args.width, args.threshold, row.data());
        } else {
          peak = find_peak(isa, map, args.threshold, merged, row.data());
        }
        const Step<acc> step =
            peak.found() ? offset_step(args, offsets, flip_index, number, peak.index) : Step<acc>{0, 0};
        write_peak(args, number, peak, no_covariance(step));
      }
    });
  });
}

std::tuple<Tensor, Tensor, Tensor> decode_offsets_cpu(
    const Tensor& heatmaps, const std::optional<Tensor>& offsets, std::optional<int64_t> kernel_size, double radius,
    const std::optional<Tensor>& flipped, const std::optional<Tensor>& flipped_offsets,
    const std::optional<std::vector<int64_t>>& flip_index, bool flip_shift, const std::optional<Tensor>& transform,
    std::optional<double> max_offset, std::optional<double> threshold_or_none, std::optional<double> missing_or_nan, bool pixels) {
  const double missing = missing_or_nan.value_or(std::numeric_limits<double>::quiet_NaN());
  const double threshold = threshold_of(threshold_or_none);
  const RefineOptions options = check_offsets(
      heatmaps, offsets, kernel_size, radius, flipped, flipped_offsets, flip_index, transform, max_offset, threshold);
  Tensors tensors = allocate(heatmaps, flipped, transform, false, pixels, offsets.has_value() ? 1 : kOffsetChannels);
  const int64_t maps = tensors.scores.numel();
  if (maps > 0) {
    make_contiguous(tensors);
    PYPOSE_OPS_DISPATCH_FLOATING(heatmaps.scalar_type(), "decode_offsets", [&] {
      auto args = make_arguments<scalar_t>(tensors, flip_shift, threshold, missing);
      args.refinement = options.as<acc_t<scalar_t>>();
      decode_offsets_kernel(
          args, make_offsets(args, offsets, flipped_offsets, radius),
          flip_index.has_value() ? flip_index->data() : nullptr, maps);
    });
  }
  return {tensors.coords, tensors.scores, tensors.pixels};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "_decode_offsets(Tensor heatmaps, Tensor? offsets, int? kernel_size, float radius, Tensor? flipped, "
      "Tensor? flipped_offsets, int[]? flip_index, bool flip_shift, Tensor? transform, float? max_offset, "
      "float? threshold, float? missing, bool pixels) -> (Tensor coords, Tensor scores, Tensor pixels)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("_decode_offsets", TORCH_BOX(&decode_offsets_cpu));
}

}  // namespace pypose_ops

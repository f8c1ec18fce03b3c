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

// A map is read in chunks; only the one that holds the maximum is searched for its place. chunk(i) returns the pixels
// from i on.
template <typename stored, typename Chunk>
auto find_peak(int pixels, int chunk_size, const Chunk& chunk) -> Peak<acc_t<stored>> {
  key_t<stored> best = 0;
  int from = 0;
  for (int64_t i = 0; i < pixels; i += chunk_size) {
    const int start = static_cast<int>(i);
    const key_t<stored> key = highest<stored>(chunk(start), std::min(chunk_size, pixels - start));
    from = key > best ? start : from;
    best = key > best ? key : best;
  }
  const int index = from + first_with<stored>(best, chunk(from), std::min(chunk_size, pixels - from));
  return {simd::load(simd::bits_to<stored>(best)), index};
}

constexpr int kChunk = 512;

// The rows that are merged at a time where there is a flipped twin.
template <typename scalar>
int merged_rows(const Arguments<scalar>& args) {
  return args.flipped == nullptr ? 0 : std::max(1, std::min(args.height, kChunk / args.width));
}

template <typename scalar, typename acc>
Peak<acc> find_peak(const MapView<scalar>& map, int rows, acc* buffer) {
  const int pixels = map.height * map.width;
  if (map.twin == nullptr) {
    return find_peak<scalar>(pixels, kChunk, [&](int i) { return map.map + i; });
  }
  return find_peak<acc>(pixels, rows * map.width, [&](int i) {
    const int y = i / map.width;
    for (int row = 0; row < std::min(rows, map.height - y); ++row) {
      load_row(map, y + row, 0, map.width, buffer + row * map.width);
    }
    return static_cast<const acc*>(buffer);
  });
}

template <typename scalar, typename acc>
void decode_map(const Arguments<scalar>& args, const int64_t* flip_index, int64_t number, int rows, acc* buffer) {
  const MapView<scalar> map = args.view(flip_index, number);
  const Peak<acc> peak = find_peak(map, rows, buffer);
  write_peak(
      args, number, peak,
      peak.value > 0 ? refined(map, args.refinement, peak.index) : no_covariance(Step<acc>{0, 0}));
}

template <typename scalar>
void decode_heatmaps_kernel(const Arguments<scalar>& args, const int64_t* flip_index, int64_t maps) {
  const int64_t pixels = static_cast<int64_t>(args.height) * args.width;
  const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 16) / pixels);  // some 10 us
  torch::stable::parallel_for(0, maps, grain, [&](int64_t begin, int64_t end) {
    const int rows = merged_rows(args);
    std::vector<acc_t<scalar>> buffer(static_cast<size_t>(rows) * args.width);
    simd_call([&] {
      for (int64_t number = begin; number < end; ++number) {
        decode_map(args, flip_index, number, rows, buffer.data());
      }
    });
  });
}

std::tuple<Tensor, Tensor, Tensor> decode_heatmaps_cpu(
    const Tensor& heatmaps, int64_t refine, int64_t compat, int64_t kernel_size, const std::optional<Tensor>& flipped,
    const std::optional<std::vector<int64_t>>& flip_index, bool flip_shift, const std::optional<Tensor>& transform,
    std::optional<double> max_offset, bool covariance) {
  const RefineOptions options =
      check_arguments(heatmaps, refine, compat, kernel_size, flipped, flip_index, transform, max_offset);
  Tensors tensors = allocate(heatmaps, flipped, transform, covariance);
  const int64_t maps = tensors.scores.numel();
  if (maps > 0) {
    make_contiguous(tensors);
    PYPOSE_OPS_DISPATCH_FLOATING(heatmaps.scalar_type(), "decode_heatmaps", [&] {
      auto args = make_arguments<scalar_t>(tensors, flip_shift);
      args.refinement = options.as<acc_t<scalar_t>>();
      decode_heatmaps_kernel(args, flip_index.has_value() ? flip_index->data() : nullptr, maps);
    });
  }
  return {tensors.coords, tensors.scores, tensors.covariance};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "decode_heatmaps(Tensor heatmaps, int refine, int compat, int kernel_size, Tensor? flipped, int[]? flip_index, "
      "bool flip_shift, Tensor? transform, float? max_offset, bool covariance) -> "
      "(Tensor coords, Tensor scores, Tensor covariance)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("decode_heatmaps", TORCH_BOX(&decode_heatmaps_cpu));
}

}  // namespace pypose_ops

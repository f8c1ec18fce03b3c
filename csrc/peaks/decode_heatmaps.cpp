// decode_heatmaps on the CPU: one thread takes whole maps, one after the other.
#include "peaks/decode_heatmaps.h"

#include <algorithm>
#include <tuple>
#include <type_traits>

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include "common/simd.h"

namespace pypose_ops {
namespace {

using namespace peaks;

// Positive floating-point numbers are ordered like their bits read as a signed integer; negative ones are negative, and
// infinity and the positive NaNs come last. So the highest pixel is found by integer maxima, which vectorise in every
// instruction set and for every storage type.
template <typename scalar>
using key_t = std::conditional_t<
    sizeof(scalar) == 2, int16_t, std::conditional_t<sizeof(scalar) == 4, int32_t, int64_t>>;

// The highest positive finite pixel's key, or 0.
template <typename scalar>
key_t<scalar> highest(const scalar* pixels, int count) {
  using key = key_t<scalar>;
  const key infinity = simd::bits_to<key>(std::numeric_limits<scalar>::infinity());
  key best = 0;
  for (int i = 0; i < count; ++i) {
    const key bits = simd::bits_to<key>(pixels[i]);
    const key finite = bits < infinity ? bits : key{0};
    best = finite > best ? finite : best;
  }
  return best;
}

template <typename scalar>
int first_with(key_t<scalar> wanted, const scalar* pixels, int count) {
  int first = count;
  for (int i = 0; i < count; ++i) {
    const int here = simd::bits_to<key_t<scalar>>(pixels[i]) == wanted ? i : count;
    first = here < first ? here : first;
  }
  return first;
}

// Columns from ... from + count - 1 of a row, in the arithmetic type, merged.
template <typename scalar, typename acc>
void load_row(const MapView<scalar>& map, int y, int from, int count, acc* row) {
  const scalar* pixels = map.map + y * map.width + from;
  if (map.twin == nullptr) {
    for (int i = 0; i < count; ++i) {
      row[i] = simd::load(pixels[i]);
    }
    return;
  }
  const scalar* twin = map.twin + (y + 1) * map.width - 1 - from + (map.shift ? 1 : 0);
  int i = 0;
  if (map.shift && from == 0) {
    row[i++] = map(0, y);  // the column that stays
  }
  for (; i < count; ++i) {
    row[i] = merged<acc>(simd::load(pixels[i]), simd::load(twin[-i]));
  }
}

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

// The patch that DARK reads is kernel size + 4 pixels wide and high. Its rows are padded to whole vectors.
constexpr int kMaxPatch = kMaxKernelSize + 2 * kReach;
constexpr int kMaxColumns = (kMaxPatch + 15) / 16 * 16;

// The patch around (x, y) as pointer and stride: in place where the map allows, else a copy with zeros round the map.
template <typename scalar, typename acc>
const acc* find_patch(const MapView<scalar>& map, int x, int y, int patch, int columns, acc* copy, int* stride) {
  const int left = x - patch / 2;
  const int top = y - patch / 2;
  if constexpr (std::is_same_v<scalar, acc>) {
    if (map.twin == nullptr && left >= 0 && left + columns <= map.width && top >= 0 && top + patch <= map.height) {
      *stride = map.width;
      return map.map + top * map.width + left;
    }
  }
  std::fill(copy, copy + patch * columns, acc(0));
  const int from = std::max(0, left);
  const int count = std::min(map.width, left + columns) - from;
  for (int row = std::max(0, -top); row < std::min(patch, map.height - top); ++row) {
    load_row(map, top + row, from, count, copy + row * columns + from - left);
  }
  *stride = columns;
  return copy;
}

// Blurs down the columns in the five rows round the peak, then along those rows at the 13 pixels that are needed.
template <typename scalar, typename acc>
Step<acc> dark_step(const MapView<scalar>& map, const Taps<acc>& taps, int x, int y) {
  const int patch = taps.size + 2 * kReach;
  const int columns = (patch + 15) / 16 * 16;
  acc copy[kMaxPatch * kMaxColumns];
  int stride;
  const acc* pixels = find_patch(map, x, y, patch, columns, copy, &stride);

  acc down[kSpan][kMaxColumns] = {};
  for (int row = 0; row < patch; ++row) {
    for (int column = 0; column < columns; ++column) {
      for (int out = 0; out < kSpan; ++out) {
        down[out][column] += taps[row - out] * pixels[row * stride + column];
      }
    }
  }
  acc logs[kSpan][kSpan];
  for (int row = 0; row < kSpan; ++row) {
    const int reach = kReach - std::abs(row - kReach);
    for (int column = kReach - reach; column <= kReach + reach; ++column) {
      acc blurred = 0;
      for (int i = 0; i < taps.size; ++i) {
        blurred += taps[i] * down[row][column + i];
      }
      logs[row][column] = log_blurred(blurred);
    }
  }
  return newton_step(logs);
}

template <typename scalar, typename acc>
void decode_map(const Arguments<scalar>& args, const int64_t* flip_index, int64_t number, int rows, acc* buffer) {
  const MapView<scalar> map(args, flip_index, number);
  const Peak<acc> peak = find_peak(map, rows, buffer);
  Step<acc> step = {0, 0};
  if (peak.value > 0) {
    const int x = peak.index % args.width;
    const int y = peak.index / args.width;
    if (args.refine == Refine::quarter) {
      step = quarter_step(map, x, y);
    } else if (args.refine == Refine::dark && dark_applies(x, y, args.width, args.height)) {
      step = dark_step(map, args.taps, x, y);
    }
  }
  write_peak(args, number, peak, step);
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

std::tuple<Tensor, Tensor> decode_heatmaps_cpu(
    const Tensor& heatmaps, const std::string& refine, int64_t kernel_size, const std::optional<Tensor>& flipped,
    const std::optional<std::vector<int64_t>>& flip_index, bool flip_shift, const std::optional<Tensor>& transform,
    std::optional<double> max_offset) {
  const Options options =
      check_arguments(heatmaps, refine, kernel_size, flipped, flip_index, flip_shift, transform, max_offset);
  Tensors tensors = allocate(heatmaps, flipped, transform);
  const int64_t maps = tensors.scores.numel();
  if (maps > 0) {
    make_contiguous(tensors);
    PYPOSE_OPS_DISPATCH_FLOATING(heatmaps.scalar_type(), "decode_heatmaps", [&] {
      decode_heatmaps_kernel(
          make_arguments<scalar_t>(tensors, options), flip_index.has_value() ? flip_index->data() : nullptr, maps);
    });
  }
  return {tensors.coords, tensors.scores};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "decode_heatmaps(Tensor heatmaps, str refine, int kernel_size, Tensor? flipped, int[]? flip_index, "
      "bool flip_shift, Tensor? transform, float? max_offset) -> (Tensor coords, Tensor scores)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("decode_heatmaps", TORCH_BOX(&decode_heatmaps_cpu));
}

}  // namespace pypose_ops

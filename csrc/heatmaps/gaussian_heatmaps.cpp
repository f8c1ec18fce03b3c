#include "heatmaps/gaussian_heatmaps.h"

#include <algorithm>
#include <vector>

#include <torch/csrc/stable/library.h>

#include "common/outputs.h"
#include "common/streaming.h"
#include "heatmaps/gaussian_tables.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

// Rows of kVectors vectors that stay in registers; the last one overlaps with its neighbour where the width asks for it.
template <int kVectors, typename Isa, typename T, typename acc = acc_t<T>>
PYPOSE_OPS_HOST_DEVICE void render_rows(Isa isa, T* out, const acc* tx, const acc* ty, int64_t height, int64_t width) {
  constexpr int kLanes = simd::lanes<acc, Isa>;
  simd::vec<acc, Isa> columns[kVectors];
  int64_t at[kVectors];
  for (int i = 0; i < kVectors; ++i) {
    at[i] = i + 1 < kVectors ? i * kLanes : width - kLanes;
    columns[i] = isa.load(tx + at[i]);
  }
  for (int64_t y = 0; y < height; ++y) {
    const acc scale = ty[y];
    for (int i = 0; i < kVectors; ++i) {
      isa.store(out + y * width + at[i], columns[i] * scale);
    }
  }
}

template <typename T, typename acc = acc_t<T>>
void render_single(T* out, const acc* tx, const acc* ty, int64_t height, int64_t width) {
  simd_call([=](auto isa) {
    constexpr int kLanes = simd::lanes<acc, decltype(isa)>;
    switch (width < kLanes ? 0 : (width + kLanes - 1) / kLanes) {
      case 1:
        return render_rows<1>(isa, out, tx, ty, height, width);
      case 2:
        return render_rows<2>(isa, out, tx, ty, height, width);
      case 3:
        return render_rows<3>(isa, out, tx, ty, height, width);
      case 4:
        return render_rows<4>(isa, out, tx, ty, height, width);
      case 5:
        return render_rows<5>(isa, out, tx, ty, height, width);
      case 6:
        return render_rows<6>(isa, out, tx, ty, height, width);
      default:
        for (int64_t y = 0; y < height; ++y) {
          T* row = out + y * width;
          const acc scale = ty[y];
          store_row(
              isa, row, width, [=](int64_t x) { return isa.load(tx + x) * scale; },
              [=](int64_t x) { return tx[x] * scale; });
        }
    }
  });
}

// Where an axis of a truncated blob can be other than 0; a pixel more on each side leaves the decision to Axis::inside.
template <typename acc>
void window_of(const Axis<acc>& axis, int64_t size, int32_t& first, int32_t& end) {
  const acc last = static_cast<acc>(size);
  const acc low = ::floor(axis.center - axis.reach);
  const acc high = ::ceil(axis.center + axis.reach) + acc(1);
  first = low > 0 ? static_cast<int32_t>(low < last ? low : last) : 0;
  end = high < last ? static_cast<int32_t>(high > 0 ? high : acc(0)) : static_cast<int32_t>(size);
}

// Widened to whole vectors where the axis has room for them: what is added is 0.
PYPOSE_OPS_HOST_DEVICE void widen(int32_t& first, int32_t& end, int64_t size, int32_t lanes) {
  const int32_t span = (end - first + lanes - 1) / lanes * lanes;
  if (span <= size) {
    first = first + span <= size ? first : static_cast<int32_t>(size) - span;
    end = first + span;
  }
}

template <int kLanes, typename acc>
PYPOSE_OPS_HOST_DEVICE void fill_window(acc* values, const Axis<acc>& axis, int32_t first, int32_t end) {
  for (; first + kLanes <= end; first += kLanes) {
    for (int32_t i = 0; i < kLanes; ++i) {
      values[first + i] = axis.gaussian(first + i);
    }
  }
  for (; first < end; ++first) {
    values[first] = axis.gaussian(first);
  }
}

// A blob that ends after a part of the map: zeros, then the window. False where it is not worth it.
template <typename T, typename acc = acc_t<T>>
bool render_window(T* out, const Blob<acc>& blob, acc* tx, acc* ty, double scale, const Shape& shape) {
  int32_t left, right, top, bottom;
  window_of(blob.x, shape.width, left, right);
  window_of(blob.y, shape.height, top, bottom);
  if (2 * static_cast<int64_t>(right - left) * (bottom - top) > shape.pixels()) {
    return false;
  }
  std::memset(static_cast<void*>(out), 0, shape.pixels() * sizeof(T));
  if (left >= right || top >= bottom) {
    return true;
  }
  const int64_t width = shape.width;
  const Axis<acc> ax = blob.x, ay = blob.y;
  const acc peak = static_cast<acc>(scale);
  simd_call([=](auto isa) {
    constexpr int kLanes = simd::lanes<acc, decltype(isa)>;
    int32_t first = left, end = right;
    widen(first, end, width, kLanes);
    fill_window<kLanes>(tx, ax, first, end);
    fill_window<kLanes>(ty, ay, top, bottom);
    for (int32_t y = top; y < bottom; ++y) {
      const acc factor = ty[y] * peak;
      const acc* from = tx + first;
      store_row(
          isa, out + y * width + first, end - first, [=](int64_t x) { return isa.load(from + x) * factor; },
          [=](int64_t x) { return from[x] * factor; });
    }
  });
  return true;
}

template <typename T, typename acc = acc_t<T>>
void render_many(T* out, const Tables<acc>& tables, acc* row, const Options& options) {
  const int64_t width = tables.width;
  for (int64_t y = 0; y < tables.height; ++y) {
    simd_call([&](auto isa) {
      draw_row(row, tables, options, y);
      store_row(isa, out + y * width, width, row);
    });
  }
}

template <typename T>
void render(T* out, bool is_new, const People<acc_t<T>>& people, const Options& options, const Shape& shape) {
  using acc = acc_t<T>;
  const int64_t pixels = shape.pixels();
  const bool streamed = is_streamed(shape.maps() * pixels * sizeof(T), is_new);
  const int64_t grain = std::max<int64_t>(1, kGrainPixels / pixels);
  torch::stable::parallel_for(0, shape.maps(), grain, [&](int64_t begin, int64_t end) {
    const FlushSubnormals flush;
    Tables<acc> tables(shape);
    std::vector<acc> row(shape.width);
    Pieces<T> pieces(out, pixels, streamed);
    const bool windows = shape.people == 1 && options.profile == Profile::gaussian &&
        options.normalize == Normalization::peak && std::isfinite(options.truncate);
    const auto draw = [&](T* target, int64_t b, int64_t k) {
      if (windows) {
        const Blob<acc> blob = blob_of(people, options, b, 0, k);
        if (blob.drawn && render_window(target, blob, tables.x.data(), tables.y.data(), options.scale, shape)) {
          return;
        }
      }
      tables.fill(people, options, shape, b, k);
      if (tables.blobs.empty()) {
        std::memset(static_cast<void*>(target), 0, pixels * sizeof(T));
      } else if (tables.blobs.size() == 1 && options.profile == Profile::gaussian) {
        render_single(target, tables.row_x(0), tables.row_y(0), shape.height, shape.width);
      } else {
        render_many(target, tables, row.data(), options);
      }
    };
    for (int64_t map = begin; map < end; ++map) {
      pieces.write(map, [&](T* target) { draw(target, map / shape.joints, map % shape.joints); });
    }
  });
}

template <typename T>
void run_render(
    const Tensor& out, bool is_new, const PeopleTensors& people, const Options& options, const Shape& shape) {
  render(out.mutable_data_ptr<T>(), is_new, people.view<acc_t<T>>(), options, shape);
}

Tensor gaussian_heatmaps_cpu(
    const std::optional<Tensor>& given, const Tensor& keypoints, const std::optional<Tensor>& sigma, double sigma_value,
    const std::optional<Tensor>& visible, int64_t height, int64_t width, int64_t profile, int64_t center,
    std::optional<double> truncate, int64_t combine, int64_t normalize, double scale, ScalarType dtype) {
  constexpr const char* op = "gaussian_heatmaps";
  const Shape shape = check_people(op, keypoints, sigma, visible, height, width);
  Options options = check_options(op, profile, center, truncate, combine, normalize, sigma_value, !!sigma);
  options.scale = check_scale(op, scale);
  check_map_type(op, dtype);
  const Tensor out = output_of(op, given, keypoints, {shape.batch, shape.joints, height, width}, dtype);
  if (out.numel() == 0) {
    return out;
  }
  const PeopleTensors people(keypoints, sigma, visible, acc_scalar_type(dtype));
  PYPOSE_OPS_DISPATCH_FLOATING(dtype, op, [&] { run_render<scalar_t>(out, !given, people, options, shape); });
  return out;
}

}  // namespace

Tensor heatmaps::draw_gaussians(
    const Tensor& keypoints, double sigma, int64_t height, int64_t width, int64_t center,
    std::optional<double> truncate, double scale, ScalarType dtype) {
  constexpr auto profile = static_cast<int64_t>(Profile::gaussian);
  return gaussian_heatmaps_cpu(
      std::nullopt, keypoints, std::nullopt, sigma, std::nullopt, height, width, profile, center, truncate, 0, 0, scale,
      dtype);
}

#define PYPOSE_OPS_ARGUMENTS \
  "Tensor keypoints, Tensor? sigma, float sigma_value, Tensor? visible, SymInt height, SymInt width, int " \
  "profile, int center, float? truncate, int combine, int normalize, float scale, ScalarType dtype"

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def("gaussian_heatmaps(" PYPOSE_OPS_ARGUMENTS ") -> Tensor");
  m.def("gaussian_heatmaps.out(Tensor(a!) out, " PYPOSE_OPS_ARGUMENTS ") -> ()");
}
#undef PYPOSE_OPS_ARGUMENTS

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  using Op = Drawn<&gaussian_heatmaps_cpu>;
  m.impl("gaussian_heatmaps", TORCH_BOX(&Op::returned));
  m.impl("gaussian_heatmaps.out", TORCH_BOX(&Op::into));
}

}  // namespace pypose_ops

#include "heatmaps/gaussian_heatmaps.h"

#include <algorithm>
#include <vector>

#include <torch/csrc/stable/library.h>

#include "common/empty.h"
#include "heatmaps/gaussian_tables.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

template <typename T, typename acc = acc_t<T>>
void render_single(T* out, const acc* tx, const acc* ty, int64_t height, int64_t width) {
  simd_call([=] {
    for (int64_t y = 0; y < height; ++y) {
      T* row = out + y * width;
      const acc scale = ty[y];
      store_row(row, width, [=](int64_t x) { return simd::load_vec(tx + x) * scale; }, [=](int64_t x) {
        return tx[x] * scale;
      });
    }
  });
}

template <typename T, typename acc = acc_t<T>>
void render_many(T* out, const Tables<acc>& tables, acc* row, const Options& options) {
  const int64_t width = tables.width;
  for (int64_t y = 0; y < tables.height; ++y) {
    simd_call([&] {
      draw_row(row, tables, options, y);
      store_row(out + y * width, width, row);
    });
  }
}

template <typename T>
void render(T* out, const People<acc_t<T>>& people, const Options& options, const Shape& shape) {
  using acc = acc_t<T>;
  const int64_t pixels = shape.pixels();
  const int64_t grain = std::max<int64_t>(1, kGrainPixels / pixels);
  torch::stable::parallel_for(0, shape.maps(), grain, [&](int64_t begin, int64_t end) {
    const FlushSubnormals flush;
    Tables<acc> tables(shape);
    std::vector<acc> row(shape.width);
    for (int64_t map = begin; map < end; ++map) {
      T* target = out + map * pixels;
      tables.fill(people, options, shape, map / shape.joints, map % shape.joints);
      if (tables.blobs.empty()) {
        std::memset(static_cast<void*>(target), 0, pixels * sizeof(T));
      } else if (tables.blobs.size() == 1 && options.profile == Profile::gaussian) {
        render_single(target, tables.row_x(0), tables.row_y(0), shape.height, shape.width);
      } else {
        render_many(target, tables, row.data(), options);
      }
    }
  });
}

template <typename T>
void launch_render(const Tensor& out, const PeopleTensors& people, const Options& options, const Shape& shape) {
  render(out.mutable_data_ptr<T>(), people.view<acc_t<T>>(), options, shape);
}

Tensor gaussian_heatmaps_cpu(
    const Tensor& keypoints, const std::optional<Tensor>& sigma, double sigma_value,
    const std::optional<Tensor>& visible, int64_t height, int64_t width, int64_t profile, int64_t center,
    std::optional<double> truncate, int64_t combine, int64_t normalize, ScalarType dtype) {
  constexpr const char* op = "gaussian_heatmaps";
  const Shape shape = check_people(op, keypoints, sigma, visible, height, width);
  const Options options = check_options(op, profile, center, truncate, combine, normalize, sigma_value, !!sigma);
  check_map_type(op, dtype);
  Tensor out = empty_beside(keypoints, {shape.batch, shape.joints, height, width}, dtype);
  if (out.numel() == 0) {
    return out;
  }
  const PeopleTensors people(keypoints, sigma, visible, acc_scalar_type(dtype));
  PYPOSE_OPS_DISPATCH_FLOATING(dtype, op, [&] { launch_render<scalar_t>(out, people, options, shape); });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "gaussian_heatmaps(Tensor keypoints, Tensor? sigma, float sigma_value, Tensor? visible, SymInt height, "
      "SymInt width, int profile, int center, float? truncate, int combine, int normalize, ScalarType dtype) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("gaussian_heatmaps", TORCH_BOX(&gaussian_heatmaps_cpu));
}

}  // namespace pypose_ops

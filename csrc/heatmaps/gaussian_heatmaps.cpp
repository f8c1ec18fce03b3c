#include "heatmaps/gaussian_heatmaps.h"

#include <algorithm>
#include <vector>

#include <torch/csrc/stable/library.h>

#include "heatmaps/gaussian_tables.h"

namespace pypose_ops {
namespace {

using namespace heatmaps;

// row[x] = combine(row[x], blob i's values in row y).
template <typename acc>
POSE_HD void add_blob(acc* row, const acc* tx, acc ty, acc peak, int64_t width, Profile profile, Combine combine) {
  if (profile == Profile::disc) {
    for (int64_t x = 0; x < width; ++x) {
      const acc value = tx[x] + ty <= acc(1) ? peak : acc(0);
      row[x] = combine == Combine::max ? (value > row[x] ? value : row[x]) : row[x] + value;
    }
  } else if (combine == Combine::max) {
    for (int64_t x = 0; x < width; ++x) {
      const acc value = tx[x] * ty;
      row[x] = value > row[x] ? value : row[x];
    }
  } else {
    for (int64_t x = 0; x < width; ++x) {
      row[x] += tx[x] * ty;
    }
  }
}

// out[x] = the value at x, rounded to T: whole vectors, then the rest one by one.
template <typename T, typename Vector, typename Scalar>
POSE_HD void store_row(T* out, int64_t width, const Vector& vector_at, const Scalar& scalar_at) {
  constexpr int kLanes = simd::lanes_of<T>();
  int64_t x = 0;
  for (; x + kLanes <= width; x += kLanes) {
    simd::store_vec(out + x, vector_at(x));
  }
  for (; x < width; ++x) {
    out[x] = simd::store<T>(scalar_at(x));
  }
}

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
void render_many(T* out, Tables<acc>& tables, acc* row, const Options& options) {
  const int64_t width = tables.width;
  const int64_t height = tables.height;
  const size_t count = tables.blobs.size();
  const bool gaussian = options.profile == Profile::gaussian;
  for (int64_t y = 0; y < height; ++y) {
    simd_call([&] {
      for (int64_t x = 0; x < width; ++x) {
        row[x] = 0;
      }
      for (size_t i = 0; i < count; ++i) {
        const acc ty = tables.y[i * height + y];
        // Rows that the blob does not touch: most of them, once blobs are small against the map.
        if (gaussian ? ty != acc(0) : ty <= acc(1)) {
          add_blob(row, tables.x.data() + i * width, ty, tables.peak[i], width, options.profile, options.combine);
        }
      }
      T* target = out + y * width;
      const acc limit = options.combine == Combine::sum_clip ? acc(1) : std::numeric_limits<acc>::infinity();
      store_row(
          target, width,
          [=](int64_t x) {
            const auto v = simd::load_vec(row + x);
            return v < limit ? v : v - v + limit;
          },
          [=](int64_t x) { return row[x] < limit ? row[x] : limit; });
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
  Tensor out = torch::stable::new_empty(keypoints, {shape.batch, shape.joints, height, width}, dtype);
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

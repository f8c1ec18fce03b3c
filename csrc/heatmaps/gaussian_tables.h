// The CPU kernels' view of one map: its drawn blobs with their tabulated axes.
#pragma once

#include <algorithm>
#include <vector>

#include "heatmaps/gaussian_heatmaps.h"

namespace pypose_ops {
namespace heatmaps {

// About this many pixels make a thread worth waking.
constexpr int64_t kGrainPixels = 16384;

// 32-bit indices: they convert to float in vector code on every instruction set.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE void fill_axis(acc* values, const Axis<acc>& axis, Profile profile, int32_t n) {
  if (profile == Profile::gaussian) {
    for (int32_t i = 0; i < n; ++i) {
      values[i] = axis.gaussian(i);
    }
  } else {
    for (int32_t i = 0; i < n; ++i) {
      values[i] = axis.disc(i);
    }
  }
}

// out[x] = the value at x, rounded to T: whole vectors, then the rest one by one.
template <typename Isa, typename T, typename Vector, typename Scalar>
PYPOSE_OPS_HOST_DEVICE void store_row(
    Isa isa, T* out, int64_t width, const Vector& vector_at, const Scalar& scalar_at) {
  constexpr int kLanes = simd::lanes<acc_t<T>, Isa>;
  int64_t x = 0;
  for (; x + kLanes <= width; x += kLanes) {
    isa.store(out + x, vector_at(x));
  }
  for (; x < width; ++x) {
    out[x] = simd::store<T>(scalar_at(x));
  }
}

// out[x] = row[x], rounded to T.
template <typename Isa, typename T, typename acc = acc_t<T>>
PYPOSE_OPS_HOST_DEVICE void store_row(Isa isa, T* out, int64_t width, const acc* row) {
  store_row(
      isa, out, width, [=](int64_t x) { return isa.load(row + x); }, [=](int64_t x) { return row[x]; });
}

// The drawn blobs of one map with their tabulated axes, reused from map to map.
template <typename acc>
struct Tables {
  Tables(const Shape& shape)
      : width(shape.width), height(shape.height), x(shape.people * shape.width), y(shape.people * shape.height),
        peak(shape.people) {}

  void fill(const People<acc>& people, const Options& options, const Shape& shape, int64_t b, int64_t k) {
    blobs.clear();
    for (int64_t p = 0; p < shape.people; ++p) {
      const Blob<acc> blob = blob_of(people, options, b, p, k);
      if (blob.drawn) {
        // Member by member: a copy in wider pieces than were just stored would wait for the store buffer.
        blobs.emplace_back();
        blobs.back().x = {blob.x.center, blob.x.sigma, blob.x.reach};
        blobs.back().y = {blob.y.center, blob.y.sigma, blob.y.reach};
        blobs.back().drawn = true;
        persons.resize(blobs.size());
        persons.back() = p;
      }
    }
    for (size_t i = 0; i < blobs.size(); ++i) {
      acc* tx = row_x(i);
      acc* ty = row_y(i);
      const Axis<acc> ax = blobs[i].x;
      const Axis<acc> ay = blobs[i].y;
      const Profile profile = options.profile;
      const int32_t w = static_cast<int32_t>(width), h = static_cast<int32_t>(height);
      simd_call([=] {
        fill_axis(tx, ax, profile, w);
        fill_axis(ty, ay, profile, h);
      });
      peak[i] = 1;
      if (options.normalize == Normalization::sum) {
        normalize(i, profile);
      }
      if (options.scale != 1) {
        const acc scale = static_cast<acc>(options.scale);
        peak[i] *= scale;
        for (int64_t y = 0; profile == Profile::gaussian && y < height; ++y) {
          ty[y] *= scale;
        }
      }
    }
  }

  acc* row_x(size_t i) {
    return x.data() + i * width;
  }
  acc* row_y(size_t i) {
    return y.data() + i * height;
  }

  int64_t width, height;
  std::vector<acc> x, y;             // (blobs, width), (blobs, height)
  std::vector<acc> peak;             // (blobs,): value of a disc
  std::vector<Blob<acc>> blobs;
  std::vector<int64_t> persons;      // which person a blob belongs to

 private:
  void normalize(size_t i, Profile profile) {
    if (profile == Profile::disc) {
      int64_t count = 0;
      for (int64_t j = 0; j < height; ++j) {
        count += disc_row_count(blobs[i], j, width);
      }
      peak[i] = acc(1) / static_cast<acc>(std::max<int64_t>(count, 1));
      return;
    }
    scale(row_x(i), width);
    scale(row_y(i), height);
  }

  static void scale(acc* values, int64_t n) {
    acc sum = 0;
    for (int64_t j = 0; j < n; ++j) {
      sum += values[j];
    }
    const acc factor = acc(1) / (sum + static_cast<acc>(kSumEpsilon));
    for (int64_t j = 0; j < n; ++j) {
      values[j] *= factor;
    }
  }
};

// row[x] = combine(row[x], blob i's values in row y).
template <typename acc>
PYPOSE_OPS_HOST_DEVICE
void add_blob(acc* row, const acc* tx, acc ty, acc peak, int64_t width, Profile profile, Combine combine) {
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

// row[x] = what all blobs together draw in row y. For the inside of a simd_call.
template <typename acc>
PYPOSE_OPS_HOST_DEVICE void draw_row(acc* row, const Tables<acc>& tables, const Options& options, int64_t y) {
  const int64_t width = tables.width;
  const bool gaussian = options.profile == Profile::gaussian;
  for (int64_t x = 0; x < width; ++x) {
    row[x] = 0;
  }
  for (size_t i = 0; i < tables.blobs.size(); ++i) {
    const acc ty = tables.y[i * tables.height + y];
    // Rows that the blob does not touch: most of them, once blobs are small against the map.
    if (gaussian ? ty != acc(0) : ty <= acc(1)) {
      add_blob(row, tables.x.data() + i * width, ty, tables.peak[i], width, options.profile, options.combine);
    }
  }
  if (options.combine == Combine::sum_clip) {
    const acc most = static_cast<acc>(options.scale);
    for (int64_t x = 0; x < width; ++x) {
      row[x] = row[x] < most ? row[x] : most;
    }
  }
}

}  // namespace heatmaps
}  // namespace pypose_ops

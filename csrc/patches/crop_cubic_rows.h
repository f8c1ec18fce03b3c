// Bicubic rows of one patch on the CPU: pixels and weights of both axes in tables, then passes over them.
#pragma once

#include <algorithm>

#include "patches/crop_cubic.h"
#include "patches/crop_rows.h"

namespace pypose_ops {
namespace patches {

// The taps at `width` positions along a line: entry k * width + x. A tap that reads nothing has weight 0.
template <typename acc, typename Offset>
struct CubicTable {
  int32_t count = 0, width = 0;
  std::vector<Offset> offset;  // in elements
  std::vector<acc> weight, covered;

  [[gnu::noinline]] void fill(
      const Line<acc>& line, int32_t size, int64_t stride, acc stretch, const Options& options, int32_t positions) {
    width = positions;
    count = static_cast<int32_t>(std::ceil(acc(4) * stretch));
    offset.resize(static_cast<size_t>(count) * width);
    weight.resize(static_cast<size_t>(count) * width);
    covered.resize(width);
    constexpr int32_t kFolds = 4;  // images that one reflection brings every tap back to
    if (options.antialias || (options.padding == Padding::reflect && size < kFolds)) {
      return fill_any(line, size, stride, stretch, options);
    }
    switch (options.padding) {
      case Padding::constant:
        return fill_four<Padding::constant>(line, size, stride);
      case Padding::border:
        return fill_four<Padding::border>(line, size, stride);
      case Padding::reflect:
        return fill_four<Padding::reflect>(line, size, stride);
    }
  }

 private:
  void fill_any(const Line<acc>& line, int32_t size, int64_t stride, acc stretch, const Options& options) {
    for (int32_t x = 0; x < width; ++x) {
      const CubicAxis<acc> axis = cubic_at(line.at(x), line.whole, size, stretch, options);
      covered[x] = 0;
      for (int32_t k = 0; k < count; ++k) {
        const int32_t pixel = k < axis.count ? axis.pixel(k) : -1;
        const size_t entry = static_cast<size_t>(k) * width + x;
        weight[entry] = pixel >= 0 ? cubic(axis.distance(k), axis.a) * axis.norm : acc(0);
        offset[entry] = static_cast<Offset>(pixel >= 0 ? pixel : 0) * static_cast<Offset>(stride);
        covered[x] += weight[entry];
      }
    }
  }

  // cubic_at() without antialias, for vector registers: selects only.
  template <Padding padding>
  void fill_four(const Line<acc>& positions, int32_t size, int64_t stride) {
    Offset* offsets = offset.data();
    acc *weights = weight.data(), *sums = covered.data();
    const int32_t count = width;
    simd_call([=]() __attribute__((always_inline)) {
      const Line<acc> line = positions;
      const int32_t last = size - 1, positions = count, period = 2 * last;
      const int32_t whole = padding == Padding::reflect ? 0 : line.whole;
      const acc low = padding == Padding::reflect ? acc(0) : static_cast<acc>(-whole) - acc(3);
      const acc high = padding == Padding::reflect ? static_cast<acc>(period) : static_cast<acc>(last - whole) + acc(3);
      const Offset step = static_cast<Offset>(stride);
      PYPOSE_OPS_INDEPENDENT
      for (int32_t x = 0; x < positions; ++x) {
        acc t = line.at(x);
        if constexpr (padding == Padding::reflect) {
          t += static_cast<acc>(line.whole);
          t -= floor_of(t / high) * high;
        }
        const bool known = padding == Padding::constant ? t >= low && t <= high : t == t;
        t = t > low ? t : low;  // NaN ends here
        t = t < high ? t : high;
        const acc below = floor_of(t), d = t - below;
        const int32_t first = whole + static_cast<int32_t>(below) - 1;
        const acc distance[4] = {d + acc(1), d, acc(1) - d, acc(2) - d};
        acc sum = 0;
        for (int k = 0; k < 4; ++k) {
          int32_t i = first + k;
          const bool read = known && (padding != Padding::constant || (i >= 0 && i <= last));
          if constexpr (padding == Padding::reflect) {
            i = i < 0 ? -i : i;
            i = i > last ? period - i : i;
            i = i < 0 ? -i : i;
          }
          i = i < last ? i : last;
          i = i > 0 ? i : 0;
          const acc z = distance[k], a = acc(-0.75);
          const acc near = ((a + acc(2)) * z - (a + acc(3))) * z * z + acc(1);
          const acc far = ((a * z - acc(5) * a) * z + acc(8) * a) * z - acc(4) * a;
          const acc w = read ? (k == 1 || k == 2 ? near : far) : acc(0);
          weights[k * positions + x] = w;
          offsets[k * positions + x] = static_cast<Offset>(i) * step;
          sum += w;
        }
        sums[x] = sum;
      }
    });
  }
};

// Adds four taps along x, or as many as are left, from tap k on. `down`: the rows and their weights, one for each position;
// nullptr: all positions read plane's first row, with weight 1.
template <bool turned, typename T, typename acc, typename Offset>
void add_cubic_taps(
    const T* plane, const CubicTable<acc, Offset>& across, int32_t k, const CubicTable<acc, Offset>* down, int32_t ky,
    acc* target) {
  const int32_t count = across.width, taps = std::min(4, across.count - k);
  const Offset* offset = across.offset.data() + static_cast<size_t>(k) * count;
  const acc* weight = across.weight.data() + static_cast<size_t>(k) * count;
  const Offset* offset_y = turned ? down->offset.data() + static_cast<size_t>(ky) * count : nullptr;
  const acc* weight_y = turned ? down->weight.data() + static_cast<size_t>(ky) * count : nullptr;
  simd_call<true>([=]() __attribute__((always_inline)) {
    const T* pixels = plane;
    acc* sums = target;
    const Offset* oy = offset_y;
    const acc* wy = weight_y;
    const int32_t width = count;
    if (taps == 4) {
      const Offset *o0 = offset, *o1 = o0 + width, *o2 = o1 + width, *o3 = o2 + width;
      const acc *w0 = weight, *w1 = w0 + width, *w2 = w1 + width, *w3 = w2 + width;
      PYPOSE_OPS_INDEPENDENT
      for (int32_t x = 0; x < width; ++x) {
        const T* row = turned ? pixels + oy[x] : pixels;
        const acc sum = weighted(w0[x], row[o0[x]]) + weighted(w1[x], row[o1[x]]) + weighted(w2[x], row[o2[x]]) +
            weighted(w3[x], row[o3[x]]);
        sums[x] += turned ? (wy[x] != acc(0) ? wy[x] * sum : acc(0)) : sum;
      }
      return;
    }
    for (int32_t i = 0; i < taps; ++i) {
      const Offset* o = offset + i * width;
      const acc* w = weight + i * width;
      PYPOSE_OPS_INDEPENDENT
      for (int32_t x = 0; x < width; ++x) {
        sums[x] += weighted(turned ? w[x] * wy[x] : w[x], pixels[turned ? o[x] + oy[x] : o[x]]);
      }
    }
  });
}

template <typename acc>
void add_scaled(const acc* source, acc weight, acc* target, int64_t count) {
  simd_call([=]() __attribute__((always_inline)) {
    const acc *from = source, factor = weight;
    acc* to = target;
    const int64_t n = count;
    PYPOSE_OPS_INDEPENDENT
    for (int64_t i = 0; i < n; ++i) {
      to[i] += factor * from[i];
    }
  });
}

// What the rows of one patch need, whatever the type of the image: compiled once, called once a row.
template <typename acc, typename Offset>
class CubicTaps {
 public:
  [[gnu::noinline]] CubicTaps(const Image& image, const Affine<acc>& affine, const Options& options, int32_t width)
      : upright(affine.xy == acc(0) && affine.yx == acc(0)), image_(image), affine_(affine), options_(options),
        stretch_(Stretch<acc>::of(affine, options)), width_(width) {
    if (upright) {
      fill_across(0);
    }
  }

  // Row y: `rows` and `weights` of an upright patch, `across` and `down` of any other.
  [[gnu::noinline]] void start(int64_t y) {
    const Line<acc> line = affine_.line_y(static_cast<acc>(y));
    if (!upright) {
      fill_across(y);
      down.fill(line, image_.height, image_.stride_y, stretch_.y, options_, width_);
      return;
    }
    const CubicAxis<acc> axis = cubic_at(line.at(0), line.whole, image_.height, stretch_.y, options_);
    rows.clear();
    weights.clear();
    for (int32_t k = 0; k < axis.count; ++k) {
      const acc weight = axis.weight(k);
      if (weight != acc(0)) {
        rows.push_back(axis.pixel(k));
        weights.push_back(weight);
      }
    }
    covered_ = axis.covered();
  }
  // What the weights of the row leave to the fill.
  [[gnu::noinline]] void missing(acc* out) const {
    for (int32_t x = 0; x < width_; ++x) {
      out[x] = acc(1) - across.covered[x] * (upright ? covered_ : down.covered[x]);
    }
  }
  // Rows of the image that one row of an upright patch is a sum of, at most.
  int64_t most_rows() const {
    return std::min<int64_t>(static_cast<int64_t>(std::ceil(acc(4) * stretch_.y)), image_.height);
  }

  const bool upright;
  CubicTable<acc, Offset> across, down;
  std::vector<int32_t> rows;
  std::vector<acc> weights;

 private:
  void fill_across(int64_t y) {
    across.fill(affine_.line_x(static_cast<acc>(y)), image_.width, image_.stride_x, stretch_.x, options_, width_);
  }

  const Image& image_;
  const Affine<acc> affine_;
  const Options options_;
  const Stretch<acc> stretch_;
  const int32_t width_;
  acc covered_ = 0;
};

// Rows of channels [begin, end) of one patch. An upright patch is resampled along x once for each row of the image,
// which its rows share; a rotated one tap by tap.
template <typename T, typename acc, typename Offset>
class CubicRows {
 public:
  CubicRows(const Image& image, const Affine<acc>& affine, const Options& options, int32_t width, int64_t begin, int64_t end)
      : image_(image), taps_(image, affine, options, width), width_(width), begin_(begin), end_(end) {
    if (taps_.upright) {
      kept_.assign(taps_.most_rows(), -1);
      rows_.resize(kept_.size() * block());
    }
  }

  // Row y: width sums for each channel, and what the weights leave to the fill.
  void row(int64_t y, acc* sums, acc* missing) {
    std::fill_n(sums, block(), acc(0));
    taps_.start(y);
    if (taps_.upright) {
      for (size_t k = 0; k < taps_.rows.size(); ++k) {
        add_scaled(across_row(taps_.rows[k]), taps_.weights[k], sums, block());
      }
    } else {
      for (int64_t c = begin_; c < end_; ++c) {
        for (int32_t ky = 0; ky < taps_.down.count; ++ky) {
          for (int32_t k = 0; k < taps_.across.count; k += 4) {
            add_cubic_taps<true>(plane(c), taps_.across, k, &taps_.down, ky, sums + (c - begin_) * width_);
          }
        }
      }
    }
    taps_.missing(missing);
  }

 private:
  int64_t block() const {
    return (end_ - begin_) * width_;
  }
  const T* plane(int64_t channel) const {
    return static_cast<const T*>(image_.data) + channel * image_.stride_c;
  }
  // A row of the image, resampled along x. The rows that one row of the patch needs are neighbours, so none of them has
  // another's place.
  const acc* across_row(int32_t row) {
    const int64_t place = row % static_cast<int64_t>(kept_.size());
    acc* target = rows_.data() + place * block();
    if (kept_[place] != row) {
      kept_[place] = row;
      std::fill_n(target, block(), acc(0));
      for (int64_t c = begin_; c < end_; ++c) {
        for (int32_t k = 0; k < taps_.across.count; k += 4) {
          add_cubic_taps<false, T, acc, Offset>(
              plane(c) + row * image_.stride_y, taps_.across, k, nullptr, 0, target + (c - begin_) * width_);
        }
      }
    }
    return target;
  }

  const Image& image_;
  CubicTaps<acc, Offset> taps_;
  const int32_t width_;
  const int64_t begin_, end_;
  std::vector<int32_t> kept_;
  std::vector<acc> rows_;
};

}  // namespace patches
}  // namespace pypose_ops

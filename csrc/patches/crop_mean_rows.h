// Antialiased rows of an upright patch on the CPU. The samples of a patch pixel lie in a grid along the axes of the image,
// so their mean is one of rows, then of columns: every byte in reach is read once per patch row, not by each sample.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "common/simd.h"
#include "patches/crop_patches.h"

namespace pypose_ops {
namespace patches {

// What each position along an axis of the patch takes from neighbouring pixels of the image.
template <typename acc>
struct AxisWindows {
  int32_t stride = 0;
  std::vector<int32_t> first, count;
  std::vector<acc> weight, covered;  // sums over the samples; covered: over the pixels, too

  // tap_of(position, sample). False: a window is longer than its samples lie apart.
  template <typename TapOf>
  bool fill(int32_t positions, int32_t samples, const TapOf& tap_of) {
    stride = samples + 4;
    first.resize(positions);
    count.resize(positions);
    covered.assign(positions, acc(0));
    weight.assign(static_cast<size_t>(positions) * stride, acc(0));
    std::vector<Tap<acc>> taps(samples);
    for (int32_t x = 0; x < positions; ++x) {
      int32_t low = std::numeric_limits<int32_t>::max(), high = -1;
      for (int32_t i = 0; i < samples; ++i) {
        const Tap<acc> tap = taps[i] = tap_of(x, i);
        if (tap.near > acc(0) || tap.far > acc(0)) {
          low = std::min(low, tap.near > acc(0) ? tap.base : tap.base + 1);
          high = std::max(high, tap.far > acc(0) ? tap.base + 1 : tap.base);
        }
      }
      first[x] = high < 0 ? 0 : low;
      count[x] = high < 0 ? 0 : high - low + 1;
      if (count[x] > stride) {
        return false;
      }
      acc* to = weight.data() + static_cast<size_t>(x) * stride;
      for (const Tap<acc>& tap : taps) {
        if (tap.near > acc(0)) {
          to[tap.base - low] += tap.near;
        }
        if (tap.far > acc(0)) {
          to[tap.base + 1 - low] += tap.far;
        }
        covered[x] += tap.near + tap.far;
      }
    }
    return true;
  }
};

// to[k] (+)= the weighted sum of kRows rows of bytes.
template <int kRows, typename acc>
void add_byte_rows(acc* to, const uint8_t* const* rows, const acc* weights, int64_t size, bool first) {
  const uint8_t* row[kRows];
  acc weight[kRows];
  for (int r = 0; r < kRows; ++r) {
    row[r] = rows[r];
    weight[r] = weights[r];
  }
  simd_call([=]() __attribute__((always_inline)) {
    acc* out = to;
    const uint8_t* from[kRows];
    acc by[kRows];
    for (int r = 0; r < kRows; ++r) {
      from[r] = row[r];
      by[r] = weight[r];
    }
    const int64_t n = size;
    const acc keep = first ? acc(0) : acc(1);
    PYPOSE_OPS_INDEPENDENT
    for (int64_t k = 0; k < n; ++k) {
      acc sum = out[k] * keep;
      for (int r = 0; r < kRows; ++r) {
        sum += by[r] * static_cast<acc>(static_cast<int32_t>(from[r][k]));
      }
      out[k] = sum;
    }
  });
}

// sums[c * width + x]: what the pixels in the window of x add up to, of rows that lie side by side in kChannels.
template <int kChannels, typename acc>
void add_columns(acc* sums, const acc* rows, const AxisWindows<acc>& windows, int32_t left, int32_t width) {
  const acc* weights = windows.weight.data();
  const int32_t* firsts = windows.first.data();
  const int32_t* counts = windows.count.data();
  const int32_t stride = windows.stride;
  simd_call([=]() __attribute__((always_inline)) {
    for (int32_t x = 0; x < width; ++x) {
      const acc* from = rows + static_cast<int64_t>(firsts[x] - left) * kChannels;
      const acc* weight = weights + static_cast<int64_t>(x) * stride;
      acc sum[kChannels] = {};
      for (int32_t k = 0; k < counts[x]; ++k) {
        for (int c = 0; c < kChannels; ++c) {
          sum[c] += weight[k] * from[k * kChannels + c];
        }
      }
      for (int c = 0; c < kChannels; ++c) {
        sums[static_cast<int64_t>(c) * width + x] = sum[c];
      }
    }
  });
}

// One patch. Bytes only: a NaN of weight 0 would count here.
template <typename acc>
class MeanRows {
 public:
  MeanRows(const Image& image, const Affine<acc>& affine, const Options& options, const Shape& shape)
      : image_(image), affine_(affine), options_(options), samples_(samples_of(affine, options)), width_(shape.width) {
    const bool planar = image.stride_x == 1;
    side_ = planar ? 1 : static_cast<int>(shape.channels);
    const bool together = image.stride_c == 1 && image.stride_x == shape.channels && shape.channels == 3;
    const acc most = static_cast<acc>(kMaxSamples);
    usable_ = samples_.count() > 1 && affine.xy == acc(0) && affine.yx == acc(0) && (planar || together) &&
        affine.xx >= -most && affine.xx <= most && affine.yy >= -most && affine.yy <= most;
    if (!usable_) {
      return;
    }
    const Line<acc> line = affine.line_x(acc(0));
    usable_ = columns_.fill(width_, samples_.x, [&](int32_t x, int32_t i) {
      const Line<acc> moved = line.moved(samples_.along(i));
      return tap_at(moved.at(x), moved.whole, image.width, options.mode, options.padding);
    });
    left_ = image.width;
    int32_t right = 0;
    for (int32_t x = 0; x < width_; ++x) {
      if (columns_.count[x] > 0) {
        left_ = std::min(left_, columns_.first[x]);
        right = std::max(right, columns_.first[x] + columns_.count[x]);
      }
    }
    left_ = std::min(left_, right);
    size_ = static_cast<int64_t>(right - left_) * side_;
    rows_.resize(size_ + 1);
    for (int32_t x = 0; x < width_; ++x) {
      columns_.first[x] = columns_.count[x] > 0 ? columns_.first[x] : left_;
    }
  }

  bool usable() const {
    return usable_;
  }
  int samples() const {
    return samples_.count();
  }
  // Channels that one pass over a row gives.
  int side_by_side() const {
    return side_;
  }

  void start(int64_t y) {
    usable_row_ = row_.fill(1, samples_.y, [&](int32_t, int32_t j) {
      const Line<acc> line = affine_.line_y(static_cast<acc>(y) + samples_.down(j * samples_.x));
      return tap_at(line.at(0), line.whole, image_.height, options_.mode, options_.padding);
    });
  }
  bool usable_row() const {
    return usable_row_;
  }

  // sums (side_by_side, width) of the channels from `channel` on, over the samples.
  void sum(int64_t channel, acc* sums) {
    const uint8_t* pixels = static_cast<const uint8_t*>(image_.data) + channel * image_.stride_c +
        static_cast<int64_t>(left_) * image_.stride_x;
    const int32_t count = row_.count[0];
    if (count == 0) {
      std::fill(sums, sums + static_cast<int64_t>(side_) * width_, acc(0));
      return;
    }
    const uint8_t* from[4];
    for (int32_t k = 0; k < count; k += 4) {
      const int32_t rows = std::min(4, count - k);
      for (int32_t r = 0; r < rows; ++r) {
        from[r] = pixels + static_cast<int64_t>(row_.first[0] + k + r) * image_.stride_y;
      }
      add(rows, from, row_.weight.data() + k, k == 0);
    }
    if (side_ == 1) {
      add_columns<1>(sums, rows_.data(), columns_, left_, width_);
    } else {
      add_columns<3>(sums, rows_.data(), columns_, left_, width_);
    }
  }

  // What the samples lack of the image. Rounding alone is nothing.
  void missing(acc* out) const {
    const acc all = static_cast<acc>(samples_.count());
    for (int32_t x = 0; x < width_; ++x) {
      const acc lacks = all - columns_.covered[x] * row_.covered[0];
      out[x] = lacks > all * acc(1e-6) ? lacks : acc(0);
    }
  }

 private:
  void add(int32_t rows, const uint8_t* const* from, const acc* weights, bool first) {
    switch (rows) {
      case 1:
        return add_byte_rows<1>(rows_.data(), from, weights, size_, first);
      case 2:
        return add_byte_rows<2>(rows_.data(), from, weights, size_, first);
      case 3:
        return add_byte_rows<3>(rows_.data(), from, weights, size_, first);
      default:
        return add_byte_rows<4>(rows_.data(), from, weights, size_, first);
    }
  }

  const Image& image_;
  Affine<acc> affine_;
  Options options_;
  Samples<acc> samples_;
  int32_t width_;
  int side_ = 1;
  int32_t left_ = 0;
  int64_t size_ = 0;
  bool usable_ = false, usable_row_ = false;
  AxisWindows<acc> columns_, row_;
  std::vector<acc> rows_;
};

}  // namespace patches
}  // namespace pypose_ops

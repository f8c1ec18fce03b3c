// The sparse half of mrf_message_passing on the CPU: lists of the active pixels, priors in a padded frame, and the
// loop that adds up one message; shared by forward and backward.
//
// Active pixels are kept as vertical pairs, (y, x) with (y + 1, x): two output rows that are handled together meet them
// on the same row of the prior, so that every load of the prior serves two multiplications. The pairs are ordered by
// strips of a few columns, so that those in reach of a block of outputs are found without a search.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/simd.h"
#include "mrf/mrf_message_passing.h"

namespace pypose_ops {
namespace mrf {

constexpr int64_t kStrip = 16;  // columns

// Sizes of the buffers. Output rows are handled in blocks of `vecs` vectors, of which the last may hang over.
struct Frame {
  int64_t height, width;    // of the map
  int64_t reach_y, reach_x; // of the prior, cut to the map
  int64_t rows, columns;    // of the prior: 2 reach + 1
  int64_t block;            // outputs side by side, in elements
  int64_t padded_width;     // of the map: whole blocks
  int64_t stride;           // of a row in a padded buffer
  int64_t strips;
  int lanes, vecs;

  template <typename acc>
  static Frame of(const Shape& shape) {
    const int64_t lanes = simd::register_bytes() / static_cast<int64_t>(sizeof(acc));
    Frame f;
    f.lanes = static_cast<int>(lanes);
    f.height = shape.height;
    f.width = shape.width;
    f.reach_y = shape.reach_y;
    f.reach_x = shape.reach_x;
    f.rows = 2 * f.reach_y + 1;
    f.columns = 2 * f.reach_x + 1;
    // As many accumulators as the processor has registers for; a narrow prior reaches few outputs, but two vectors share
    // the strips beside them.
    constexpr int64_t most = 4;
    const int64_t needed = (f.width + lanes - 1) / lanes;
    const int64_t useful = std::max<int64_t>(2, std::min(most, f.columns / lanes));
    const int64_t blocks = (needed + useful - 1) / useful;
    f.vecs = static_cast<int>((needed + blocks - 1) / blocks);
    f.block = f.vecs * lanes;
    f.padded_width = (f.width + f.block - 1) / f.block * f.block;
    f.strips = (f.width + kStrip - 1) / kStrip;
    // Left of the origin a block and a strip; right of it a prior row, a map row slid past it, and the same again.
    // An odd number of cache lines: rows are aligned, and do not compete for the same places of the cache.
    f.stride = ((f.padded_width + f.columns + 2 * f.lead() + kStrip - 1) / kStrip | 1) * kStrip;
    return f;
  }
  int64_t lead() const {
    return block + kStrip;
  }
  int64_t buffer_size() const {
    return (std::max(rows, height) + 2) * stride;
  }
  // Of element (0, 0) in a padded buffer.
  int64_t origin() const {
    return stride + lead();
  }
};

// The first cache line from here on.
template <typename acc>
acc* aligned(acc* data) {
  return data + (64 - reinterpret_cast<uintptr_t>(data) % 64) % 64 / sizeof(acc);
}

// Zeros, aligned to cache lines.
template <typename acc>
class Buffer {
 public:
  explicit Buffer(int64_t size) : memory_(size + 64 / sizeof(acc)) {
    data_ = aligned(memory_.data());
    size_ = size;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  acc* data() const {
    return data_;
  }
  void fill(acc value) {
    std::fill(data_, data_ + size_, value);
  }

 private:
  std::vector<acc> memory_;
  acc* data_;
  int64_t size_;
};

// Pixels (y, x) and (y + 1, x), at least one of them active; y from -1 to height - 1.
template <typename acc>
struct Pair {
  acc upper, lower;
  int32_t at;  // y * stride + x
};

// The pairs of every map, by strip, row and column: counted at once, listed for the images that are held.
template <typename acc>
class ActivePixels {
 public:
  template <typename T>
  ActivePixels(const T* unary, const Shape& shape, const Frame& f, acc floor) : shape_(shape), frame_(f), floor_(floor) {
    const int64_t maps = shape.batch * shape.sources;
    const int64_t table = f.strips * (f.height + 2);
    first.assign(maps + 1, 0);
    row_begin.assign(maps * table, 0);
    torch::stable::parallel_for(0, maps, grain(), [&](int64_t begin, int64_t end) {
      std::vector<acc> active((f.height + 2) * f.width);
      for (int64_t map = begin; map < end; ++map) {
        fill_active(active.data(), unary + map * shape.pixels(), f, floor);
        int32_t* count = row_begin.data() + map * table;
        int32_t total = 0;
        each_row(active.data(), f, [&](int64_t strip, int64_t y, const acc* upper, const acc* lower, int64_t n) {
          count[strip * (f.height + 2) + y + 1] = total;
          for (int64_t x = 0; x < n; ++x) {
            total += upper[x] + lower[x] > 0;
          }
          count[strip * (f.height + 2) + y + 2] = total;
        });
        first[map + 1] = total;
      }
    });
    for (int64_t map = 0; map < maps; ++map) {
      first[map + 1] += first[map];
    }
  }

  // As many images from here on as have at most `most` pairs, but one in any case: the end of them.
  int64_t end_of(int64_t image, int64_t most) const {
    int64_t end = image + 1;
    while (end < shape_.batch && first[(end + 1) * shape_.sources] - first[image * shape_.sources] <= most) {
      ++end;
    }
    return end;
  }

  // Lists the pairs of these images, instead of others.
  template <typename T>
  void hold(const T* unary, int64_t first_image, int64_t last_image) {
    const Frame& f = frame_;
    const int64_t begin_map = first_image * shape_.sources, end_map = last_image * shape_.sources;
    held = first[begin_map];
    pairs.resize(first[end_map] - held);
    torch::stable::parallel_for(begin_map, end_map, grain(), [&](int64_t begin, int64_t end) {
      std::vector<acc> active((f.height + 2) * f.width);
      for (int64_t map = begin; map < end; ++map) {
        if (first[map] == first[map + 1]) {
          continue;
        }
        fill_active(active.data(), unary + map * shape_.pixels(), f, floor_);
        Pair<acc>* to = pairs.data() + first[map] - held;
        each_row(active.data(), f, [&](int64_t strip, int64_t y, const acc* upper, const acc* lower, int64_t n) {
          const int64_t at = y * f.stride + strip * kStrip;
          for (int64_t x = 0; x < n; ++x) {
            if (upper[x] + lower[x] > 0) {
              *to++ = {upper[x], lower[x], static_cast<int32_t>(at + x)};
            }
          }
        });
      }
    });
  }

  std::vector<Pair<acc>> pairs;
  int64_t held = 0;                // of all images' pairs the first of `pairs`
  std::vector<int64_t> first;      // per map
  std::vector<int32_t> row_begin;  // per map and strip, height + 2: row y at y + 1, counted from the map's first

 private:
  int64_t grain() const {
    return std::max<int64_t>(1, 32768 / shape_.pixels());
  }

  // active (height + 2, width): the active parts between two rows of zeros.
  template <typename T>
  static void fill_active(acc* active, const T* unary, const Frame& f, acc floor) {
    std::fill(active, active + f.width, acc(0));
    std::fill(active + (f.height + 1) * f.width, active + (f.height + 2) * f.width, acc(0));
    acc* inside = active + f.width;
    const int64_t pixels = f.height * f.width;
    simd_call([=] {
      for (int64_t i = 0; i < pixels; ++i) {
        inside[i] = active_part<acc>(simd::load(unary[i]), floor);
      }
    });
  }

  // use(strip, y, active parts in row y, in row y + 1, columns) for y from -1 on.
  template <typename Use>
  static void each_row(const acc* active, const Frame& f, const Use& use) {
    for (int64_t strip = 0; strip < f.strips; ++strip) {
      const int64_t columns = std::min(kStrip, f.width - strip * kStrip);
      for (int64_t y = -1; y < f.height; ++y) {
        const acc* upper = active + (y + 1) * f.width + strip * kStrip;
        use(strip, y, upper, upper + f.width, columns);
      }
    }
  }

  const Shape shape_;
  const Frame frame_;
  const acc floor_;
};

// One map's pairs.
template <typename acc>
struct PairList {
  const Pair<acc>* pairs;
  const int32_t* row_begin;
  int64_t table;

  PairList(const ActivePixels<acc>& active, const Frame& f, const Shape& shape, int64_t b, int64_t v)
      : table(f.height + 2) {
    const int64_t map = b * shape.sources + v;
    pairs = active.pairs.data() + active.first[map] - active.held;
    row_begin = active.row_begin.data() + map * f.strips * table;
  }
  // Of rows [low, high] of a strip, both from -1 to height - 1.
  PYPOSE_OPS_HOST_DEVICE const Pair<acc>* begin_row(int64_t strip, int64_t low) const {
    return pairs + row_begin[strip * table + low + 1];
  }
  PYPOSE_OPS_HOST_DEVICE const Pair<acc>* end_row(int64_t strip, int64_t high) const {
    return pairs + row_begin[strip * table + high + 2];
  }
};

// prior (kernel_height, kernel_width) -> the middle that the map can use, in a padded buffer that is 0 around it.
template <typename acc>
void fill_prior(acc* padded, const acc* prior, const Shape& shape, const Frame& f) {
  const acc* middle = prior + (shape.kernel_height / 2 - f.reach_y) * shape.kernel_width +
      (shape.kernel_width / 2 - f.reach_x);
  const int64_t kernel_width = shape.kernel_width;
  for (int64_t i = 0; i < f.rows; ++i) {
    const acc* from = middle + i * kernel_width;
    acc* to = padded + f.origin() + i * f.stride;
    const int64_t columns = f.columns;
    simd_call([=] {
      for (int64_t k = 0; k < columns; ++k) {
        to[k] = usable(from[k]);
      }
    });
  }
}

// out[k] = sum of in[k .. k + length - 1], by doubling: no differences, so nothing cancels. in has `size` elements and
// is destroyed; elements past its end count as 0.
inline void window_sums(double* out, double* in, int64_t size, int64_t outputs, int64_t length) {
  simd_call([=] {
    for (int64_t k = 0; k < outputs; ++k) {
      out[k] = 0;
    }
    int64_t done = 0;  // in[k] holds the sum of `step` elements from k on
    for (int64_t step = 1; step <= length; step *= 2) {
      if (length & step) {
        const int64_t n = std::min(outputs, size - done);
        for (int64_t k = 0; k < n; ++k) {
          out[k] += in[k + done];
        }
        done += step;
      }
      PYPOSE_OPS_INDEPENDENT  // the element ahead is read before it changes
      for (int64_t k = 0; k < size - step; ++k) {
        in[k] += in[k + step];
      }
    }
  });
}

// use(r, sums): sums[c] adds up the source over window_rows x window_columns elements of which the last is
// (r + lag_y, c + lag_x), lags smaller than the window. What a map of ones receives through a prior, and the adjoint.
template <typename acc, typename Use>
void box_sums(
    const acc* source, int64_t rows, int64_t columns, int64_t stride, int64_t out_rows, int64_t out_columns,
    int64_t window_rows, int64_t window_columns, int64_t lag_y, int64_t lag_x, std::vector<double>& scratch,
    const Use& use) {
  const int64_t lead = window_columns - 1 - lag_x;  // zeros on the left, so that window c starts at element c
  const int64_t size = lead + columns;
  scratch.assign(columns + size + out_columns, 0.0);
  double* column_sums = scratch.data();
  double* shifted = column_sums + columns;
  double* out = shifted + size;
  const auto add_row = [=](int64_t row, double sign) {
    if (row >= 0 && row < rows) {
      const acc* from = source + row * stride;
      simd_call([=] {
        for (int64_t k = 0; k < columns; ++k) {
          column_sums[k] += sign * static_cast<double>(from[k]);
        }
      });
    }
  };
  for (int64_t row = lag_y - window_rows + 1; row < lag_y; ++row) {
    add_row(row, 1);
  }
  for (int64_t r = 0; r < out_rows; ++r) {
    add_row(r + lag_y, 1);
    std::fill(shifted, shifted + lead, 0.0);
    std::copy(column_sums, column_sums + columns, shifted + lead);
    window_sums(out, shifted, size, out_columns, window_columns);
    use(r, out);
    add_row(r + lag_y - window_rows + 1, -1);
  }
}

// base (height, padded_width) = floor * the sum of the prior over the displacements that stay in the map.
template <typename acc>
void fill_base(acc* base, const acc* padded, const Frame& f, acc floor, std::vector<double>& scratch) {
  box_sums(
      padded + f.origin(), f.rows, f.columns, f.stride, f.height, f.width, f.height, f.width, f.reach_y, f.reach_x,
      scratch, [&](int64_t r, const double* sums) {
        for (int64_t c = 0; c < f.width; ++c) {
          base[r * f.padded_width + c] = floor * static_cast<acc>(sums[c] > 0 ? sums[c] : 0.0);
        }
      });
}

// base += the edge's bias.
template <typename acc>
void add_bias(acc* base, const acc* bias, int64_t edge, const Shape& shape, const Frame& f) {
  for (int64_t r = 0; r < f.height; ++r) {
    acc* row = base + r * f.padded_width;
    const acc* from = shape.bias_maps ? bias + (edge * f.height + r) * f.width : bias + edge;
    const int64_t step = shape.bias_maps ? 1 : 0;
    for (int64_t x = 0; x < f.width; ++x) {
      row[x] += usable(from[x * step]);
    }
  }
}

// What accumulate adds to its two sums: each pair with the row of `data` that both meet.
template <typename acc, typename Isa, int kVecs>
struct Sums {
  simd::vec<acc, Isa> first[kVecs], second[kVecs];
};

// A few vectors alone would wait for each other's sums: then several pairs add up side by side.
template <int kVecs, typename Isa, typename acc>
PYPOSE_OPS_HOST_DEVICE void accumulate(
    Isa isa, Sums<acc, Isa, kVecs>& sums, const acc* data, const Pair<acc>* pair, const Pair<acc>* end) {
  constexpr int lanes = simd::lanes<acc, Isa>;
  constexpr int kSide = kVecs == 1 ? 4 : kVecs == 2 ? 2 : 1;
  Sums<acc, Isa, kVecs> parts[kSide] = {};
  const auto add = [&](Sums<acc, Isa, kVecs>& to, const Pair<acc>& from) {
    const acc* row = data - from.at;
    for (int n = 0; n < kVecs; ++n) {
      const simd::vec<acc, Isa> v = isa.load(row + n * lanes);
      to.first[n] += from.upper * v;
      to.second[n] += from.lower * v;
    }
  };
  if (kSide > 1) {
    for (; pair + kSide <= end; pair += kSide) {
      for (int m = 0; m < kSide; ++m) {
        add(parts[m], pair[m]);
      }
    }
  }
  for (; pair < end; ++pair) {
    add(sums, *pair);
  }
  for (int m = 0; kSide > 1 && m < kSide; ++m) {
    for (int n = 0; n < kVecs; ++n) {
      sums.first[n] += parts[m].first[n];
      sums.second[n] += parts[m].second[n];
    }
  }
}

// out(r, x, v) for every row and block of vectors, v[n] what the active pixels send to pixels x + n * lanes ...
//   message row r,  prior row r - y + reach:  pixels y and y + 1 meet rows r and r + 1 on the same row of the prior.
template <int kVecs, typename Isa, typename acc, typename Out>
PYPOSE_OPS_HOST_DEVICE void each_message(
    Isa isa, const Frame& f, const acc* prior, const PairList<acc>& list, const Out& out) {
  for (int64_t r = 0; r < f.height; r += 2) {
    const int64_t low = std::max<int64_t>(-1, r - f.reach_y);
    const int64_t high = std::min<int64_t>(f.height - 1, r + f.reach_y);
    for (int64_t x = 0; x < f.width; x += f.block) {
      const acc* data = prior + f.origin() + (r + f.reach_y) * f.stride + x + f.reach_x;
      const int64_t first = std::max<int64_t>(0, x - f.reach_x) / kStrip;
      const int64_t last = std::min<int64_t>(f.width - 1, x + f.block - 1 + f.reach_x) / kStrip;
      Sums<acc, Isa, kVecs> sums{};
      for (int64_t strip = first; strip <= last; ++strip) {
        accumulate<kVecs>(isa, sums, data, list.begin_row(strip, low), list.end_row(strip, high));
      }
      out(r, x, sums.first);
      if (r + 1 < f.height) {
        out(r + 1, x, sums.second);
      }
    }
  }
}

}  // namespace mrf
}  // namespace pypose_ops

// The search of decode_roi_heatmaps in one map on the CPU. Everything here but PaddedMap::highest must be inlined into a
// simd_call.
#pragma once

#include <algorithm>
#include <vector>

#include "common/simd.h"
#include "peaks/decode_roi_heatmaps.h"

namespace pypose_ops {
namespace peaks {

// Copies of a number side by side. By its bits: of a number plus zero GCC makes an addition, of a number minus zero shuffles.
template <typename real, typename acc>
PYPOSE_OPS_HOST_DEVICE real all_of(acc value) {
  using key = std::conditional_t<sizeof(acc) == 4, int32_t, int64_t>;
  typedef key keys __attribute__((vector_size(sizeof(real))));
  return simd::bits_to<real>(keys{} + simd::bits_to<key>(value));
}

// A map in the arithmetic's type with its outermost pixels repeated two pixels beyond its edges, and more to the right, where
// vectors read. What is known of it: the highest pixel of every row, and the lowest of all.
template <typename acc>
struct PaddedMap {
  static constexpr int kBorder = 2;

  int width, height;
  int64_t stride;
  std::vector<acc> pixels, tops;
  acc low = 0;
  bool finite = true;

  PaddedMap(int map_width, int map_height)
      : width(map_width), height(map_height), stride(int64_t{map_width} + 2 * kBorder + simd::kMostLanes<acc>),
        pixels(static_cast<size_t>(stride * (map_height + 2 * kBorder))), tops(map_height) {}

  // Pixel 0 of a row from -2 to height + 1.
  const acc* row(int y) const {
    return pixels.data() + (y + kBorder) * stride + kBorder;
  }

  template <typename Isa, typename scalar>
  PYPOSE_OPS_HOST_DEVICE void fill(Isa isa, const scalar* map) {
    using real = simd::vec<acc, Isa>;
    constexpr int lanes = simd::lanes<acc, Isa>;
    constexpr acc infinity = std::numeric_limits<acc>::infinity();
    real lows = real{} + infinity, zeros = real{};
    for (int y = 0; y < height; ++y, map += width) {
      acc* to = const_cast<acc*>(row(y));
      real top = real{} - infinity;
      int x = 0;
      for (; x + lanes <= width; x += lanes) {
        const real v = isa.load(map + x);
        isa.store(to + x, v);
        top = v > top ? v : top;
        lows = v < lows ? v : lows;
        zeros += v * acc(0);  // NaN where one is not finite
      }
      acc highest = -infinity;
      for (; x < width; ++x) {
        const acc v = simd::load(map[x]);
        to[x] = v;
        highest = v > highest ? v : highest;
        lows[0] = v < lows[0] ? v : lows[0];
        zeros[0] += v * acc(0);
      }
      for (int lane = 0; lane < lanes; ++lane) {
        highest = top[lane] > highest ? top[lane] : highest;
      }
      tops[y] = highest;
      to[-2] = to[-1] = to[0];
      std::fill(to + width, to + stride - kBorder, to[width - 1]);
    }
    acc zero = 0;
    low = infinity;
    for (int lane = 0; lane < lanes; ++lane) {
      low = lows[lane] < low ? lows[lane] : low;
      zero += zeros[lane];
    }
    finite = zero == acc(0);
    acc* const first = pixels.data();
    for (int i = 0; i < kBorder; ++i) {
      std::copy_n(first + kBorder * stride, stride, first + i * stride);
      std::copy_n(first + (height + kBorder - 1) * stride, stride, first + (height + kBorder + i) * stride);
    }
  }

  // The first of its highest finite pixels. Where some are not finite, there is no bound for rows, and `low` is made anew.
  Indexed<acc> highest() {
    Indexed<acc> best = nothing_found<acc>();
    if (finite) {
      const int y = static_cast<int>(std::max_element(tops.begin(), tops.end()) - tops.begin());
      return {tops[y], y * width + static_cast<int>(std::find(row(y), row(y) + width, tops[y]) - row(y))};
    }
    low = std::numeric_limits<acc>::infinity();
    for (int y = 0; y < height; ++y) {
      tops[y] = std::numeric_limits<acc>::infinity();
      for (int x = 0; x < width; ++x) {
        const acc v = row(y)[x];
        if (is_finite(v)) {
          best = better(best, Indexed<acc>{v, y * width + x});
          low = v < low ? v : low;
        }
      }
    }
    return best;
  }
};

// The resized pixels of one axis of a box, by cells, and their weights: for all maps of the box.
template <typename acc>
struct ResizedAxis {
  RoiAxis<acc> axis;
  std::vector<int> firsts;  // of the cells from -1 on, and one past the last
  std::vector<acc> before, next, last;

  void set(const RoiAxis<acc>& to) {
    axis = to;
    firsts.assign(axis.pixels + 2, 0);
    if (axis.size == 0) {
      return;
    }
    for (int cell = -1; cell <= axis.pixels; ++cell) {
      firsts[cell + 1] = axis.first(cell);
    }
    for (std::vector<acc>* weights : {&before, &next, &last}) {
      weights->resize(axis.size + simd::kMostLanes<acc>);  // vectors read beyond the last
    }
    for (int cell = -1; cell < axis.pixels; ++cell) {
      for (int place = begin(cell); place < end(cell); ++place) {
        const auto w = CubicWeights<Single<acc>>::at(part_of_cell(axis.at(place), cell));
        before[place] = w.before;
        next[place] = w.next;
        last[place] = w.last;
      }
    }
  }
  int begin(int cell) const {
    return firsts[cell + 1];
  }
  int end(int cell) const {
    return firsts[cell + 2];
  }
  bool has(int cell) const {
    return cell >= -1 && cell < axis.pixels && begin(cell) < end(cell);
  }
};

template <typename number, typename Isa>
struct Side {  // numbers side by side
  using acc = number;
  using real = simd::vec<number, Isa>;
};

template <typename acc>
struct RoiSearch {
  using key = std::conditional_t<sizeof(acc) == 4, int32_t, int64_t>;
  static constexpr int kTogether = 8;  // rows

  const PaddedMap<acc>& map;
  const ResizedAxis<acc>&x, &y;
  Indexed<acc> best;
  acc margin;
  uint8_t* resized;  // whether a cell was, (H + 1, W + 1)

  // All resized pixels of a cell, columns of them side by side in a vector.
  template <typename Isa>
  PYPOSE_OPS_HOST_DEVICE void resize(Isa isa, int cell_x, int cell_y) {
    using real = simd::vec<acc, Isa>;
    using keys = simd::vec<key, Isa>;
    using Weights = CubicWeights<Side<acc, Isa>>;
    constexpr int lanes = simd::lanes<acc, Isa>;
    constexpr int kRows = 4;  // at a time, the last of a cell repeated: how many it has no processor can predict
    keys numbers;
    for (int lane = 0; lane < lanes; ++lane) {
      numbers[lane] = lane;
    }
    const int end = x.end(cell_x);
    for (int from = x.begin(cell_x); from < end; from += lanes) {
      const Weights across = {
          isa.load(x.before.data() + from), isa.load(x.next.data() + from), isa.load(x.last.data() + from)};
      real lines[4];
      for (int k = 0; k < 4; ++k) {
        const acc* p = map.row(cell_y - 1 + k) + cell_x;
        lines[k] = across.of(all_of<real>(p[-1]), all_of<real>(p[0]), all_of<real>(p[1]), all_of<real>(p[2]));
      }
      real top = real{} - std::numeric_limits<acc>::infinity(), rows = real{};
      const int last = y.end(cell_y) - 1;
      for (int begin = y.begin(cell_y); begin <= last; begin += kRows) {
        for (int i = 0; i < kRows; ++i) {
          const int row = std::min(begin + i, last);
          const Weights down = {all_of<real>(y.before[row]), all_of<real>(y.next[row]), all_of<real>(y.last[row])};
          const real value = down.of(lines[0], lines[1], lines[2], lines[3]);
          rows = value > top ? all_of<real>(acc(row)) : rows;
          top = value > top ? value : top;
        }
      }
      keys count = keys{} + (end - from);
      const keys high = simd::bits_to<keys>(top >= best.value) & simd::bits_to<keys>(numbers < count);
      key any = 0;
      for (int lane = 0; lane < lanes; ++lane) {
        any |= high[lane];
      }
      for (int lane = 0; lane < lanes && any != 0; ++lane) {
        if (high[lane] != 0 && is_finite(top[lane])) {
          best = better(best, Indexed<acc>{top[lane], static_cast<int>(rows[lane]) * x.axis.size + from + lane});
        }
      }
    }
  }

  // In registers no wider than the cell has columns: wider ones take longer on some processors.
  template <typename Isa>
  PYPOSE_OPS_HOST_DEVICE void resize_cell(Isa isa, int cell_x, int cell_y) {
    using Narrow = simd::Isa<16>;
    if (x.end(cell_x) - x.begin(cell_x) <= simd::lanes<acc, Narrow>) {
      resize(Narrow{}, cell_x, cell_y);
    } else {
      resize(isa, cell_x, cell_y);
    }
  }

  // The cells around a pixel, those with a control point there that is high enough, but none for a second time.
  template <typename Isa>
  PYPOSE_OPS_HOST_DEVICE void resize_around(Isa isa, int px, int py) {
    const auto controls =
        Controls<acc>::of([&](int dx, int dy) { return map.row(py + dy)[px + dx]; });
    int found[4], count = 0;  // without branches that noise mispredicts
    for (int quadrant = 0; quadrant < 4; ++quadrant) {
      const int right = quadrant % 2, down = quadrant / 2;
      const int cell_x = px - 1 + right, cell_y = py - 1 + down;
      if (cell_x < -1 || cell_x >= map.width || cell_y < -1 || cell_y >= map.height) {
        continue;
      }
      uint8_t& done = resized[int64_t{cell_y + 1} * (map.width + 1) + cell_x + 1];
      const bool low = controls.highest(2 * right - 1, 2 * down - 1) < best.value - margin;
      const int wanted = int{!low} & int{done == 0} & int{x.begin(cell_x) < x.end(cell_x)} &
          int{y.begin(cell_y) < y.end(cell_y)};
      done |= static_cast<uint8_t>(wanted);
      found[count] = quadrant;
      count += wanted;
    }
    for (int i = 0; i < count; ++i) {
      resize_cell(isa, px - 1 + found[i] % 2, py - 1 + found[i] / 2);
    }
  }

  // The cells around the pixels of `count` rows, beginning with the one before the first of each. Down the rows a vector at a
  // time: what it reads stays in registers for the next two rows.
  template <typename Isa>
  PYPOSE_OPS_HOST_DEVICE void search_rows(Isa isa, int begin, int count) {
    using real = simd::vec<acc, Isa>;
    using keys = simd::vec<key, Isa>;
    constexpr int lanes = simd::lanes<acc, Isa>;
    constexpr acc third = acc(kCubicSlope / 3);
    const auto size_of = [](real v) {
      return simd::bits_to<real>(simd::bits_to<keys>(v) & std::numeric_limits<key>::max());
    };
    const int width = map.width;
    const int64_t stride = map.stride;
    const acc* column = map.row(begin - 1) - 1;
    for (int px = -1; px <= width; px += lanes, column += lanes) {
      const real bar = real{} + (best.value - margin);
      keys cold[kTogether], all = ~keys{};  // -1 where no cell around a pixel can hold a higher resized pixel
      const acc* at = column;
      real above = isa.load(at), above_across = isa.load(at + 1) - isa.load(at - 1);
      at += stride;
      real here = isa.load(at), across = isa.load(at + 1) - isa.load(at - 1);
      for (int i = 0; i < count; ++i) {
        at += stride;
        const real below = isa.load(at), below_across = isa.load(at + 1) - isa.load(at - 1);
        const real bound =
            here + third * (size_of(across) + size_of(below - above) + third * size_of(below_across - above_across));
        cold[i] = simd::bits_to<keys>(bound < bar);
        all &= cold[i];
        above = here;
        above_across = across;
        here = below;
        across = below_across;
      }
      if (is_cold(all)) {
        continue;
      }
      for (int i = 0; i < count; ++i) {
        constexpr int words = sizeof(keys) / sizeof(int64_t), of_word = lanes / words;
        int64_t flags[words];
        std::memcpy(flags, cold + i, sizeof(flags));
        for (int word = 0; word < words; ++word) {
          for (int lane = word * of_word; lane < (word + 1) * of_word && flags[word] != -1; ++lane) {
            if (cold[i][lane] == 0 && px + lane <= width) {
              resize_around(isa, px + lane, begin + i);
            }
          }
        }
      }
    }
  }

  template <typename keys>
  static PYPOSE_OPS_HOST_DEVICE bool is_cold(keys flags) {
    int64_t parts[sizeof(keys) / sizeof(int64_t)], all = -1;
    std::memcpy(parts, &flags, sizeof(flags));
    for (const int64_t part : parts) {
      all &= part;
    }
    return all == -1;
  }

  // From the cells around the map's highest pixel.
  template <typename Isa>
  PYPOSE_OPS_HOST_DEVICE void search(Isa isa, Indexed<acc> peak) {
    const int px = peak.index % map.width, py = peak.index / map.width;
    resize_around(isa, px, py);
    if (!best.found()) {  // a map made smaller may have no pixel there
      resize_cell(isa, x.axis.nearest_cell(px), y.axis.nearest_cell(py));
    }
    const acc range = peak.value - map.low;
    const acc reach = range * acc(2 * kCubicSlope / 3 + 2 * kCubicSlope * kCubicSlope / 9);  // of control points
    for (int row = -1; row <= map.height;) {
      int count = 0;
      while (count < kTogether && row + count <= map.height && is_wanted(row + count, reach)) {
        ++count;
      }
      if (count > 0) {
        search_rows(isa, row, count);
      }
      row += count > 0 ? count : 1;
    }
  }

  // Whether a row can have pixels with a high control point, and resized pixels beside it.
  PYPOSE_OPS_HOST_DEVICE bool is_wanted(int row, acc reach) const {
    const acc top = map.tops[std::clamp(row, 0, map.height - 1)];
    return !(top + reach < best.value - margin) && (y.has(row - 1) || y.has(row));
  }
};

}  // namespace peaks
}  // namespace pypose_ops

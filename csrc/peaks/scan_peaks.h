// Candidates for peaks in one row of a map, and which of them are peaks: on the CPU. Both lists and find_peaks
// walk through plateaus; rows are scanned for lists, where most pixels are below the threshold: in noise find_peaks, which
// flags all pixels of a group of rows, takes a third of the time.
//
// A candidate is a pixel above the threshold with no higher one in reach; alone, it has no equal one either. One that is
// tied belongs to a plateau, which has to be walked through.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "peaks/find_peaks.h"
#include "peaks/refine_cpu.h"

namespace pypose_ops {
namespace peaks {

constexpr int kTied = 1;
constexpr int kAlone = 2;

template <typename scalar, typename acc>
bool is_candidate(const MapView<scalar>& map, int x, int y, int radius, acc value) {
  const Window window(x, y, radius, map.width, map.height);
  for (int row = window.top; row <= window.bottom; ++row) {
    for (int column = window.left; column <= window.right; ++column) {
      if (finite_or_lowest(map(column, row)) > value) {
        return false;
      }
    }
  }
  return true;
}

// The plateaus of a map that have been walked through.
struct Plateaus {
  std::vector<bool> seen;  // their pixels; empty before the first
  std::vector<int> queue;

  void clear() {
    seen.clear();
  }

  // Walks through the plateau of a pixel, unless it has been; whether it is a peak. Not inlined, as everything else below
  // a simd_call: it is rare, and would be compiled for every instruction set.
  template <typename scalar, typename acc>
  [[gnu::noinline]] bool is_peak(const MapView<scalar>& map, int from, int radius, acc value) {
    if (seen.empty()) {
      seen.resize(static_cast<size_t>(map.width) * map.height, false);
    }
    if (seen[from]) {
      return false;
    }
    bool peak = true;
    queue.assign(1, from);
    seen[from] = true;
    for (size_t next = 0; next < queue.size(); ++next) {
      const int x = queue[next] % map.width;
      const int y = queue[next] / map.width;
      peak = peak && is_candidate(map, x, y, radius, value);
      const Window window(x, y, radius, map.width, map.height);
      for (int row = window.top; row <= window.bottom; ++row) {
        for (int column = window.left; column <= window.right; ++column) {
          const int index = row * map.width + column;
          if (map(column, row) == value && !seen[index]) {
            seen[index] = true;
            queue.push_back(index);
          }
        }
      }
    }
    return peak;
  }
};

template <typename lanes_t>
bool any_lane(const lanes_t& lanes) {
  uint64_t words[sizeof(lanes_t) / 8];
  std::memcpy(words, &lanes, sizeof(lanes));
  uint64_t any = 0;
  for (const uint64_t word : words) {
    any |= word;
  }
  return any != 0;
}

// kAlone, kTied or 0 for one pixel, whatever it and its 8 neighbours are.
template <typename T>
[[gnu::noinline]] int kind_of_pixel(const MapView<T>& map, int x, int y, T threshold) {
  const T own = finite_or_lowest(map(x, y));
  if (!(own > threshold)) {
    return 0;
  }
  int equal = -1;  // without the pixel itself
  const Window window(x, y, 1, map.width, map.height);
  for (int row = window.top; row <= window.bottom; ++row) {
    for (int column = window.left; column <= window.right; ++column) {
      const T other = finite_or_lowest(map(column, row));
      if (other > own) {
        return 0;
      }
      equal += other == own ? 1 : 0;
    }
  }
  return equal > 0 ? kTied : kAlone;
}

// The candidates of one row.
struct Candidates {
  std::vector<int> columns, kinds;
  int count = 0;

  explicit Candidates(int width) : columns(width + 64), kinds(columns.size()) {}

  void add(int column, int kind) {  // without a branch: in noise it goes the wrong way as often as not
    columns[count] = column;
    kinds[count] = kind;
    count += kind != 0 ? 1 : 0;
  }

  // Keeps the peaks among them.
  template <typename scalar>
  void keep_peaks(const MapView<scalar>& map, int y, int radius, Plateaus& plateaus) {
    int peaks = 0;
    for (int i = 0; i < count; ++i) {
      const int index = y * map.width + columns[i];
      columns[peaks] = columns[i];
      peaks += kinds[i] == kAlone || plateaus.is_peak(map, index, radius, acc_t<scalar>(simd::load(map.map[index])));
    }
    count = peaks;
  }
};

// The pixels x ... x + lanes - 1 of row y, none of which is in the first or last column.
template <typename Isa, typename T>
void scan_vector(Isa isa, const MapView<T>& map, int y, int x, T threshold, Candidates& found) {
  using Values = simd::vec<T, Isa>;
  using Flags = simd::vec<key_t<T>, Isa>;
  constexpr int lanes = simd::lanes<T, Isa>;
  constexpr T infinity = std::numeric_limits<T>::infinity();
  const T* own = map.map + static_cast<int64_t>(y) * map.width + x;
  const Values here = isa.load(own);
  const Flags above = Flags(here > threshold) & Flags(here < infinity);
  if (!any_lane(above)) {
    return;
  }
  // What is not a number is not larger; infinity, which does not count, is looked for below. A row outside of the map is
  // replaced by that on the other side.
  const T* up = y > 0 ? own - map.width : map.height > 1 ? own + map.width : nullptr;
  const T* down = y + 1 < map.height ? own + map.width : up;
  Values others = Values{} - infinity;
  const auto take = [&](const T* from) {
    const Values other = isa.load(from);
    others = other > others ? other : others;
  };
  take(own - 1);
  take(own + 1);
  if (up != nullptr) {
    for (int step = -1; step <= 1; ++step) {
      take(up + step);
      take(down + step);
    }
  }
  const Flags candidate = above & Flags(here >= others);
  const Flags blocked = above & Flags(others == infinity);
  if (!any_lane(Flags(candidate | blocked))) {
    return;
  }
  if (any_lane(blocked)) {
    for (int lane = 0; lane < lanes; ++lane) {
      found.add(x + lane, kind_of_pixel(map, x + lane, y, threshold));
    }
    return;
  }
  const Flags kinds = candidate & ((Flags(here > others) & 1) + 1);  // kAlone or kTied
  key_t<T> each[lanes];
  std::memcpy(each, &kinds, sizeof(kinds));
  for (int lane = 0; lane < lanes; ++lane) {
    found.add(x + lane, static_cast<int>(each[lane]));
  }
}

// The candidates of row y, among 8 neighbours, in maps of the arithmetic type, which are read in place. Most pixels are
// below the threshold: they are passed over, kVectors at a time.
template <typename Isa, typename T>
void scan_row(Isa isa, const MapView<T>& map, int y, T threshold, Candidates& found) {
  constexpr int lanes = simd::lanes<T, Isa>;
  constexpr int kVectors = 4;
  const T* row = map.map + static_cast<int64_t>(y) * map.width;
  found.count = 0;
  const auto one_by_one = [&](int from, int end) {
    for (int x = from; x < end; ++x) {
      if (row[x] > threshold) {
        found.add(x, kind_of_pixel(map, x, y, threshold));
      }
    }
  };
  int x = 0;
  while (x + lanes <= map.width) {
    int vectors = 1;
    if (x + kVectors * lanes <= map.width) {
      // Of the next rows too, before they are compared with a candidate: the processor expects one row to be read.
      const T* ahead = row + x + 2 * static_cast<int64_t>(map.width);
      __builtin_prefetch(ahead);
      __builtin_prefetch(ahead + 64 / sizeof(T));
      simd::vec<key_t<T>, Isa> any = {};
      for (int i = 0; i < kVectors; ++i) {
        any |= simd::vec<key_t<T>, Isa>(isa.load(row + x + i * lanes) > threshold);
      }
      vectors = kVectors;
      if (!any_lane(any)) {
        x += kVectors * lanes;
        continue;
      }
    }
    for (int i = 0; i < vectors; ++i, x += lanes) {
      if (x == 0 || x + lanes == map.width) {
        one_by_one(x, x + lanes);
      } else {
        scan_vector(isa, map, y, x, threshold, found);
      }
    }
  }
  one_by_one(x, map.width);
}

}  // namespace peaks
}  // namespace pypose_ops

// The best peaks of a map on the CPU, while they are found.
#pragma once

#include <algorithm>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "peaks/refine_cpu.h"

namespace pypose_ops {
namespace peaks {

constexpr int kSpare = 64;   // peaks kept beyond twice those wanted before the worst are dropped
constexpr int kRanked = 128;  // up to so many are ordered by counting, for each, those before it

// The peaks of a map that may be among the best, in the order of their indices. In noise a branch that depends on a pixel
// goes the wrong way as often as not: nothing below has one.
template <typename acc>
struct Found {
  using key = key_t<acc>;
  static constexpr key lowest = std::numeric_limits<key>::lowest();

  std::vector<key> keys;  // of their values
  std::vector<int> indices, order;
  int count = 0;
  key bar = lowest;  // later peaks that are not higher have no place: equal ones come after those that are kept

  // `most` are kept; `added` may come between two calls of drop_worst().
  Found(int most, int added)
      : keys(2 * most + kSpare + added + 1), indices(keys.size()), order(std::max(most, kRanked)), most_(most),
        sorted_(order.size()) {}

  void clear() {
    count = 0;
    bar = lowest;
  }

  void add(acc value, int index) {
    const key here = key_of<true>(value);
    keys[count] = here;
    indices[count] = index;
    count += here > bar ? 1 : 0;
  }

  void drop_worst() {
    if (count > 2 * most_ + kSpare) {
      keep_best();
    }
  }

  // order: the best in the order of the output, at most `most`, as places in `indices`; how many.
  int put_in_order() {
    if (count > most_) {
      keep_best();
    }
    if (count > kRanked) {
      sort_all();
      return count;
    }
    const key* __restrict__ all = keys.data();
    for (int i = 0; i < count; ++i) {
      const key here = all[i];
      key rank = 0;
      for (int j = 0; j < i; ++j) {
        rank += all[j] >= here ? 1 : 0;
      }
      for (int j = i + 1; j < count; ++j) {
        rank += all[j] > here ? 1 : 0;
      }
      order[rank] = i;
    }
    return count;
  }

 private:
  int most_;
  std::vector<int> sorted_;

  // By their bytes, the lowest first, which keeps the order of equal ones and has no branch that noise mispredicts. Not inlined
  // into a simd_call: nothing in it vectorises.
  [[gnu::noinline]] void sort_all() {
    using bits = std::make_unsigned_t<key>;
    constexpr int kBytes = sizeof(key);
    const auto byte_of = [](key here, int byte) {  // of a number that falls as the key grows
      return (bits(std::numeric_limits<key>::max()) - bits(here)) >> (8 * byte) & 255;
    };
    int places[kBytes][256] = {};
    for (int i = 0; i < count; ++i) {
      order[i] = i;
      for (int byte = 0; byte < kBytes; ++byte) {
        ++places[byte][byte_of(keys[i], byte)];
      }
    }
    for (int byte = 0; byte < kBytes; ++byte) {
      int* place = places[byte];
      if (place[byte_of(keys[0], byte)] == count) {
        continue;  // all alike
      }
      for (int value = 0, sum = 0; value < 256; ++value) {
        sum += std::exchange(place[value], sum);
      }
      for (int i = 0; i < count; ++i) {
        sorted_[place[byte_of(keys[order[i]], byte)]++] = order[i];
      }
      order.swap(sorted_);
    }
  }

  int not_below(key bound) const {
    const key* __restrict__ all = keys.data();
    key many = 0;
    for (int i = 0; i < count; ++i) {
      many += all[i] >= bound ? 1 : 0;
    }
    return static_cast<int>(many);
  }

  // The highest key that `most` of them reach, by bisection; of those equal to it the first are kept.
  void keep_best() {
    const auto ends = std::minmax_element(keys.begin(), keys.begin() + count);
    key low = *ends.first, high = *ends.second;
    int reach_low = count;
    while (low < high && reach_low != most_) {
      // Without overflow, rounded up.
      const key middle = static_cast<key>((low | high) - ((low ^ high) >> 1));
      const int reach = not_below(middle);
      const bool enough = reach >= most_;
      low = enough ? middle : low;
      reach_low = enough ? reach : reach_low;
      high = enough ? high : static_cast<key>(middle - 1);
    }
    int equal = most_;  // that have a place
    for (int i = 0; i < count; ++i) {
      equal -= keys[i] > low ? 1 : 0;
    }
    int kept = 0;
    for (int i = 0; i < count; ++i) {
      const int ties = keys[i] == low ? 1 : 0;
      const int keep = (keys[i] > low ? 1 : 0) | (ties & (equal > 0 ? 1 : 0));
      equal -= ties;
      keys[kept] = keys[i];
      indices[kept] = indices[i];
      kept += keep;
    }
    count = kept;
    bar = low;
  }
};

}  // namespace peaks
}  // namespace pypose_ops

// Neighbouring elements that a thread loads and stores at once. The instructions are named: left to itself the compiler
// takes a struct of 16 bytes apart into four stores, of which each then touches every sector of the row.
#pragma once

#include <cstring>

#include "common/cuda.cuh"

namespace pypose_ops {

template <typename T, int n>
struct alignas(sizeof(T) * n) Pack {
  T v[n];
};

constexpr int kPackBytes = 16;  // the widest load and store of a thread

template <typename T>
constexpr int kPack = kPackBytes / sizeof(T);

// A plain type that is moved by one instruction.
template <int bytes>
struct WordOf;
template <>
struct WordOf<1> {
  using type = unsigned char;
};
template <>
struct WordOf<2> {
  using type = unsigned short;
};
template <>
struct WordOf<4> {
  using type = unsigned;
};
template <>
struct WordOf<8> {
  using type = uint2;
};
template <>
struct WordOf<16> {
  using type = uint4;
};

// From memory that nothing writes while the kernel runs; `from` is a multiple of the pack's size.
template <int n, typename T>
__device__ __forceinline__ Pack<T, n> load_pack(const T* from) {
  using Word = typename WordOf<sizeof(T) * n>::type;
  const Word word = __ldg(reinterpret_cast<const Word*>(from));
  Pack<T, n> pack;
  std::memcpy(static_cast<void*>(&pack), &word, sizeof(word));
  return pack;
}

template <int n, typename T>
__device__ __forceinline__ void store_pack(T* to, const Pack<T, n>& pack) {
  using Word = typename WordOf<sizeof(T) * n>::type;
  Word word;
  std::memcpy(&word, &pack, sizeof(word));
  __stcg(reinterpret_cast<Word*>(to), word);
}

// The widest pack, at most 16 bytes, that divides rows of `row` elements which begin `offset` bytes after a multiple of
// 16.
template <typename T>
int pack_width(int64_t row, uintptr_t offset = 0) {
  int width = kPack<T>;
  while (width > 1 && (row % width != 0 || offset % (width * sizeof(T)) != 0)) {
    width /= 2;
  }
  return width;
}

// run(std::integral_constant<int, n>) with n = width, one of those of pack_width<T>.
template <typename T, typename Run>
void with_pack_width(int width, const Run& run) {
  if constexpr (kPack<T> >= 8) {
    if (width == 8) {
      return run(std::integral_constant<int, 8>());
    }
  }
  if constexpr (kPack<T> >= 4) {
    if (width == 4) {
      return run(std::integral_constant<int, 4>());
    }
  }
  if (width == 2) {
    return run(std::integral_constant<int, 2>());
  }
  run(std::integral_constant<int, 1>());
}

}  // namespace pypose_ops

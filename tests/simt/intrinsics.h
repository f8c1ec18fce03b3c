// Memory and arithmetic intrinsics: those that kernels use.
#pragma once

// One thread runs at a time: plain reads and writes are atomic.
template <typename T>
T atomicAdd(T* address, std::common_type_t<T> value) {
  static_assert(
      std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long> ||
          std::is_floating_point_v<T>,
      "atomicAdd has no such overload in CUDA");
  simt::trace_atomic(true);
  const T old = *address;
  *address = old + value;
  simt::trace_atomic(false);
  return old;
}

[[noreturn]] inline void __trap(simt::Place at = simt::here()) {
  simt::stop("__trap", at);
}

namespace simt {

// What a GPU answers with "misaligned address".
template <typename T>
void check_alignment(const T* address, Place at) {
  if (reinterpret_cast<uintptr_t>(address) % alignof(T) != 0) {
    stop(("misaligned address of " + std::to_string(sizeof(T)) + " bytes").c_str(), at);
  }
}

}  // namespace simt

template <typename T>
T __ldg(const T* address, simt::Place at = simt::here()) {
  simt::check_alignment(address, at);
  return *address;
}
template <typename T>
void __stcg(T* address, std::common_type_t<T> value, simt::Place at = simt::here()) {
  simt::check_alignment(address, at);
  if constexpr (sizeof(T) == 16) {  // in one piece, as the trace of accesses has to see it
    typedef uint64_t Whole __attribute__((vector_size(16), may_alias));
    Whole bits;
    std::memcpy(&bits, &value, sizeof(bits));
    *reinterpret_cast<Whole*>(address) = bits;
  } else {
    *address = value;
  }
}

inline int __popc(unsigned x) {
  return __builtin_popcount(x);
}

// min and max of two numbers, of NaN and a number the number.
template <typename T, typename U, typename = std::enable_if_t<std::is_arithmetic_v<T> && std::is_arithmetic_v<U>>>
constexpr std::common_type_t<T, U> min(T a, U b) {
  using C = std::common_type_t<T, U>;
  const C x = static_cast<C>(a), y = static_cast<C>(b);
  return x < y || y != y ? x : y;
}
template <typename T, typename U, typename = std::enable_if_t<std::is_arithmetic_v<T> && std::is_arithmetic_v<U>>>
constexpr std::common_type_t<T, U> max(T a, U b) {
  using C = std::common_type_t<T, U>;
  const C x = static_cast<C>(a), y = static_cast<C>(b);
  return x > y || y != y ? x : y;
}

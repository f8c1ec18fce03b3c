// Barriers, shuffles, votes and reductions. A lane that has returned counts as arrived, a lane's value that is not there
// reads as all ones.
#pragma once

inline void __syncthreads(simt::Place at = simt::here()) {
  simt::barrier(simt::Vote::none, false, at);
}
inline int __syncthreads_count(int predicate, simt::Place at = simt::here()) {
  return simt::barrier(simt::Vote::count, predicate != 0, at);
}
inline int __syncthreads_and(int predicate, simt::Place at = simt::here()) {
  return simt::barrier(simt::Vote::all, predicate != 0, at);
}
inline int __syncthreads_or(int predicate, simt::Place at = simt::here()) {
  return simt::barrier(simt::Vote::any, predicate != 0, at);
}

inline void __syncwarp(unsigned mask = 0xffffffffu, simt::Place at = simt::here()) {
  simt::warp_collective(simt::WarpOp::sync, mask, 0, 0, at);
}

namespace simt {

template <typename T>
uint64_t to_bits(T value) {
  static_assert(std::is_arithmetic_v<T> || sizeof(T) == 2, "CUDA exchanges numbers only");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <typename T>
T shuffle(WarpOp op, unsigned mask, T value, unsigned source, int width, Place at) {
  if (width < 1 || width > 32 || (width & (width - 1)) != 0) {
    stop("a shuffle's width must be 1, 2, 4, 8, 16 or 32", at);
  }
  const uint64_t bits = warp_collective(op, mask, to_bits(value), source, at);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace simt

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, simt::Place at = simt::here()) {
  const unsigned segment = simt::lane() & ~(width - 1u);
  return simt::shuffle(simt::WarpOp::shfl, mask, value, segment + (source & (width - 1u)), width, at);
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, simt::Place at = simt::here()) {
  const unsigned own = simt::lane();
  const unsigned source = delta <= (own & (width - 1u)) ? own - delta : own;
  return simt::shuffle(simt::WarpOp::shfl_up, mask, value, source, width, at);
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, simt::Place at = simt::here()) {
  const unsigned own = simt::lane();
  const unsigned source = delta < width - (own & (width - 1u)) ? own + delta : own;
  return simt::shuffle(simt::WarpOp::shfl_down, mask, value, source, width, at);
}

// Earlier segments can be read, later ones cannot.
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, simt::Place at = simt::here()) {
  const unsigned own = simt::lane();
  const unsigned other = own ^ static_cast<unsigned>(lane_mask);
  const unsigned source = other <= (own | (width - 1u)) ? other : own;
  return simt::shuffle(simt::WarpOp::shfl_xor, mask, value, source, width, at);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, simt::Place at = simt::here()) {
  return static_cast<unsigned>(simt::warp_collective(simt::WarpOp::ballot, mask, predicate != 0, 0, at));
}
inline int __any_sync(unsigned mask, int predicate, simt::Place at = simt::here()) {
  return static_cast<int>(simt::warp_collective(simt::WarpOp::any, mask, predicate != 0, 0, at));
}
inline int __all_sync(unsigned mask, int predicate, simt::Place at = simt::here()) {
  return static_cast<int>(simt::warp_collective(simt::WarpOp::all, mask, predicate != 0, 0, at));
}
template <typename T>
unsigned __match_any_sync(unsigned mask, T value, simt::Place at = simt::here()) {
  return static_cast<unsigned>(simt::warp_collective(simt::WarpOp::match_any, mask, simt::to_bits(value), 0, at));
}
// Any set of lanes that holds the caller is a right answer on a GPU; the smallest one finds code that hopes for more.
inline unsigned __activemask() {
  return 1u << simt::lane();
}

#define SIMT_REDUCE(NAME, T, OP)                                                                            \
  inline T NAME(unsigned mask, T value, simt::Place at = simt::here()) {                                    \
    return static_cast<T>(simt::warp_collective(simt::WarpOp::OP, mask, static_cast<uint32_t>(value), 0, at)); \
  }
SIMT_REDUCE(__reduce_add_sync, int, add)
SIMT_REDUCE(__reduce_add_sync, unsigned, add)
SIMT_REDUCE(__reduce_min_sync, int, min_signed)
SIMT_REDUCE(__reduce_min_sync, unsigned, min_unsigned)
SIMT_REDUCE(__reduce_max_sync, int, max_signed)
SIMT_REDUCE(__reduce_max_sync, unsigned, max_unsigned)
SIMT_REDUCE(__reduce_and_sync, unsigned, bit_and)
SIMT_REDUCE(__reduce_or_sync, unsigned, bit_or)
SIMT_REDUCE(__reduce_xor_sync, unsigned, bit_xor)
#undef SIMT_REDUCE

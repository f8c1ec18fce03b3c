// Barriers, shuffles and ballots, those that kernels use. A lane that has returned counts as arrived, a lane's value
// that is not there reads as all ones.
#pragma once

inline void __syncthreads(simt::Place at = simt::here()) {
  simt::barrier(false, at);
}
inline int __syncthreads_or(int predicate, simt::Place at = simt::here()) {
  return simt::barrier(predicate != 0, at);
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

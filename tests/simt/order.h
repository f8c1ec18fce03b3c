// The order in which blocks, warps and lanes run: PYPOSE_OPS_SIMT_ORDER.
#pragma once

#include <cstdint>
#include <random>

namespace simt {

class Order {
 public:
  // From the environment.
  Order();

  bool shuffled() const {
    return kind_ == Kind::shuffled;
  }
  // Fills in the numbers below count, in this order; every call shuffles anew.
  void permute(unsigned* numbers, unsigned count);

  // The block that runs as number i of count.
  void start_blocks(uint64_t count);
  uint64_t block(uint64_t i) const {
    return block_count_ == 1 ? 0 : (i * block_step_ + first_block_) % block_count_;
  }

 private:
  enum class Kind { ascending, descending, shuffled };

  Kind kind_ = Kind::ascending;
  std::mt19937_64 random_;
  uint64_t block_count_ = 1, first_block_ = 0, block_step_ = 1;
};

}  // namespace simt

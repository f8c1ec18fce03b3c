// The numbers of peaks that find_peaks returns, as arguments of the operators that group them.
#pragma once

#include "common/check.h"

namespace pypose_ops {
namespace grouping {

// beside: (B, K, M) or (B, K, M, 2), of the same peaks.
inline void check_counts(const char* op, const Tensor& counts, const char* beside_name, const Tensor& beside) {
  check_dim(op, "peaks.counts", counts, 2, "(B, K)");
  check_size(op, "peaks.counts", counts, 0, beside.size(0));
  check_size(op, "peaks.counts", counts, 1, beside.size(1));
  PYPOSE_OPS_CHECK(
      counts.scalar_type() == ScalarType::Long, op, ": peaks.counts must be int64, got ",
      torch::headeronly::toString(counts.scalar_type()));
  check_same_device(op, "peaks.counts", counts, beside_name, beside);
}

}  // namespace grouping
}  // namespace pypose_ops

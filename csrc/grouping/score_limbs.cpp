// score_limbs on the CPU: one thread takes whole tables, of a limb in an image. Its candidates are lanes of vectors
// that walk along their limbs together.
#include "grouping/score_limbs.h"

#include <torch/csrc/stable/library.h>

namespace pypose_ops {
namespace {

using namespace grouping;

constexpr int64_t kGrainLimbs = 4;

// Columns of the buffer that a table's limbs are spread in: from (ax, ay) to (bx, by), and their scores.
enum Column { kAx, kAy, kBx, kBy, kScore, kColumns };

// The limbs of one vector: where they start, and Limb's members.
template <typename acc, int kLanes>
struct LimbVector {
  acc ax[kLanes], ay[kLanes], dx[kLanes], dy[kLanes], ux[kLanes], uy[kLanes], samples[kLanes], length[kLanes];
  acc scored[kLanes];
};

// The fields along the limbs. Loops where pixels are looked up: what they write is local, so that they become vector
// code.
template <Rule kRule, typename Isa, typename T, typename acc, int kLanes>
PYPOSE_OPS_HOST_DEVICE void integrate(
    Isa isa, const LimbVector<acc, kLanes>& limb, const T* field_x, const T* field_y, int32_t most, acc threshold,
    const LimbShape& shape, acc* sums, acc* counts) {
  using Vec = simd::vec<acc, Isa>;
  const Vec ux = isa.load(limb.ux);
  const Vec uy = isa.load(limb.uy);
  const Vec samples = isa.load(limb.samples);
  const int32_t width = static_cast<int32_t>(shape.width);
  const acc last_x = static_cast<acc>(shape.width - 1);
  const acc last_y = static_cast<acc>(shape.height - 1);
  const Vec zero = {};
  Vec sum = zero;
  Vec counted = zero;
  for (int32_t l = 0; l < most; ++l) {
    const acc step = static_cast<acc>(l);
    int32_t pixel[kLanes];
    acc moved[kLanes], vx[kLanes], vy[kLanes];
    for (int j = 0; j < kLanes; ++j) {
      const acc x = limb.ax[j] + step * limb.dx[j];
      const acc y = limb.ay[j] + step * limb.dy[j];
      const int32_t column = nearest_pixel(x, last_x);
      const int32_t row = nearest_pixel(y, last_y);
      pixel[j] = row * width + column;
      if constexpr (kRule == Rule::trt_pose) {  // how far the map's border is: 0 inside; NaN stays NaN
        const acc off_x = round_half_up(x) - static_cast<acc>(column);
        const acc off_y = round_half_up(y) - static_cast<acc>(row);
        moved[j] = off_x * off_x + off_y * off_y;
      }
    }
    for (int j = 0; j < kLanes; ++j) {
      vx[j] = simd::load(field_x[pixel[j]]);
      vy[j] = simd::load(field_y[pixel[j]]);
    }
    const Vec projection = isa.load(vx) * ux + isa.load(vy) * uy;
    if constexpr (kRule == Rule::openpose) {
      // Two selects in a row: a mask made of two comparisons would be taken apart, element by element.
      const Vec reached = zero + step < samples ? projection : zero - std::numeric_limits<acc>::infinity();
      sum += reached > zero + threshold ? reached : zero;
      counted += reached > zero + threshold ? zero + 1 : zero;
    } else if constexpr (kRule == Rule::trt_pose) {
      sum += isa.load(moved) == zero ? projection : zero;
    } else {
      sum += l == 0 || l == most - 1 ? projection / 2 : projection;
    }
  }
  isa.store(sums, sum);
  isa.store(counts, counted);
}

// Scores one vector of limbs of the buffer.
template <Rule kRule, typename Isa, typename T, typename acc>
PYPOSE_OPS_HOST_DEVICE void score_vector(
    Isa isa, acc* buffer, int64_t stride, const T* field_x, const T* field_y, const LimbOptions& options,
    const LimbShape& shape, acc short_limb) {
  constexpr int kLanes = simd::lanes<acc, Isa>;
  const acc fraction = static_cast<acc>(options.fraction);
  LimbVector<acc, kLanes> limb;
  acc sums[kLanes], counted[kLanes], scores[kLanes];
  acc most = 0;
  for (int j = 0; j < kLanes; ++j) {
    limb.ax[j] = buffer[kAx * stride + j];
    limb.ay[j] = buffer[kAy * stride + j];
    const Limb<acc> found = limb_between(
        limb.ax[j], limb.ay[j], buffer[kBx * stride + j], buffer[kBy * stride + j], kRule, options.samples);
    limb.dx[j] = found.dx;
    limb.dy[j] = found.dy;
    limb.ux[j] = found.ux;
    limb.uy[j] = found.uy;
    limb.samples[j] = found.samples;
    limb.length[j] = found.length;
    limb.scored[j] = found.scored ? acc(1) : acc(0);
  }
  for (int j = 0; j < kLanes; ++j) {
    most = limb.samples[j] > most ? limb.samples[j] : most;
  }
  integrate<kRule>(
      isa, limb, field_x, field_y, static_cast<int32_t>(most), static_cast<acc>(options.threshold), shape, sums, counted);
  for (int j = 0; j < kLanes; ++j) {
    scores[j] = limb_score(
        sums[j], counted[j], limb.samples[j], limb.length[j], limb.scored[j] > acc(0), kRule, fraction, short_limb);
  }
  for (int j = 0; j < kLanes; ++j) {
    buffer[kScore * stride + j] = scores[j];
  }
}

// The limbs of one pair of joints in one image: all of them spread in the buffer, then vector by vector.
template <Rule kRule, typename T, typename acc>
void score_table(
    const acc* a, int64_t rows, const acc* b, int64_t columns, const T* field_x, const T* field_y,
    const LimbOptions& options, const LimbShape& shape, std::vector<acc>& buffer, acc* table) {
  constexpr int kMost = simd::kMostLanes<acc>;
  const int64_t pairs = rows * columns;
  const int64_t stride = (pairs + kMost - 1) / kMost * kMost;
  if (static_cast<int64_t>(buffer.size()) < kColumns * stride) {
    buffer.resize(kColumns * stride);
  }
  acc* values = buffer.data();
  const int64_t peaks = shape.peaks;
  const acc short_limb = short_limb_length<acc>(shape);
  simd_call([=, &options, &shape](auto isa) {
    for (int64_t row = 0; row < rows; ++row) {
      acc* first = values + row * columns;
      for (int64_t column = 0; column < columns; ++column) {
        first[kAx * stride + column] = a[2 * row];
        first[kAy * stride + column] = a[2 * row + 1];
        first[kBx * stride + column] = b[2 * column];
        first[kBy * stride + column] = b[2 * column + 1];
      }
    }
    for (int64_t i = pairs; i < stride; ++i) {  // the rest of the last vector
      for (int column = 0; column < kScore; ++column) {
        values[column * stride + i] = values[column * stride];
      }
    }
    for (int64_t i = 0; i < pairs; i += simd::lanes<acc, decltype(isa)>) {
      score_vector<kRule>(isa, values + i, stride, field_x, field_y, options, shape, short_limb);
    }
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t column = 0; column < columns; ++column) {
        table[row * peaks + column] = values[kScore * stride + row * columns + column];
      }
    }
  });
}

template <Rule kRule, typename T>
void score(
    const LimbTensors& tensors, const std::vector<int64_t>& limbs, const std::vector<int64_t>& channels,
    const LimbOptions& options, const LimbShape& shape, const Tensor& out) {
  using acc = acc_t<T>;
  const T* pafs = tensors.pafs.const_data_ptr<T>();
  const acc* coords = tensors.coords.const_data_ptr<acc>();
  const int64_t* counts = tensors.counts.const_data_ptr<int64_t>();
  acc* scores = out.mutable_data_ptr<acc>();
  const int64_t pixels = shape.height * shape.width;
  torch::stable::parallel_for(0, shape.batch * shape.limbs, kGrainLimbs, [&](int64_t begin, int64_t end) {
    std::vector<acc> buffer;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / shape.limbs;
      const int64_t l = i % shape.limbs;
      acc* table = scores + i * shape.pairs();
      std::fill(table, table + shape.pairs(), -std::numeric_limits<acc>::infinity());
      const int64_t from = b * shape.joints + limbs[2 * l];
      const int64_t to = b * shape.joints + limbs[2 * l + 1];
      const int64_t rows = usable_count(counts[from], shape.peaks);
      const int64_t columns = usable_count(counts[to], shape.peaks);
      if (rows > 0 && columns > 0) {
        score_table<kRule>(
            coords + from * shape.peaks * 2, rows, coords + to * shape.peaks * 2, columns,
            pafs + (b * shape.channels + channels[2 * l]) * pixels,
            pafs + (b * shape.channels + channels[2 * l + 1]) * pixels, options, shape, buffer, table);
      }
    }
  });
}

template <typename T>
void run_score(
    const LimbTensors& tensors, const std::vector<int64_t>& limbs, const std::vector<int64_t>& channels,
    const LimbOptions& options, const LimbShape& shape, const Tensor& out) {
  switch (options.rule) {
    case Rule::openpose:
      return score<Rule::openpose, T>(tensors, limbs, channels, options, shape, out);
    case Rule::trt_pose:
      return score<Rule::trt_pose, T>(tensors, limbs, channels, options, shape, out);
    case Rule::trapezoid:
      return score<Rule::trapezoid, T>(tensors, limbs, channels, options, shape, out);
  }
}

Tensor score_limbs_cpu(
    const Tensor& pafs, const Tensor& coords, const Tensor& counts, const std::vector<int64_t>& limbs,
    const std::vector<int64_t>& channels, int64_t rule, int64_t samples, double threshold, double fraction) {
  const LimbOptions options = limb_options(rule, samples, threshold, fraction);
  const LimbShape shape = check_score_limbs(pafs, coords, counts, limbs, channels, options);
  Tensor out = empty_beside(
      pafs, {shape.batch, shape.limbs, shape.peaks, shape.peaks}, acc_scalar_type(pafs.scalar_type()));
  if (out.numel() == 0) {
    return out;
  }
  const LimbTensors tensors(pafs, coords, counts);
  PYPOSE_OPS_DISPATCH_FLOATING(pafs.scalar_type(), "score_limbs", [&] {
    run_score<scalar_t>(tensors, limbs, channels, options, shape, out);
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "score_limbs(Tensor pafs, Tensor coords, Tensor counts, int[] limbs, int[] channels, int rule, int samples, "
      "float threshold, float fraction) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("score_limbs", TORCH_BOX(&score_limbs_cpu));
}

}  // namespace pypose_ops

// score_limbs on the CPU: one thread takes whole limbs of a picture. For a candidate a, the candidates b are lanes of
// vectors that walk along their limbs together.
#include "grouping/score_limbs.h"

#include <torch/csrc/stable/library.h>

namespace pypose_ops {
namespace {

using namespace grouping;

constexpr int64_t kGrainLimbs = 4;

// The fields' samples of limbs that start at (ax, ay), a vector of them. Loops where pixels are looked up: what they
// write is local, so that they become vector code.
template <Rule kRule, typename T, typename acc>
POSE_HD void integrate(
    const acc (&limb)[5][vec_of<acc>::lanes], acc ax, acc ay, const T* field_x, const T* field_y, int32_t most,
    acc threshold, const LimbShape& shape, acc* sums, acc* counts) {
  constexpr int kLanes = vec_of<acc>::lanes;
  using Vec = typename vec_of<acc>::type;
  const acc* dx = limb[0];
  const acc* dy = limb[1];
  const Vec ux = simd::load_vec(limb[2]);
  const Vec uy = simd::load_vec(limb[3]);
  const Vec samples = simd::load_vec(limb[4]);
  const int32_t width = static_cast<int32_t>(shape.width);
  const acc last_x = static_cast<acc>(shape.width - 1);
  const acc last_y = static_cast<acc>(shape.height - 1);
  const Vec zero = {};
  Vec sum = zero;
  Vec counted = zero;
  for (int32_t l = 0; l < most; ++l) {
    const acc step = static_cast<acc>(l);
    int32_t pixel[kLanes];
    acc inside[kLanes], vx[kLanes], vy[kLanes];
    for (int j = 0; j < kLanes; ++j) {
      const acc x = ax + step * dx[j];
      const acc y = ay + step * dy[j];
      pixel[j] = nearest_pixel(y, last_y) * width + nearest_pixel(x, last_x);
      inside[j] = kRule == Rule::trt_pose && (outside(x, last_x) | outside(y, last_y)) ? acc(0) : acc(1);
    }
    for (int j = 0; j < kLanes; ++j) {
      vx[j] = simd::load(field_x[pixel[j]]);
      vy[j] = simd::load(field_y[pixel[j]]);
    }
    const Vec projection = simd::load_vec(vx) * ux + simd::load_vec(vy) * uy;
    if constexpr (kRule == Rule::openpose) {
      // Two selects in a row: a mask made of two comparisons would be taken apart, element by element.
      const Vec reached = zero + step < samples ? projection : zero - std::numeric_limits<acc>::infinity();
      sum += reached > zero + threshold ? reached : zero;
      counted += reached > zero + threshold ? zero + 1 : zero;
    } else if constexpr (kRule == Rule::trt_pose) {
      sum += simd::load_vec(inside) > zero ? projection : zero;
    } else {
      sum += l == 0 || l == most - 1 ? projection / 2 : projection;
    }
  }
  simd::store_vec(sums, sum);
  simd::store_vec(counts, counted);
}

// scores[j]: the limb from a to the candidate at (bx[j], by[j]), for a vector of them.
template <Rule kRule, typename T, typename acc>
POSE_HD void score_vector(
    const acc* a, const acc* bx, const acc* by, const T* field_x, const T* field_y, const LimbOptions& options,
    const LimbShape& shape, acc short_limb, acc* scores) {
  constexpr int kLanes = vec_of<acc>::lanes;
  const acc ax = a[0];
  const acc ay = a[1];
  const acc fraction = static_cast<acc>(options.fraction);
  acc limb[5][kLanes], length[kLanes], scored[kLanes], sums[kLanes], counted[kLanes];
  for (int j = 0; j < kLanes; ++j) {
    const Limb<acc> found = limb_between(ax, ay, bx[j], by[j], kRule, options.samples);
    limb[0][j] = found.dx;
    limb[1][j] = found.dy;
    limb[2][j] = found.ux;
    limb[3][j] = found.uy;
    limb[4][j] = found.samples;
    length[j] = found.length;
    scored[j] = found.scored ? acc(1) : acc(0);
  }
  acc most = 0;
  for (int j = 0; j < kLanes; ++j) {
    most = limb[4][j] > most ? limb[4][j] : most;
  }
  integrate<kRule>(
      limb, ax, ay, field_x, field_y, static_cast<int32_t>(most), static_cast<acc>(options.threshold), shape, sums,
      counted);
  for (int j = 0; j < kLanes; ++j) {
    scores[j] = limb_score(
        sums[j], counted[j], limb[4][j], length[j], scored[j] > acc(0), kRule, fraction, short_limb);
  }
}

// The limbs of one pair of joints in one picture. bx, by and scores have room for whole vectors of peaks.
template <Rule kRule, typename T, typename acc>
void score_table(
    const acc* a, int rows, const acc* b, int columns, const T* field_x, const T* field_y, const LimbOptions& options,
    const LimbShape& shape, acc* buffer, acc* table) {
  constexpr int kLanes = vec_of<acc>::lanes;
  const int peaks = static_cast<int>(shape.peaks);
  const int padded = (columns + kLanes - 1) / kLanes * kLanes;
  acc* bx = buffer;
  acc* by = buffer + padded;
  acc* scores = buffer + 2 * padded;
  for (int j = 0; j < padded; ++j) {
    bx[j] = b[2 * std::min(j, columns - 1)];
    by[j] = b[2 * std::min(j, columns - 1) + 1];
  }
  const acc short_limb = short_limb_length<acc>(shape);
  simd_call([=, &options, &shape] {
    for (int row = 0; row < rows; ++row) {
      for (int first = 0; first < padded; first += kLanes) {
        score_vector<kRule>(
            a + 2 * row, bx + first, by + first, field_x, field_y, options, shape, short_limb, scores + first);
      }
      for (int column = 0; column < columns; ++column) {
        table[row * peaks + column] = scores[column];
      }
    }
  });
}

template <Rule kRule, typename T>
void score(
    const LimbTensors& tensors, const std::vector<int64_t>& limbs, const std::vector<int64_t>& channels,
    const LimbOptions& options, const LimbShape& shape, const Tensor& out) {
  using acc = acc_t<T>;
  constexpr int kLanes = vec_of<acc>::lanes;
  const T* pafs = tensors.pafs.const_data_ptr<T>();
  const acc* coords = tensors.coords.const_data_ptr<acc>();
  const int64_t* counts = tensors.counts.const_data_ptr<int64_t>();
  acc* scores = out.mutable_data_ptr<acc>();
  const int64_t pixels = shape.height * shape.width;
  torch::stable::parallel_for(0, shape.batch * shape.limbs, kGrainLimbs, [&](int64_t begin, int64_t end) {
    std::vector<acc> buffer(3 * (shape.peaks + kLanes));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / shape.limbs;
      const int64_t l = i % shape.limbs;
      acc* table = scores + i * shape.pairs();
      std::fill(table, table + shape.pairs(), -std::numeric_limits<acc>::infinity());
      const int64_t from = b * shape.joints + limbs[2 * l];
      const int64_t to = b * shape.joints + limbs[2 * l + 1];
      const int rows = static_cast<int>(usable_count(counts[from], shape.peaks));
      const int columns = static_cast<int>(usable_count(counts[to], shape.peaks));
      if (rows > 0 && columns > 0) {
        score_table<kRule>(
            coords + from * shape.peaks * 2, rows, coords + to * shape.peaks * 2, columns,
            pafs + (b * shape.channels + channels[2 * l]) * pixels,
            pafs + (b * shape.channels + channels[2 * l + 1]) * pixels, options, shape, buffer.data(), table);
      }
    }
  });
}

template <typename T>
void launch_score(
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
  Tensor out = torch::stable::new_empty(
      pafs, {shape.batch, shape.limbs, shape.peaks, shape.peaks}, acc_scalar_type(pafs.scalar_type()));
  if (out.numel() == 0) {
    return out;
  }
  const LimbTensors tensors(pafs, coords, counts);
  PYPOSE_OPS_DISPATCH_FLOATING(pafs.scalar_type(), "score_limbs", [&] {
    launch_score<scalar_t>(tensors, limbs, channels, options, shape, out);
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

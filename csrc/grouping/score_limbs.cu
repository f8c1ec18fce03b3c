#include "grouping/score_limbs.h"

#include "common/cuda.cuh"

namespace pypose_ops {
namespace {

using namespace grouping;

constexpr int kLimbThreads = 256;
constexpr int kMaxLimbs = 256;  // a launch: the list travels as a kernel parameter

struct LimbList {
  int16_t from[kMaxLimbs], to[kMaxLimbs], x[kMaxLimbs], y[kMaxLimbs];  // joints and channels
  int32_t first, count;
};

// One thread per pair of candidates of a limb of an image; out (B, L, M, M). Blocks number a table's chunks first.
template <typename T>
__global__ void __launch_bounds__(kLimbThreads) score_limbs_kernel(
    acc_t<T>* __restrict__ out, const T* __restrict__ pafs, const acc_t<T>* __restrict__ coords,
    const int64_t* __restrict__ counts, const LimbList limbs, const LimbOptions options, const LimbShape shape,
    const uint32_t chunks) {
  using acc = acc_t<T>;
  const uint32_t peaks = static_cast<uint32_t>(shape.peaks);
  const uint32_t table = blockIdx.x / chunks;
  const uint32_t pair = blockIdx.x % chunks * kLimbThreads + threadIdx.x;
  if (pair >= peaks * peaks) {
    return;
  }
  const int64_t b = table / static_cast<uint32_t>(limbs.count);
  const uint32_t l = table % static_cast<uint32_t>(limbs.count);
  const int64_t from = b * shape.joints + limbs.from[l];
  const int64_t to = b * shape.joints + limbs.to[l];
  const uint32_t row = pair / peaks;
  const uint32_t column = pair % peaks;
  acc score = -std::numeric_limits<acc>::infinity();
  if (row < counts[from] && column < counts[to]) {
    const acc* a = coords + (from * shape.peaks + row) * 2;
    const acc* end = coords + (to * shape.peaks + column) * 2;
    const Limb<acc> limb = limb_between(a[0], a[1], end[0], end[1], options.rule, options.samples);
    const int64_t pixels = shape.height * shape.width;
    const T* field_x = pafs + (b * shape.channels + limbs.x[l]) * pixels;
    const T* field_y = pafs + (b * shape.channels + limbs.y[l]) * pixels;
    const acc last_x = static_cast<acc>(shape.width - 1);
    const acc last_y = static_cast<acc>(shape.height - 1);
    const acc threshold = static_cast<acc>(options.threshold);
    const int32_t samples = static_cast<int32_t>(limb.samples);
    acc sum = 0;
    acc counted = 0;
    for (int32_t s = 0; s < samples; ++s) {
      const acc x = a[0] + static_cast<acc>(s) * limb.dx;
      const acc y = a[1] + static_cast<acc>(s) * limb.dy;
      const int64_t pixel = nearest_pixel(y, last_y) * shape.width + nearest_pixel(x, last_x);
      const acc projection =
          static_cast<acc>(field_x[pixel]) * limb.ux + static_cast<acc>(field_y[pixel]) * limb.uy;
      if (options.rule == Rule::openpose) {
        sum += projection > threshold ? projection : acc(0);
        counted += projection > threshold ? acc(1) : acc(0);
      } else if (options.rule == Rule::trt_pose) {
        sum += outside(x, last_x) || outside(y, last_y) ? acc(0) : projection;
      } else {
        sum += s == 0 || s == samples - 1 ? projection / 2 : projection;
      }
    }
    score = limb_score(
        sum, counted, limb.samples, limb.length, limb.scored, options.rule, static_cast<acc>(options.fraction),
        short_limb_length<acc>(shape));
  }
  out[(b * shape.limbs + limbs.first + l) * shape.pairs() + pair] = score;
}

template <typename T>
void launch_score(
    const LimbTensors& tensors, const std::vector<int64_t>& limbs, const std::vector<int64_t>& channels,
    const LimbOptions& options, const LimbShape& shape, const Tensor& out, cudaStream_t stream) {
  using acc = acc_t<T>;
  for (int64_t first = 0; first < shape.limbs; first += kMaxLimbs) {
    LimbList list{};
    list.first = static_cast<int32_t>(first);
    list.count = static_cast<int32_t>(std::min<int64_t>(kMaxLimbs, shape.limbs - first));
    for (int32_t i = 0; i < list.count; ++i) {
      list.from[i] = static_cast<int16_t>(limbs[2 * (first + i)]);
      list.to[i] = static_cast<int16_t>(limbs[2 * (first + i) + 1]);
      list.x[i] = static_cast<int16_t>(channels[2 * (first + i)]);
      list.y[i] = static_cast<int16_t>(channels[2 * (first + i) + 1]);
    }
    const int64_t chunks = ceil_div(shape.pairs(), kLimbThreads);
    launch(
        "score_limbs", score_limbs_kernel<T>, shape.batch * list.count * chunks, kLimbThreads, 0, stream,
        out.mutable_data_ptr<acc>(), tensors.pafs.const_data_ptr<T>(), tensors.coords.const_data_ptr<acc>(),
        tensors.counts.const_data_ptr<int64_t>(), list, options, shape, chunks);
  }
}

Tensor score_limbs_cuda(
    const Tensor& pafs, const Tensor& coords, const Tensor& counts, const std::vector<int64_t>& limbs,
    const std::vector<int64_t>& channels, int64_t rule, int64_t samples, double threshold, double fraction) {
  const LimbOptions options = limb_options(rule, samples, threshold, fraction);
  const LimbShape shape = check_score_limbs(pafs, coords, counts, limbs, channels, options);
  PYPOSE_OPS_CHECK(
      shape.joints <= std::numeric_limits<int16_t>::max() && shape.channels <= std::numeric_limits<int16_t>::max(),
      "score_limbs: joints and channels must be at most ", std::numeric_limits<int16_t>::max(), " on CUDA, got ",
      shape.joints, " and ", shape.channels);
  PYPOSE_OPS_CHECK(
      shape.peaks <= std::numeric_limits<int16_t>::max(), "score_limbs: peaks must be at most ",
      std::numeric_limits<int16_t>::max(), " of a joint on CUDA, got ", shape.peaks);
  const DeviceGuard guard(pafs.get_device_index());
  Tensor out = empty_beside(
      pafs, {shape.batch, shape.limbs, shape.peaks, shape.peaks}, acc_scalar_type(pafs.scalar_type()));
  if (out.numel() == 0) {
    return out;
  }
  const LimbTensors tensors(pafs, coords, counts);
  const cudaStream_t stream = current_stream(pafs);
  PYPOSE_OPS_DISPATCH_FLOATING(pafs.scalar_type(), "score_limbs", [&] {
    launch_score<scalar_t>(tensors, limbs, channels, options, shape, out, stream);
  });
  return out;
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("score_limbs", TORCH_BOX(&score_limbs_cuda));
}

}  // namespace pypose_ops

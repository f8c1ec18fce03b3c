#include <limits>
#include <tuple>

#include "common/cuda.cuh"
#include "common/reduce.cuh"
#include "grouping/joint_constants.cuh"
#include "grouping/oks.h"

namespace pypose_ops {
namespace {

using namespace grouping;

constexpr int kNmsThreads = 256;

// OKS of people a and b of one image over the joints that both have.
template <typename acc>
__device__ acc oks_between(
    const acc* keypoints, const bool* visible, acc area_a, acc area_b, int64_t a, int64_t b, int64_t joints,
    const SigmaFactors<acc>& factors) {
  const acc area = (usable_area(area_a) + usable_area(area_b)) / 2;
  acc sum = 0;
  int64_t count = 0;
  for (int64_t k = 0; k < joints; ++k) {
    const int64_t ja = a * joints + k;
    const int64_t jb = b * joints + k;
    const acc ax = keypoints[2 * ja];
    const acc ay = keypoints[2 * ja + 1];
    const acc bx = keypoints[2 * jb];
    const acc by = keypoints[2 * jb + 1];
    const bool on = is_finite(ax) && is_finite(ay) && is_finite(bx) && is_finite(by);
    if (on && (visible == nullptr || (visible[ja] && visible[jb]))) {
      sum += similarity(((bx - ax) * (bx - ax) + (by - ay) * (by - ay)) * oks_scale(factors.value[k], area));
      ++count;
    }
  }
  return count > 0 ? sum / static_cast<acc>(count) : acc(0);
}

// One block per image. It keeps the best person left, all threads compare the others with that one, and so on; left
// holds the scores of those neither kept nor suppressed, minus infinity for the rest.
template <typename acc>
__global__ void __launch_bounds__(kNmsThreads) oks_nms_kernel(
    bool* __restrict__ all_masks, acc* __restrict__ all_out, acc* __restrict__ all_left, const OksInput<acc> in,
    const acc* __restrict__ all_scores, const NmsShape shape, const NmsOptions options,
    const __grid_constant__ SigmaFactors<acc> factors) {
  constexpr acc kNever = -std::numeric_limits<acc>::infinity();
  const int people = static_cast<int>(shape.people);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * shape.people;
  const acc* keypoints = in.pred + first * shape.joints * 2;
  const bool* visible = in.visible == nullptr ? nullptr : in.visible + first * shape.joints;
  const acc* area = in.area + first;
  bool* mask = all_masks + first;
  acc* out = all_out + first;
  acc* left = all_left + first;
  for (int n = threadIdx.x; n < people; n += kNmsThreads) {
    const acc score = all_scores[first + n];
    mask[n] = false;
    out[n] = score;
    left[n] = is_finite(score) ? score : kNever;
  }
  __syncthreads();
  for (int64_t kept = 0; kept < options.max_people; ++kept) {
    Indexed<acc> best{kNever, people};
    for (int n = threadIdx.x; n < people; n += kNmsThreads) {
      if (left[n] > best.value) {
        best = {left[n], n};
      }
    }
    best = block_best<kNmsThreads>(best);
    if (best.index == people) {
      break;
    }
    for (int n = threadIdx.x; n < people; n += kNmsThreads) {
      if (n == best.index) {
        mask[n] = true;
        left[n] = kNever;
      } else if (left[n] > kNever) {
        const acc oks =
            oks_between(keypoints, visible, area[best.index], area[n], best.index, n, shape.joints, factors);
        left[n] = score_beside(left[n], oks, options);
        if (options.soft) {
          out[n] = left[n];
        }
      }
    }
  }
}

template <typename acc>
void launch_nms(
    const OksTensors& tensors, const Tensor& scores, const NmsShape& shape, const NmsOptions& options,
    const std::vector<double>& sigmas, const Tensor& mask, const Tensor& out, cudaStream_t stream) {
  PYPOSE_OPS_CHECK(
      shape.batch <= kMaxBlocks && shape.people <= std::numeric_limits<int32_t>::max() / 2,
      "oks_nms: the input is too large, got ", shape.batch, " images of ", shape.people, " people");
  const Tensor left = empty_beside(scores, {shape.batch, shape.people});
  launch(
      "oks_nms", oks_nms_kernel<acc>, shape.batch, kNmsThreads, 0, stream, mask.mutable_data_ptr<bool>(),
      out.mutable_data_ptr<acc>(), left.mutable_data_ptr<acc>(), tensors.view<acc>(), scores.const_data_ptr<acc>(),
      shape, options, SigmaFactors<acc>("oks_nms", sigmas));
}

std::tuple<Tensor, Tensor> oks_nms_cuda(
    const Tensor& keypoints, const Tensor& scores, const Tensor& area, const std::optional<Tensor>& visible,
    const std::vector<double>& sigmas, double threshold, bool soft, int64_t max_people) {
  constexpr const char* op = "oks_nms";
  const NmsShape shape = check_nms(op, keypoints, scores, area, visible, sigmas, threshold, max_people);
  const DeviceGuard guard(keypoints.get_device_index());
  Tensor mask = empty_beside(keypoints, {shape.batch, shape.people}, ScalarType::Bool);
  Tensor out = empty_beside(scores, {shape.batch, shape.people});
  if (out.numel() == 0) {
    return {mask, out};
  }
  const NmsOptions options{threshold, soft, max_people};
  const OksTensors tensors(keypoints, keypoints, area, visible, std::nullopt);
  const Tensor contiguous = as_contiguous(scores);
  const cudaStream_t stream = current_stream(keypoints);
  if (keypoints.scalar_type() == ScalarType::Double) {
    launch_nms<double>(tensors, contiguous, shape, options, sigmas, mask, out, stream);
  } else {
    launch_nms<float>(tensors, contiguous, shape, options, sigmas, mask, out, stream);
  }
  return {mask, out};
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("oks_nms", TORCH_BOX(&oks_nms_cuda));
}

}  // namespace pypose_ops

// decode_roi_heatmaps on the CPU: one thread takes whole maps, those of one box after the other.
#include "peaks/decode_roi_heatmaps.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include "peaks/roi_search.h"

namespace pypose_ops {
namespace {

using namespace peaks;

// What a thread needs for one map after the other.
template <typename acc>
struct RoiWorkspace {
  PaddedMap<acc> map;
  ResizedAxis<acc> x, y;
  std::vector<uint8_t> resized;

  RoiWorkspace(int width, int height)
      : map(width, height), resized((int64_t{width} + 1) * (height + 1)) {}

  // Not inlined: the same for maps of all types.
  [[gnu::noinline]] Indexed<acc> search() {
    const Indexed<acc> peak = map.highest();
    if (!peak.found() || (map.finite && peak.value == map.low)) {  // of constant maps the first
      return peak.found() ? Indexed<acc>{peak.value, 0} : peak;
    }
    const acc largest = std::max(std::abs(peak.value), std::abs(map.low));
    const acc margin = acc(kResizedUlps / 2) * std::numeric_limits<acc>::epsilon() * largest;
    std::fill(resized.begin(), resized.end(), 0);
    RoiSearch<acc> search = {map, x, y, nothing_found<acc>(), margin, resized.data()};
    simd_call([&](auto isa) { search.search(isa, peak); });
    return search.best;
  }
};

template <typename scalar>
void decode_roi_heatmaps_kernel(const RoiArguments<scalar>& args, int64_t maps) {
  using acc = acc_t<scalar>;
  const int64_t pixels = static_cast<int64_t>(args.height) * args.width;
  const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 15) / pixels);  // some 20 us
  torch::stable::parallel_for(0, maps, grain, [&](int64_t begin, int64_t end) {
    RoiWorkspace<acc> workspace(args.width, args.height);
    for (int64_t number = begin; number < end; ++number) {
      const int64_t roi = number / args.joints;
      if (number == begin || number % args.joints == 0) {
        workspace.x.set(args.x(roi));
        workspace.y.set(args.y(roi));
      }
      Indexed<acc> best = nothing_found<acc>();
      if (workspace.x.axis.size > 0 && workspace.y.axis.size > 0) {
        simd_call([&](auto isa) { workspace.map.fill(isa, args.map(number)); });
        best = workspace.search();
      }
      args.write(number, workspace.x.axis, workspace.y.axis, best);
    }
  });
}

std::tuple<Tensor, Tensor> decode_roi_heatmaps_cpu(const Tensor& heatmaps, const Tensor& boxes) {
  check_roi(heatmaps, boxes);
  RoiTensors tensors(heatmaps, boxes);
  const int64_t maps = tensors.scores.numel();
  if (maps > 0) {
    PYPOSE_OPS_DISPATCH_FLOATING(heatmaps.scalar_type(), "decode_roi_heatmaps", [&] {
      decode_roi_heatmaps_kernel(tensors.arguments<scalar_t>(), maps);
    });
  }
  return {tensors.coords, tensors.scores};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def("decode_roi_heatmaps(Tensor heatmaps, Tensor boxes) -> (Tensor coords, Tensor scores)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("decode_roi_heatmaps", TORCH_BOX(&decode_roi_heatmaps_cpu));
}

}  // namespace pypose_ops

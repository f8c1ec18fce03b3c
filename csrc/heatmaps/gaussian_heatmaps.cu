#include "common/cuda.cuh"
#include "common/outputs.h"
#include "heatmaps/gaussian_heatmaps.h"
#include "heatmaps/gaussian_render.cuh"

namespace pypose_ops {
namespace {

using namespace heatmaps;

// As many blocks per multiprocessor as there are registers for without spilling.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr int kFloatBlocks = 3, kDoubleBlocks = 2;
#else
constexpr int kFloatBlocks = 4, kDoubleBlocks = 3;
#endif
template <typename T, int kVec>
constexpr int kRenderBlocks = kVec == 8 ? 2
    : sizeof(acc_t<T>) == 4 ? (kVec == 1 ? 3 : kFloatBlocks)
                            : (kVec == 1 ? 2 : kDoubleBlocks);

// One block draws one chunk of one map.
template <typename T, int kVec>
__global__ void __launch_bounds__(kThreads, kRenderBlocks<T, kVec>) gaussian_heatmaps_kernel(
    T* __restrict__ out, const People<acc_t<T>> people, const Options options, const Shape shape,
    const Layout layout) {
  using acc = acc_t<T>;
  const Chunk chunk = chunk_of(layout, shape);
  acc values[kItems][kVec];
  render_chunk<kVec>(values, people, options, shape, layout, chunk);
  const acc scale = static_cast<acc>(options.scale);
  T* target = out + chunk.map * shape.pixels() + chunk.first;
  for_packs<kVec>(chunk, [&](int item, uint32_t pixel) {
    Pack<T, kVec> pack;
#pragma unroll
    for (int v = 0; v < kVec; ++v) {
      pack.v[v] = static_cast<T>(clipped(values[item][v], options) * scale);
    }
    // The pixels of a map are a multiple of kVec: every pack is whole and aligned.
    store_pack(target + pixel, pack);
  });
}

template <typename T, int kVec>
void launch_render(
    const Tensor& out, const PeopleTensors& people, const Options& options, const Shape& shape, cudaStream_t stream) {
  using acc = acc_t<T>;
  const Layout layout = layout_of<kVec>(shape, sizeof(acc));
  launch(
      "gaussian_heatmaps", gaussian_heatmaps_kernel<T, kVec>, shape.maps() * layout.chunks, kThreads,
      layout.shared_bytes, stream, out.mutable_data_ptr<T>(), people.view<acc>(), options, shape, layout);
}

template <typename T>
void launch_render_vec(
    const Tensor& out, const PeopleTensors& people, const Options& options, const Shape& shape, cudaStream_t stream) {
  with_pack_width<T>(map_pack_width<T>(shape, out), [&](auto width) {
    launch_render<T, width>(out, people, options, shape, stream);
  });
}

Tensor gaussian_heatmaps_cuda(
    const std::optional<Tensor>& given, const Tensor& keypoints, const std::optional<Tensor>& sigma, double sigma_value,
    const std::optional<Tensor>& visible, int64_t height, int64_t width, int64_t profile, int64_t center,
    std::optional<double> truncate, int64_t combine, int64_t normalize, double scale, ScalarType dtype) {
  constexpr const char* op = "gaussian_heatmaps";
  const Shape shape = check_people(op, keypoints, sigma, visible, height, width);
  Options options = check_options(op, profile, center, truncate, combine, normalize, sigma_value, !!sigma);
  options.scale = check_scale(op, scale);
  check_map_type(op, dtype);
  const DeviceGuard guard(keypoints.get_device_index());
  const Tensor out = output_of(op, given, keypoints, {shape.batch, shape.joints, height, width}, dtype);
  if (out.numel() == 0) {
    return out;
  }
  const PeopleTensors people(keypoints, sigma, visible, acc_scalar_type(dtype));
  const cudaStream_t stream = current_stream(keypoints);
  PYPOSE_OPS_DISPATCH_FLOATING(
      dtype, op, [&] { launch_render_vec<scalar_t>(out, people, options, shape, stream); });
  return out;
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  using Op = Drawn<&gaussian_heatmaps_cuda>;
  m.impl("gaussian_heatmaps", TORCH_BOX(&Op::returned));
  m.impl("gaussian_heatmaps.out", TORCH_BOX(&Op::into));
}

}  // namespace pypose_ops

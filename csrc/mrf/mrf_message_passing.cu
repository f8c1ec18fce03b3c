#include "mrf/mrf_message_passing.h"

#include <tuple>

#include "mrf/mrf_tiles.cuh"

namespace pypose_ops {
namespace {

// Where messages are kept, their addresses take registers of a fourth block.
template <typename acc, bool kKeep>
constexpr int kBlocksOf = kKeep && sizeof(acc) == 4 ? 3 : kBlocks<acc>;

// One block owns one tile of one output map (B, J); a thread 4 outputs. The messages of the target's edges are
// multiplied up in registers, and with kKeep written to kept (B, E, H, W).
template <typename T, bool kKeep>
__global__ void __launch_bounds__(kThreads, kBlocksOf<acc_t<T>, kKeep>) mrf_message_passing_kernel(
    acc_t<T>* __restrict__ out, acc_t<T>* __restrict__ kept, const T* __restrict__ unary,
    const uint32_t* __restrict__ masks,
    const acc_t<T>* __restrict__ prior, const acc_t<T>* __restrict__ base, const acc_t<T>* __restrict__ bias,
    const __grid_constant__ IntTable ints, const Shape shape, const Tiles tiles, const acc_t<T> floor) {
  using acc = acc_t<T>;
  const EdgeTable table = EdgeTable::of(ints, shape.targets, shape.edges);
  using Bits = typename FloatBits<acc>::type;
  __shared__ TileShared<acc> shared;
  const int64_t map = blockIdx.x / tiles.count;
  const int32_t target = static_cast<int32_t>(map % shape.targets);
  const OutputTile tile(map / shape.targets, static_cast<int32_t>(blockIdx.x % tiles.count), tiles);
  acc mantissa[kQuad];
  Bits exponent[kQuad];
#pragma unroll
  for (int c = 0; c < kQuad; ++c) {
    mantissa[c] = 1;
    exponent[c] = 0;
  }
  for (int32_t i = table.begin[target]; i < table.begin[target + 1]; ++i) {
    const int64_t p = table.prior[i];
    const int64_t edge = table.edge[i];
    acc sums[kQuad];
    sum_active(
        sums, shared, unary, masks, prior + p * shape.kernel_height * shape.kernel_width, table.source[i], tile, shape,
        tiles, floor);
#pragma unroll
    for (int c = 0; c < kQuad; ++c) {
      if (tile.y < shape.height && tile.x + c < shape.width) {
        const int64_t pixel = tile.y * shape.width + tile.x + c;
        const acc still = base[p * shape.pixels() + pixel] +
            usable(bias[shape.bias_maps ? edge * shape.pixels() + pixel : edge]);
        const acc message = sums[c] + still;
        if (kKeep) {
          kept[(tile.b * shape.edges + edge) * shape.pixels() + pixel] = message;
        }
        const acc smallest = static_cast<acc>(kSmallestMessage);
        multiply_into<acc, acc, Bits>(mantissa[c], exponent[c], message > smallest ? message : smallest);
      }
    }
  }
#pragma unroll
  for (int c = 0; c < kQuad; ++c) {
    if (tile.y < shape.height && tile.x + c < shape.width) {
      const auto powers = static_cast<std::make_signed_t<Bits>>(exponent[c]);
      out[map * shape.pixels() + tile.y * shape.width + tile.x + c] =
          ::log(mantissa[c]) + static_cast<acc>(kLog2) * static_cast<acc>(powers);
    }
  }
}

template <typename T>
void launch_messages(
    const Tensor& out, const std::optional<Tensor>& kept, const Tensor& unary, const Tensor& prior, const Tensor& bias,
    const std::vector<int64_t>& edges, const std::vector<int64_t>& prior_index, double floor_value,
    const Shape& shape, cudaStream_t stream) {
  using acc = acc_t<T>;
  constexpr const char* op = "mrf_message_passing";
  const acc floor = static_cast<acc>(floor_value);
  const Tiles tiles = Tiles::of(shape.height, shape.width);
  const HostTable table(op, out, edge_values(edges, prior_index, shape.targets, 1), stream);
  const Tensor masks = new_ints(out, shape.batch * shape.sources * tiles.count * kMaskWords);
  const Tensor base = empty_beside(out, {shape.priors, shape.height, shape.width});
  uint32_t* mask_data = static_cast<uint32_t*>(masks.mutable_data_ptr());
  launch_masks(op, mask_data, unary.const_data_ptr<T>(), shape, tiles, floor, stream);
  if (shape.priors > 0) {
    launch_base(op, base, prior.const_data_ptr<acc>(), shape, floor, stream);
  }
  launch(
      op, kept ? mrf_message_passing_kernel<T, true> : mrf_message_passing_kernel<T, false>,
      shape.batch * shape.targets * tiles.count, kThreads, 0, stream, out.mutable_data_ptr<acc>(),
      kept ? kept->mutable_data_ptr<acc>() : nullptr, unary.const_data_ptr<T>(), mask_data, prior.const_data_ptr<acc>(),
      base.const_data_ptr<acc>(), bias.const_data_ptr<acc>(), table.table, shape, tiles, floor);
}

// The log-energies, and with `keep` every message, (B, E, H, W).
std::tuple<Tensor, std::optional<Tensor>> messages_cuda(
    const Tensor& unary, const Tensor& prior, const Tensor& bias, const std::vector<int64_t>& edges,
    const std::optional<std::vector<int64_t>>& prior_index_or_none, int64_t num_targets, double floor, bool keep) {
  const std::vector<int64_t> prior_index = prior_index_of(prior_index_or_none);
  constexpr const char* op = "mrf_message_passing";
  const Shape shape = check_inputs(op, unary, prior, bias, edges, prior_index, num_targets, floor);
  const ScalarType acc_type = acc_scalar_type(unary.scalar_type());
  const DeviceGuard guard(unary.get_device_index());
  Tensor out =
      empty_beside(unary, {shape.batch, shape.targets, shape.height, shape.width}, acc_type);
  std::optional<Tensor> kept;
  if (keep) {
    kept = empty_beside(unary, {shape.batch, shape.edges, shape.height, shape.width}, acc_type);
  }
  if (out.numel() == 0) {
    return {out, kept};
  }
  const Tensor dense = as_contiguous(unary);
  const Tensor dense_prior = as_contiguous(prior, acc_type);
  const Tensor dense_bias = as_contiguous(bias, acc_type);
  const cudaStream_t stream = current_stream(unary);
  PYPOSE_OPS_DISPATCH_FLOATING(unary.scalar_type(), op, [&] {
    launch_messages<scalar_t>(out, kept, dense, dense_prior, dense_bias, edges, prior_index, floor, shape, stream);
  });
  return {out, kept};
}

Tensor mrf_message_passing_cuda(
    const Tensor& unary, const Tensor& prior, const Tensor& bias, std::vector<int64_t> edges,
    const std::optional<std::vector<int64_t>>& prior_index, int64_t num_targets, double floor) {
  return std::get<0>(messages_cuda(unary, prior, bias, edges, prior_index, num_targets, floor, false));
}

std::tuple<Tensor, Tensor> mrf_message_passing_kept_cuda(
    const Tensor& unary, const Tensor& prior, const Tensor& bias, std::vector<int64_t> edges,
    const std::optional<std::vector<int64_t>>& prior_index, int64_t num_targets, double floor) {
  const auto [out, kept] = messages_cuda(unary, prior, bias, edges, prior_index, num_targets, floor, true);
  return {out, *kept};
}

}  // namespace

PYPOSE_OPS_CUDA_LIBRARY(m) {
  m.impl("mrf_message_passing", TORCH_BOX(&mrf_message_passing_cuda));
  m.impl("_mrf_message_passing_kept", TORCH_BOX(&mrf_message_passing_kept_cuda));
}

}  // namespace pypose_ops

// One operator with every kind of argument and two kernels, to see that the kernel of the second namespace stands in for
// the first one's and receives everything unchanged. Each signs its result.
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "common/cuda.cuh"

namespace pypose_ops {
namespace {

__global__ void scale_kernel(
    const float* __restrict__ in, const float* __restrict__ bias, float* __restrict__ out, int64_t n, double factor) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < n) {
    out[i] = static_cast<float>(in[i] * factor + (bias == nullptr ? 0.0f : bias[i]));
  }
}

// (values * factor + bias, [height, sum of widths, number of others, length of mode, signature])
std::tuple<Tensor, Tensor> scale(
    const Tensor& values, const std::optional<Tensor>& bias, int64_t height, const std::vector<int64_t>& widths,
    const std::vector<Tensor>& others, double factor, const std::string& mode, int64_t signature) {
  Tensor out = torch::stable::empty_like(values);
  launch(
      "planted", scale_kernel, ceil_div(values.numel(), 64), 64, 0, current_stream(values), values.const_data_ptr<float>(),
      bias.has_value() ? bias->const_data_ptr<float>() : nullptr, out.mutable_data_ptr<float>(), values.numel(), factor);
  Tensor seen = torch::stable::new_empty(values, {5}, ScalarType::Long);
  int64_t* numbers = seen.mutable_data_ptr<int64_t>();
  numbers[0] = height;
  numbers[1] = 0;
  for (int64_t width : widths) {
    numbers[1] += width;
  }
  numbers[2] = static_cast<int64_t>(others.size());
  numbers[3] = static_cast<int64_t>(mode.size());
  numbers[4] = signature;
  return {out, seen};
}

std::tuple<Tensor, Tensor> scale_first(
    const Tensor& values, std::optional<Tensor> bias, int64_t height, std::vector<int64_t> widths,
    std::vector<Tensor> others, double factor, std::string mode) {
  return scale(values, bias, height, widths, others, factor, mode, 1);
}

std::tuple<Tensor, Tensor> scale_second(
    const Tensor& values, std::optional<Tensor> bias, int64_t height, std::vector<int64_t> widths,
    std::vector<Tensor> others, double factor, std::string mode) {
  return scale(values, bias, height, widths, others, factor, mode, 2);
}

Tensor only_first(const Tensor& values) {
  return torch::stable::empty_like(values);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops_simt_first, m) {
  m.def(
      "scale(Tensor values, Tensor? bias, SymInt height, SymInt[] widths, Tensor[] others, float factor=2.0, "
      "str mode=\"plain\") -> (Tensor, Tensor)");
  m.def("only_first(Tensor values) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops_simt_first, CPU, m) {
  m.impl("scale", TORCH_BOX(&scale_first));
  m.impl("only_first", TORCH_BOX(&only_first));
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops_simt_second, CPU, m) {
  m.impl("scale", TORCH_BOX(&scale_second));
}

}  // namespace pypose_ops

// sum_product on the CPU.
#include "mrf/sum_product.h"

#include <tuple>

#include <torch/csrc/stable/library.h>

#include "mrf/sum_product_cpu.h"

namespace pypose_ops {
namespace {

using namespace tree;

template <typename acc>
using Workspace = ForwardMemory<acc, Passes<acc>>;

// map -= log of the sum of its exponentials, which is returned.
template <typename acc>
acc normalise(acc* map, int64_t pixels) {
  acc highest = -std::numeric_limits<acc>::infinity();
  for (int64_t i = 0; i < pixels; ++i) {
    highest = map[i] > highest ? map[i] : highest;
  }
  if (!is_possible(highest)) {
    return highest;
  }
  constexpr int64_t kLanes = 64;
  acc sums[kLanes] = {};
  simd_call([&] {
    for (int64_t first = 0; first < pixels; first += kLanes) {
      const int64_t count = std::min(kLanes, pixels - first);
      for (int64_t i = 0; i < count; ++i) {
        sums[i] += simd::exp(map[first + i] - highest);
      }
    }
  });
  double sum = 0;
  for (const acc part : sums) {
    sum += static_cast<double>(part);
  }
  const acc total = highest + static_cast<acc>(std::log(sum));
  simd_call([=] {
    for (int64_t i = 0; i < pixels; ++i) {
      map[i] -= total;
    }
  });
  return total;
}

template <typename T>
void run_sum_product(
    const SumProductTensors& out, const Tensor& unary, const Tensor& deformation, const Schedule& schedule,
    int64_t root, bool keep_messages, const Shape& shape) {
  using acc = acc_t<T>;
  const Tables t = schedule.tables();
  const int64_t pixels = shape.pixels();
  acc* beliefs = out.log_marginals.mutable_data_ptr<acc>();
  acc* log_partition = out.log_partition.mutable_data_ptr<acc>();
  const acc* springs = deformation.const_data_ptr<acc>();
  // The beliefs start as the evidence, which the messages read.
  fill_evidence(beliefs, unary.const_data_ptr<T>(), shape.batch * shape.joints * pixels);
  acc* kept = keep_messages ? out.messages.mutable_data_ptr<acc>() : nullptr;
  run_tree<Workspace<acc>>(
      schedule, shape, false, [&] { return ImageMessages<acc>(shape, kept); },
      [&](int64_t b, int64_t i, ImageMessages<acc>& image, Workspace<acc>& w) {
        acc* messages = image.maps;
        const FlushSubnormals flush;
        fill_source(w.source.data(), beliefs + b * shape.joints * pixels, messages, t, i, pixels);
        w.passes.fill_tables(springs, t, i);
        w.passes.pass_x(w.source.data());
        w.passes.pass_y();
        for (int64_t y = 0; y < shape.height; ++y) {
          const acc* row = w.passes.out.row(y);
          std::copy(row, row + shape.width, messages + i * pixels + y * shape.width);
        }
      },
      [&](int64_t b, const ImageMessages<acc>& image, Workspace<acc>&) {
        for (int64_t k = 0; k < shape.joints; ++k) {
          acc* map = beliefs + (b * shape.joints + k) * pixels;
          add_messages<false>(map, map, image.maps, t, k, -1, pixels);
          const acc total = normalise(map, pixels);
          if (k == root) {
            log_partition[b] = total;
          }
        }
      });
}

std::tuple<Tensor, Tensor, Tensor> sum_product_cpu(
    const Tensor& unary, std::vector<int64_t> edges, const Tensor& deformation, int64_t root,
    bool keep_messages) {
  constexpr const char* op = "sum_product";
  const Shape shape = check_inputs(op, unary, edges, deformation, root);
  const Schedule schedule = make_schedule(op, edges, shape.joints, root);
  const SumProductTensors out = new_sum_product(unary, shape, keep_messages);
  if (shape.batch > 0) {
    const Tensor dense = as_contiguous(unary);
    const Tensor springs = as_contiguous(deformation, acc_scalar_type(unary.scalar_type()));
    PYPOSE_OPS_DISPATCH_FLOATING(unary.scalar_type(), op, [&] {
      run_sum_product<scalar_t>(out, dense, springs, schedule, root, keep_messages, shape);
    });
  }
  return {out.log_marginals, out.log_partition, out.messages};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  // The messages are for the backward operator; not kept, they are (B, 0, H, W).
  m.def(
      "sum_product(Tensor unary, int[] edges, Tensor deformation, int root, bool keep_messages) -> "
      "(Tensor log_marginals, Tensor log_partition, Tensor messages)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("sum_product", TORCH_BOX(&sum_product_cpu));
}

}  // namespace pypose_ops

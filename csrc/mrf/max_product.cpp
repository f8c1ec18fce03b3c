// max_product on the CPU.
#include <tuple>

#include <torch/csrc/stable/library.h>

#include "mrf/max_product_cpu.h"

namespace pypose_ops {
namespace {

using namespace tree;

template <typename acc>
using Workspace = ForwardMemory<acc, MaxPasses<acc>>;

// The highest pixel, the first of equals; -1 where none is possible.
template <typename acc>
int64_t highest_pixel(const acc* map, int64_t pixels) {
  acc highest = -std::numeric_limits<acc>::infinity();
  int64_t best = -1;
  for (int64_t i = 0; i < pixels; ++i) {
    best = map[i] > highest ? i : best;
    highest = map[i] > highest ? map[i] : highest;
  }
  return best;
}

template <typename T>
void run_max_product(
    const MaxProductTensors& out, const Tensor& unary, const Tensor& deformation, const Schedule& schedule,
    int64_t root, const Shape& shape) {
  using acc = acc_t<T>;
  const Tables t = schedule.tables();
  const int64_t pixels = shape.pixels();
  acc* beliefs = out.max_marginals.mutable_data_ptr<acc>();
  acc* coords = out.coords.mutable_data_ptr<acc>();
  acc* scores = out.scores.mutable_data_ptr<acc>();
  int16_t* steps = out.steps.mutable_data_ptr<int16_t>();
  const T* maps_in = unary.const_data_ptr<T>();
  const acc* springs = deformation.const_data_ptr<acc>();
  const auto steps_of = [=](int64_t b, int64_t i) { return steps + (b * shape.messages() + i) * kSteps * pixels; };
  // The beliefs start as the evidence, which the messages read.
  fill_evidence(beliefs, maps_in, shape.batch * shape.joints * pixels);
  run_tree<Workspace<acc>, acc>(
      schedule, shape, nullptr, false,
      [&](int64_t b, int64_t i, acc* messages, Workspace<acc>& w) {
        fill_source(w.source.data(), beliefs + b * shape.joints * pixels, messages, t, i, pixels);
        w.passes.pass_x(steps_of(b, i), w.source.data(), spring_of(springs, t.edge[i], t.sign[i], 0));
        w.passes.pass_y(
            messages + i * pixels, steps_of(b, i) + pixels, spring_of(springs, t.edge[i], t.sign[i], 1));
      },
      [&](int64_t b, const acc* messages, Workspace<acc>&) {
        acc* image = beliefs + b * shape.joints * pixels;
        for (int64_t k = 0; k < shape.joints; ++k) {
          add_messages<false>(image + k * pixels, image + k * pixels, messages, t, k, -1, pixels);
        }
        decode(
            coords + b * shape.joints * 2, scores + b * shape.joints, maps_in + b * shape.joints * pixels,
            steps_of(b, 0), t, shape, highest_pixel(image + root * pixels, pixels));
      });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> max_product_cpu(
    const Tensor& unary, std::vector<int64_t> edges, const Tensor& deformation, int64_t root) {
  constexpr const char* op = "max_product";
  const Shape shape = check_inputs(op, unary, edges, deformation, root);
  const Schedule schedule = make_schedule(op, edges, shape.joints, root);
  const MaxProductTensors out = new_max_product(unary, shape);
  if (shape.batch > 0) {
    const Tensor dense = as_contiguous(unary);
    const Tensor springs = as_contiguous(deformation, acc_scalar_type(unary.scalar_type()));
    PYPOSE_OPS_DISPATCH_FLOATING(unary.scalar_type(), op, [&] {
      run_max_product<scalar_t>(out, dense, springs, schedule, root, shape);
    });
  }
  return {out.max_marginals, out.coords, out.scores, out.steps};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "max_product(Tensor unary, int[] edges, Tensor deformation, int root) -> "
      "(Tensor max_marginals, Tensor coords, Tensor scores, Tensor steps)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("max_product", TORCH_BOX(&max_product_cpu));
}

}  // namespace pypose_ops

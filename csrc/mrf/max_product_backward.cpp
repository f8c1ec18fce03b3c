// The gradient of max_product on the CPU: what arrives at a target of a message goes to the source that won it.
#include <tuple>

#include <torch/csrc/stable/library.h>

#include "mrf/max_product.h"
#include "mrf/tree_cpu.h"

namespace pypose_ops {
namespace {

using namespace tree;

template <typename acc>
struct BackwardWorkspace {
  std::vector<acc> incoming, rows;  // (H, W): at the targets, at source rows and target columns

  explicit BackwardWorkspace(const Shape& s) : incoming(s.pixels()), rows(s.pixels()) {}
};

// out, zeros, receives the gradient of a message's source.
template <typename acc>
void route(
    acc* out, BackwardWorkspace<acc>& w, const int16_t* steps, const Spring<acc>& along_x, const Spring<acc>& along_y,
    const Shape& s, double* partial) {
  StretchSums sums_x{0, 0}, sums_y{0, 0};
  std::fill(w.rows.begin(), w.rows.end(), acc(0));
  std::fill(out, out + s.pixels(), acc(0));
  for (int64_t y = 0; y < s.height; ++y) {
    const int16_t* from = steps + s.pixels() + y * s.width;
    const acc* grad = w.incoming.data() + y * s.width;
    for (int64_t x = 0; x < s.width; ++x) {
      if (from[x] >= 0 && grad[x] != 0) {
        w.rows[from[x] * s.width + x] += grad[x];
        sums_y.add(grad[x], along_y.stretch(from[x], static_cast<int>(y)));
      }
    }
  }
  for (int64_t y = 0; y < s.height; ++y) {
    const int16_t* from = steps + y * s.width;
    const acc* grad = w.rows.data() + y * s.width;
    for (int64_t x = 0; x < s.width; ++x) {
      if (from[x] >= 0 && grad[x] != 0) {
        out[y * s.width + from[x]] += grad[x];
        sums_x.add(grad[x], along_x.stretch(from[x], static_cast<int>(x)));
      }
    }
  }
  partial[0] = sums_x.first;
  partial[1] = sums_x.second;
  partial[2] = sums_y.first;
  partial[3] = sums_y.second;
}

// out = the gradients of possible max-marginals.
template <typename acc>
void fill_beliefs(acc* out, const acc* grad, const acc* max_marginals, int64_t count) {
  torch::stable::parallel_for(0, count, 1 << 15, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      out[i] = is_possible(max_marginals[i]) ? grad[i] : acc(0);
    }
  });
}

template <typename acc>
void run_backward(
    const Gradients& out, const Tensor& grad, const Tensor& grad_scores,
    const Tensor& max_marginals, const Tensor& coords, const Tensor& steps, const Tensor& deformation,
    const Schedule& schedule, const Shape& shape) {
  const Tables t = schedule.tables();
  const int64_t pixels = shape.pixels();
  acc* grads = out.unary.mutable_data_ptr<acc>();
  const int16_t* all_steps = steps.const_data_ptr<int16_t>();
  const acc* springs = deformation.const_data_ptr<acc>();
  const acc* places = coords.const_data_ptr<acc>();
  const acc* of_scores = grad_scores.const_data_ptr<acc>();
  std::vector<double> partial(shape.batch * shape.messages() * 4);
  // The gradient of the beliefs first; then what comes back along the messages is added.
  fill_beliefs(grads, grad.const_data_ptr<acc>(), max_marginals.const_data_ptr<acc>(), grad.numel());
  run_tree<BackwardWorkspace<acc>>(
      schedule, shape, true, [&] { return ImageMessages<acc>(shape, nullptr); },
      [&](int64_t b, int64_t i, ImageMessages<acc>& image, BackwardWorkspace<acc>& w) {
        acc* maps = image.maps;
        fill_incoming(w.incoming.data(), grads + b * shape.joints * pixels, maps, t, i, pixels);
        const int64_t message = b * shape.messages() + i;
        route(
            maps + i * pixels, w, all_steps + message * kSteps * pixels, spring_of(springs, t.edge[i], t.sign[i], 0),
            spring_of(springs, t.edge[i], t.sign[i], 1), shape, partial.data() + 4 * message);
      },
      [&](int64_t b, const ImageMessages<acc>& image, BackwardWorkspace<acc>&) {
        for (int64_t k = 0; k < shape.joints; ++k) {
          acc* map = grads + (b * shape.joints + k) * pixels;
          add_messages<true>(map, map, image.maps, t, k, -1, pixels);
          const acc* place = places + (b * shape.joints + k) * 2;
          if (place[0] >= 0) {
            map[static_cast<int64_t>(place[1]) * shape.width + static_cast<int64_t>(place[0])] +=
                of_scores[b * shape.joints + k];
          }
        }
      });
  write_deformation_gradient(out.deformation.mutable_data_ptr<acc>(), partial, springs, t, shape);
}

std::tuple<Tensor, Tensor> max_product_backward_cpu(
    const Tensor& grad, const Tensor& grad_scores, const Tensor& max_marginals, const Tensor& coords,
    const Tensor& steps, const Tensor& deformation, std::vector<int64_t> edges, int64_t root) {
  const Shape shape = check_max_backward(grad, grad_scores, max_marginals, coords, steps, deformation, edges, root);
  const Schedule schedule = make_schedule(kMaxBackward, edges, shape.joints, root);
  const ScalarType acc = max_marginals.scalar_type();
  const Gradients out = new_gradients(max_marginals, shape);
  if (shape.batch > 0) {
    const auto run = [&](auto zero) {
      run_backward<decltype(zero)>(
          out, as_contiguous(grad), as_contiguous(grad_scores),
          as_contiguous(max_marginals), as_contiguous(coords), as_contiguous(steps),
          as_contiguous(deformation, acc), schedule, shape);
    };
    acc == ScalarType::Double ? run(double(0)) : run(float(0));
  }
  return {out.unary, out.deformation};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "_max_product_backward(Tensor grad, Tensor grad_scores, Tensor max_marginals, Tensor coords, Tensor steps, "
      "Tensor deformation, int[] edges, int root) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("_max_product_backward", TORCH_BOX(&max_product_backward_cpu));
}

}  // namespace pypose_ops

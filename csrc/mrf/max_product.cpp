// max_product on the CPU.
#include <tuple>

#include <torch/csrc/stable/library.h>

#include "mrf/max_product_cpu.h"

namespace pypose_ops {
namespace {

using namespace tree;

template <typename acc>
using Workspace = ForwardMemory<acc, MaxPasses<acc>>;

// The messages of the image at hand and their steps: part of `kept`, (B, messages, 2, H, W); or only those to parents, which
// decoding follows, in memory of its own, (joints, 2, H, W).
template <typename acc>
class ImageSteps {
 public:
  ImageSteps(const Shape& s, int16_t* kept)
      : messages(s, nullptr),
        size_(kSteps * s.pixels()),
        count_(s.messages()),
        kept_(kept),
        own_(kept ? nullptr : new int16_t[s.joints * size_]) {}
  void start(int64_t b) {
    messages.start(b);
    steps = kept_ ? kept_ + b * count_ * size_ : own_.get();
  }
  // Of message i; null: nobody asks for them.
  int16_t* steps_of(const Tables& t, int64_t i) const {
    if (kept_) {
      return steps + i * size_;
    }
    return t.up[t.source[i]] == i ? steps + t.source[i] * size_ : nullptr;
  }
  ImageMessages<acc> messages;
  int16_t* steps = nullptr;

 private:
  int64_t size_, count_;
  int16_t* kept_;
  std::unique_ptr<int16_t[]> own_;
};

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
    int64_t root, bool keep_steps, const Shape& shape) {
  using acc = acc_t<T>;
  const Tables t = schedule.tables();
  const int64_t pixels = shape.pixels();
  acc* beliefs = out.max_marginals.mutable_data_ptr<acc>();
  acc* coords = out.coords.mutable_data_ptr<acc>();
  acc* scores = out.scores.mutable_data_ptr<acc>();
  int16_t* kept = keep_steps ? out.steps.mutable_data_ptr<int16_t>() : nullptr;
  const T* maps_in = unary.const_data_ptr<T>();
  const acc* springs = deformation.const_data_ptr<acc>();
  // The beliefs start as the evidence, which the messages read.
  fill_evidence(beliefs, maps_in, shape.batch * shape.joints * pixels);
  run_tree<Workspace<acc>>(
      schedule, shape, false, [&] { return ImageSteps<acc>(shape, kept); },
      [&](int64_t b, int64_t i, ImageSteps<acc>& image, Workspace<acc>& w) {
        fill_source(w.source.data(), beliefs + b * shape.joints * pixels, image.messages.maps, t, i, pixels);
        int16_t* steps = image.steps_of(t, i);
        w.passes.pass_x(steps, w.source.data(), spring_of(springs, t.edge[i], t.sign[i], 0));
        w.passes.pass_y(
            image.messages.maps + i * pixels, steps ? steps + pixels : nullptr,
            spring_of(springs, t.edge[i], t.sign[i], 1));
      },
      [&](int64_t b, const ImageSteps<acc>& image, Workspace<acc>&) {
        acc* maps = beliefs + b * shape.joints * pixels;
        for (int64_t k = 0; k < shape.joints; ++k) {
          add_messages<false>(maps + k * pixels, maps + k * pixels, image.messages.maps, t, k, -1, pixels);
        }
        decode(
            coords + b * shape.joints * 2, scores + b * shape.joints, maps_in + b * shape.joints * pixels,
            image.steps, !keep_steps, t, shape, highest_pixel(maps + root * pixels, pixels));
      });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> max_product_cpu(
    const Tensor& unary, std::vector<int64_t> edges, const Tensor& deformation, int64_t root, bool keep_steps) {
  constexpr const char* op = "max_product";
  const Shape shape = check_inputs(op, unary, edges, deformation, root);
  const Schedule schedule = make_schedule(op, edges, shape.joints, root);
  const MaxProductTensors out = new_max_product(unary, shape, keep_steps);
  if (shape.batch > 0) {
    const Tensor dense = as_contiguous(unary);
    const Tensor springs = as_contiguous(deformation, acc_scalar_type(unary.scalar_type()));
    PYPOSE_OPS_DISPATCH_FLOATING(unary.scalar_type(), op, [&] {
      run_max_product<scalar_t>(out, dense, springs, schedule, root, keep_steps, shape);
    });
  }
  return {out.max_marginals, out.coords, out.scores, out.steps};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  // The steps are for the backward operator; not kept, they are (B, 0, 2, H, W).
  m.def(
      "max_product(Tensor unary, int[] edges, Tensor deformation, int root, bool keep_steps) -> "
      "(Tensor max_marginals, Tensor coords, Tensor scores, Tensor steps)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("max_product", TORCH_BOX(&max_product_cpu));
}

}  // namespace pypose_ops

#include <tuple>

#include <torch/csrc/stable/library.h>

#include "common/tasks.h"
#include "mrf/mrf_message_passing.h"
#include "mrf/mrf_sparse.h"
#include "mrf/mrf_sparse_backward.h"

namespace pypose_ops {
namespace {

using namespace mrf;

// With q = grad / message, for the edges of one source:
//   grad bias(x)    = sum over images of q(x)
//   grad prior(d)   = floor * sum of q over the pixels whose displacement d stays in the map
//                     + sum over images and active y of active(y) q(y + d)
//   grad unary(y)   = sum over edges and x of prior(x - y) q(x),  at active y only
constexpr int64_t kBeside = 4 * simd::kMostLanes<float> + kStrip;  // side by side

template <typename acc>
struct Workspace {
  Frame f;
  Buffer<acc> prior;  // padded
  Buffer<acc> base;   // (height, padded_width)
  Buffer<acc> slope;  // q, padded
  std::vector<acc> total;  // q over the images, (height, width)
  Buffer<acc> grad_prior;  // (rows + 1, grad_stride), column 0 at grad_lead
  int64_t grad_lead, grad_stride;
  std::vector<double> scratch;
  std::vector<acc> sums;

  explicit Workspace(const Frame& frame)
      : f(frame),
        prior(f.buffer_size()),
        base(f.height * f.padded_width),
        slope(f.buffer_size()),
        total(f.height * f.width),
        grad_prior((f.rows + 1) * (f.columns + 2 * kBeside)),
        grad_lead(kBeside),
        grad_stride(f.columns + 2 * kBeside) {}
};

// The messages, in the place of the slopes.
template <int kVecs, typename acc>
void fill_messages(Workspace<acc>& w, const PairList<acc>& list) {
  const Frame f = w.f;
  const acc* base = w.base.data();
  acc* slope = w.slope.data() + f.origin();
  const acc* prior = w.prior.data();
  simd_call([=](auto isa) {
    using Isa = decltype(isa);
    each_message<kVecs>(isa, f, prior, list, [=](int64_t r, int64_t x, const simd::vec<acc, Isa>* sums) {
      for (int n = 0; n < kVecs; ++n) {
        const int64_t column = x + n * simd::lanes<acc, Isa>;
        isa.store(slope + r * f.stride + column, sums[n] + isa.load(base + r * f.padded_width + column));
      }
    });
  });
}

// slope = grad / message, total += slope. messages (H, W), or null: they are in the place of the slopes.
template <typename acc>
void fill_slope(Workspace<acc>& w, const acc* grad, const acc* messages) {
  const Frame f = w.f;
  acc* slope = w.slope.data() + f.origin();
  acc* total = w.total.data();
  simd_call([=] {
    for (int64_t r = 0; r < f.height; ++r) {
      acc* row = slope + r * f.stride;
      const acc* message = messages ? messages + r * f.width : row;
      for (int64_t x = 0; x < f.width; ++x) {
        row[x] = log_slope(grad[r * f.width + x], message[x]);
        total[r * f.width + x] += row[x];
      }
      // The last block of messages hung over.
      for (int64_t x = f.width; x < f.padded_width; ++x) {
        row[x] = 0;
      }
    }
  });
}

// The gradients of prior and unary from slope; null where not wanted.
template <int kVecs, typename acc>
void add_gradients(acc* grad_prior, acc* grad_unary, Workspace<acc>& w, const PairColumns<acc>& columns) {
  const Frame& f = w.f;
  const GradientFrame<acc> from{
      w.prior.data() + f.origin(), w.slope.data() + f.origin(), grad_prior, w.grad_stride};
  correlate<kVecs>(grad_unary, w.sums, from, f, columns);
}

template <typename acc>
struct Gradients {
  acc* unary;  // null where not wanted
  acc* prior;  // one kernel per edge
  acc* bias;
};

template <typename acc>
void write_prior_gradient(acc* out, const acc* prior, Workspace<acc>& w, const Shape& shape, acc floor) {
  const Frame& f = w.f;
  if (f.rows < shape.kernel_height || f.columns < shape.kernel_width) {
    std::fill(out, out + shape.kernel_height * shape.kernel_width, acc(0));
  }
  const int64_t skip = (shape.kernel_height / 2 - f.reach_y) * shape.kernel_width + shape.kernel_width / 2 - f.reach_x;
  box_sums(
      w.total.data(), f.height, f.width, f.width, f.rows, f.columns, f.height, f.width, f.height - 1 - f.reach_y,
      f.width - 1 - f.reach_x, w.scratch, [&](int64_t i, const double* sums) {
        const int64_t at = skip + i * shape.kernel_width;
        const acc* sparse = w.grad_prior.data() + w.grad_lead + i * w.grad_stride;
        const int64_t columns = f.columns;
        simd_call([=] {
          for (int64_t k = 0; k < columns; ++k) {
            const acc sum = floor * static_cast<acc>(sums[k]) + sparse[k];
            out[at + k] = is_usable(prior[at + k]) ? sum : acc(0);
          }
        });
      });
}

template <typename acc>
void write_bias_gradient(acc* out, const acc* bias, const std::vector<acc>& total, bool maps) {
  if (maps) {
    for (size_t i = 0; i < total.size(); ++i) {
      out[i] = is_usable(bias[i]) ? total[i] : acc(0);
    }
    return;
  }
  double sum = 0;
  for (const acc q : total) {
    sum += q;
  }
  out[0] = is_usable(bias[0]) ? static_cast<acc>(sum) : acc(0);
}

// One thread owns a source with all its edges and images, and so every gradient that it writes.
template <int kVecs, typename acc>
void source_backward(
    const Gradients<acc>& grads, const acc* grad, const acc* messages, const ActivePixels<acc>& active,
    const acc* prior, const acc* bias, const std::vector<int64_t>& edges, const std::vector<int64_t>& prior_index,
    const EdgeGroups& groups, int64_t source, acc floor, const Shape& shape, Workspace<acc>& w) {
  const int64_t kernel = shape.kernel_height * shape.kernel_width;
  const int64_t bias_size = shape.bias_maps ? shape.pixels() : 1;
  std::vector<PairColumns<acc>> columns;
  for (int64_t b = 0; b < shape.batch && groups.begin[source] < groups.begin[source + 1]; ++b) {
    columns.emplace_back(PairList<acc>(active, w.f, shape, b, source), w.f);
  }
  for (int64_t i = groups.begin[source]; i < groups.begin[source + 1]; ++i) {
    const int64_t edge = groups.order[i];
    const acc* kernel_data = prior + prior_of(prior_index, edge) * kernel;
    fill_prior(w.prior.data(), kernel_data, shape, w.f);
    if (!messages) {
      fill_base(w.base.data(), w.prior.data(), w.f, floor, w.scratch);
      add_bias(w.base.data(), bias, edge, shape, w.f);
    }
    std::fill(w.total.begin(), w.total.end(), acc(0));
    w.grad_prior.fill(0);
    for (int64_t b = 0; b < shape.batch; ++b) {
      if (!messages) {
        fill_messages<kVecs>(w, PairList<acc>(active, w.f, shape, b, source));
      }
      fill_slope(
          w, grad + (b * shape.targets + edges[2 * edge + 1]) * shape.pixels(),
          messages ? messages + (b * shape.edges + edge) * shape.pixels() : nullptr);
      add_gradients<kVecs>(
          grads.prior ? w.grad_prior.data() + w.grad_lead : nullptr,
          grads.unary ? grads.unary + (b * shape.sources + source) * shape.pixels() : nullptr, w, columns[b]);
    }
    if (grads.prior) {
      write_prior_gradient(grads.prior + edge * kernel, kernel_data, w, shape, floor);
    }
    if (grads.bias) {
      write_bias_gradient(grads.bias + edge * bias_size, bias + edge * bias_size, w.total, shape.bias_maps);
    }
  }
}

template <typename acc>
using SourceBackward = void (*)(
    const Gradients<acc>&, const acc*, const acc*, const ActivePixels<acc>&, const acc*, const acc*,
    const std::vector<int64_t>&, const std::vector<int64_t>&, const EdgeGroups&, int64_t, acc, const Shape&, Workspace<acc>&);

template <typename T>
void run_backward(
    const Gradients<acc_t<T>>& grads, const Tensor& grad, const acc_t<T>* messages, const Tensor& unary,
    const Tensor& prior, const Tensor& bias, const std::vector<int64_t>& edges,
    const std::vector<int64_t>& prior_index, double floor_value, const Shape& shape) {
  using acc = acc_t<T>;
  const acc floor = static_cast<acc>(floor_value);
  const Frame f = Frame::of<acc>(shape);
  const EdgeGroups groups = group_edges(edges, shape.sources, 0);
  ActivePixels<acc> active(unary.const_data_ptr<T>(), shape, f, floor);
  active.hold(unary.const_data_ptr<T>(), 0, shape.batch);
  const SourceBackward<acc> by_vecs[] = {
      source_backward<1, acc>, source_backward<2, acc>, source_backward<3, acc>, source_backward<4, acc>};
  const SourceBackward<acc> run = by_vecs[f.vecs - 1];
  share_tasks(shape.sources, [&](Tasks& tasks) {
    Workspace<acc> workspace(f);
    for (int64_t source; tasks.take(source);) {
      run(grads, grad.const_data_ptr<acc>(), messages, active, prior.const_data_ptr<acc>(), bias.const_data_ptr<acc>(),
          edges, prior_index, groups, source, floor, shape, workspace);
    }
  });
}

// Edges that share a prior add up in their order.
template <typename acc>
void add_shared(const Tensor& out, const Tensor& per_edge, const std::vector<int64_t>& prior_index, int64_t kernel) {
  acc* to = out.mutable_data_ptr<acc>();
  const acc* from = per_edge.const_data_ptr<acc>();
  for (size_t e = 0; e < prior_index.size(); ++e) {
    for (int64_t i = 0; i < kernel; ++i) {
      to[prior_index[e] * kernel + i] += from[e * kernel + i];
    }
  }
}

template <typename T>
void dispatch_backward(
    const Tensor& grad, const std::optional<Tensor>& messages, const Tensor& unary, const Tensor& prior,
    const Tensor& bias, const Tensor& grad_unary, const Tensor& grad_prior, const Tensor& grad_bias,
    const std::vector<int64_t>& edges, const std::vector<int64_t>& prior_index, double floor, const Shape& shape) {
  using acc = acc_t<T>;
  const bool shared = !prior_index.empty() && grad_prior.numel() > 0;
  const Tensor per_edge = shared
      ? empty_beside(grad_prior, {shape.edges, shape.kernel_height, shape.kernel_width})
      : grad_prior;
  const auto pointer = [](const Tensor& tensor) {
    return tensor.numel() > 0 ? tensor.mutable_data_ptr<acc>() : nullptr;
  };
  const Gradients<acc> grads{pointer(grad_unary), pointer(per_edge), pointer(grad_bias)};
  run_backward<T>(
      grads, grad, messages ? messages->const_data_ptr<acc>() : nullptr, unary, prior, bias, edges, prior_index, floor,
      shape);
  if (shared) {
    add_shared<acc>(grad_prior, per_edge, prior_index, shape.kernel_height * shape.kernel_width);
  }
}

std::tuple<Tensor, Tensor, Tensor> mrf_message_passing_backward_cpu(
    const Tensor& grad, const Tensor& unary, const Tensor& prior, const Tensor& bias, std::vector<int64_t> edges,
    const std::optional<std::vector<int64_t>>& prior_index_or_none, double floor, bool want_unary, bool want_prior,
    bool want_bias, const std::optional<Tensor>& messages) {
  const std::vector<int64_t> prior_index = prior_index_of(prior_index_or_none);
  constexpr const char* op = "_mrf_message_passing_backward";
  const Shape shape = check_backward(op, grad, unary, prior, bias, edges, prior_index, floor, messages);
  const ScalarType acc_type = acc_scalar_type(unary.scalar_type());
  // Without shared priors every element of their gradient is written.
  const bool written = want_prior && prior_index.empty() && grad.numel() > 0;
  GradientTensors out = new_gradients(unary, prior, bias, acc_type, want_unary, want_prior && !written, want_bias);
  if (written) {
    out.prior = empty_beside(unary, {prior.size(0), prior.size(1), prior.size(2)}, acc_type);
  }
  if (grad.numel() == 0 || shape.edges == 0) {
    return {out.unary, out.prior, out.bias};
  }
  const Tensor dense = as_contiguous(unary);
  const Tensor dense_grad = as_contiguous(grad, acc_type);
  const Tensor dense_prior = as_contiguous(prior, acc_type);
  const Tensor dense_bias = as_contiguous(bias, acc_type);
  const std::optional<Tensor> dense_messages =
      messages ? std::optional<Tensor>(as_contiguous(*messages, acc_type)) : std::nullopt;
  PYPOSE_OPS_DISPATCH_FLOATING(unary.scalar_type(), op, [&] {
    dispatch_backward<scalar_t>(
        dense_grad, dense_messages, dense, dense_prior, dense_bias, out.unary, out.prior, out.bias, edges, prior_index,
        floor, shape);
  });
  return {out.unary, out.prior, out.bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "_mrf_message_passing_backward(Tensor grad, Tensor unary, Tensor prior, Tensor bias, int[] edges, "
      "int[]? prior_index, float floor, bool want_unary, bool want_prior, bool want_bias, Tensor? messages=None) -> "
      "(Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("_mrf_message_passing_backward", TORCH_BOX(&mrf_message_passing_backward_cpu));
}

}  // namespace pypose_ops

#include <tuple>

#include <torch/csrc/stable/library.h>

#include "mrf/mrf_message_passing.h"
#include "mrf/mrf_sparse.h"

namespace pypose_ops {
namespace {

using namespace mrf;

// With q = grad / message, for the edges of one source:
//   grad bias(x)    = sum over images of q(x)
//   grad prior(d)   = floor * sum of q over the pixels whose displacement d stays in the map
//                     + sum over images and active y of active(y) q(y + d)
//   grad unary(y)   = sum over edges and x of prior(x - y) q(x),  at active y only
constexpr int64_t kMostLanes = 5 * vec_of<float>::lanes;  // side by side

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

  explicit Workspace(const Frame& frame)
      : f(frame),
        prior(f.buffer_size()),
        base(f.height * f.padded_width),
        slope(f.buffer_size()),
        total(f.height * f.width),
        grad_prior((f.rows + 1) * (f.columns + 2 * kMostLanes)),
        grad_lead(kMostLanes),
        grad_stride(f.columns + 2 * kMostLanes) {}
};

// slope = grad / message, total += slope.
template <int kVecs, typename acc>
void fill_slope(Workspace<acc>& w, const acc* grad, const PairList<acc>& list) {
  constexpr int lanes = vec_of<acc>::lanes;
  const Frame f = w.f;
  const acc* base = w.base.data();
  acc* slope = w.slope.data() + f.origin();
  const acc* prior = w.prior.data();
  simd_call([=] {
    each_message<kVecs>(f, prior, list, [=](int64_t r, int64_t x, const Vec<acc>* sums) {
      for (int n = 0; n < kVecs; ++n) {
        Vec<acc> still;
        const int64_t column = x + n * lanes;
        std::memcpy(&still, base + r * f.padded_width + column, sizeof(still));
        const Vec<acc> message = sums[n] + still;
        std::memcpy(slope + r * f.stride + column, &message, sizeof(message));
      }
    });
  });
  acc* total = w.total.data();
  simd_call([=] {
    for (int64_t r = 0; r < f.height; ++r) {
      acc* row = slope + r * f.stride;
      for (int64_t x = 0; x < f.width; ++x) {
        row[x] = log_slope(grad[r * f.width + x], row[x]);
        total[r * f.width + x] += row[x];
      }
      // The last block of messages hung over.
      for (int64_t x = f.width; x < f.padded_width; ++x) {
        row[x] = 0;
      }
    }
  });
}

// grad_prior(d) += sum over active y of active(y) q(y + d): displacement rows i and i + 1 meet a pair on the same row of
// q. The pixels of a strip see it at the displacements of width + kStrip - 1 columns, in vectors of which 5 are handled
// together: all of them up to a width of 64.
template <typename acc>
void add_prior_gradient(Workspace<acc>& w, const PairList<acc>& list) {
  constexpr int lanes = vec_of<acc>::lanes;
  constexpr int kVecs = 5;
  const Frame f = w.f;
  const acc* slope = w.slope.data() + f.origin();
  acc* grad = w.grad_prior.data() + w.grad_lead;
  const int64_t grad_stride = w.grad_stride;
  simd_call([=] {
    for (int64_t i = 0; i < f.rows; i += 2) {
      const int64_t low = std::max<int64_t>(-1, f.reach_y - i - 1);
      const int64_t high = std::min<int64_t>(f.height - 1, f.height - 2 - i + f.reach_y);
      for (int64_t strip = 0; low <= high && strip < f.strips; ++strip) {
        const Pair<acc>* begin = list.begin_row(strip, low);
        const Pair<acc>* end = list.end_row(strip, high);
        const int64_t first = std::max<int64_t>(f.reach_x - strip * kStrip - (kStrip - 1), 1 - lanes * kVecs);
        const int64_t last = std::min<int64_t>(f.columns, f.reach_x - strip * kStrip + f.width);
        for (int64_t k = first; begin < end && k < last; k += kVecs * lanes) {
          Sums<acc, kVecs> sums{};
          accumulate<kVecs, false>(sums, slope + (1 + i - f.reach_y) * f.stride + k - f.reach_x, begin, end);
          for (int n = 0; n < kVecs; ++n) {
            acc* to = grad + i * grad_stride + k + n * lanes;
            Vec<acc> v;
            std::memcpy(&v, to, sizeof(v));
            v += sums.first[n];
            std::memcpy(to, &v, sizeof(v));
            std::memcpy(&v, to + grad_stride, sizeof(v));
            v += sums.second[n];
            std::memcpy(to + grad_stride, &v, sizeof(v));
          }
        }
      }
    }
  });
}

template <typename acc>
POSE_HD acc sum_of(const Vec<acc>& v) {
  acc sum = 0;
  for (int i = 0; i < vec_of<acc>::lanes; ++i) {
    sum += v[i];
  }
  return sum;
}

// grad(y) += sum over x of prior(x - y) q(x) for the active pixels of kPairs pairs on row y, which read q together.
// Row i of the prior meets row y + i - reach of q from pixel y, and the next row from pixel y + 1; around the prior and
// around q there are zeros.
template <int kPairs, typename acc>
POSE_HD void add_pairs(acc* grad, const Frame& f, const acc* prior, const acc* slope, const Pair<acc>* pair, int64_t y) {
  constexpr int lanes = vec_of<acc>::lanes;
  constexpr int kVecs = 2;
  int64_t x[kPairs];
  for (int p = 0; p < kPairs; ++p) {
    x[p] = pair[p].at - y * f.stride;
  }
  const int64_t low = std::max<int64_t>(0, f.reach_y - y - 1);
  const int64_t high = std::min<int64_t>(f.rows - 1, f.height - 1 - y + f.reach_y);
  const int64_t left = std::max<int64_t>(0, x[0] - f.reach_x) / lanes * lanes;
  const int64_t right = std::min<int64_t>(f.width, x[kPairs - 1] + f.reach_x + 1);
  Sums<acc, kVecs> sums[kPairs] = {};
  for (int64_t i = low; i <= high; ++i) {
    const acc* q = slope + (y + i - f.reach_y) * f.stride;
    const acc* weights = prior + i * f.stride + f.reach_x;
    for (int64_t column = left; column < right; column += kVecs * lanes) {
      for (int n = 0; n < kVecs; ++n) {
        Vec<acc> upper, lower;
        std::memcpy(&upper, q + column + n * lanes, sizeof(upper));
        std::memcpy(&lower, q + f.stride + column + n * lanes, sizeof(lower));
        for (int p = 0; p < kPairs; ++p) {
          Vec<acc> weight;
          std::memcpy(&weight, weights + column + n * lanes - x[p], sizeof(weight));
          sums[p].first[n] += weight * upper;
          sums[p].second[n] += weight * lower;
        }
      }
    }
  }
  for (int p = 0; p < kPairs; ++p) {
    if (pair[p].upper > 0) {
      grad[y * f.width + x[p]] += sum_of<acc>(sums[p].first[0] + sums[p].first[1]);
    }
    if (pair[p].lower > 0) {
      grad[(y + 1) * f.width + x[p]] += sum_of<acc>(sums[p].second[0] + sums[p].second[1]);
    }
  }
}

// Pairs on even rows hold each pixel once.
template <typename acc>
void add_unary_gradient(acc* grad, const Workspace<acc>& w, const PairList<acc>& list) {
  const Frame f = w.f;
  const acc* prior = w.prior.data() + f.origin();
  const acc* slope = w.slope.data() + f.origin();
  simd_call([=] {
    for (int64_t strip = 0; strip < f.strips; ++strip) {
      for (int64_t y = 0; y < f.height; y += 2) {
        const Pair<acc>* pair = list.begin_row(strip, y);
        const Pair<acc>* end = list.end_row(strip, y);
        for (; pair + 2 <= end; pair += 2) {
          add_pairs<2>(grad, f, prior, slope, pair, y);
        }
        if (pair < end) {
          add_pairs<1>(grad, f, prior, slope, pair, y);
        }
      }
    }
  });
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
  std::fill(out, out + shape.kernel_height * shape.kernel_width, acc(0));
  const int64_t skip = (shape.kernel_height / 2 - f.reach_y) * shape.kernel_width + shape.kernel_width / 2 - f.reach_x;
  box_sums(
      w.total.data(), f.height, f.width, f.width, f.rows, f.columns, f.height, f.width, f.height - 1 - f.reach_y,
      f.width - 1 - f.reach_x, w.scratch, [&](int64_t i, const double* sums) {
        const int64_t at = skip + i * shape.kernel_width;
        const acc* sparse = w.grad_prior.data() + w.grad_lead + i * w.grad_stride;
        for (int64_t k = 0; k < f.columns; ++k) {
          out[at + k] = is_usable(prior[at + k]) ? floor * static_cast<acc>(sums[k]) + sparse[k] : acc(0);
        }
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
    const Gradients<acc>& grads, const acc* grad, const ActivePixels<acc>& active, const acc* prior, const acc* bias,
    const std::vector<int64_t>& edges, const std::vector<int64_t>& prior_index, const EdgeGroups& groups, int64_t source,
    acc floor, const Shape& shape, Workspace<acc>& w) {
  const int64_t kernel = shape.kernel_height * shape.kernel_width;
  const int64_t bias_size = shape.bias_maps ? shape.pixels() : 1;
  for (int64_t i = groups.begin[source]; i < groups.begin[source + 1]; ++i) {
    const int64_t edge = groups.order[i];
    const acc* kernel_data = prior + prior_of(prior_index, edge) * kernel;
    fill_prior(w.prior.data(), kernel_data, shape, w.f);
    fill_base(w.base.data(), w.prior.data(), w.f, floor, w.scratch);
    add_bias(w.base.data(), bias, edge, shape, w.f);
    std::fill(w.total.begin(), w.total.end(), acc(0));
    w.grad_prior.fill(0);
    for (int64_t b = 0; b < shape.batch; ++b) {
      const PairList<acc> list(active, w.f, shape, b, source);
      fill_slope<kVecs>(w, grad + (b * shape.targets + edges[2 * edge + 1]) * shape.pixels(), list);
      if (grads.prior) {
        add_prior_gradient(w, list);
      }
      if (grads.unary) {
        add_unary_gradient(grads.unary + (b * shape.sources + source) * shape.pixels(), w, list);
      }
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
    const Gradients<acc>&, const acc*, const ActivePixels<acc>&, const acc*, const acc*, const std::vector<int64_t>&,
    const std::vector<int64_t>&, const EdgeGroups&, int64_t, acc, const Shape&, Workspace<acc>&);

template <typename T>
void launch_backward(
    const Gradients<acc_t<T>>& grads, const Tensor& grad, const Tensor& unary, const Tensor& prior, const Tensor& bias,
    const std::vector<int64_t>& edges, const std::vector<int64_t>& prior_index, double floor_value, const Shape& shape) {
  using acc = acc_t<T>;
  const acc floor = static_cast<acc>(floor_value);
  const Frame f = Frame::of<acc>(shape);
  const EdgeGroups groups = group_edges(edges, shape.sources, 0);
  const ActivePixels<acc> active(unary.const_data_ptr<T>(), shape, f, floor);
  const SourceBackward<acc> by_vecs[] = {
      source_backward<1, acc>, source_backward<2, acc>, source_backward<3, acc>, source_backward<4, acc>};
  const SourceBackward<acc> run = by_vecs[f.vecs - 1];
  torch::stable::parallel_for(0, shape.sources, 1, [&](int64_t begin, int64_t end) {
    Workspace<acc> workspace(f);
    for (int64_t source = begin; source < end; ++source) {
      run(grads, grad.const_data_ptr<acc>(), active, prior.const_data_ptr<acc>(), bias.const_data_ptr<acc>(), edges,
          prior_index, groups, source, floor, shape, workspace);
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
    const Tensor& grad, const Tensor& unary, const Tensor& prior, const Tensor& bias, const Tensor& grad_unary,
    const Tensor& grad_prior, const Tensor& grad_bias, const std::vector<int64_t>& edges,
    const std::vector<int64_t>& prior_index, double floor, const Shape& shape) {
  using acc = acc_t<T>;
  const bool shared = !prior_index.empty() && grad_prior.numel() > 0;
  const Tensor per_edge = shared
      ? torch::stable::new_empty(grad_prior, {shape.edges, shape.kernel_height, shape.kernel_width})
      : grad_prior;
  const auto pointer = [](const Tensor& tensor) {
    return tensor.numel() > 0 ? tensor.mutable_data_ptr<acc>() : nullptr;
  };
  const Gradients<acc> grads{pointer(grad_unary), pointer(per_edge), pointer(grad_bias)};
  launch_backward<T>(grads, grad, unary, prior, bias, edges, prior_index, floor, shape);
  if (shared) {
    add_shared<acc>(grad_prior, per_edge, prior_index, shape.kernel_height * shape.kernel_width);
  }
}

std::tuple<Tensor, Tensor, Tensor> mrf_message_passing_backward_cpu(
    const Tensor& grad, const Tensor& unary, const Tensor& prior, const Tensor& bias, std::vector<int64_t> edges,
    std::vector<int64_t> prior_index, double floor, bool want_unary, bool want_prior, bool want_bias) {
  constexpr const char* op = "_mrf_message_passing_backward";
  const Shape shape = check_backward(op, grad, unary, prior, bias, edges, prior_index, floor);
  const ScalarType acc_type = acc_scalar_type(unary.scalar_type());
  const GradientTensors out =
      new_gradients(unary, prior, bias, acc_type, want_unary, want_prior, want_bias);
  if (grad.numel() == 0 || shape.edges == 0) {
    return {out.unary, out.prior, out.bias};
  }
  const Tensor dense = torch::stable::contiguous(unary);
  const Tensor dense_grad = as_contiguous(grad, acc_type);
  const Tensor dense_prior = as_contiguous(prior, acc_type);
  const Tensor dense_bias = as_contiguous(bias, acc_type);
  PYPOSE_OPS_DISPATCH_FLOATING(unary.scalar_type(), op, [&] {
    dispatch_backward<scalar_t>(
        dense_grad, dense, dense_prior, dense_bias, out.unary, out.prior, out.bias, edges, prior_index, floor, shape);
  });
  return {out.unary, out.prior, out.bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "_mrf_message_passing_backward(Tensor grad, Tensor unary, Tensor prior, Tensor bias, int[] edges, "
      "int[] prior_index, float floor, bool want_unary, bool want_prior, bool want_bias) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("_mrf_message_passing_backward", TORCH_BOX(&mrf_message_passing_backward_cpu));
}

}  // namespace pypose_ops

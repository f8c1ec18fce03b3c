// The gradient of sum_product on the CPU. The messages were kept; what lies between their two passes is computed again.
#include <tuple>

#include <torch/csrc/stable/library.h>

#include "mrf/sum_product_cpu.h"

namespace pypose_ops {
namespace {

using namespace tree;

template <typename acc>
struct Workspace {
  std::vector<acc> source, incoming;  // (H, W)
  Passes<acc> passes;
  Padded<acc> at_targets, at_rows;          // gradients: of the message, of what the pass along x left, (H, W)
  Padded<acc> across_rows, across_sources;  // of that and of the source, (W, H)
  Padded<acc> sums;                         // (2, columns)

  explicit Workspace(const Shape& s)
      : source(s.pixels()),
        incoming(s.pixels()),
        passes(s),
        at_targets(s.height, s.width),
        at_rows(s.height, s.width),
        across_rows(s.width, s.height),
        across_sources(s.width, s.height),
        sums(2, std::max(s.height, s.width)) {}
};

// grad_in(s) = sum over t of grad_out(t) exp(in(s) + log_weight(s, t) - out(t)) in every column; partial receives the
// sums of gradient times stretch and times squared stretch.
template <typename acc>
void share_down(
    Padded<acc>& grad_in, const Padded<acc>& grad_out, const Padded<acc>& in, const Padded<acc>& out,
    const CostTable<acc>& table, Padded<acc>& sums, double* partial) {
  const int64_t rows = in.rows;
  const int64_t columns = in.columns;
  std::vector<acc> highest, lowest;
  row_limits<true>(highest, in);
  row_limits<false>(lowest, out);
  acc* first = sums.row(0);
  acc* second = sums.row(1);
  for (int64_t s = 0; s < rows; ++s) {
    acc* total = grad_in.row(s);
    const acc* from = in.row(s);
    simd_call([&, total, from, first, second, columns] {
      for (int64_t x = 0; x < columns; ++x) {
        total[x] = first[x] = second[x] = 0;
      }
      for (int64_t t = 0; t < rows; ++t) {
        const acc weight = table.log_weight[table.at(s, t)];
        if (!(highest[s] + weight - lowest[t] >= kNegligible<acc>)) {
          continue;
        }
        const acc stretch = table.stretch[table.at(s, t)];
        const acc* message = out.row(t);
        const acc* grad = grad_out.row(t);
        for (int64_t x = 0; x < columns; ++x) {
          const acc part = grad[x] * simd::exp(from[x] + weight - offset_of(message[x]));
          const acc pulled = part * stretch;
          total[x] += part;
          first[x] += pulled;
          second[x] += pulled * stretch;
        }
      }
    });
    for (int64_t x = 0; x < columns; ++x) {
      partial[0] += static_cast<double>(first[x]);
      partial[1] += static_cast<double>(second[x]);
    }
  }
}

// out = the gradient of the beliefs: of the log-marginals, and of the partition at the root.
template <typename acc>
void fill_beliefs(
    acc* out, const acc* grad, const acc* grad_partition, const acc* log_marginals, int64_t root, const Shape& s) {
  torch::stable::parallel_for(0, s.batch * s.joints, 1, [=](int64_t begin, int64_t end) {
    for (int64_t map = begin; map < end; ++map) {
      const acc* from = grad + map * s.pixels();
      const acc* logs = log_marginals + map * s.pixels();
      acc* to = out + map * s.pixels();
      double sum = 0;
      for (int64_t i = 0; i < s.pixels(); ++i) {
        sum += is_possible(logs[i]) ? static_cast<double>(from[i]) : 0.0;
      }
      const acc rest =
          (map % s.joints == root ? grad_partition[map / s.joints] : acc(0)) - static_cast<acc>(sum);
      simd_call([=] {
        for (int64_t i = 0; i < s.pixels(); ++i) {
          to[i] = is_possible(logs[i]) ? from[i] + rest * simd::exp(logs[i]) : acc(0);
        }
      });
    }
  });
}

// maps(i) = the gradient of message i's source.
template <typename acc>
void pass_back(acc* out, Workspace<acc>& w, const acc* message, const Shape& s, double* partial) {
  Passes<acc>& passes = w.passes;
  passes.pass_x(w.source.data());
  copy_rows(passes.out, message);
  copy_rows(w.at_targets, w.incoming.data());
  share_down(w.at_rows, w.at_targets, passes.along_x, passes.out, passes.table_y, w.sums, partial + 2);
  transpose(w.across_rows, w.at_rows.data.data(), w.at_rows.stride);
  share_down(w.across_sources, w.across_rows, passes.across, passes.across_out, passes.table_x, w.sums, partial);
  for (int64_t y = 0; y < s.height; ++y) {
    for (int64_t x = 0; x < s.width; ++x) {
      out[y * s.width + x] = w.across_sources.row(x)[y];
    }
  }
}

template <typename T>
void launch_backward(
    const Tensor& grad_unary, const Tensor& grad_deformation, const Tensor& grad, const Tensor& grad_partition,
    const Tensor& unary, const Tensor& log_marginals, const Tensor& messages, const Tensor& deformation,
    const Schedule& schedule, int64_t root, const Shape& shape) {
  using acc = acc_t<T>;
  const Tables t = schedule.tables();
  const int64_t pixels = shape.pixels();
  acc* out = grad_unary.mutable_data_ptr<acc>();
  const acc* springs = deformation.const_data_ptr<acc>();
  const acc* kept = messages.const_data_ptr<acc>();
  std::vector<acc> clean(shape.batch * shape.joints * pixels);
  fill_evidence(clean.data(), unary.const_data_ptr<T>(), shape.batch * shape.joints * pixels);
  std::vector<double> partial(shape.batch * shape.messages() * 4);
  fill_beliefs(
      out, grad.const_data_ptr<acc>(), grad_partition.const_data_ptr<acc>(), log_marginals.const_data_ptr<acc>(), root,
      shape);
  run_tree<Workspace<acc>, acc>(
      schedule, shape, nullptr, true,
      [&](int64_t b, int64_t i, acc* maps, Workspace<acc>& w) {
        const int64_t message = b * shape.messages() + i;
        const acc* all = kept + b * shape.messages() * pixels;
        fill_incoming(w.incoming.data(), out + b * shape.joints * pixels, maps, t, i, pixels);
        fill_source(w.source.data(), clean.data() + b * shape.joints * pixels, all, t, i, pixels);
        w.passes.fill_tables(springs, t, i);
        pass_back(maps + i * pixels, w, all + i * pixels, shape, partial.data() + 4 * message);
      },
      [&](int64_t b, const acc* maps, Workspace<acc>&) {
        for (int64_t k = 0; k < shape.joints; ++k) {
          acc* map = out + (b * shape.joints + k) * pixels;
          add_messages<true>(map, map, maps, t, k, -1, pixels);
        }
      });
  write_deformation_gradient(grad_deformation.mutable_data_ptr<acc>(), partial, springs, t, shape);
}

std::tuple<Tensor, Tensor> sum_product_backward_cpu(
    const Tensor& grad, const Tensor& grad_partition, const Tensor& unary, const Tensor& log_marginals,
    const Tensor& messages, const Tensor& deformation, std::vector<int64_t> edges, int64_t root) {
  const Shape shape = check_sum_backward(grad, grad_partition, unary, log_marginals, messages, deformation, edges, root);
  const Schedule schedule = make_schedule(kSumBackward, edges, shape.joints, root);
  const Tensor grad_unary =
      torch::stable::new_empty(log_marginals, {shape.batch, shape.joints, shape.height, shape.width});
  const Tensor grad_deformation = torch::stable::new_zeros(log_marginals, {shape.edges, 4});
  if (shape.batch > 0) {
    PYPOSE_OPS_DISPATCH_FLOATING(unary.scalar_type(), kSumBackward, [&] {
      launch_backward<scalar_t>(
          grad_unary, grad_deformation, torch::stable::contiguous(grad), torch::stable::contiguous(grad_partition),
          torch::stable::contiguous(unary), torch::stable::contiguous(log_marginals),
          torch::stable::contiguous(messages), as_contiguous(deformation, log_marginals.scalar_type()), schedule, root,
          shape);
    });
  }
  return {grad_unary, grad_deformation};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "_sum_product_backward(Tensor grad, Tensor grad_partition, Tensor unary, Tensor log_marginals, Tensor messages, "
      "Tensor deformation, int[] edges, int root) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("_sum_product_backward", TORCH_BOX(&sum_product_backward_cpu));
}

}  // namespace pypose_ops

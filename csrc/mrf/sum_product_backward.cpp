// The gradient of sum_product on the CPU. The messages were kept; what lies between their two passes is computed again.
#include <tuple>

#include <torch/csrc/stable/library.h>

#include "mrf/sum_product_cpu.h"

namespace pypose_ops {
namespace {

using namespace tree;

template <typename acc>
struct BackwardWorkspace {
  std::vector<acc> source, incoming;  // (H, W)
  Passes<acc> passes;
  // Gradients: of the message, of what the pass along x left, (H, W); of that and of the source, (W, H).
  Padded<acc> at_targets, at_rows, divided;
  Padded<acc> across_rows, across_sources, across_divided;
  Padded<acc> sums;  // (2, columns)
  std::vector<acc> reversed[3];

  explicit BackwardWorkspace(const Shape& s)
      : source(s.pixels()),
        incoming(s.pixels()),
        passes(s),
        at_targets(s.height, s.width),
        at_rows(s.height, s.width),
        divided(s.height, s.width),
        across_rows(s.width, s.height),
        across_sources(s.width, s.height),
        across_divided(s.width, s.height),
        sums(2, std::max(s.height, s.width)) {}

  // The weight of (s, t) at element t + n - 1 - s.
  void reverse(const SpringTable<acc>& table) {
    reversed[0].assign(table.weight.rbegin(), table.weight.rend());
    reversed[1].assign(table.first.rbegin(), table.first.rend());
    reversed[2].assign(table.second.rbegin(), table.second.rend());
  }
};

// Row t of the gradient, divided by the sum of the terms that share_terms takes from it: that of rounded logarithms is
// not 1, but off by their size times the rounding. row is memory of a row.
template <typename acc>
void normalise_terms(
    acc* grad, acc* row, const Padded<acc>& in, const Padded<acc>& message, const CostTable<acc>& table, int64_t t) {
  const acc* to = message.row(t);
  const int64_t columns = in.columns;
  std::fill(row, row + columns, acc(0));
  for (int64_t s = 0; s < in.rows; ++s) {
    const acc weight = table.log_weight[table.at(s, t)];
    const acc* from = in.row(s);
    simd_call([=] {
      for (int64_t x = 0; x < columns; ++x) {
        row[x] += simd::exp(from[x] + weight - offset_of(to[x]));
      }
    });
  }
  for (int64_t x = 0; x < columns; ++x) {
    grad[x] = row[x] > 0 ? grad[x] / row[x] : acc(0);
  }
}

// What the targets of a column give, relative to their sums: grad_out(t) / sum(t) with sum as in sum_product_cpu.h, so that
// the source s receives  exp(in(s) - peak) times the sum over t of weight(s - t) of it, and all sources together what
// arrived. Rows where a sum is not safe give nothing here; their numbers are added to `unsafe`.
template <typename acc>
void divide_gradients(
    Padded<acc>& out, std::vector<int64_t>& unsafe, const Padded<acc>& grad_out, const Padded<acc>& exponentials,
    const SpringTable<acc>& table, const std::vector<acc>& peaks) {
  const acc* peak = peaks.data();
  weigh_down(out, exponentials, table, [&](int64_t t) {
    const acc* grad = grad_out.row(t);
    acc* to = out.row(t);
    acc lowest = 1;
    const int64_t columns = out.columns;
    simd_call([&, grad, to, peak, columns] {
      Lowest<acc> least;
      for (int64_t x = 0; x < columns; ++x) {
        const acc total = to[x];
        const acc sum = is_possible(peak[x]) ? total : acc(1);
        const acc share = grad[x] / sum;
        least.add(sum);
        to[x] = is_possible(peak[x]) ? share : acc(0);
      }
      lowest = least.value();
    });
    if (!(lowest >= kSafeSum<acc>)) {
      unsafe.push_back(t);
      std::fill(to, to + columns, acc(0));
    }
  });
}

// total, first, second += what row t gives to row s, term by term: the gradient, times the stretch, times its square.
template <typename acc>
void share_terms(
    acc* const (&sums)[3], const Padded<acc>& grad_out, const Padded<acc>& in, const Padded<acc>& message,
    const CostTable<acc>& table, int64_t s, int64_t t) {
  const acc weight = table.log_weight[table.at(s, t)];
  const acc stretch = table.stretch[table.at(s, t)];
  const acc* from = in.row(s);
  const acc* to = message.row(t);
  const acc* grad = grad_out.row(t);
  const int64_t columns = in.columns;
  simd_call([&, from, to, grad, columns] {
    acc *total = sums[0], *first = sums[1], *second = sums[2];
    PYPOSE_OPS_INDEPENDENT
    for (int64_t x = 0; x < columns; ++x) {
      const acc part = grad[x] * simd::exp(from[x] + weight - offset_of(to[x]));
      const acc pulled = part * stretch;
      total[x] += part;
      first[x] += pulled;
      second[x] += pulled * stretch;
    }
  });
}

// grad_in(s) = sum over t of grad_out(t) exp(in(s) - cost(s, t) - message(t)) in every column; partial receives the sums of
// gradient times stretch and times squared stretch. exponentials and divided are memory; grad_out is written to.
template <typename acc>
void share_down(
    Padded<acc>& grad_in, Padded<acc>& grad_out, const Padded<acc>& in, const Padded<acc>& message,
    const SpringTable<acc>& table, BackwardWorkspace<acc>& w, Padded<acc>& exponentials, Padded<acc>& divided,
    double* partial) {
  const int64_t n = in.rows;
  std::vector<int64_t> unsafe;
  take_exponentials(exponentials, w.passes.scratch.peaks, in);
  divide_gradients(divided, unsafe, grad_out, exponentials, table, w.passes.scratch.peaks);
  for (const int64_t t : unsafe) {
    normalise_terms(grad_out.row(t), w.passes.scratch.row.data(), in, message, table.cost, t);
  }
  for (int64_t s = 0; s < n; ++s) {
    acc* const sums[3] = {grad_in.row(s), w.sums.row(0), w.sums.row(1)};
    const int64_t base = n - 1 - s;
    const int64_t first = std::max<int64_t>(0, s + n - 1 - table.high);
    const int64_t last = std::min<int64_t>(n, s + n - 1 - table.low + 1);
    weigh_rows<3, acc>(
        sums, divided, {w.reversed[0].data() + base, w.reversed[1].data() + base, w.reversed[2].data() + base}, first,
        last);
    const acc* exponential = exponentials.row(s);
    const int64_t columns = in.columns;
    simd_call([&, exponential, columns] {
      for (acc* sum : sums) {
        for (int64_t x = 0; x < columns; ++x) {
          sum[x] = exponential[x] > 0 ? sum[x] * exponential[x] : acc(0);
        }
      }
    });
    for (const int64_t t : unsafe) {
      share_terms(sums, grad_out, in, message, table.cost, s, t);
    }
    for (int64_t x = 0; x < columns; ++x) {
      partial[0] += static_cast<double>(sums[1][x]);
      partial[1] += static_cast<double>(sums[2][x]);
    }
  }
}

// out = the gradient of the beliefs: of the log-marginals, and of the partition at the root. The marginals are made to
// add up to 1: those of rounded logarithms do not.
template <typename acc>
void fill_beliefs(
    acc* out, const acc* grad, const acc* grad_partition, const acc* log_marginals, int64_t root, const Shape& s) {
  torch::stable::parallel_for(0, s.batch * s.joints, 1, [=](int64_t begin, int64_t end) {
    for (int64_t map = begin; map < end; ++map) {
      const acc* from = grad + map * s.pixels();
      const acc* logs = log_marginals + map * s.pixels();
      acc* to = out + map * s.pixels();
      simd_call([=] {
        for (int64_t i = 0; i < s.pixels(); ++i) {
          to[i] = simd::exp(logs[i]);
        }
      });
      double sum = 0, total = 0;
      for (int64_t i = 0; i < s.pixels(); ++i) {
        sum += is_possible(logs[i]) ? static_cast<double>(from[i]) : 0.0;
        total += static_cast<double>(to[i]);
      }
      const double arrived = map % s.joints == root ? static_cast<double>(grad_partition[map / s.joints]) : 0.0;
      const acc rest = total > 0 ? static_cast<acc>((arrived - sum) / total) : acc(0);
      simd_call([=] {
        for (int64_t i = 0; i < s.pixels(); ++i) {
          to[i] = is_possible(logs[i]) ? from[i] + rest * to[i] : acc(0);
        }
      });
    }
  });
}

// maps(i) = the gradient of message i's source.
template <typename acc>
void pass_back(acc* out, BackwardWorkspace<acc>& w, const acc* message, const Shape& s, double* partial) {
  Passes<acc>& passes = w.passes;
  passes.pass_x(w.source.data());
  copy_rows(passes.out, message);
  copy_rows(w.at_targets, w.incoming.data());
  w.reverse(passes.table_y);
  share_down(
      w.at_rows, w.at_targets, passes.along_x, passes.out, passes.table_y, w, passes.exponentials, w.divided,
      partial + 2);
  transpose(w.across_rows, w.at_rows.data.data(), w.at_rows.stride);
  w.reverse(passes.table_x);
  share_down(
      w.across_sources, w.across_rows, passes.across, passes.across_out, passes.table_x, w, passes.across_exponentials,
      w.across_divided, partial);
  for (int64_t y = 0; y < s.height; ++y) {
    for (int64_t x = 0; x < s.width; ++x) {
      out[y * s.width + x] = w.across_sources.row(x)[y];
    }
  }
}

template <typename T>
void run_backward(
    const Gradients& out, const Tensor& grad, const Tensor& grad_partition,
    const Tensor& unary, const Tensor& log_marginals, const Tensor& messages, const Tensor& deformation,
    const Schedule& schedule, int64_t root, const Shape& shape) {
  using acc = acc_t<T>;
  const Tables t = schedule.tables();
  const int64_t pixels = shape.pixels();
  acc* grads = out.unary.mutable_data_ptr<acc>();
  const acc* springs = deformation.const_data_ptr<acc>();
  const acc* kept = messages.const_data_ptr<acc>();
  std::vector<acc> clean(shape.batch * shape.joints * pixels);
  fill_evidence(clean.data(), unary.const_data_ptr<T>(), shape.batch * shape.joints * pixels);
  std::vector<double> partial(shape.batch * shape.messages() * 4);
  fill_beliefs(
      grads, grad.const_data_ptr<acc>(), grad_partition.const_data_ptr<acc>(), log_marginals.const_data_ptr<acc>(), root,
      shape);
  run_tree<BackwardWorkspace<acc>>(
      schedule, shape, true, [&] { return ImageMessages<acc>(shape, nullptr); },
      [&](int64_t b, int64_t i, ImageMessages<acc>& image, BackwardWorkspace<acc>& w) {
        acc* maps = image.maps;
        const FlushSubnormals flush;
        const int64_t message = b * shape.messages() + i;
        const acc* all = kept + b * shape.messages() * pixels;
        fill_incoming(w.incoming.data(), grads + b * shape.joints * pixels, maps, t, i, pixels);
        fill_source(w.source.data(), clean.data() + b * shape.joints * pixels, all, t, i, pixels);
        w.passes.fill_tables(springs, t, i);
        pass_back(maps + i * pixels, w, all + i * pixels, shape, partial.data() + 4 * message);
      },
      [&](int64_t b, const ImageMessages<acc>& image, BackwardWorkspace<acc>&) {
        for (int64_t k = 0; k < shape.joints; ++k) {
          acc* map = grads + (b * shape.joints + k) * pixels;
          add_messages<true>(map, map, image.maps, t, k, -1, pixels);
        }
      });
  write_deformation_gradient(out.deformation.mutable_data_ptr<acc>(), partial, springs, t, shape);
}

std::tuple<Tensor, Tensor> sum_product_backward_cpu(
    const Tensor& grad, const Tensor& grad_partition, const Tensor& unary, const Tensor& log_marginals,
    const Tensor& messages, const Tensor& deformation, std::vector<int64_t> edges, int64_t root) {
  const Shape shape = check_sum_backward(grad, grad_partition, unary, log_marginals, messages, deformation, edges, root);
  const Schedule schedule = make_schedule(kSumBackward, edges, shape.joints, root);
  const Gradients out = new_gradients(log_marginals, shape);
  if (shape.batch > 0) {
    PYPOSE_OPS_DISPATCH_FLOATING(unary.scalar_type(), kSumBackward, [&] {
      run_backward<scalar_t>(
          out, as_contiguous(grad), as_contiguous(grad_partition),
          as_contiguous(unary), as_contiguous(log_marginals),
          as_contiguous(messages), as_contiguous(deformation, log_marginals.scalar_type()), schedule, root,
          shape);
    });
  }
  return {out.unary, out.deformation};
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

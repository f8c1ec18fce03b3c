#include "mrf/mrf_message_passing.h"

#include <tuple>

#include <torch/csrc/stable/library.h>

#include "common/tasks.h"
#include "mrf/mrf_sparse.h"

namespace pypose_ops {
namespace {

using namespace mrf;

constexpr int64_t kImages = 8;  // that share the preparation of a prior

// The messages into one target multiplied up, for a few images.
template <typename acc>
struct Products {
  using Bits = typename FloatBits<acc>::type;
  Buffer<acc> mantissa;
  Buffer<Bits> exponent;

  Products(int64_t images, const Frame& f)
      : mantissa(images * f.height * f.padded_width), exponent(images * f.height * f.padded_width) {}
  void reset() {
    mantissa.fill(1);
    exponent.fill(0);
  }
};

// products *= base + what the active pixels send through the prior, which is written to `kept` (H, W) unless null.
template <int kVecs, typename acc>
void multiply_message(
    acc* mantissa, typename FloatBits<acc>::type* exponent, acc* kept, const Frame& f, const acc* prior,
    const acc* base, const PairList<acc>& list) {
  simd_call([=](auto isa) {
    using Isa = decltype(isa);
    using Vec = simd::vec<acc, Isa>;
    using Bits = simd::vec<typename FloatBits<acc>::type, Isa>;
    each_message<kVecs>(isa, f, prior, list, [=](int64_t r, int64_t x, const Vec* sums) {
      for (int n = 0; n < kVecs; ++n) {
        const int64_t column = x + n * simd::lanes<acc, Isa>;
        const int64_t at = r * f.padded_width + column;
        Vec before = isa.load(mantissa + at);
        Bits count;
        std::memcpy(&count, exponent + at, sizeof(count));
        const Vec message = sums[n] + isa.load(base + at);
        if (kept && column + simd::lanes<acc, Isa> <= f.width) {
          isa.store(kept + r * f.width + column, message);
        } else if (kept) {
          for (int64_t k = 0; column + k < f.width; ++k) {
            kept[r * f.width + column + k] = message[k];
          }
        }
        const Vec smallest = message - message + static_cast<acc>(kSmallestMessage);
        multiply_into<acc, Vec, Bits>(before, count, message > smallest ? message : smallest);
        isa.store(mantissa + at, before);
        std::memcpy(exponent + at, &count, sizeof(count));
      }
    });
  });
}

template <typename acc>
void multiply_message(
    acc* mantissa, typename FloatBits<acc>::type* exponent, acc* kept, const Frame& f, const acc* prior,
    const acc* base, const PairList<acc>& list) {
  switch (f.vecs) {
    case 1:
      return multiply_message<1>(mantissa, exponent, kept, f, prior, base, list);
    case 2:
      return multiply_message<2>(mantissa, exponent, kept, f, prior, base, list);
    case 3:
      return multiply_message<3>(mantissa, exponent, kept, f, prior, base, list);
    default:
      return multiply_message<4>(mantissa, exponent, kept, f, prior, base, list);
  }
}

template <typename acc>
void write_logs(acc* out, const acc* mantissa, const typename FloatBits<acc>::type* exponent, const Frame& f) {
  for (int64_t r = 0; r < f.height; ++r) {
    const acc* m = mantissa + r * f.padded_width;
    const auto* e = exponent + r * f.padded_width;
    acc* to = out + r * f.width;
    const int64_t width = f.width;
    using Signed = std::make_signed_t<typename FloatBits<acc>::type>;
    simd_call([=] {
      for (int64_t x = 0; x < width; ++x) {
        to[x] = simd::log(m[x]) + static_cast<acc>(kLog2) * static_cast<acc>(static_cast<Signed>(e[x]));
      }
    });
  }
}

template <typename T>
struct MessageTensors {
  const acc_t<T>* prior;
  const acc_t<T>* bias;
  acc_t<T>* out;
  acc_t<T>* kept;  // (B, E, H, W): every message; null: not kept
};

// Images first ... last - 1, whose pairs are held. One thread owns a target and up to kImages of them: it prepares the prior
// of every edge into the target once for them.
template <typename T>
void run_images(
    const MessageTensors<T>& t, const ActivePixels<acc_t<T>>& active, const EdgeGroups& groups,
    const std::vector<int64_t>& edges, const std::vector<int64_t>& prior_index, acc_t<T> floor, const Frame& f,
    const Shape& shape, int64_t first_image, int64_t last_image) {
  using acc = acc_t<T>;
  const int64_t images = std::min(kImages, last_image - first_image);
  const int64_t parts = (last_image - first_image + images - 1) / images;
  share_tasks(parts * shape.targets, [&](Tasks& tasks) {
    Buffer<acc> padded(f.buffer_size());
    Buffer<acc> base(f.height * f.padded_width);
    std::vector<double> scratch;
    Products<acc> products(images, f);
    for (int64_t task; tasks.take(task);) {
      const int64_t target = task % shape.targets;
      const int64_t first = first_image + task / shape.targets * images;
      const int64_t last = std::min(last_image, first + images);
      products.reset();
      for (int64_t i = groups.begin[target]; i < groups.begin[target + 1]; ++i) {
        const int64_t edge = groups.order[i];
        const int64_t p = prior_of(prior_index, edge);
        fill_prior(padded.data(), t.prior + p * shape.kernel_height * shape.kernel_width, shape, f);
        fill_base(base.data(), padded.data(), f, floor, scratch);
        add_bias(base.data(), t.bias, edge, shape, f);
        for (int64_t b = first; b < last; ++b) {
          const int64_t at = (b - first) * f.height * f.padded_width;
          multiply_message<acc>(
              products.mantissa.data() + at, products.exponent.data() + at,
              t.kept ? t.kept + (b * shape.edges + edge) * shape.pixels() : nullptr, f, padded.data(), base.data(),
              PairList<acc>(active, f, shape, b, edges[2 * edge]));
        }
      }
      for (int64_t b = first; b < last; ++b) {
        const int64_t at = (b - first) * f.height * f.padded_width;
        write_logs(
            t.out + (b * shape.targets + target) * shape.pixels(), products.mantissa.data() + at,
            products.exponent.data() + at, f);
      }
    }
  });
}

template <typename T>
void run_messages(
    const Tensor& out, const std::optional<Tensor>& kept, const Tensor& unary_maps, const Tensor& prior,
    const Tensor& bias, const std::vector<int64_t>& edges, const std::vector<int64_t>& prior_index, double floor_value,
    const Shape& shape) {
  using acc = acc_t<T>;
  const MessageTensors<T> tensors{
      prior.const_data_ptr<acc>(), bias.const_data_ptr<acc>(), out.mutable_data_ptr<acc>(),
      kept ? kept->mutable_data_ptr<acc>() : nullptr};
  const T* unary = unary_maps.const_data_ptr<T>();
  const acc floor = static_cast<acc>(floor_value);
  const Frame f = Frame::of<acc>(shape);
  const EdgeGroups groups = group_edges(edges, shape.targets, 1);
  ActivePixels<acc> active(unary, shape, f, floor);
  // Where most pixels are active their pairs are three times the maps: no more at once than four fifths of the output.
  const int64_t most = shape.batch * shape.targets * shape.pixels() * 4 / 5 * sizeof(acc) / sizeof(Pair<acc>);
  for (int64_t first = 0, last; first < shape.batch; first = last) {
    last = active.end_of(first, most);
    active.hold(unary, first, last);
    run_images(tensors, active, groups, edges, prior_index, floor, f, shape, first, last);
  }
}

// The log-energies, and with `keep` every message, (B, E, H, W).
std::tuple<Tensor, std::optional<Tensor>> messages_cpu(
    const Tensor& unary, const Tensor& prior, const Tensor& bias, const std::vector<int64_t>& edges,
    const std::optional<std::vector<int64_t>>& prior_index_or_none, int64_t num_targets, double floor, bool keep) {
  const std::vector<int64_t> prior_index = prior_index_of(prior_index_or_none);
  constexpr const char* op = "mrf_message_passing";
  const Shape shape = check_inputs(op, unary, prior, bias, edges, prior_index, num_targets, floor);
  const ScalarType acc_type = acc_scalar_type(unary.scalar_type());
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
  PYPOSE_OPS_DISPATCH_FLOATING(unary.scalar_type(), op, [&] {
    run_messages<scalar_t>(out, kept, dense, dense_prior, dense_bias, edges, prior_index, floor, shape);
  });
  return {out, kept};
}

Tensor mrf_message_passing_cpu(
    const Tensor& unary, const Tensor& prior, const Tensor& bias, std::vector<int64_t> edges,
    const std::optional<std::vector<int64_t>>& prior_index, int64_t num_targets, double floor) {
  return std::get<0>(messages_cpu(unary, prior, bias, edges, prior_index, num_targets, floor, false));
}

std::tuple<Tensor, Tensor> mrf_message_passing_kept_cpu(
    const Tensor& unary, const Tensor& prior, const Tensor& bias, std::vector<int64_t> edges,
    const std::optional<std::vector<int64_t>>& prior_index, int64_t num_targets, double floor) {
  const auto [out, kept] = messages_cpu(unary, prior, bias, edges, prior_index, num_targets, floor, true);
  return {out, *kept};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def(
      "mrf_message_passing(Tensor unary, Tensor prior, Tensor bias, int[] edges, int[]? prior_index, int num_targets, "
      "float floor) -> Tensor");
  // The same, and every message, which the backward operator then need not compute again.
  m.def(
      "_mrf_message_passing_kept(Tensor unary, Tensor prior, Tensor bias, int[] edges, int[]? prior_index, "
      "int num_targets, float floor) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  m.impl("mrf_message_passing", TORCH_BOX(&mrf_message_passing_cpu));
  m.impl("_mrf_message_passing_kept", TORCH_BOX(&mrf_message_passing_kept_cpu));
}

}  // namespace pypose_ops

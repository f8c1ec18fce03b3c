// How the CPU kernels of max_product and sum_product go through the tree: images side by side, or the messages of a level
// where there is only one image. What a message is does not depend on it.
#pragma once

#include <memory>
#include <vector>

#include "common/simd.h"
#include "common/tasks.h"
#include "mrf/tree.h"

namespace pypose_ops {
namespace tree {

// out = base + the maps of the messages into `joint` but for `except`; kReversed: the maps of their reverses.
template <bool kReversed, typename acc>
void add_messages(
    acc* out, const acc* base, const acc* maps, const Tables& t, int64_t joint, int64_t except, int64_t pixels) {
  if (out != base) {
    std::copy(base, base + pixels, out);
  }
  for (int32_t j = t.into_begin[joint]; j < t.into_begin[joint + 1]; ++j) {
    const int32_t message = kReversed ? t.reverse[t.into[j]] : t.into[j];
    if (message == except) {
      continue;
    }
    const acc* from = maps + message * pixels;
    simd_call([=] {
      for (int64_t i = 0; i < pixels; ++i) {
        out[i] += from[i];
      }
    });
  }
  if (!kReversed) {
    simd_call([=] {
      for (int64_t i = 0; i < pixels; ++i) {
        out[i] = settled(out[i]);
      }
    });
  }
}

// What message i is computed from: the unary of its source and the messages into it.
template <typename acc>
void fill_source(acc* out, const acc* unary, const acc* maps, const Tables& t, int64_t i, int64_t pixels) {
  add_messages<false>(out, unary + t.source[i] * pixels, maps, t, t.source[i], t.reverse[i], pixels);
}

// Backward: what arrives at message i, from its target's own gradient and from the messages computed from it.
template <typename acc>
void fill_incoming(acc* out, const acc* grads, const acc* maps, const Tables& t, int64_t i, int64_t pixels) {
  add_messages<true>(out, grads + t.target[i] * pixels, maps, t, t.target[i], t.reverse[i], pixels);
}

// (rows, columns) with whole vectors in a row; what hangs over is computed and never read.
template <typename acc>
struct Padded {
  int64_t rows, columns, stride;
  std::vector<acc> data;

  Padded(int64_t rows, int64_t columns)
      : rows(rows), columns(columns), stride((columns + 15) / 16 * 16), data(rows * stride) {}
  acc* row(int64_t r) {
    return data.data() + r * stride;
  }
  const acc* row(int64_t r) const {
    return data.data() + r * stride;
  }
};

template <typename acc>
void transpose(Padded<acc>& out, const acc* in, int64_t in_stride) {
  constexpr int64_t kTile = 16;
  for (int64_t r = 0; r < out.rows; r += kTile) {
    for (int64_t c = 0; c < out.columns; c += kTile) {
      for (int64_t i = r; i < std::min(out.rows, r + kTile); ++i) {
        for (int64_t k = c; k < std::min(out.columns, c + kTile); ++k) {
          out.row(i)[k] = in[k * in_stride + i];
        }
      }
    }
  }
}

template <typename acc>
void copy_rows(Padded<acc>& out, const acc* in) {
  for (int64_t r = 0; r < out.rows; ++r) {
    std::copy(in + r * out.columns, in + (r + 1) * out.columns, out.row(r));
  }
}

// What an axis costs at each difference s - t from -(n - 1) on, as a logarithm, and the stretch.
template <typename acc>
struct CostTable {
  std::vector<acc> log_weight, stretch;
  int64_t n = 0;

  void fill(const Spring<acc>& spring, int64_t size) {
    n = size;
    log_weight.resize(2 * n - 1);
    stretch.resize(2 * n - 1);
    for (int64_t k = 0; k < 2 * n - 1; ++k) {
      log_weight[k] = -spring.cost(static_cast<int>(k - (n - 1)), 0);
      stretch[k] = bounded_stretch(spring, static_cast<int>(k - (n - 1)), 0);
    }
  }
  int64_t at(int64_t s, int64_t t) const {
    return s - t + n - 1;
  }
};

// The largest, or smallest, number of every row.
template <bool kLargest, typename acc>
void row_limits(std::vector<acc>& out, const Padded<acc>& map) {
  out.resize(map.rows);
  acc* limits = out.data();
  simd_call([&, limits](auto isa) {
    constexpr int64_t lanes = simd::lanes<acc, decltype(isa)>;
    for (int64_t r = 0; r < map.rows; ++r) {
      const acc* row = map.row(r);
      acc limit = row[0];
      int64_t c = 0;
      if (map.columns >= lanes) {
        auto found = isa.load(row);
        for (c = lanes; c + lanes <= map.columns; c += lanes) {
          const auto next = isa.load(row + c);
          found = (kLargest ? next > found : next < found) ? next : found;
        }
        for (int i = 0; i < lanes; ++i) {
          limit = (kLargest ? found[i] > limit : found[i] < limit) ? found[i] : limit;
        }
      }
      for (; c < map.columns; ++c) {
        limit = (kLargest ? row[c] > limit : row[c] < limit) ? row[c] : limit;
      }
      limits[r] = limit;
    }
  });
}

// A thread's memory in a forward pass: the source of the message at hand, (H, W), and what its passes along x and y need.
template <typename acc, typename Passes>
struct ForwardMemory {
  std::vector<acc> source;
  Passes passes;

  explicit ForwardMemory(const Shape& s) : source(s.pixels()), passes(s) {}
};

// The (messages, H, W) of the image at hand: part of `kept`, which has all images', or memory of its own.
template <typename acc>
class ImageMessages {
 public:
  ImageMessages(const Shape& s, acc* kept)
      : size_(s.messages() * s.pixels()), kept_(kept), own_(kept ? nullptr : new acc[size_]) {}
  void start(int64_t b) {
    maps = kept_ ? kept_ + b * size_ : own_.get();
  }
  acc* maps = nullptr;

 private:
  int64_t size_;
  acc* kept_;
  std::unique_ptr<acc[]> own_;
};

// message(b, i, image, workspace) for every message, each after those it needs, or in reverse; then finish(b, image,
// workspace). image is what new_image() made, after its start(b).
template <typename Workspace, typename NewImage, typename Message, typename Finish>
void run_tree(
    const Schedule& schedule, const Shape& shape, bool reverse, const NewImage& new_image, const Message& message,
    const Finish& finish) {
  using Image = decltype(new_image());
  if (shape.batch == 1) {
    Image image = new_image();
    image.start(0);
    for (int64_t n = 0; n < schedule.levels(); ++n) {
      const int64_t level = reverse ? schedule.levels() - 1 - n : n;
      torch::stable::parallel_for(
          schedule.level_begin[level], schedule.level_begin[level + 1], 1, [&](int64_t begin, int64_t end) {
            Workspace workspace(shape);
            for (int64_t i = begin; i < end; ++i) {
              message(0, i, image, workspace);
            }
          });
    }
    Workspace workspace(shape);
    finish(0, image, workspace);
    return;
  }
  share_tasks(shape.batch, [&](Tasks& tasks) {
    Image image = new_image();
    Workspace workspace(shape);
    for (int64_t b; tasks.take(b);) {
      image.start(b);
      for (int64_t n = 0; n < schedule.messages; ++n) {
        message(b, reverse ? schedule.messages - 1 - n : n, image, workspace);
      }
      finish(b, image, workspace);
    }
  });
}

// The evidence of unary maps, (B, K, H, W), in the arithmetic's dtype.
template <typename T>
void fill_evidence(acc_t<T>* out, const T* unary, int64_t count) {
  torch::stable::parallel_for(0, count, 1 << 15, [=](int64_t begin, int64_t end) {
    simd_call([=] {
      for (int64_t i = begin; i < end; ++i) {
        out[i] = evidence<acc_t<T>>(simd::load(unary[i]));
      }
    });
  });
}

// grad_deformation (E, 4) from what every image and message adds: partial (B, messages, 2 axes, 2) holds the sums of
// gradient times stretch and of gradient times squared stretch.
template <typename acc>
void write_deformation_gradient(
    acc* out, const std::vector<double>& partial, const acc* deformation, const Tables& t, const Shape& shape) {
  std::vector<double> sums(4 * shape.edges, 0.0);
  for (int64_t b = 0; b < shape.batch; ++b) {
    for (int64_t i = 0; i < shape.messages(); ++i) {
      for (int axis = 0; axis < 2; ++axis) {
        const double* part = partial.data() + ((b * shape.messages() + i) * 2 + axis) * 2;
        sums[4 * t.edge[i] + axis] += t.sign[i] * part[0];
        sums[4 * t.edge[i] + 2 + axis] += part[1];
      }
    }
  }
  for (int64_t e = 0; e < shape.edges; ++e) {
    for (int axis = 0; axis < 2; ++axis) {
      const Spring<acc> spring = spring_of(deformation, static_cast<int32_t>(e), 1, axis);
      out[4 * e + axis] = static_cast<acc>(static_cast<double>(spring.weight) * sums[4 * e + axis] * 2);
      out[4 * e + 2 + axis] = spring.weight > 0 ? static_cast<acc>(-sums[4 * e + 2 + axis]) : acc(0);
    }
  }
}

}  // namespace tree
}  // namespace pypose_ops

#include "patches/crop_checks.h"

#include <torch/csrc/stable/library.h>

#include "common/outputs.h"
#include "common/tasks.h"
#include "patches/crop_byte_rows.h"
#include "patches/crop_cubic_rows.h"
#include "patches/crop_mean_rows.h"

namespace pypose_ops {
namespace {

using namespace patches;

constexpr int64_t kGrainSamples = 1 << 14;
constexpr int64_t kChannelBlock = 8;

// What a row needs besides its number.
template <typename acc>
struct Job {
  const ImageTable& images;
  const acc* transforms;
  const int64_t* index;
  const acc* mask;
  Levels<acc> levels;
  Options options;
  Shape shape;
  void* out;
  ScalarType out_type;

  int64_t out_channels() const {
    return shape.channels + (mask ? 1 : 0);
  }
};

// body(pointer to the typed output)
template <typename Body>
void with_output(void* out, ScalarType type, const Body& body) {
  switch (type) {
    case ScalarType::Byte:
      return body(static_cast<uint8_t*>(out));
    case ScalarType::Half:
      return body(static_cast<Half*>(out));
    case ScalarType::BFloat16:
      return body(static_cast<BFloat16*>(out));
    case ScalarType::Float:
      return body(static_cast<float*>(out));
    default:
      return body(static_cast<double*>(out));
  }
}

// The functions that are not inlined are the same for every type of image: compiled once, called once a row.

// One channel of one row: the mean of its samples, the fill where padding was met, mean and std.
template <typename acc>
[[gnu::noinline]] void finish_row(
    const Job<acc>& job, int64_t position, int64_t channel, const acc* sums, const acc* missing, int samples) {
  const int entry = job.levels.at(channel);
  const acc scale = job.levels.scale[entry] / static_cast<acc>(samples);
  const acc shift = job.levels.shift[entry];
  const acc fill = job.levels.fill[entry];
  const int32_t width = static_cast<int32_t>(job.shape.width);
  with_output(job.out, job.out_type, [&](auto* out) {
    using T = std::remove_pointer_t<decltype(out)>;
    T* row = out + position;
    simd_call([=]() __attribute__((always_inline)) {
      store_levelled<T, acc>(row, width, sums, missing, scale, shift, fill);
    });
  });
}

template <typename acc>
[[gnu::noinline]] void mask_row(const Job<acc>& job, int64_t n, int64_t y) {
  const int64_t position = ((n * job.out_channels() + job.shape.channels) * job.shape.height + y) * job.shape.width;
  const Affine<acc> affine = Affine<acc>::load(job.transforms + n * 6);
  const Line<acc> lx = affine.line_x(static_cast<acc>(y)), ly = affine.line_y(static_cast<acc>(y));
  const acc* box = job.mask + n * 4;
  const acc x0 = static_cast<acc>(lx.whole), y0 = static_cast<acc>(ly.whole);
  with_output(job.out, job.out_type, [&](auto* out) {
    using T = std::remove_pointer_t<decltype(out)>;
    store_as<T, acc>(out + position, static_cast<int32_t>(job.shape.width), [&](int32_t x) {
      return in_box(box, x0 + lx.at(x), y0 + ly.at(x)) ? acc(1) : acc(0);
    });
  });
}

template <typename acc, typename Offset>
struct Scratch {
  RowTaps<acc, Offset> taps;
  std::vector<acc> sums, missing;

  explicit Scratch(int64_t width) : taps(width), sums(width * kChannelBlock), missing(width) {}

  // Sample i of the pixels of row y.
  [[gnu::noinline]] void start(
      const Job<acc>& job, const Image& image, const Affine<acc>& affine, const Samples<acc>& samples, int64_t y, int i) {
    const acc row = static_cast<acc>(y) + samples.down(i);
    const acc along = samples.along(i);
    const int32_t width = static_cast<int32_t>(job.shape.width);
    fill_taps(
        taps.pointers(), affine.line_x(row).moved(along), affine.line_y(row).moved(along), image, 0, width, job.options);
    if (job.levels.filled) {
      add_missing(missing.data(), taps.pointers(), width, i == 0);
    }
  }
};

template <typename T, typename acc, typename Offset>
void crop_row(const Job<acc>& job, const Image& image, int64_t n, int64_t y, Scratch<acc, Offset>& scratch) {
  const Shape& shape = job.shape;
  const int32_t width = static_cast<int32_t>(shape.width);
  const Affine<acc> affine = Affine<acc>::load(job.transforms + n * 6);
  const Samples<acc> samples = samples_of(affine, job.options);
  const int count = samples.count();
  const auto position = [&](int64_t channel) {
    return ((n * job.out_channels() + channel) * shape.height + y) * shape.width;
  };
  for (int64_t begin = 0; begin < shape.channels; begin += kChannelBlock) {
    const int64_t end = std::min(begin + kChannelBlock, shape.channels);
    for (int i = 0; i < count; ++i) {
      if (count > 1 || begin == 0) {
        scratch.start(job, image, affine, samples, y, i);
      }
      if (i == 0) {
        add_channels<true, T>(image, scratch.taps, scratch.sums.data(), width, begin, end);
      } else {
        add_channels<false, T>(image, scratch.taps, scratch.sums.data(), width, begin, end);
      }
    }
    for (int64_t c = begin; c < end; ++c) {
      finish_row(
          job, position(c), c, scratch.sums.data() + (c - begin) * width,
          job.levels.filled ? scratch.missing.data() : nullptr, count);
    }
  }
}

// Rows [first, last) of patch n.
template <typename T, typename acc, typename Offset>
void crop_cubic_rows(const Job<acc>& job, const Image& image, int64_t n, int64_t first, int64_t last) {
  const Shape& shape = job.shape;
  const int32_t width = static_cast<int32_t>(shape.width);
  const Affine<acc> affine = Affine<acc>::load(job.transforms + n * 6);
  std::vector<acc> sums(width * kChannelBlock), missing(width);
  for (int64_t begin = 0; begin < shape.channels; begin += kChannelBlock) {
    const int64_t end = std::min(begin + kChannelBlock, shape.channels);
    CubicRows<T, acc, Offset> rows(image, affine, job.options, width, begin, end);
    for (int64_t y = first; y < last; ++y) {
      rows.row(y, sums.data(), missing.data());
      for (int64_t c = begin; c < end; ++c) {
        finish_row(
            job, ((n * job.out_channels() + c) * shape.height + y) * shape.width, c, sums.data() + (c - begin) * width,
            job.levels.filled ? missing.data() : nullptr, 1);
      }
    }
  }
}

// Rows [first, last) of patch n, upright and antialiased; false: some other way.
template <typename T, typename acc>
bool crop_mean_rows(const Job<acc>& job, const Image& image, int64_t n, int64_t first, int64_t last) {
  if constexpr (std::is_same_v<T, uint8_t>) {
    const Shape& shape = job.shape;
    MeanRows<acc> rows(image, Affine<acc>::load(job.transforms + n * 6), job.options, shape);
    if (!rows.usable()) {
      return false;
    }
    std::vector<acc> sums(shape.width * rows.side_by_side()), missing(shape.width);
    for (int64_t y = first; y < last; ++y) {
      rows.start(y);
      if (!rows.usable_row()) {
        return false;
      }
      rows.missing(missing.data());
      for (int64_t c = 0; c < shape.channels; c += rows.side_by_side()) {
        rows.sum(c, sums.data());
        for (int64_t side = 0; side < rows.side_by_side(); ++side) {
          finish_row(
              job, ((n * job.out_channels() + c + side) * shape.height + y) * shape.width, c + side,
              sums.data() + side * shape.width, job.levels.filled ? missing.data() : nullptr, rows.samples());
        }
      }
    }
    return true;
  }
  return false;
}

// Rows [first, last) of patch n from an image of bytes.
void crop_byte_rows(const Job<float>& job, const Image& image, int64_t n, int64_t first, int64_t last) {
  const BytePatch patch{image, job.levels, Affine<float>::load(job.transforms + n * 6), job.options, job.shape};
  with_output(job.out, job.out_type, [&](auto* out) {
    patch.rows(out + n * job.out_channels() * job.shape.pixels(), first, last);
  });
}

// A patch without an image: fill everywhere.
template <typename acc>
[[gnu::noinline]] void blank_row(const Job<acc>& job, int64_t n, int64_t y) {
  const std::vector<acc> zeros(job.shape.width, acc(0)), ones(job.shape.width, acc(1));
  for (int64_t c = 0; c < job.shape.channels; ++c) {
    const int64_t position = ((n * job.out_channels() + c) * job.shape.height + y) * job.shape.width;
    finish_row(job, position, c, zeros.data(), ones.data(), 1);
  }
}

template <typename T, typename acc, typename Offset>
void crop(const Job<acc>& job) {
  const Shape& shape = job.shape;
  const int64_t grain = std::max<int64_t>(1, kGrainSamples / (shape.width * (shape.channels + 1)));
  share_ranges(shape.patches * shape.height, grain, [&](int64_t begin, int64_t end) {
    Scratch<acc, Offset> scratch(shape.width);
    const bool cubic = job.options.mode == Mode::bicubic;
    int64_t drawn = begin;  // rows before this one
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / shape.height, y = i % shape.height;
      const int64_t number = image_of(job.index, shape, n);
      const bool starts = i == begin || y == 0;  // what takes all rows of this patch that are in the range
      const int64_t last = std::min(shape.height, y + end - i);
      if (number < 0) {
        blank_row(job, n, y);
      } else if (cubic) {
        if (starts) {
          crop_cubic_rows<T, acc, Offset>(job, job.images.template at<T>(number), n, y, last);
        }
      } else if (
          i < drawn ||
          (starts && job.options.antialias &&
           crop_mean_rows<T>(job, job.images.template at<T>(number), n, y, last))) {
        drawn = starts ? i + last - y : drawn;
      } else if constexpr (std::is_same_v<T, uint8_t> && std::is_same_v<acc, float> && std::is_same_v<Offset, int32_t>) {
        crop_byte_rows(job, job.images.template at<T>(number), n, y, last);
        drawn = i + last - y;
      } else {
        crop_row<T>(job, job.images.template at<T>(number), n, y, scratch);
      }
      if (job.mask) {
        mask_row(job, n, y);
      }
    }
  });
}

// Offsets of 32 bits where they suffice, twice as many to a register; beside doubles they would save nothing.
template <typename T, typename acc>
void crop_any_size(const Job<acc>& job) {
  if constexpr (std::is_same_v<acc, float>) {
    const auto is_small = [](const Image& image) { return span_of(image) <= std::numeric_limits<int32_t>::max() - 8; };
    if (std::all_of(job.images.images.begin(), job.images.images.end(), is_small)) {
      return crop<T, acc, int32_t>(job);
    }
  }
  crop<T, acc, int64_t>(job);
}

template <typename acc>
void run_crop(const Job<acc>& job, ScalarType type) {
  switch (type) {
    case ScalarType::Byte:
      return crop_any_size<uint8_t>(job);
    case ScalarType::Half:
      return crop_any_size<Half>(job);
    case ScalarType::BFloat16:
      return crop_any_size<BFloat16>(job);
    case ScalarType::Float:
      return crop_any_size<float>(job);
    default:
      if constexpr (std::is_same_v<acc, double>) {
        return crop_any_size<double>(job);
      }
  }
}

Tensor crop_patches_cpu(
    const std::optional<Tensor>& given, const std::vector<Tensor>& images, const Tensor& transforms, int64_t height,
    int64_t width, const std::optional<Tensor>& image_index, int64_t mode, int64_t padding, const std::vector<double>& fill,
    const std::vector<double>& mean, const std::vector<double>& std, bool antialias, const std::optional<Tensor>& mask,
    ScalarType dtype) {
  constexpr const char* op = "crop_patches";
  const Shape shape = check_crop(op, images, transforms, height, width, image_index);
  const Options options = check_options(op, mode, padding, antialias);
  check_levels(op, fill, mean, std, shape.channels);
  check_mask(op, mask, transforms);
  check_out_type(op, dtype);
  const Tensor out = output_of(
      op, given, transforms, {shape.patches, shape.channels + (mask ? 1 : 0), height, width}, dtype, "transforms");
  if (out.numel() == 0) {
    return out;
  }
  const ScalarType type = images[0].scalar_type();
  const ScalarType acc_type = arithmetic_of(type, dtype);
  const Tensor affine = as_contiguous(transforms, acc_type);
  const std::optional<Tensor> boxes = as_contiguous(mask, acc_type);
  const std::optional<Tensor> index = as_contiguous(image_index);
  const ImageTable table(images);
  const auto run = [&](auto zero) {
    using acc = decltype(zero);
    run_crop<acc>(
        {table, affine.const_data_ptr<acc>(), index ? index->const_data_ptr<int64_t>() : nullptr,
         boxes ? boxes->const_data_ptr<acc>() : nullptr, levels_of<acc>(fill, mean, std), options, shape,
         out.mutable_data_ptr(), dtype},
        type);
  };
  acc_type == ScalarType::Double ? run(0.0) : run(0.0f);
  return out;
}

}  // namespace

// torch.compile hands the arguments of what writes into its arguments on by name, with a `mode` of its own (2.13).
#define PYPOSE_OPS_ARGUMENTS(mode) \
  "Tensor[] images, Tensor transforms, SymInt height, SymInt width, Tensor? image_index, int " mode ", int padding, " \
  "float[] fill, float[] mean, float[] std, bool antialias, Tensor? mask, ScalarType dtype"

STABLE_TORCH_LIBRARY_FRAGMENT(pypose_ops, m) {
  m.def("crop_patches(" PYPOSE_OPS_ARGUMENTS("mode") ") -> Tensor");
  m.def("crop_patches.out(Tensor(a!) out, " PYPOSE_OPS_ARGUMENTS("interpolation") ") -> ()");
}

#undef PYPOSE_OPS_ARGUMENTS

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CPU, m) {
  using Op = Drawn<&crop_patches_cpu>;
  m.impl("crop_patches", TORCH_BOX(&Op::returned));
  m.impl("crop_patches.out", TORCH_BOX(&Op::into));
}

}  // namespace pypose_ops

// Rows of a patch from an image of bytes on the CPU, in blocks of pixels: their taps, the four bytes of each in one word,
// the samples, the output, all of it in the innermost cache. A turned patch's rows lie across many lines of the image, and
// what one row has read of them the next reads again: so a block's rows come one after the other.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "patches/crop_rows.h"

namespace pypose_ops {
namespace patches {

constexpr int32_t kBlockPixels = 128;
constexpr int32_t kBlockChannels = 8;

struct ByteBlock {
  int32_t offset[kBlockPixels] = {};
  int32_t furthest;  // of the offsets
  int64_t ahead;     // from a pixel to where a row to come reads
  float w00[kBlockPixels], w01[kBlockPixels], w10[kBlockPixels], w11[kBlockPixels];
  float missing[kBlockPixels];
  uint32_t words[4][kBlockPixels];  // upper left, upper right, lower left, lower right tap, the first in the lowest byte
  float sums[kBlockChannels][kBlockPixels];

  TapPointers<float, int32_t> taps() {
    return {offset, w00, w01, w10, w11};
  }
};

typedef uint16_t ShortWord __attribute__((aligned(1), may_alias));
typedef uint64_t LongWord __attribute__((aligned(1), may_alias));

typedef uint8_t Bytes __attribute__((vector_size(16)));
typedef uint32_t Words __attribute__((vector_size(16)));

// The four taps of a pixel of kStride = 3 or 4 bytes, channel by channel: r r r r g g g g b b b b. 8 bytes are read of each
// row.
template <typename Isa, int kStride>
PYPOSE_OPS_HOST_DEVICE Words interleaved_taps(const uint8_t* above, const uint8_t* below) {
  const uint64_t upper = *reinterpret_cast<const LongWord*>(above), lower = *reinterpret_cast<const LongWord*>(below);
  typedef uint64_t Longs __attribute__((vector_size(16)));
#if defined(__x86_64__)
  if constexpr (Isa::bytes == 16) {  // SSE2 puts no bytes in any order: both taps of each row are zipped, then both rows
    typedef uint16_t Pairs __attribute__((vector_size(16)));
    const auto zipped = [](uint64_t row) {
      return reinterpret_cast<Pairs>(simd::shuffled<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(
          reinterpret_cast<Bytes>(Longs{row}), reinterpret_cast<Bytes>(Longs{row >> (8 * kStride)})));
    };
    return reinterpret_cast<Words>(simd::shuffled<0, 8, 1, 9, 2, 10, 3, 11>(zipped(upper), zipped(lower)));
  }
#endif
  constexpr int k = kStride;
  const Bytes rows = reinterpret_cast<Bytes>(Longs{upper, lower});
  return reinterpret_cast<Words>(
      simd::shuffled<0, k, 8, k + 8, 1, k + 1, 9, k + 9, 2, k + 2, 10, k + 10, 3, k + 3, 11, (k + 11) % 16>(rows, rows));
}

// Those of a block, one channel after the other; up to three pixels more than `count` are read. Memory is fetched for the
// rows to come: waiting for it is much of the time of a turned patch.
template <typename Isa, int kStride>
PYPOSE_OPS_HOST_DEVICE void gather_interleaved(
    uint32_t (*words)[kBlockPixels], const uint8_t* data, int32_t stride_y, const int32_t* offset, int32_t count,
    int64_t ahead) {
  const uint8_t* below = data + stride_y;
  const auto taps = [&](int32_t o) {
    __builtin_prefetch(data + ahead + o);
    return interleaved_taps<Isa, kStride>(data + o, below + o);
  };
  for (int32_t x = 0; x < count; x += 4) {
    const Words a = taps(offset[x]), b = taps(offset[x + 1]), c = taps(offset[x + 2]), d = taps(offset[x + 3]);
    const Words low_ab = simd::shuffled<0, 4, 1, 5>(a, b), low_cd = simd::shuffled<0, 4, 1, 5>(c, d);
    const Words high_ab = simd::shuffled<2, 6, 3, 7>(a, b), high_cd = simd::shuffled<2, 6, 3, 7>(c, d);
    const Words channels[] = {
        simd::shuffled<0, 1, 4, 5>(low_ab, low_cd), simd::shuffled<2, 3, 6, 7>(low_ab, low_cd),
        simd::shuffled<0, 1, 4, 5>(high_ab, high_cd), simd::shuffled<2, 3, 6, 7>(high_ab, high_cd)};
    for (int channel = 0; channel < kStride; ++channel) {
      std::memcpy(words[channel] + x, &channels[channel], sizeof(Words));
    }
  }
}

// One channel, of any strides; both taps of a row in one read where they are side by side.
PYPOSE_OPS_HOST_DEVICE void gather_plane(
    uint32_t* words, const Plane<uint8_t, int32_t>& plane, const int32_t* offset, int32_t count, int64_t ahead) {
  const uint8_t *data = plane.data, *below = data + plane.stride_y;
  const int32_t right = plane.stride_x;
  for (int32_t x = 0; x < count; ++x) {
    __builtin_prefetch(data + ahead + offset[x]);
  }
  if (right == 1) {
    for (int32_t x = 0; x < count; ++x) {
      const int32_t o = offset[x];
      words[x] = *reinterpret_cast<const ShortWord*>(data + o) |
          static_cast<uint32_t>(*reinterpret_cast<const ShortWord*>(below + o)) << 16;
    }
    return;
  }
  uint8_t* bytes = reinterpret_cast<uint8_t*>(words);
  for (int32_t x = 0; x < count; ++x) {
    const int32_t o = offset[x];
    bytes[4 * x] = data[o];
    bytes[4 * x + 1] = data[o + right];
    bytes[4 * x + 2] = below[o];
    bytes[4 * x + 3] = below[o + right];
  }
}

PYPOSE_OPS_HOST_DEVICE float byte_of(uint32_t word, int i) {
  return static_cast<float>(static_cast<int32_t>(word >> (8 * i) & 255u));
}

// The sample at pixel x of a block.
struct WordSamples {
  const float *w00, *w01, *w10, *w11;
  const uint32_t* words;

  PYPOSE_OPS_HOST_DEVICE float operator[](int32_t x) const {
    const uint32_t word = words[x];
    return w00[x] * byte_of(word, 0) + w01[x] * byte_of(word, 1) + w10[x] * byte_of(word, 2) + w11[x] * byte_of(word, 3);
  }
};

// One patch of bytes.
struct BytePatch {
  const Image& image;
  const Levels<float>& levels;
  Affine<float> affine;
  Options options;
  Shape shape;

  // Rows [first, last) of the patch, which begins at `out`.
  template <typename T>
  void rows(T* out, int64_t first, int64_t last) const {
    const BytePatch* patch = this;
    simd_call([=](auto isa) __attribute__((always_inline)) { patch->template draw<decltype(isa)>(out, first, last); });
  }

 private:
  template <typename Isa, typename T>
  [[gnu::always_inline]] void draw(T* out, int64_t first, int64_t last) const {
    const int32_t width = static_cast<int32_t>(shape.width);
    const Samples<float> samples = samples_of(affine, options);
    const int32_t number = samples.count();
    const int64_t two_rows = two_rows_on();
    ByteBlock block;
    for (int32_t begin = 0; begin < width; begin += kBlockPixels) {
      const int32_t count = std::min(width - begin, kBlockPixels);
      for (int64_t y = first; y < last; ++y) {
        T* row = out + y * shape.width + begin;
        for (int64_t c = 0; c < shape.channels; c += kBlockChannels) {
          const int64_t end = std::min(shape.channels, c + kBlockChannels);
          for (int32_t i = 0; i < number; ++i) {
            if (c == 0 || number > 1) {
              start(block, samples, begin, count, y, i, two_rows);
            }
            const auto take = [&](int64_t channel, const WordSamples& sample) __attribute__((always_inline)) {
              if (number == 1) {
                return finish(row, block, channel, sample, count, 1);
              }
              float* sums = block.sums[channel - c];
              PYPOSE_OPS_INDEPENDENT
              for (int32_t x = 0; x < count; ++x) {
                sums[x] = i == 0 ? sample[x] : sums[x] + sample[x];
              }
            };
            with_samples<Isa>(block, c, end, count, take);
          }
          for (int64_t channel = c; number > 1 && channel < end; ++channel) {
            finish(row, block, channel, block.sums[channel - c], count, number);
          }
        }
      }
    }
  }

  // From a pixel to that two rows further down the patch, in bytes.
  int64_t two_rows_on() const {
    const float dx = 2.0f * affine.xy, dy = 2.0f * affine.yy;
    constexpr float kFar = 4096.0f;  // further apart, or not a number: reading ahead is of no use
    return magnitude(dx) < kFar && magnitude(dy) < kFar
        ? static_cast<int64_t>(dx) * image.stride_x + static_cast<int64_t>(dy) * image.stride_y
        : 0;
  }

  // The taps of sample i.
  [[gnu::always_inline]] void start(
      ByteBlock& block, const Samples<float>& samples, int32_t begin, int32_t count, int64_t y, int32_t i,
      int64_t two_rows) const {
    const float row = static_cast<float>(y) + samples.down(i), along = samples.along(i);
    const Line<float> lx = affine.line_x(row).moved(along), ly = affine.line_y(row).moved(along);
    if (options.mode == Mode::bilinear && is_inside(lx, ly, image, begin, begin + count)) {
      fill_taps_inside(block.taps(), lx, ly, image, begin, count);
    } else {
      fill_taps(block.taps(), lx, ly, image, begin, count, options);
    }
    int32_t nearest = block.offset[0], furthest = nearest;
    for (int32_t x = 0; x < count; ++x) {
      nearest = std::min(nearest, block.offset[x]);
      furthest = std::max(furthest, block.offset[x]);
    }
    block.furthest = furthest;
    // Only from the image: fetching where no memory is mapped takes longer than any cache miss.
    block.ahead = nearest + two_rows >= 0 && furthest + two_rows <= span_of(image) ? two_rows : 0;
    for (int32_t x = count; x % 4 != 0; ++x) {
      block.offset[x] = block.offset[count - 1];
    }
    if (levels.filled) {
      add_missing(block.missing, block.taps(), count, i == 0);
    }
  }

  // body(channel, its samples) for channels [begin, end).
  template <typename Isa, typename Body>
  [[gnu::always_inline]] void with_samples(
      ByteBlock& block, int64_t begin, int64_t end, int32_t count, const Body& body) const {
    const auto of = [&](const uint32_t* words) { return WordSamples{block.w00, block.w01, block.w10, block.w11, words}; };
    const auto interleaved = [&](auto stride) __attribute__((always_inline)) {
      const auto plane = plane_of<uint8_t, int32_t>(image, begin);
      const int channels = static_cast<int>(end - begin);
      // 8 bytes from the lower left tap on must end with the image.
      if (image.stride_c != 1 || image.stride_x != stride || image.width == 1 || channels == 1 || channels > stride ||
          block.furthest + plane.stride_y > span_of(image) + channels - 8) {
        return false;
      }
      gather_interleaved<Isa, stride>(block.words, plane.data, plane.stride_y, block.offset, count, block.ahead);
      for (int c = 0; c < channels; ++c) {
        body(begin + c, of(block.words[c]));
      }
      return true;
    };
    if (interleaved(std::integral_constant<int, 3>()) || interleaved(std::integral_constant<int, 4>())) {
      return;
    }
    for (int64_t c = begin; c < end; ++c) {
      gather_plane(block.words[0], plane_of<uint8_t, int32_t>(image, c), block.offset, count, block.ahead);
      body(c, of(block.words[0]));
    }
  }

  template <typename T, typename Sums>
  [[gnu::always_inline]] void finish(
      T* row, const ByteBlock& block, int64_t channel, Sums sums, int32_t count, int32_t samples) const {
    const int entry = levels.at(channel);
    const float scale = samples == 1 ? levels.scale[entry] : levels.scale[entry] / static_cast<float>(samples);
    store_levelled<T, float>(
        row + channel * shape.pixels(), count, sums, levels.filled ? block.missing : nullptr, scale, levels.shift[entry],
        levels.fill[entry]);
  }
};

}  // namespace patches
}  // namespace pypose_ops

// Outputs larger than the caches, on the CPU: a store reads the line that it overwrites from memory, unless it goes past
// the caches.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#include <emmintrin.h>
#endif

namespace pypose_ops {

// Of the largest cache of a core; 0 where it is not known. For tests, PYPOSE_OPS_CACHE_BYTES in the environment says less.
inline int64_t largest_cache_bytes() {
  static const int64_t found = [] {
    if (const char* named = std::getenv("PYPOSE_OPS_CACHE_BYTES")) {
      return int64_t{std::atoll(named)};
    }
    int64_t most = 0;
#if defined(__x86_64__) && defined(__GNUC__)
    // The same table at two numbers, Intel's and AMD's. sysconf counts all caches of an AMD processor as one.
    for (const unsigned leaf : {0x4u, 0x8000001du}) {
      unsigned a, b, c, d;
      for (unsigned i = 0; i < 8 && __get_cpuid_count(leaf, i, &a, &b, &c, &d) && (a & 31u) != 0; ++i) {
        const int64_t ways = (b >> 22) + 1, parts = ((b >> 12) & 1023u) + 1, line = (b & 4095u) + 1;
        most = std::max(most, ways * parts * line * (int64_t{c} + 1));
      }
    }
#endif
    return most;
  }();
  return found;
}

// Copies past the caches. Other threads see it after finish_streams().
inline void stream(void* to, const void* from, int64_t bytes) {
#if defined(__x86_64__) && defined(__GNUC__)
  char* out = static_cast<char*>(to);
  const char* in = static_cast<const char*>(from);
  const int64_t head = std::min<int64_t>(bytes, -reinterpret_cast<uintptr_t>(out) & 15u);
  std::memcpy(out, in, head);
  int64_t i = head;
  for (; i + 16 <= bytes; i += 16) {
    _mm_stream_si128(
        reinterpret_cast<__m128i*>(out + i), _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i)));
  }
  std::memcpy(out + i, in + i, bytes - i);
#else
  std::memcpy(to, from, bytes);
#endif
}

inline void finish_streams() {
#if defined(__x86_64__) && defined(__GNUC__)
  _mm_sfence();
#endif
}

// Whether an output is better written past the caches. A smaller one is still in them for whoever reads it next; a new
// one from 32 MB on is memory that malloc maps for it, and the kernel's zeros have just passed through the caches.
inline bool is_streamed(int64_t bytes, bool is_new) {
  constexpr int64_t kMapped = int64_t{32} << 20;
  const int64_t cache = largest_cache_bytes();
  return cache > 0 && bytes > cache && !(is_new && bytes >= kMapped);
}

// Writes an output in pieces, of one thread: in place, or to a buffer that is then copied past the caches. That pays where
// writing takes most of the time, as for maps of one Gaussian each.
template <typename T>
class Pieces {
 public:
  Pieces(T* out, int64_t piece, bool streamed) : out_(out), piece_(piece) {
    constexpr int64_t kMostBytes = 256 << 10;  // of the buffer, for the second level of the caches
    if (streamed && piece * static_cast<int64_t>(sizeof(T)) <= kMostBytes) {
      buffer_.resize(piece);
    }
  }
  ~Pieces() {
    if (!buffer_.empty()) {
      finish_streams();
    }
  }
  Pieces(const Pieces&) = delete;
  Pieces& operator=(const Pieces&) = delete;

  // write(to) writes all of piece number i.
  template <typename Write>
  void write(int64_t i, const Write& write) {
    T* target = out_ + i * piece_;
    if (buffer_.empty()) {
      write(target);
      return;
    }
    write(buffer_.data());
    stream(target, buffer_.data(), piece_ * sizeof(T));
  }

 private:
  T* out_;
  int64_t piece_;
  std::vector<T> buffer_;
};

}  // namespace pypose_ops

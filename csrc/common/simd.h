// Vector code on the CPU without -march=native: simd_call() runs a function compiled for the widest instruction set that
// this processor has (AVX-512, AVX2, or the baseline of the platform), and tells it how wide its registers are.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

#include "common/dispatch.h"

namespace pypose_ops {
namespace simd {

template <int kBytes>
struct Isa;

enum class Level { baseline, avx2, avx512 };

inline const char* name_of(Level level) {
  return level == Level::avx512 ? "avx512" : level == Level::avx2 ? "avx2" : "baseline";
}

// A build for the processor that compiles it (PYPOSE_OPS_INSTRUCTION_SETS=native) has the kernels of one level alone.
#if defined(PYPOSE_OPS_ONLY_LEVEL)
constexpr bool is_compiled(Level level) {
  return level == Level::PYPOSE_OPS_ONLY_LEVEL;
}
#else
constexpr bool is_compiled(Level) {
  return true;
}
#endif

// The widest that this processor has. For tests, PYPOSE_OPS_SIMD=baseline or avx2 in the environment keeps to less.
inline Level widest_level() {
  static const Level found = [] {
#if defined(__x86_64__) && defined(__GNUC__)
    const char* named = std::getenv("PYPOSE_OPS_SIMD");
    const std::string_view most = named ? named : "avx512";
    if (most == "baseline") {
      return Level::baseline;
    }
    if (most != "avx2" && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
      return Level::avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
      return Level::avx2;
    }
#endif
    return Level::baseline;
  }();
  return found;
}

// That of the kernels in use.
inline Level level() {
#if defined(PYPOSE_OPS_ONLY_LEVEL)
  constexpr Level only = Level::PYPOSE_OPS_ONLY_LEVEL;
  if (widest_level() < only) {
    throw std::runtime_error(
        std::string("pypose_ops: this build has kernels for processors with ") + name_of(only) + " alone, and here is " +
        name_of(widest_level()) + ": build it with PYPOSE_OPS_INSTRUCTION_SETS=all");
  }
  return only;
#else
  return widest_level();
#endif
}

// Bytes of a register there.
inline int register_bytes() {
  return level() == Level::avx512 ? 64 : level() == Level::avx2 ? 32 : 16;
}

// flatten inlines the whole body, lambdas and templates included, so that it is compiled for the target named here. f takes
// an Isa, or nothing where its loops are left to the compiler. A macro: GCC does not flatten through one more function.
#define PYPOSE_OPS_CALL(f)                       \
  if constexpr (std::is_invocable_v<const F&>) { \
    f();                                         \
  } else {                                       \
    f(Registers{});                              \
  }

#if defined(__x86_64__) && defined(__GNUC__)
// GCC has to be told to use the whole width.
#if defined(__clang__)
#define PYPOSE_OPS_AVX512 "arch=x86-64-v4"
#else
#define PYPOSE_OPS_AVX512 "arch=x86-64-v4,prefer-vector-width=512"
#endif

template <typename F, typename Registers = Isa<64>>
[[gnu::target(PYPOSE_OPS_AVX512), gnu::flatten, gnu::noinline]] void call_avx512(const F& f) {
  PYPOSE_OPS_CALL(f);
}

template <typename F, typename Registers = Isa<32>>
[[gnu::target("arch=x86-64-v3"), gnu::flatten, gnu::noinline]] void call_avx2(const F& f) {
  PYPOSE_OPS_CALL(f);
}

// Tuned for processors whose gather instructions are worth using: without it the compiler reads element by element. Those of
// AVX2 are not: reading by elements takes 0.65 to 0.9 of their time on a Zen 3.
template <typename F, typename Registers = Isa<64>>
[[gnu::target(PYPOSE_OPS_AVX512 ",tune=skylake-avx512"), gnu::flatten, gnu::noinline]] void
gather_avx512(const F& f) {
  PYPOSE_OPS_CALL(f);
}
#endif

// 16 bytes: SSE2, NEON.
template <typename F, typename Registers = Isa<16>>
[[gnu::flatten, gnu::noinline]] void call_baseline(const F& f) {
  PYPOSE_OPS_CALL(f);
}

#undef PYPOSE_OPS_CALL

}  // namespace simd

// Before a loop whose iterations are independent, which the compiler cannot see.
#if defined(__clang__)
#define PYPOSE_OPS_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define PYPOSE_OPS_INDEPENDENT _Pragma("GCC ivdep")
#else
#define PYPOSE_OPS_INDEPENDENT
#endif

// While it lives, results below the smallest normal number become 0 on this thread. The tails of Gaussians are full of
// them, and each costs an x86 processor some hundred cycles.
class FlushSubnormals {
 public:
#if defined(__x86_64__) && defined(__GNUC__)
  FlushSubnormals() : saved_(__builtin_ia32_stmxcsr()) {
    // Results only, not operands (0x0040): subnormal halves pass through float subnormals when they are widened.
    constexpr unsigned kFlushToZero = 0x8000;
    __builtin_ia32_ldmxcsr(saved_ | kFlushToZero);
  }
  ~FlushSubnormals() {
    __builtin_ia32_ldmxcsr(saved_);
  }

 private:
  unsigned saved_;
#else
  FlushSubnormals() {}
#endif
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;
};

// f(isa), or f(), in the best version for this processor. f must be a lambda that takes an Isa (as auto) or nothing, its
// loops visible (no calls into other translation units), or the widest it gets is the baseline. With `gather` for loops
// that read through a table of indices; then f must be always_inline.
template <bool gather = false, typename F>
void simd_call(const F& f) {
  [[maybe_unused]] const simd::Level level = simd::level();
#if defined(__x86_64__) && defined(__GNUC__)
  if constexpr (simd::is_compiled(simd::Level::avx512)) {
    if (level == simd::Level::avx512) {
      if constexpr (gather) {
        return simd::gather_avx512(f);
      } else {
        return simd::call_avx512(f);
      }
    }
  }
  if constexpr (simd::is_compiled(simd::Level::avx2)) {
    if (level == simd::Level::avx2) {
      return simd::call_avx2(f);
    }
  }
#endif
  if constexpr (simd::is_compiled(simd::Level::baseline)) {
    simd::call_baseline(f);
  }
}

namespace simd {

template <typename T, int kBytes>
struct vector_of {
  typedef T type __attribute__((vector_size(kBytes), aligned(alignof(T)), may_alias));
};
template <typename T, typename Isa>
using vec = typename vector_of<T, Isa::bytes>::type;

template <typename T, typename Isa>
constexpr int lanes = Isa::bytes / static_cast<int>(sizeof(T));

// Of the widest registers there are: buffers that are padded to them suit every instruction set.
template <typename T>
constexpr int kMostLanes = 64 / static_cast<int>(sizeof(T));

// Elements kAt of two vectors of integers, those of b counted after those of a.
template <int... kAt, typename V>
PYPOSE_OPS_HOST_DEVICE V shuffled(V a, V b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, kAt...);
#else
  return __builtin_shuffle(a, b, V{kAt...});  // GCC has the other from 12 on
#endif
}

template <typename To, typename From>
PYPOSE_OPS_HOST_DEVICE To bits_to(From from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// The conversions below exist once for scalars (F float, U uint32_t) and vectors of them: integer operations
// and selects only. Loops over the scalar ones would be turned into branches and stay scalar.
template <typename F, typename U>
PYPOSE_OPS_HOST_DEVICE F from_bfloat16(U bits) {
  return bits_to<F>(bits << 16);
}

template <typename F, typename U>
PYPOSE_OPS_HOST_DEVICE F from_half(U bits) {
  // The half's exponent and mantissa in float's place, the exponent rebiased; twice for infinity and NaN. Subnormal halves
  // are the mantissa of 2^-14, which is then taken off: exact, and without subnormal floats, which are slow.
  const U shifted = (bits & 0x7fffu) << 13;
  const U exponent = shifted & 0x0f800000u;
  const U rebiased = shifted + (exponent == 0x0f800000u ? U(bits - bits + 0x70000000u) : U(bits - bits + 0x38000000u));
  const U subnormal = bits_to<U>(F(bits_to<F>(shifted + 0x38800000u) - 0x1p-14f));
  return bits_to<F>((exponent == 0u ? subnormal : rebiased) | (bits & 0x8000u) << 16);
}

template <typename F, typename U>
PYPOSE_OPS_HOST_DEVICE U to_bfloat16(F x) {
  const U bits = bits_to<U>(x);
  const U rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // to nearest, ties to even
  return (bits & 0x7fffffffu) > 0x7f800000u ? U(bits - bits + 0x7fc0u) : rounded;
}

template <typename F, typename U>
PYPOSE_OPS_HOST_DEVICE U to_half(F x) {
  const U bits = bits_to<U>(x);
  const U magnitude = bits & 0x7fffffffu;
  // Normal results: rebias, round to nearest even; overflow runs into infinity by itself from 65520 on.
  const U normal = (magnitude - 0x38000000u + 0x0fffu + ((magnitude >> 13) & 1u)) >> 13;
  // Subnormal results: the float addition does the rounding.
  const U subnormal = bits_to<U>(F(bits_to<F>(magnitude) + 0.5f)) - 0x3f000000u;
  U half = magnitude < 0x38800000u ? subnormal : normal;
  half = magnitude >= 0x47800000u ? U(bits - bits + 0x7c00u) : half;
  half = magnitude > 0x7f800000u ? U(bits - bits + 0x7e00u) : half;
  return half | ((bits >> 16) & 0x8000u);
}

PYPOSE_OPS_HOST_DEVICE float load(float x) {
  return x;
}
PYPOSE_OPS_HOST_DEVICE double load(double x) {
  return x;
}
PYPOSE_OPS_HOST_DEVICE float load(BFloat16 x) {
  return from_bfloat16<float, uint32_t>(x.x);
}
PYPOSE_OPS_HOST_DEVICE float load(Half x) {
  return from_half<float, uint32_t>(x.x);
}

// An instruction set, as simd_call() hands it to its function. Vectors are as wide as its registers: the compiler keeps
// wider ones in memory.
template <int kBytes>
struct Isa {
  static constexpr int bytes = kBytes;
  using Floats = typename vector_of<float, kBytes>::type;
  using Bits = typename vector_of<uint32_t, kBytes>::type;
  using Shorts = typename vector_of<uint16_t, kBytes / 2>::type;

  // Consecutive elements, widened to the arithmetic type: vec<acc_t<T>, Isa>.
  template <typename T>
  PYPOSE_OPS_HOST_DEVICE vec<acc_t<T>, Isa> load(const T* from) const {
    if constexpr (sizeof(T) == sizeof(acc_t<T>)) {
      vec<T, Isa> v;
      std::memcpy(&v, from, sizeof(v));
      return v;
    } else {
      Shorts bits;
      std::memcpy(&bits, from, sizeof(bits));
      const Bits wide = __builtin_convertvector(bits, Bits);
      if constexpr (std::is_same_v<T, Half>) {
        return from_half<Floats, Bits>(wide);
      } else {
        return from_bfloat16<Floats, Bits>(wide);
      }
    }
  }

  template <typename T>
  PYPOSE_OPS_HOST_DEVICE void store(T* to, vec<acc_t<T>, Isa> v) const {
    if constexpr (sizeof(T) == sizeof(acc_t<T>)) {
      std::memcpy(to, &v, sizeof(v));
    } else {
      Bits bits;
      if constexpr (std::is_same_v<T, Half>) {
        bits = to_half<Floats, Bits>(v);
      } else {
        bits = to_bfloat16<Floats, Bits>(v);
      }
      const Shorts narrow = __builtin_convertvector(bits, Shorts);
      std::memcpy(static_cast<void*>(to), &narrow, sizeof(narrow));
    }
  }
};

template <typename T>
PYPOSE_OPS_HOST_DEVICE T store(acc_t<T> x) {
  if constexpr (std::is_same_v<T, Half>) {
    return Half(static_cast<uint16_t>(to_half<float, uint32_t>(x)), Half::from_bits());
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    return BFloat16(static_cast<uint16_t>(to_bfloat16<float, uint32_t>(x)), BFloat16::from_bits());
  } else {
    return x;
  }
}

// e^x in float, |error| < 2 ulp, 0 below the smallest normal result; x <= 0 is what rendering needs, any x works.
// Cephes' reduction and polynomial, without branches, so that loops vectorise.
PYPOSE_OPS_HOST_DEVICE float exp(float x) {
  const float in_range = x < -87.33654f ? -87.33654f : (x > 88.37626f ? 88.37626f : x);
  const float shifted = in_range * 1.44269504088896341f + 12582912.0f;  // 1.5 * 2^23: rounds to an integer
  const float n = shifted - 12582912.0f;
  const float r = in_range - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const float scale = bits_to<float>((bits_to<uint32_t>(shifted) + 127u) << 23);
  return x < -87.33654f ? 0.0f : p * scale;
}
PYPOSE_OPS_HOST_DEVICE double exp(double x) {
  return __builtin_exp(x);
}

// log x of a positive normal float, |error| < 2 ulp; Cephes' polynomial, without branches.
PYPOSE_OPS_HOST_DEVICE float log(float x) {
  const uint32_t bits = bits_to<uint32_t>(x);
  // x = m 2^n with m in [sqrt(1/2), sqrt(2)).
  const uint32_t from_half = bits - 0x3f3504f3u;
  const float n = static_cast<float>(static_cast<int32_t>(from_half) >> 23);
  const float m = bits_to<float>((from_half & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
  float p = 7.0376836292e-2f;
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  const float square = m * m;
  return n * 0.693359375f + (m + (p * m * square - n * 2.12194440e-4f - 0.5f * square));
}
PYPOSE_OPS_HOST_DEVICE double log(double x) {
  return __builtin_log(x);
}

}  // namespace simd
}  // namespace pypose_ops

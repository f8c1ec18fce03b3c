// Memory and arithmetic intrinsics. The approximate ones (__expf, ...) are exact here.
#pragma once

// One thread runs at a time: plain reads and writes are atomic, and fences have nothing to order.
template <typename T, typename Op>
T simt_atomic(T* address, Op op) {
  const T old = *address;
  *address = op(old);
  return old;
}

template <typename T>
constexpr bool simt_is_atomic_word =
    std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>;

#define SIMT_ATOMIC(NAME, ALLOWED, EXPRESSION)                              \
  template <typename T>                                                     \
  T NAME(T* address, std::common_type_t<T> value) {                         \
    static_assert(ALLOWED, #NAME " has no such overload in CUDA");          \
    return simt_atomic(address, [value](T old) -> T { return EXPRESSION; }); \
  }
SIMT_ATOMIC(atomicAdd, simt_is_atomic_word<T> || std::is_floating_point_v<T>, old + value)
SIMT_ATOMIC(atomicSub, (std::is_same_v<T, int> || std::is_same_v<T, unsigned>), old - value)
SIMT_ATOMIC(atomicMin, simt_is_atomic_word<T> || (std::is_same_v<T, long long>), old < value ? old : value)
SIMT_ATOMIC(atomicMax, simt_is_atomic_word<T> || (std::is_same_v<T, long long>), old > value ? old : value)
SIMT_ATOMIC(atomicAnd, simt_is_atomic_word<T>, old & value)
SIMT_ATOMIC(atomicOr, simt_is_atomic_word<T>, old | value)
SIMT_ATOMIC(atomicXor, simt_is_atomic_word<T>, old ^ value)
SIMT_ATOMIC(atomicExch, simt_is_atomic_word<T> || (std::is_same_v<T, float>), (static_cast<void>(old), value))
#undef SIMT_ATOMIC

template <typename T>
T atomicCAS(T* address, std::common_type_t<T> compare, std::common_type_t<T> value) {
  static_assert(simt_is_atomic_word<T> || std::is_same_v<T, unsigned short>, "atomicCAS has no such overload in CUDA");
  return simt_atomic(address, [=](T old) { return old == compare ? value : old; });
}

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
[[noreturn]] inline void __trap(simt::Place at = simt::here()) {
  simt::stop("__trap", at);
}

#define SIMT_LOAD(NAME)        \
  template <typename T>        \
  T NAME(const T* address) {   \
    return *address;           \
  }
SIMT_LOAD(__ldg)
SIMT_LOAD(__ldca)
SIMT_LOAD(__ldcg)
SIMT_LOAD(__ldcs)
SIMT_LOAD(__ldlu)
SIMT_LOAD(__ldcv)
#undef SIMT_LOAD
#define SIMT_STORE(NAME)                                    \
  template <typename T>                                     \
  void NAME(T* address, std::common_type_t<T> value) {      \
    *address = value;                                       \
  }
SIMT_STORE(__stcg)
SIMT_STORE(__stcs)
SIMT_STORE(__stwb)
SIMT_STORE(__stwt)
#undef SIMT_STORE

template <typename To, typename From>
To simt_bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}
inline int __float_as_int(float x) { return simt_bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return simt_bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return simt_bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return simt_bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return simt_bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return simt_bit_cast<double>(x); }

// As on a GPU: NaN becomes 0, what does not fit becomes the nearest that does.
template <typename To, typename From>
To simt_saturate(From x) {
  const From low = static_cast<From>(std::is_signed_v<To> ? -ldexp(1.0, 8 * sizeof(To) - 1) : 0.0);
  const From high = static_cast<From>(ldexp(1.0, 8 * sizeof(To) - std::is_signed_v<To>));
  const To top = static_cast<To>(~To{0} ^ (std::is_signed_v<To> ? To{1} << (8 * sizeof(To) - 1) : To{0}));
  return x != x ? To{0} : x >= high ? top : x < low ? static_cast<To>(low) : static_cast<To>(x);
}
#define SIMT_CONVERT(NAME, From, To)                                          \
  inline To NAME##_rn(From x) { return simt_saturate<To>(nearbyint(x)); }     \
  inline To NAME##_rd(From x) { return simt_saturate<To>(floor(x)); }         \
  inline To NAME##_ru(From x) { return simt_saturate<To>(ceil(x)); }          \
  inline To NAME##_rz(From x) { return simt_saturate<To>(trunc(x)); }
SIMT_CONVERT(__float2int, float, int)
SIMT_CONVERT(__float2uint, float, unsigned)
SIMT_CONVERT(__float2ll, float, long long)
SIMT_CONVERT(__double2int, double, int)
SIMT_CONVERT(__double2uint, double, unsigned)
SIMT_CONVERT(__double2ll, double, long long)
#undef SIMT_CONVERT
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
inline float __double2float_rn(double x) { return static_cast<float>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int i = 0; i < 32; ++i) {
    reversed |= (x >> i & 1u) << (31 - i);
  }
  return reversed;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }
inline int __mulhi(int a, int b) { return static_cast<int>(int64_t{a} * b >> 32); }
inline int __mul24(int a, int b) { return a * b; }

inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return powf(10.0f, x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return log10f(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline void __sincosf(float x, float* s, float* c) { *s = sinf(x), *c = cosf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678f); }

// A product or sum that the compiler may not contract into a fused multiply-add.
inline float __fmul_rn(float x, float y) { volatile float z = x * y; return z; }
inline float __fadd_rn(float x, float y) { volatile float z = x + y; return z; }
inline float __fsub_rn(float x, float y) { volatile float z = x - y; return z; }
inline double __dmul_rn(double x, double y) { volatile double z = x * y; return z; }
inline double __dadd_rn(double x, double y) { volatile double z = x + y; return z; }
inline double __dsub_rn(double x, double y) { volatile double z = x - y; return z; }

// min and max of two numbers, of NaN and a number the number.
template <typename T, typename U, typename = std::enable_if_t<std::is_arithmetic_v<T> && std::is_arithmetic_v<U>>>
constexpr std::common_type_t<T, U> min(T a, U b) {
  using C = std::common_type_t<T, U>;
  const C x = static_cast<C>(a), y = static_cast<C>(b);
  return x < y || y != y ? x : y;
}
template <typename T, typename U, typename = std::enable_if_t<std::is_arithmetic_v<T> && std::is_arithmetic_v<U>>>
constexpr std::common_type_t<T, U> max(T a, U b) {
  using C = std::common_type_t<T, U>;
  const C x = static_cast<C>(a), y = static_cast<C>(b);
  return x > y || y != y ? x : y;
}

// Mathematical functions whose symbols got a new version in glibc 2.29: the older one is taken, which every glibc has, so
// that the binary runs on manylinux_2_28. They differ in how errno reports errors, which is not used here.
#pragma once

#include <cmath>

#if defined(__GLIBC__) && !defined(__CUDA_ARCH__)
#if defined(__x86_64__)
#define PYPOSE_OPS_OLDER(name) __asm__(".symver " #name "," #name "@GLIBC_2.2.5");
#elif defined(__aarch64__)
#define PYPOSE_OPS_OLDER(name) __asm__(".symver " #name "," #name "@GLIBC_2.17");
#endif
#endif

#if defined(PYPOSE_OPS_OLDER)
PYPOSE_OPS_OLDER(exp)
PYPOSE_OPS_OLDER(exp2)
PYPOSE_OPS_OLDER(log)
PYPOSE_OPS_OLDER(log2)
PYPOSE_OPS_OLDER(pow)
#undef PYPOSE_OPS_OLDER
#endif

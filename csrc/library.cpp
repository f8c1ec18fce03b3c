// The library as a whole: its build information, and the error of builds without CUDA for CUDA tensors.
#include <cstdint>
#include <iterator>
#include <stdexcept>
#include <string>

#include <torch/csrc/stable/library.h>

#include "common/simd.h"

#if defined(_WIN32)
#define PYPOSE_OPS_EXPORT __declspec(dllexport)
#else
#define PYPOSE_OPS_EXPORT __attribute__((visibility("default")))
#endif

#if defined(__aarch64__) || defined(_M_ARM64)
#define PYPOSE_OPS_MACHINE "aarch64"
#elif defined(__x86_64__) || defined(_M_X64)
#define PYPOSE_OPS_MACHINE "x86_64"
#else
#define PYPOSE_OPS_MACHINE ""
#endif

// One "name=value" a line: what _C.build_info() returns, for programs without Python.
extern "C" PYPOSE_OPS_EXPORT const char* pypose_ops_build_info() {
  using namespace pypose_ops::simd;
#if defined(PYPOSE_OPS_ONLY_LEVEL)
  const std::string compiled = name_of(Level::PYPOSE_OPS_ONLY_LEVEL), in_use = compiled;
#else
  const std::string compiled = "all", in_use = name_of(level());
#endif
  static const std::string info = std::string("version=" PYPOSE_OPS_VERSION "\n"
                                              "machine=" PYPOSE_OPS_MACHINE "\n"
                                              "torch_headers=" PYPOSE_OPS_TORCH_HEADERS "\n"
                                              "cuda_toolkit=" PYPOSE_OPS_CUDA_TOOLKIT "\n"
                                              "cuda_architectures=" PYPOSE_OPS_CUDA_ARCHITECTURES "\n"
                                              "instruction_set=") +
      in_use + "\ninstruction_sets=" + compiled + "\nprocessor=" + name_of(widest_level()) + "\n";
  return info.c_str();
}

namespace {

// Where there are no CUDA kernels, the dispatcher would answer with a page of keys.
constexpr const char* kWithoutCuda[] = {PYPOSE_OPS_WITHOUT_CUDA nullptr};

void refuse_cuda(StableIValue*, uint64_t, uint64_t) {
  throw std::runtime_error(
      "pypose_ops: a CUDA tensor came, and this build has CPU kernels only: install it again with CUDA kernels, which takes "
      "an nvcc: PYPOSE_OPS_CUDA=ON pip install --force-reinstall --no-deps --no-cache-dir pypose_ops");
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pypose_ops, CUDA, m) {
  for (const char* const* name = std::begin(kWithoutCuda); *name != nullptr; ++name) {
    m.impl(*name, &refuse_cuda);
  }
}

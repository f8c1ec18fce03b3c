// The extension module. Importing it loads the kernels, whose static initialisers register the operators.
// No torch header here: pybind11's torch-bundled twin must not be mixed with the stable ABI.
#include <pybind11/pybind11.h>

namespace py = pybind11;

PYBIND11_MODULE(_C, m) {
  m.def(
      "build_info",
      [] {
        py::dict info;
        info["version"] = PYPOSE_OPS_VERSION;
        info["torch_headers"] = PYPOSE_OPS_TORCH_HEADERS;
        info["cuda_toolkit"] = PYPOSE_OPS_CUDA_TOOLKIT;
        info["cuda_architectures"] = PYPOSE_OPS_CUDA_ARCHITECTURES;
        return info;
      },
      "What this binary was built with; cuda_toolkit is empty in a build without CUDA.");
}

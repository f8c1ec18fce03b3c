// The extension module: what of the library is for Python alone. No torch header here: pybind11's torch-bundled twin must
// not be mixed with the stable ABI. Importing it loads libpypose_ops, which lies beside it.
#include <pybind11/pybind11.h>

#include <string>

extern "C" const char* pypose_ops_build_info();

namespace py = pybind11;

PYBIND11_MODULE(_C, m, py::mod_gil_not_used()) {
  m.def(
      "build_info",
      [] {
        py::dict info;
        std::string text = pypose_ops_build_info();
        for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
          const size_t equals = text.find('=', begin);
          info[py::str(text.substr(begin, equals - begin))] = py::str(text.substr(equals + 1, end - equals - 1));
        }
        return info;
      },
      "What libpypose_ops was built with, all of it text; cuda_toolkit is empty in a build without CUDA.");
}

"""Runs a program on the sanitized build of the test device: every CUDA kernel under AddressSanitizer and UBSan.

    python tests/simt/sanitized.py pytest tests -k simt

runs ``pytest tests -k simt`` in an environment in which simt_device builds and loads the sanitized kernels. The first
finding ends the process.
"""

import os
import subprocess
import sys

from build import tool


def library(name):
    """The path of one of the compiler's own libraries."""
    compiler = os.environ.get("CXX", "c++")
    path = subprocess.check_output([compiler, f"-print-file-name={name}"], text=True).strip()
    if not os.path.isabs(path):
        raise RuntimeError(f"the sanitized simt test device needs {name} of {compiler}")
    return path


def environment():
    """The variables that a process needs to load a sanitized library."""
    # AddressSanitizer must come before everything else, and finds __cxa_throw only where libstdc++ is there already.
    return {
        "PYPOSE_OPS_SIMT_SANITIZE": "1",
        "LD_PRELOAD": f"{library('libasan.so')} {library('libstdc++.so.6')}",
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


if __name__ == "__main__":
    program = tool(sys.argv[1])
    os.execve(program, [program, *sys.argv[2:]], {**os.environ, **environment()})

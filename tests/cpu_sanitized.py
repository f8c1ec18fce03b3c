"""Runs a program on a sanitized build of the CPU kernels: AddressSanitizer and UBSan, in build/sanitized.

    python tests/cpu_sanitized.py python scripts/fuzz.py --calls 10000

The first finding ends the process (the fuzzer reports the call and goes on). tests/simt/sanitized.py does the same for
the CUDA kernels.
"""

import os
import pathlib
import subprocess
import sys

TESTS = pathlib.Path(__file__).resolve().parent
ROOT = TESTS.parent
sys.path.insert(0, str(TESTS / "simt"))

from sanitized import environment  # noqa: E402

from build import run, tool  # noqa: E402


def build():
    """Builds the kernels; returns a folder to import the package from, made of links and the sanitized library."""
    folder = ROOT / "build" / "sanitized"
    pybind11 = subprocess.check_output([sys.executable, "-m", "pybind11", "--cmakedir"], text=True).strip()
    run(
        tool("cmake"), "-S", ROOT, "-B", folder, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
        "-DPYPOSE_OPS_CUDA=OFF", "-DPYPOSE_OPS_SANITIZE=ON", f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11}",
    )  # fmt: skip
    run(tool("cmake"), "--build", folder, "--parallel", os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", "2"))
    package = folder / "site" / "pypose_ops"
    package.mkdir(parents=True, exist_ok=True)
    sources = [path for path in (ROOT / "pypose_ops").iterdir() if not path.name.startswith(("_C.", "models", "cli"))]
    for path in [*sources, ROOT / "models", ROOT / "cli", *folder.glob("*.so")]:
        link = package / path.name
        if not link.is_symlink():
            link.symlink_to(path)
    return package.parent


if __name__ == "__main__":
    site = build()
    program = tool(sys.argv[1])
    variables = {k: v for k, v in environment().items() if k != "PYPOSE_OPS_SIMT_SANITIZE"}
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    # Nothing may import the package from the current folder.
    variables |= {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    os.execve(program, [program, *sys.argv[2:]], {**os.environ, **variables})

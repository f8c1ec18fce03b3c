"""Builds the test device: the CUDA kernels compiled for the CPU, in build/simt, build/simt-sanitized or
build/simt-traced.
"""

import fcntl
import os
import pathlib
import shutil
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parent
ROOT = SOURCE.parents[1]
OPERATORS = "pypose_ops_simt"
SELFTEST = "simt_selftest"


def tool(name):
    """A program beside this Python (pip's cmake and ninja land there), or on the PATH."""
    beside = shutil.which(name, path=str(pathlib.Path(sys.executable).parent))
    found = beside or shutil.which(name)
    if found is None:
        raise RuntimeError(f"the simt test device needs {name}: pip install {name}")
    return found


def run(*command):
    # Not for the compiler: the sanitizer that this process may run under.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"building the simt test device failed: {' '.join(map(str, command))}\n{done.stdout}")


def build(sanitize=False, trace=False, target=OPERATORS):
    """Builds one library and returns its path; quick when nothing changed.

    Args:
        sanitize: with AddressSanitizer and UndefinedBehaviorSanitizer; the process that loads it needs
            the environment of ``sanitized.py``.
        trace: with races on shared memory reported, and the sectors of global memory counted.
        target: ``OPERATORS`` or ``SELFTEST``.
    """
    folder = ROOT / "build" / ("simt-sanitized" if sanitize else "simt-traced" if trace else "simt")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(
            tool("cmake"), "-S", SOURCE, "-B", folder, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
            f"-DPython_EXECUTABLE={sys.executable}", f"-DSIMT_SANITIZE={'ON' if sanitize else 'OFF'}",
            f"-DCMAKE_CXX_COMPILER_LAUNCHER={shutil.which('ccache') or ''}",
            f"-DSIMT_TRACE={'ON' if trace else 'OFF'}",
        )  # fmt: skip
        run(tool("cmake"), "--build", folder, "--target", target, "--parallel", str(os.cpu_count() or 1))
    return folder / f"lib{target}.so"


if __name__ == "__main__":
    flags = sys.argv[1:]
    target = SELFTEST if "--selftest" in flags else OPERATORS
    print(build(sanitize="--sanitize" in flags, trace="--trace" in flags, target=target))

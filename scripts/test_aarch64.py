#!/usr/bin/env python3
"""Cross-compiles the CPU kernels for aarch64 and runs the operators' tests on them, under emulation.

    python scripts/test_aarch64.py                 # every operator's contract: hours of emulation
    python scripts/test_aarch64.py -k find_peaks   # what follows is for pytest

Debian's debootstrap makes the root, pip the aarch64 wheels beside it, in build/aarch64; g++-aarch64-linux-gnu
compiles, qemu-user-static runs. What would compile or start a second process is left out, because the emulator is not
the system's.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "aarch64"
PACKAGES = "python3,libgomp1,libstdc++6,zlib1g,libffi8,libssl3,libbz2-1.0,liblzma5,libsqlite3-0"
TORCH = "torch==2.10.0"  # the newest whose aarch64 wheel on PyPI is a CPU build
WHEELS = (
    "numpy pytest hypothesis sortedcontainers attrs iniconfig pluggy packaging pygments filelock typing_extensions "
    "sympy mpmath networkx jinja2 markupsafe fsspec expecttest pillow scipy"
).split()
TAGS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
CHOSEN = "cpu and not (compile or export or opcheck or autocast or forked or threads or large or real)"


def run(*command: str | Path, **options) -> None:
    print("+", *command, flush=True)
    subprocess.run(command, check=True, **options)


def make_root(root: Path) -> None:
    """Debian's files, unpacked only: its programs are started one at a time by the emulator."""
    run("debootstrap", "--arch=arm64", "--foreign", "--variant=minbase", f"--include={PACKAGES}", "bookworm", root)
    for package in sorted(root.glob("var/cache/apt/archives/*.deb")):
        run("dpkg-deb", "-x", package, root, stdout=subprocess.DEVNULL)


def install_wheels(site: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--target", site]
    for tag in TAGS:
        pip += ["--platform", tag]
    pip += ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "none"]
    run(*pip, TORCH, *WHEELS)


def build(folder: Path, site: Path) -> Path:
    options = {
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": "aarch64",
        "CMAKE_CXX_COMPILER": "aarch64-linux-gnu-g++",
        "PYPOSE_OPS_CUDA": "OFF",
        "PYPOSE_OPS_MODULE": "OFF",
        "PYPOSE_OPS_TORCH_DIR": site / "torch",
    }
    run("cmake", "-S", ROOT, "-B", folder, *(f"-D{name}={value}" for name, value in options.items()))
    run("cmake", "--build", folder, "--parallel", os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", "2"))
    return folder / "libpypose_ops.so"


def link_package(package: Path, library: Path) -> None:
    """The package of the source folder with this library in it; for _C, which is of another processor, ctypes."""
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    sources = [path for path in (ROOT / "pypose_ops").iterdir() if path.suffix != ".so"]
    for path in [*sources, ROOT / "models", ROOT / "cli", library]:
        (package / path.name).symlink_to(path)


def main() -> None:
    if platform.system() != "Linux":
        sys.exit("test_aarch64.py: needs Linux, for qemu-user-static")
    root, site = WORK / "root", WORK / "site"
    WORK.mkdir(parents=True, exist_ok=True)
    if not (root / "usr/bin/python3.11").exists():
        make_root(root)
    if not (site / "torch").exists():
        install_wheels(site)
    link_package(WORK / "package" / "pypose_ops", build(WORK / "build", site))
    variables = {
        "PYTHONPATH": os.pathsep.join([str(WORK / "package"), str(site)]),
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    arguments = sys.argv[1:] if len(sys.argv) > 1 else ["-k", CHOSEN]
    python = ["qemu-aarch64-static", "-L", root, root / "usr/bin/python3.11"]
    run(
        *python,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        ROOT / "tests" / "ops",
        *arguments,
        env=os.environ | variables,
    )


if __name__ == "__main__":
    main()

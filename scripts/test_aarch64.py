#!/usr/bin/env python3
"""Cross-compiles the CPU kernels for aarch64 and runs the contract tests of every operator on them, under emulation.

    python scripts/test_aarch64.py
    python scripts/test_aarch64.py oks --dtypes float32    # arguments of tests/run_contract.py

On Debian, as root, with g++-aarch64-linux-gnu, qemu-user-static and debootstrap. The Debian arm64 root and the aarch64
wheels stay in build/aarch64, and the next run takes them from there.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "aarch64"
SUITE, MIRROR = "bookworm", "http://deb.debian.org/debian"
PYTHON = "3.11"  # of that suite
DEBIAN = "python3,libgomp1,libstdc++6,zlib1g,libffi8,libssl3,libbz2-1.0,liblzma5,libsqlite3-0"
# The newest release whose aarch64 wheel on PyPI is built for the CPU: 146 MB.
TORCH = "torch==2.10.0"
WHEELS = (
    "numpy scipy pillow rich safetensors pytest hypothesis sortedcontainers iniconfig pluggy packaging pygments "
    "filelock typing_extensions sympy mpmath networkx jinja2 markupsafe fsspec expecttest"
).split()
TAGS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
# Programs and the packages of Debian that have them.
PROGRAMS = {
    "debootstrap": "debootstrap",
    "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu",
    "qemu-aarch64-static": "qemu-user-static",
    "cmake": "cmake",
}


def run(*command: str | Path, **options) -> None:
    print("+", *command, flush=True)
    subprocess.run(command, check=True, **options)


def make_root(root: Path) -> None:
    """Debian's files, unpacked and not configured: only Python is started, by the emulator."""
    shutil.rmtree(root, ignore_errors=True)
    run("debootstrap", "--arch=arm64", "--foreign", "--variant=minbase", f"--include={DEBIAN}", SUITE, root, MIRROR)
    packages = sorted(root.glob("var/cache/apt/archives/*.deb"))
    print(f"+ dpkg-deb -x of {len(packages)} packages", flush=True)
    for package in packages:
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)


def install_wheels(site: Path) -> None:
    tag = "cp" + PYTHON.replace(".", "")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--target", site]
    pip += [f"--platform={tag}" for tag in TAGS]
    pip += ["--python-version", PYTHON, "--implementation=cp", f"--abi={tag}", "--abi=abi3", "--abi=none"]
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
    """The sources beside this library; ctypes reads the build information, for _C is of another processor."""
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    sources = [path for path in (ROOT / "pypose_ops").iterdir() if path.suffix != ".so"]
    for path in [*sources, ROOT / "models", ROOT / "cli", library]:
        (package / path.name).symlink_to(path)


def main() -> None:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        sys.exit(f"test_aarch64.py: no {', '.join(missing)}: apt-get install {' '.join(PROGRAMS.values())}")
    root, site = WORK / "root", WORK / "site"
    python = root / "usr" / "bin" / f"python{PYTHON}"
    WORK.mkdir(parents=True, exist_ok=True)
    if not python.exists():
        make_root(root)
    if not (site / "torch").exists():
        install_wheels(site)
    link_package(WORK / "package" / "pypose_ops", build(WORK / "library", site))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(WORK / "package"), str(site)]),
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    emulated = ["qemu-aarch64-static", "-L", root, python]
    info = "import pypose_ops; print(*pypose_ops.build_info().items(), sep='\\n')"
    run(*emulated, "-W", "ignore", "-c", info, env=environment, cwd=WORK)
    start = time.monotonic()
    run(*emulated, "-W", "ignore", ROOT / "tests" / "run_contract.py", *sys.argv[1:], env=environment, cwd=WORK)
    print(f"{time.monotonic() - start:.0f} s under emulation")


if __name__ == "__main__":
    main()

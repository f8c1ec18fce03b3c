"""Loads the library of kernels and describes the build."""

import ctypes
import importlib
import platform
import re
import sys
from pathlib import Path
from typing import Any

import torch

OLDEST_TORCH = (2, 10)
LIBRARY = {"win32": "pypose_ops.dll", "darwin": "libpypose_ops.dylib"}.get(sys.platform, "libpypose_ops.so")
AGAIN = "pip install --force-reinstall --no-deps --no-cache-dir pypose_ops"
# Offsets in the header of a 64-bit ELF file.
ELF_HEADER = (("machine", 18, 20), ("section_table", 40, 48), ("section_size", 58, 60), ("sections", 60, 62))
MACHINES = {62: "x86_64", 183: "aarch64"}


def check_torch(version: str) -> None:
    """Refuses a torch whose stable ABI is older than the binary needs."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST_TORCH:
        wanted = ".".join(map(str, OLDEST_TORCH))
        raise ImportError(
            f"pypose_ops needs torch {wanted} or newer, this is torch {version}: "
            f"pip install --upgrade 'torch>={wanted}'"
        )


def find_library(folders: list[str]) -> Path:
    """Finds the library of kernels in the package's folders (an editable install has several)."""
    for folder in folders:
        path = Path(folder, LIBRARY)
        if path.is_file():
            return path.resolve()
    raise ImportError(
        f"pypose_ops is not built here: there is no {LIBRARY} in {', '.join(folders)}: "
        "run `pip install .` and start Python outside the source folder, or `pip install -e .`"
    )


def load(path: Path) -> None:
    """Loads the kernels, which registers the operators."""
    if sys.platform == "linux":
        check_file(path)
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        raise ImportError(why_not_loaded(path, str(error.__cause__ or error))) from error


def check_file(path: Path) -> None:
    """Refuses files that the system's loader would not explain, or crash on if truncated."""
    with open(path, "rb") as file:
        header = file.read(64)
    number = {name: int.from_bytes(header[i:j], "little") for name, i, j in ELF_HEADER}
    end = number["section_table"] + number["section_size"] * number["sections"]
    if len(header) < 64 or header[:4] != b"\x7fELF" or path.stat().st_size < end:
        raise ImportError(f"pypose_ops: {path} is not a Linux library, or is damaged: {AGAIN}")
    machine = MACHINES.get(number["machine"], "another processor")
    if machine != platform.machine():
        raise ImportError(f"pypose_ops: {path} is made for {machine}, this machine is {platform.machine()}: {AGAIN}")


def why_not_loaded(path: Path, error: str) -> str:
    """Explains in one line why the system's loader refused a library."""
    if "GLIBC" in error:
        return f"pypose_ops: {path} was built on a newer system ({error}): build it here with `pip install .`"
    return f"pypose_ops: {path} cannot be loaded ({error}): {AGAIN}"


def why_no_kernel(capability: tuple[int, int]) -> str:
    """Says in one line that the binary has no code for a GPU of this compute capability, and how to get it."""
    has = " ".join(build_info()["cuda_architectures"] or ["none"])
    return (
        f"this build has CUDA code for {has}, and this GPU has compute capability {capability[0]}.{capability[1]}: "
        f"with nvcc, PYPOSE_OPS_CUDA=ON CUDAARCHS={capability[0]}{capability[1]} {AGAIN}"
    )


def binary_info() -> dict[str, str]:
    """Reads the build information, by ``_C`` or, without one for this Python, by ctypes."""
    try:
        return dict(importlib.import_module("._C", __package__).build_info())
    except ModuleNotFoundError:
        function = ctypes.CDLL(str(PATH)).pypose_ops_build_info
        function.restype = ctypes.c_char_p
        return dict(line.split("=", 1) for line in function().decode().splitlines())


def check_processor(info: dict[str, str]) -> None:
    """Refuses a library that was compiled for processors with more than this one has."""
    levels = ("baseline", "avx2", "avx512")
    needed, found = info["instruction_sets"], info["processor"]
    if needed != "all" and levels.index(found) < levels.index(needed):
        raise ImportError(
            f"pypose_ops was built for processors with {needed} alone (PYPOSE_OPS_INSTRUCTION_SETS=native), "
            f"and this one has {found}: PYPOSE_OPS_INSTRUCTION_SETS=all {AGAIN}"
        )


def build_info() -> dict[str, Any]:
    """Version, torch headers, CUDA toolkit and architectures of this build, and the run-time environment.

    Returns:
        dict: ``version``; ``machine`` (the target processor); ``instruction_set`` (``"avx512"``, ``"avx2"`` or
        ``"baseline"``: that of the CPU kernels in use here); ``instruction_sets`` (those compiled: ``"all"``, or one);
        ``processor`` (the widest that this processor has); ``torch_headers`` (of the build); ``torch`` (running);
        ``cuda_toolkit`` and ``cuda_architectures`` (None in a build without CUDA); ``library`` (the file to link C++
        programs against); ``gpus`` (names of the GPUs torch sees).
    """
    info: dict = binary_info()
    info["cuda_toolkit"] = info["cuda_toolkit"] or None
    info["cuda_architectures"] = info["cuda_architectures"].split() if info["cuda_toolkit"] else None
    info["torch"] = torch.__version__
    info["library"] = str(PATH)
    info["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return info


def summary() -> str:
    """One line that names the kernels of this build, and how to get the others."""
    info = build_info()
    text = f"pypose_ops {info['version']}, torch {info['torch']}: "
    if info["cuda_toolkit"]:
        return text + f"CPU and CUDA kernels for {' '.join(info['cuda_architectures'])}"
    sets = "" if info["instruction_sets"] == "all" else f", for processors with {info['instruction_sets']}"
    return text + f"CPU kernels only{sets}; PYPOSE_OPS_CUDA=ON also compiles the CUDA kernels, which needs nvcc"


check_torch(torch.__version__)
PATH = find_library(list(sys.modules[__package__].__path__))
load(PATH)
check_processor(binary_info())

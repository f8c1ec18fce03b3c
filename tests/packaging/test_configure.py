"""Options of the build, as CMake reads them. Nothing is compiled but CMake's own checks of the compilers."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pypose_ops

ROOT = Path(__file__).parents[2]
CMAKE = shutil.which("cmake")
pytestmark = pytest.mark.skipif(CMAKE is None, reason="needs CMake")


def configure(folder, *options, **environment):
    inherited = {name: value for name, value in os.environ.items() if name != "CUDAARCHS"}
    command = [
        CMAKE,
        "-S",
        ROOT,
        "-B",
        folder,
        "-DPYPOSE_OPS_MODULE=OFF",
        f"-DPython_EXECUTABLE={sys.executable}",
        *options,
    ]
    return subprocess.run(command, env=inherited | environment, capture_output=True, text=True)


def test_for_this_processor_only(tmp_path):
    done = configure(tmp_path, "-DPYPOSE_OPS_CUDA=OFF", "-DPYPOSE_OPS_INSTRUCTION_SETS=native")
    assert done.returncode == 0, done.stderr
    level = re.search(r"CPU kernels for this processor only \((\w+)\)", done.stdout)[1]
    assert level == pypose_ops.build_info()["processor"]


@pytest.mark.parametrize("option", ["INSTRUCTION_SETS", "CUDA"])
def test_unknown_value(tmp_path, option):
    done = configure(tmp_path, f"-DPYPOSE_OPS_{option}=some")
    assert done.returncode != 0
    assert re.search(rf"PYPOSE_OPS_{option} must be .*got\s+'some'", done.stderr, re.DOTALL)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize("architectures", ["all-major", "80;90"])
def test_cuda_architectures(tmp_path, architectures):
    done = configure(tmp_path, "-DPYPOSE_OPS_CUDA=ON", CUDAARCHS=architectures)
    assert done.returncode == 0, done.stderr
    found = re.search(r"CUDA architectures (\S+)", done.stdout)[1].split(";")
    if architectures == "80;90":
        assert found == ["80", "90"]
    else:
        assert re.fullmatch(r"\d+-virtual", found[-1])
        assert all(re.fullmatch(r"\d+-real", name) for name in found[:-1])
        assert len({int(name.removesuffix("-real")) // 10 for name in found[:-1]}) == len(found) - 1 >= 4

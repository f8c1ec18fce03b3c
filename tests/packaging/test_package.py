"""The installed package: what it imports, how fast, what it says about itself, and which torch it needs."""

import importlib.metadata
import importlib.util
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pypose_ops

PACKAGE = Path(pypose_ops.__file__).parent


def python(code, cwd):
    """Runs code in a fresh interpreter, away from the source folder, whose pypose_ops has no _C."""
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_adds_little_to_torch(tmp_path):
    code = "import time, torch; start = time.perf_counter(); import pypose_ops; print(time.perf_counter() - start)"
    seconds = statistics.median(float(python(code, tmp_path)) for _ in range(5))
    assert seconds <= 0.1


def test_import_leaves_drawing_and_tables_alone(tmp_path):
    code = "import torch, sys; before = set(sys.modules); import pypose_ops; print(*set(sys.modules) - before)"
    loaded = set(python(code, tmp_path).split())
    assert "pypose_ops._C" in loaded
    assert not loaded & {"matplotlib", "PIL", "rich", "scipy", "skimage", "pypose_ops.viz", "pypose_ops.cli"}


def test_public_names():
    for name in pypose_ops.__all__:
        assert getattr(pypose_ops, name).__doc__, name


def test_build_info():
    info = pypose_ops.build_info()
    assert info["version"] == pypose_ops.__version__ == importlib.metadata.version("pypose_ops")
    assert tuple(map(int, info["torch_headers"].split(".")[:2])) >= (2, 10)
    assert info["torch"] == torch.__version__
    assert (info["cuda_toolkit"] is None) == (info["cuda_architectures"] is None)
    assert info["cuda_architectures"] is None or all(info["cuda_architectures"])
    assert len(info["gpus"]) == torch.cuda.device_count()


def test_stable_abi():
    """The binary uses nothing of libtorch but the stable ABI, and nothing of that which is newer than torch 2.10."""
    audit = pytest.importorskip("torch_abi_audit")
    report = audit.inspect_extension(pypose_ops._C.__file__)
    assert report.error is None
    assert report.torch.uses_torch and report.torch.stable and not report.torch.unstable_symbols
    assert tuple(map(int, report.torch.min_torch_version.split(".")[:2])) <= (2, 10)


def test_unbuilt_package_says_what_to_do(tmp_path):
    """What a user sees who starts Python inside the source folder: there is no _C there."""
    source = tmp_path / "__init__.py"
    source.write_text((PACKAGE / "__init__.py").read_text())
    spec = importlib.util.spec_from_file_location("unbuilt", source, submodule_search_locations=[str(tmp_path)])
    module = importlib.util.module_from_spec(spec)
    sys.modules["unbuilt"] = module
    try:
        with pytest.raises(ImportError, match=r"not built here: run `pip install \.`.*outside the source folder"):
            spec.loader.exec_module(module)
    finally:
        del sys.modules["unbuilt"]

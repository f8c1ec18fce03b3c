"""The installed package: its imports and their time, its build information, and the torch it needs."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pypose_ops

PACKAGE = Path(pypose_ops.__file__).parent


def python(code, cwd, **environment):
    """Runs code in a fresh interpreter, away from the source folder, whose pypose_ops has no library."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=variables | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.alone
def test_import_adds_little_to_torch(tmp_path):
    """Of the processor's time, once the byte code is there: what else the machine does is not the import's."""
    code = "import time, torch; start = time.process_time(); import pypose_ops; print(time.process_time() - start)"
    runs = [float(python(code, tmp_path, PYTHONPYCACHEPREFIX=str(tmp_path / "cache"))) for _ in range(6)]
    assert min(runs[1:]) <= 0.08


def test_what_is_imported(tmp_path):
    """Of its own, everything that an operator needs; of others, nothing that torch and numpy had not brought along."""
    code = "import torch, numpy, sys; before = set(sys.modules); import pypose_ops; print(*set(sys.modules) - before)"
    loaded = set(python(code, tmp_path).split())
    assert "pypose_ops._C" in loaded
    own = {name for name in loaded if name.split(".")[0] == "pypose_ops"}
    assert {name.split(".")[1] for name in own - {"pypose_ops"}} == {
        "_C",
        "_build",
        "_constants",
        "geometry",
        "ops",
        "skeletons",
    }
    packages = {name.split(".")[0] for name in loaded - own}
    assert packages <= set(sys.stdlib_module_names), packages


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
    levels = ("baseline", "avx2", "avx512")
    assert info["instruction_sets"] in ("all", info["instruction_set"])
    assert levels.index(info["instruction_set"]) <= levels.index(info["processor"])
    assert len(info["gpus"]) == torch.cuda.device_count()


@pytest.mark.parametrize("compiled", ["all", "baseline", "avx2", "avx512"])
@pytest.mark.parametrize("processor", ["baseline", "avx2", "avx512"])
def test_library_for_another_processor(compiled, processor):
    info = {"instruction_sets": compiled, "processor": processor}
    if (compiled, processor) in [("avx2", "baseline"), ("avx512", "baseline"), ("avx512", "avx2")]:
        again = "PYPOSE_OPS_INSTRUCTION_SETS=all pip"
        with pytest.raises(ImportError, match=f"{compiled} alone .*has {processor}: {again}"):
            pypose_ops._build.check_processor(info)
    else:
        pypose_ops._build.check_processor(info)


def test_stable_abi():
    """The binary uses nothing of libtorch but the stable ABI, and nothing of that which is newer than torch 2.10."""
    audit = pytest.importorskip("torch_abi_audit")
    report = audit.inspect_extension(pypose_ops.build_info()["library"])
    assert report.error is None
    assert report.torch.uses_torch and report.torch.stable and not report.torch.unstable_symbols
    assert tuple(map(int, report.torch.min_torch_version.split(".")[:2])) <= (2, 10)


def test_unbuilt_package_says_what_to_do(tmp_path):
    """What a user sees who starts Python inside the source folder: there is no library there."""
    for name in ("__init__.py", "_build.py"):
        (tmp_path / name).write_text((PACKAGE / name).read_text())
    source = tmp_path / "__init__.py"
    spec = importlib.util.spec_from_file_location("unbuilt", source, submodule_search_locations=[str(tmp_path)])
    module = importlib.util.module_from_spec(spec)
    sys.modules["unbuilt"] = module
    try:
        with pytest.raises(ImportError, match=r"not built here: .*run `pip install \.`.*outside the source folder"):
            spec.loader.exec_module(module)
    finally:
        for name in ("unbuilt", "unbuilt._build"):
            sys.modules.pop(name, None)

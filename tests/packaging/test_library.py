"""libpypose_ops without Python: its dependencies and symbols, how it is loaded, and the errors when it cannot be."""

import json
import re
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from simt_device import HOST_OPERATORS

import pypose_ops
from pypose_ops import _build
from pypose_ops.ops import _autograd

LIBRARY = Path(pypose_ops.build_info()["library"])
MODULE = Path(pypose_ops._C.__file__)
OTHER_MACHINE = 183 if _build.platform.machine() == "x86_64" else 62
needs_elf = pytest.mark.skipif(sys.platform != "linux", reason="reads ELF files")


def readelf(*arguments):
    return subprocess.run(["readelf", "-W", *arguments], stdout=subprocess.PIPE, text=True, check=True).stdout


def run_python(code, cwd):
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=cwd, capture_output=True, text=True)


@needs_elf
def test_the_library_knows_no_python():
    symbols = readelf("--dyn-syms", LIBRARY)
    assert not re.search(r"\b_?Py[A-Z_]\w+", symbols)
    needed = re.findall(r"NEEDED.*\[(.*)\]", readelf("-d", LIBRARY))
    assert "libtorch.so" in needed and not [name for name in needed if "python" in name or "cudart" in name]


@needs_elf
def test_one_function_is_visible():
    lines = [line.split() for line in readelf("--dyn-syms", LIBRARY).splitlines()]
    defined = {line[7].split("@")[0] for line in lines if len(line) > 7 and line[4] == "GLOBAL" and line[6].isdigit()}
    defined |= {line[7].split("@")[0] for line in lines if len(line) > 7 and line[4] == "WEAK" and line[6].isdigit()}
    assert defined == {"pypose_ops_build_info"}


@needs_elf
def test_the_module_is_small_and_finds_the_library_beside_it():
    assert MODULE.stat().st_size < 400_000 < LIBRARY.stat().st_size
    dynamic = readelf("-d", MODULE)
    assert "[libpypose_ops.so]" in dynamic and re.search(r"RU?N?PATH.*\[\$ORIGIN\]", dynamic)
    assert "libtorch" not in dynamic


@needs_elf
def test_the_binaries_run_on_manylinux_2_28(tmp_path):
    """Whatever system this was built on: a wheel of these binaries is manylinux_2_28, or older, for auditwheel."""
    pytest.importorskip("auditwheel")
    wheel = tmp_path / f"pypose_ops-{pypose_ops.__version__}-py3-none-linux_{_build.platform.machine()}.whl"
    info = f"pypose_ops-{pypose_ops.__version__}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in (LIBRARY, MODULE):
            archive.write(path, f"pypose_ops/{path.name}")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-linux_x86_64\n")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: pypose_ops\nVersion: {pypose_ops.__version__}\n"
        )
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in archive.namelist()))
    command = [sys.executable, "-m", "auditwheel", "show", "--json", wheel]
    report = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    assert tuple(map(int, re.search(r"manylinux_(\d+)_(\d+)", str(report["sym_tag"])).groups())) <= (2, 28), report


@pytest.mark.skipif(pypose_ops.build_info()["cuda_toolkit"] is not None, reason="a build with CUDA kernels")
def test_the_package_without_its_weights_is_small():
    """What the wheel of `make wheels` holds, with a _C for six Pythons, in megabytes as compressed; 6 are allowed."""
    files = [path for path in Path(pypose_ops.__file__).parent.rglob("*.*") if path.suffix in (".py", ".md", ".npz")]
    size = {path: len(zlib.compress(path.read_bytes())) / 1e6 for path in (*files, LIBRARY, MODULE)}
    assert 0.5 < size[LIBRARY] < 3 and sum(size.values()) + 5 * size[MODULE] < 6


def test_ctypes_and_the_module_agree(monkeypatch):
    """A Python that the wheel has no ``_C`` for reads the same."""
    by_module = _build.binary_info()

    def missing(name, package=None):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(_build.importlib, "import_module", missing)
    assert _build.binary_info() == by_module
    assert by_module["machine"] == _build.platform.machine()


def test_operators_without_importing_the_package(tmp_path):
    """torch.ops.load_library is enough to call them."""
    code = f"""
import sys, torch
torch.ops.load_library({str(LIBRARY)!r})
print(torch.ops.pypose_ops.decode_heatmaps, "pypose_ops" in sys.modules)
print(torch.ops.pypose_ops.box_vote(torch.tensor([[1.0, 1.0, 3.0, 3.0]]), torch.ones(1, 1), 4, 4).shape)
"""
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["pypose_ops.decode_heatmaps False", "torch.Size([1, 4, 4])"]


def test_every_operator_answers_for_cuda():
    """By a kernel, or by saying that this build has none; those of the host take no CUDA tensors at all."""
    names = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("pypose_ops::")}
    has = {name for name in names if torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA")}
    assert names - has == set(HOST_OPERATORS)


@pytest.mark.skipif(pypose_ops.build_info()["cuda_toolkit"] is not None, reason="a build with CUDA kernels")
def test_a_cuda_tensor_meets_a_build_without_cuda():
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
    with pytest.raises(RuntimeError, match=r"has CPU kernels only.*PYPOSE_OPS_CUDA=ON pip install"):
        torch.ops.pypose_ops.box_vote.default.redispatch(keys, torch.zeros(1, 1, 4), torch.ones(1, 1), 4, 4)
    assert re.search("CPU kernels only(, for processors with .*)?; PYPOSE_OPS_CUDA=ON", _build.summary())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            "no kernel image is available for execution on the device",
            r"^pypose_ops: this build has CUDA code for 80-real 90-real 90-virtual, and this GPU has compute "
            r"capability 7\.5: with nvcc, PYPOSE_OPS_CUDA=ON CUDAARCHS=75 pip install [-\w ]+ pypose_ops$",
        ),
        ("an illegal memory access was encountered", r"^pypose_ops: box_vote: .*: an illegal memory access"),
    ],
)
def test_a_kernel_that_does_not_start(monkeypatch, error, message):
    """The error of csrc/common/cuda.cuh, on a GPU that says it is of another architecture."""

    class Operator:
        def __call__(self, *args):
            raise RuntimeError(f"box_vote: the launch of a CUDA kernel with 1 blocks of 1 threads failed: {error}")

        def name(self):
            return "pypose_ops::box_vote"

    info = _build.binary_info() | {"cuda_toolkit": "13.0", "cuda_architectures": "80-real 90-real 90-virtual"}
    monkeypatch.setattr(_build, "binary_info", lambda: info)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(RuntimeError, match=message):
        _autograd.call(Operator(), (), torch.zeros(1))


@pytest.mark.parametrize("version", ["2.9.1+cu128", "1.13.1", "2.4.0a0"])
def test_an_old_torch_is_named(version):
    message = rf"needs torch 2\.10 or newer, this is torch {re.escape(version)}: pip install --upgrade 'torch>=2\.10'"
    with pytest.raises(ImportError, match=message):
        _build.check_torch(version)


@pytest.mark.parametrize("version", ["2.10.0", "2.13.0+cpu", "2.16.0a0+git1234", "3.0"])
def test_newer_torch_passes(version):
    _build.check_torch(version)


def test_a_missing_library_is_named(tmp_path):
    with pytest.raises(ImportError, match=f"there is no {_build.LIBRARY} in {tmp_path}"):
        _build.find_library([str(tmp_path)])


@needs_elf
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:18] + OTHER_MACHINE.to_bytes(2, "little") + data[20:],
         r"is made for (aarch64|x86_64), this machine is .*: pip install --force-reinstall"),
        (lambda data: b"<html>" + data[6:], r"is not a Linux library, or is damaged: pip install --force-reinstall"),
        (lambda data: data[: len(data) // 2], r"is not a Linux library, or is damaged"),
        (lambda data: data[:-1], r"is not a Linux library, or is damaged"),
        (lambda data: data[:30], r"is not a Linux library, or is damaged"),
        (lambda data: b"", r"is not a Linux library, or is damaged"),
        (lambda data: data.replace(b"libtorch_cpu.so", b"libtorch_xyz.so"), r"cannot be loaded \(.*libtorch_xyz"),
    ],
)  # fmt: skip
def test_a_library_that_does_not_load_is_explained(tmp_path, change, message):
    path = tmp_path / LIBRARY.name
    path.write_bytes(change(LIBRARY.read_bytes()))
    with pytest.raises(ImportError, match=message) as error:
        _build.load(path)
    assert "\n" not in str(error.value)


def test_a_newer_systems_library_is_explained():
    error = "/lib/libc.so.6: version `GLIBC_2.43' not found (required by libpypose_ops.so)"
    assert "built on a newer system" in _build.why_not_loaded(LIBRARY, error)

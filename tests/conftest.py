"""Which kernels a test runs on, real data, and what every test starts from.

A test that takes ``device`` runs three times: on ``cpu``, on ``simt`` (the CUDA kernels, executed on the CPU) and on
``cuda`` (skipped without a GPU; PYPOSE_OPS_REQUIRE_CUDA=1 turns that skip into a failure). ``kernels`` says which.
"""

import os
from pathlib import Path

import pytest

pytest.register_assert_rewrite("op_contract", "gpu_contract", "contract_tools")

import torch  # noqa: E402

KERNELS = ("cpu", "simt", "cuda")


def need_gpu():
    if not torch.cuda.is_available():
        if os.environ.get("PYPOSE_OPS_REQUIRE_CUDA") == "1":
            pytest.fail("PYPOSE_OPS_REQUIRE_CUDA=1, and torch sees no GPU")
        pytest.skip("no GPU")


@pytest.fixture(params=KERNELS)
def kernels(request):
    """The kernels under test, by name."""
    if request.param == "simt":
        import simt_device

        with simt_device.simt_kernels():
            yield "simt"
        return
    if request.param == "cuda":
        need_gpu()
    yield request.param


@pytest.fixture(params=("meta", "cuda"))
def where(request):
    """A device whose copies from the host are seen (device_copies.py)."""
    if request.param == "cuda":
        need_gpu()
    return torch.device(request.param)


@pytest.fixture
def device(kernels):
    """Where the tensors of this test live: the simt kernels take CPU tensors."""
    return torch.device("cuda" if kernels == "cuda" else "cpu")


@pytest.fixture
def shared_data():
    """The folder of real data, which is not part of the project."""
    folder = Path(os.environ.get("PYPOSE_OPS_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set PYPOSE_OPS_DATA")
    return folder


@pytest.fixture(autouse=True)
def same_start():
    """Same random numbers for every test, alone or among others; a test may change the thread count."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)

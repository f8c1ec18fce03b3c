"""Devices, and the copy bandwidth of this run."""

import os

import bench_tools
import pytest
import torch


def pytest_configure(config):
    bench_tools.settle_allocator()
    config.load_before = os.getloadavg()[0] / os.cpu_count()


@pytest.fixture(params=("cpu", "cuda"))
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        if os.environ.get("PYPOSE_OPS_REQUIRE_CUDA") == "1":
            pytest.fail("PYPOSE_OPS_REQUIRE_CUDA=1, and torch sees no GPU")
        pytest.skip("no GPU")
    return torch.device(request.param)


@pytest.fixture(scope="session")
def copy_bandwidth(request):
    """Bytes read plus written per second by a large copy, per device type, measured once per run."""
    measured = {}

    def get(device):
        if device.type not in measured:
            measured[device.type] = bench_tools.copy_bandwidth(device)
        return measured[device.type]

    return get


@pytest.fixture
def measure(benchmark, copy_bandwidth, pytestconfig):
    """Times one row of one group of the report, after its values have been checked."""

    def run(call, op, shape, direction, row, device, bytes_moved, check=None):
        size = "x".join(str(n) for n in shape)
        benchmark.group = f"{op} {size} {direction} {device.type}"
        result = call()
        if check is not None:
            check(result)
        del result
        info = dict(op=op, shape=size, direction=direction, row=row, device=bench_tools.device_name(device))
        info |= dict(torch=torch.__version__, threads=torch.get_num_threads(), bytes_moved=bytes_moved)
        benchmark.extra_info.update(info, load_before=pytestconfig.load_before)
        if benchmark.disabled:
            return
        benchmark.extra_info["copy_bytes_per_second"] = copy_bandwidth(device)
        if device.type == "cuda":
            benchmark.extra_info["device_seconds"] = bench_tools.device_seconds(call)
        benchmark(bench_tools.synchronized(call, device))

    yield run
    if benchmark.disabled:
        benchmark(lambda: None)  # pytest-benchmark wants the fixture used

"""The test device itself: the results of its kernels, the errors it detects, and how it replaces the CPU kernels."""

import threading

import pytest
import simt_device
import torch
from simt import limits
from simt.build import SELFTEST, build

ORDERS = ("ascending", "descending", "shuffle:0", "shuffle:1")
FULL = 0xFFFFFFFF


@pytest.fixture(scope="module")
def ops():
    torch.ops.load_library(build(target=SELFTEST))
    return torch.ops.pypose_ops_simt_selftest


@pytest.fixture(params=ORDERS)
def order(request, monkeypatch):
    monkeypatch.setenv("PYPOSE_OPS_SIMT_ORDER", request.param)
    return request.param


def shuffle_source(kind, lane, argument, width):
    """The lane that a shuffle reads, from the description in the CUDA programming guide."""
    first = lane - lane % width
    if kind == "index":
        return first + argument % width
    source = {"up": lane - argument, "xor": lane ^ argument}[kind]
    inside = source < first + width if kind == "xor" else first <= source < first + width
    return source if inside else lane


@pytest.mark.parametrize("width", (32, 16, 4, 1))
@pytest.mark.parametrize("kind", ("index", "up", "xor"))
def test_shuffle(ops, order, kind, width):
    values = torch.randperm(64).int()
    for argument in (0, 1, 3, 7, 16, 31):
        out = ops.shuffle(values, ("index", "up", "xor").index(kind), argument, width)
        warps = [[warp + shuffle_source(kind, lane, argument, width) for lane in range(32)] for warp in (0, 32)]
        assert torch.equal(out, values[torch.tensor(warps).flatten()])


@pytest.mark.parametrize(
    "dtype", (torch.int8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64)
)
def test_shuffle_moves_bits_of_every_type(ops, dtype):
    values = torch.linspace(-100, 100, 64).to(dtype)
    assert torch.equal(ops.shuffle(values, 2, 1, 32), values.reshape(-1, 2).flip(1).flatten())


@pytest.mark.parametrize("mask", (FULL, 0x0000FFFF, 0x80000001, 0x00000010))
def test_ballots(ops, order, mask):
    values = torch.randint(-3, 4, (32,)).int()
    lanes = [lane for lane in range(32) if mask >> lane & 1]
    expected = torch.full((32,), -1, dtype=torch.int64)
    expected[lanes] = sum(1 << lane for lane in lanes if values[lane] > 0)
    assert torch.equal(ops.ballot(values, mask).long() % 2**32, expected % 2**32)


def test_ballots_in_a_partial_warp(ops, order):
    # Lanes that do not exist count as arrived, and have no vote.
    assert ops.ballot(torch.tensor([1, 1, 0, 2, 1], dtype=torch.int32), FULL).tolist() == [0b11011] * 5


def test_halves_of_a_warp_go_different_ways(ops, order):
    value = torch.cat([(torch.arange(16) + 3) % 16, torch.full((16,), sum(range(16, 32)))])
    assert torch.equal(ops.divergent(torch.empty(0, dtype=torch.int32)).long(), value + 1000 * value.flip(0))


@pytest.mark.parametrize("count", (1, 31, 33, 100, 128))
def test_barriers_with_threads_that_left(ops, order, count):
    values = torch.randint(-1, 3, (count,)).int()
    positive = values > 0
    out = ops.barriers(values)
    assert out[0].tolist() == [int(positive.any())] * count
    assert torch.equal(out[1].long(), values.flip(0).cumsum(0))


def test_shared_memory_is_filled_before_every_block(ops, order):
    assert ops.fresh_shared(torch.empty(0, dtype=torch.int32)).tolist() == [[-1, -1]] * 3


@pytest.mark.parametrize("dtype", (torch.int32, torch.int64, torch.float32, torch.float64))
def test_atomics(ops, order, dtype):
    out = torch.zeros(1, dtype=dtype)
    ops.atomics(out)
    assert out.item() == sum(range(256))


@pytest.mark.parametrize("grid, block", (((1, 1, 1), (1, 1, 1)), ((3, 2, 4), (5, 3, 2)), ((130, 1, 1), (1024, 1, 1))))
def test_every_thread_runs_once(ops, order, grid, block):
    out = ops.indices(torch.empty(0, dtype=torch.int32), *grid, *block, 0)
    assert torch.equal(out, torch.arange(1, len(out) + 1, dtype=torch.int32))


@pytest.mark.parametrize(
    "launch, message",
    (
        ((0, 1, 1, 32, 1, 1, 0), r"grid \(0, 1, 1\)"),
        ((1, 65536, 1, 32, 1, 1, 0), r"grid \(1, 65536, 1\)"),
        ((1, 1, 1, 1025, 1, 1, 0), r"block \(1025, 1, 1\)"),
        ((1, 1, 1, 0, 1, 1, 0), r"block \(0, 1, 1\)"),
        ((1, 1, 1, 1, 1, 128, 0), r"block \(1, 1, 128\)"),
        ((1, 1, 1, 32, 1, 1, 49153), "49152 bytes, got 0 static and 49153 dynamic"),
    ),
)
def test_launches_that_a_gpu_refuses(ops, launch, message):
    with pytest.raises(RuntimeError, match="invalid configuration argument: .*" + message):
        ops.indices(torch.empty(0, dtype=torch.int32), *launch)


def test_launches_that_do_not_fit_into_a_multiprocessor(ops):
    """What a kernel takes beside the launch: static shared memory, and registers."""
    like = torch.empty(0, dtype=torch.int32)
    path = build(target=SELFTEST)
    assert "index_kernel" not in limits.install(path, {"index_kernel": (64, 64)})
    try:
        ops.indices(like, 1, 1, 1, 1024, 1, 1, 48 * 1024 - 64)
        with pytest.raises(RuntimeError, match="at most 49152 bytes, got 64 static and 49089 dynamic"):
            ops.indices(like, 1, 1, 1, 32, 1, 1, 48 * 1024 - 63)
        limits.install(path, {"index_kernel": (65, 0)})
        ops.indices(like, 1, 1, 1, 896, 1, 1, 0)
        with pytest.raises(RuntimeError, match="registers of a block must be at most 65536, got 897 threads of 65"):
            ops.indices(like, 1, 1, 1, 897, 1, 1, 0)
    finally:
        limits.install(path, {"index_kernel": (0, 0)})


def test_the_limits_of_every_kernel_are_known():
    path = simt_device.load()
    assert set(limits.kernels(path).values()) >= {"gaussian_heatmaps_kernel<float, 4>", "integral_kernel"}
    assert limits.install(path) == []


def test_intrinsics(ops):
    values = torch.tensor([1.5, 2.25, -7.9, float("nan")])
    expected = torch.cat([values, torch.tensor([8, 1.5, 1.5, 3])])
    torch.testing.assert_close(ops.intrinsics(values), expected, equal_nan=True, rtol=0, atol=0)


def test_argmax(ops, order):
    maps = torch.randn(50, 64, 48)
    assert torch.equal(ops.argmax(maps), maps.flatten(1).argmax(1))


def test_unknown_order_is_refused(ops, monkeypatch):
    monkeypatch.setenv("PYPOSE_OPS_SIMT_ORDER", "sideways")
    with pytest.raises(RuntimeError, match="shuffle:<seed>, got 'sideways'"):
        ops.reverse(torch.zeros(128), True)


@pytest.mark.parametrize(
    "kind, message",
    (
        (0, r"__syncthreads while others wait at .*faults\.cu:\d+ in block \(0, 0, 0\), thread \(\d+, 0, 0\)"),
        (1, r"__syncthreads while others wait at .*faults\.cu:\d+ in block"),
        (2, "__syncwarp with a mask that excludes the calling lane in block"),
        (
            3,
            r"deadlock in block \(0, 0, 0\): 64 threads \(0, 2, 4, \.\.\.\) wait in __ballot_sync with mask 0x55555557",
        ),
        (4, r"__trap in block \(0, 0, 0\), thread \(5, 0, 0\)"),
        (5, "width must be 1, 2, 4, 8, 16 or 32"),
        (
            6,
            r"deadlock in block \(0, 0, 0\): 127 threads .* wait at __syncthreads, .*; "
            r"1 threads \(3\) wait in __syncwarp",
        ),
    ),
)
def test_misuse_is_reported(ops, order, kind, message):
    like = torch.empty(0, dtype=torch.int32)
    with pytest.raises(RuntimeError, match=message):
        ops.misuse(like, kind)
    # The stacks of the threads that wait for ever are free again.
    assert torch.equal(ops.misuse(like, 7), torch.arange(128, dtype=torch.int32))


@pytest.mark.parametrize("kind", (1, 2))
def test_misaligned_vectors_are_reported(ops, kind):
    with pytest.raises(RuntimeError, match=r"misaligned address of 16 bytes in block \(0, 0, 0\), thread .*faults.cu"):
        ops.misaligned(torch.arange(8.0), kind)


def test_a_missing_barrier_shows(ops, monkeypatch):
    values = torch.arange(512.0)
    expected = values.reshape(4, 128).flip(1).flatten()
    without = []
    for name in ORDERS:
        monkeypatch.setenv("PYPOSE_OPS_SIMT_ORDER", name)
        assert torch.equal(ops.reverse(values, True), expected)
        without.append(ops.reverse(values, False))
    assert not any(torch.equal(result, expected) for result in without)
    assert not torch.equal(without[0], without[1])


def test_launches_from_two_threads(ops):
    maps = torch.randn(200, 32, 32)
    results = [None] * 4

    def work(i):
        results[i] = ops.argmax(maps)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(results))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(result, maps.flatten(1).argmax(1)) for result in results)


# ---- standing in for the CPU kernels ----


def numbers(result):
    return result[1].tolist()


@pytest.fixture(scope="module")
def first(ops):
    """The operators of the first namespace, with what a Python wrapper would add to `scale`."""
    library = torch.library.Library("pypose_ops_simt_first", "FRAGMENT")
    schemas = simt_device.copy_schemas("pypose_ops_simt_first", "pypose_ops_simt_second")

    def fake(values, bias, height, widths, others, factor=2.0, mode="plain"):
        return torch.empty_like(values), values.new_empty(5, dtype=torch.int64)

    def setup_context(ctx, inputs, output):
        ctx.factor, ctx.others = inputs[5], len(inputs[4])

    def backward(ctx, gradient, _):
        return gradient * ctx.factor, None, None, None, [None] * ctx.others, None, None

    torch.library.register_fake("pypose_ops_simt_first::scale", fake, lib=library)
    torch.library.register_autograd("pypose_ops_simt_first::scale", backward, setup_context=setup_context, lib=library)
    yield torch.ops.pypose_ops_simt_first
    library._destroy()
    schemas._destroy()


@pytest.fixture
def swapped():
    return simt_device.kernels_from("pypose_ops_simt_second", "pypose_ops_simt_first")


def test_stand_in_and_back(first, swapped):
    values, others = torch.arange(4.0), [torch.ones(1), torch.ones(2)]
    arguments = (values, torch.ones(4), 7, [1, 2, 3], others, 3.0)
    assert numbers(first.scale(*arguments, mode="abc")) == [7, 6, 2, 3, 1]
    with swapped:
        result = first.scale(*arguments, mode="abc")
        assert numbers(result) == [7, 6, 2, 3, 2]
        assert torch.equal(result[0], values * 3 + 1)
        assert numbers(first.scale(values, None, 1, [], [])) == [1, 0, 0, 5, 2]
    assert numbers(first.scale(*arguments)) == [7, 6, 2, 5, 1]


def test_stand_in_ends_with_an_error(first, swapped):
    with pytest.raises(KeyError), swapped:
        raise KeyError
    assert numbers(first.scale(torch.ones(1), None, 1, [], []))[4] == 1


def test_stand_in_under_autograd(first, swapped):
    values = torch.ones(4, requires_grad=True)
    with swapped:
        out, seen = first.scale(values, None, 1, [1], [], 5.0, "mode")
        out.sum().backward()
    assert seen[4] == 2
    assert torch.equal(values.grad, torch.full((4,), 5.0))


def test_stand_in_under_compile(first, swapped):
    @torch.compile(fullgraph=True, dynamic=True, backend="aot_eager")
    def compiled(values):
        return first.scale(values * 1, None, values.shape[0], [values.shape[0], 1], [values], 5.0, "mode")

    with swapped:
        for size in (4, 6):
            values = torch.ones(size, requires_grad=True)
            result = compiled(values)
            result[0].sum().backward()
            assert numbers(result) == [size, size + 1, 1, 4, 2]
            assert torch.equal(values.grad, torch.full((size,), 5.0))
    assert numbers(compiled(torch.ones(4)))[4] == 1


def test_stand_in_passes_opcheck(first, swapped):
    with swapped:
        torch.library.opcheck(first.scale, (torch.ones(4, requires_grad=True), None, 2, [1], [], 2.0, "m"))


def test_operator_without_a_kernel_is_an_error(first, swapped):
    with swapped, pytest.raises(NotImplementedError, match="pypose_ops_simt_second::only_first: no CUDA kernel"):
        first.only_first(torch.ones(1))
    first.only_first(torch.ones(1))

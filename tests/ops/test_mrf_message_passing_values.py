"""mrf_message_passing: hand-computed cases, properties, real maps."""

import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from contract_tools import only_on

from pypose_ops import mrf_message_passing, reference


def test_message_by_hand(device):
    """One row of three pixels, floor 1: u = (1, 5, 1); the prior is 2 to the left, 3 in place, 7 to the right."""
    unary = torch.tensor([[[[0.5, 5.0, -4.0]]]], device=device)
    prior = torch.tensor([[[2.0, 3.0, 7.0]]], device=device)
    out = mrf_message_passing(unary, prior, torch.tensor([0.5], device=device), [(0, 0)], floor=1.0)
    messages = [3 * 1 + 2 * 5, 7 * 1 + 3 * 5 + 2 * 1, 7 * 5 + 3 * 1]
    expected = [math.log(m + 0.5) for m in messages]
    torch.testing.assert_close(out.flatten().cpu(), torch.tensor(expected))


def test_gradients_by_hand(device):
    """As above, for the middle output alone: d log m = 1 / 24.5 of each factor."""
    unary = torch.tensor([[[[0.5, 5.0, -4.0]]]], device=device, requires_grad=True)
    prior = torch.tensor([[[2.0, 3.0, 7.0]]], device=device, requires_grad=True)
    bias = torch.tensor([0.5], device=device, requires_grad=True)
    mrf_message_passing(unary, prior, bias, [(0, 0)], floor=1.0)[0, 0, 0, 1].backward()
    torch.testing.assert_close(unary.grad.flatten().cpu(), torch.tensor([0.0, 3.0, 0.0]) / 24.5)
    torch.testing.assert_close(prior.grad.flatten().cpu(), torch.tensor([1.0, 5.0, 1.0]) / 24.5)
    torch.testing.assert_close(bias.grad.cpu(), torch.tensor([1.0]) / 24.5)


def test_message_of_a_spot_is_the_prior(device):
    """Nothing but one pixel, and a floor too small to matter: the prior, centred there."""
    unary = torch.zeros(1, 1, 7, 9, device=device)
    unary[0, 0, 2, 6] = 1.0
    prior = torch.rand(1, 13, 17, device=device) + 0.5
    out = mrf_message_passing(unary, prior, torch.tensor([1e-9], device=device), [(0, 0)], floor=1e-9)
    torch.testing.assert_close(out[0, 0].exp(), prior[0, 6 - 2 : 13 - 2, 8 - 6 : 17 - 6], rtol=1e-4, atol=1e-5)


def test_messages_add_up_per_target(device):
    unary, prior, bias = (t.to(device) for t in (torch.rand(1, 3, 6, 5), torch.rand(3, 5, 3), torch.rand(3) + 0.1))
    edges = [(0, 2), (1, 2), (2, 0)]
    alone = [mrf_message_passing(unary, prior[e : e + 1], bias[e : e + 1], edges[e : e + 1]) for e in range(len(edges))]
    torch.testing.assert_close(mrf_message_passing(unary, prior, bias, edges), sum(alone))
    assert not mrf_message_passing(unary, prior, bias, edges)[:, 1].any()


def test_many_edges_stay_in_range(device):
    """The product of 40 messages overflows and underflows every float; its logarithm does not."""
    unary = torch.ones(1, 40, 2, 2, device=device)
    edges = [(v, 0) for v in range(40)]
    for scale in (1e-20, 1e20):
        prior = torch.full((40, 1, 1), scale, device=device)
        bias = torch.full((40,), scale, device=device)
        out = mrf_message_passing(unary, prior, bias, edges, num_targets=1)
        torch.testing.assert_close(out, torch.full_like(out, 40 * math.log(2 * scale)), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "edges", ([(0, 1), (1, 0)], ((0, 1), (1, 0)), np.array([[0, 1], [1, 0]]), torch.tensor([[0, 1], [1, 0]]))
)
def test_edges_in_any_form(edges):
    unary, prior, bias = torch.rand(1, 2, 6, 5), torch.rand(2, 5, 3), torch.rand(2) + 0.1
    expected = mrf_message_passing(unary, prior, bias, [(0, 1), (1, 0)])
    assert mrf_message_passing(unary, prior, bias, edges).equal(expected)


@pytest.mark.parametrize("kernel", ((5, 3), (11, 9), (21, 1), (1, 1)), ids=str)
@pytest.mark.parametrize("prior_index", (None, [1, 0, 1]), ids=("own", "shared"))
def test_fft_is_the_same(kernel, prior_index):
    edges = [(0, 0), (1, 0), (1, 2)]
    tensors = [
        (torch.rand(2, 2, 6, 5).double() - 0.3).requires_grad_(),
        torch.rand(2 if prior_index else 3, *kernel).double().requires_grad_(),
        (torch.rand(3).double() + 0.1).requires_grad_(),
    ]
    weight = torch.rand(2, 3, 6, 5).double()
    results = []
    for call, options in ((mrf_message_passing, {"method": "fft"}), (reference.mrf_message_passing, {})):
        out = call(*tensors, edges, num_targets=3, prior_index=prior_index, **options)
        results.append([out, *torch.autograd.grad(out, tensors, weight)])
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)


def test_fft_where_nothing_arrives():
    """A message of the bias alone, which rounding leaves on either side of 0, has a gradient all the same."""
    unary = torch.rand(2, 1, 8, 8, dtype=torch.double)
    bias = torch.tensor([0.01], dtype=torch.double, requires_grad=True)
    sparse = torch.zeros(1, 15, 15, dtype=torch.double)
    sparse[0, 3, 3] = 1
    found = []
    for method in ("fft", "sparse"):
        prior = sparse.clone().requires_grad_()
        out = mrf_message_passing(unary, prior, bias, [(0, 0)], method=method)
        found.append([out, *torch.autograd.grad(out.sum(), (prior, bias))])
    assert (found[0][0] - math.log(0.01)).abs().min() < 1e-9
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)


def test_fft_of_strange_values():
    unary, prior, bias = torch.rand(1, 2, 6, 5), torch.rand(2, 5, 3), torch.tensor([math.nan, -1.0])
    unary[0, 0, 2, :3] = torch.tensor([math.nan, math.inf, -math.inf])
    prior[0, 1, :3] = torch.tensor([math.nan, math.inf, -2.0])
    out = mrf_message_passing(unary, prior, bias, [(0, 1), (1, 0)], method="fft")
    torch.testing.assert_close(out, reference.mrf_message_passing(unary, prior, bias, [(0, 1), (1, 0)]))
    assert mrf_message_passing(unary[:0], prior, bias, [(0, 1), (1, 0)], method="fft").shape == (0, 2, 6, 5)


@pytest.mark.parametrize("dtype", (torch.float16, torch.float32), ids=str)
def test_real_maps_in_single_precision(device, dtype, shared_data):
    with np.load(shared_data / "heatmaps" / "movenet_thunder_topdown.npz", allow_pickle=False) as file:
        unary = torch.from_numpy(file["heatmaps"][:2, 5:8].astype(np.float32))
    edges = [(v, j) for v in range(3) for j in range(3)][:4]
    prior, bias = torch.rand(4, 127, 127) / 127**2, torch.full((4,), 1e-3)
    exact = mrf_message_passing(unary.to(dtype).double(), prior.double(), bias.double(), edges)
    out = mrf_message_passing(*(t.to(device) for t in (unary.to(dtype), prior, bias)), edges)
    assert out.dtype == torch.float32 and out.isfinite().all()
    assert (out.cpu() - exact.cpu()).abs().max() < 1e-4


def test_lines_too_long_for_shared_memory(device):
    """Full displacement over 1,600 and 3,200 columns; a few pixels are active."""
    for width in (1600, 3200):
        unary = torch.zeros(1, 1, 2, width)
        unary[0, 0, 1, ::400] = torch.rand(width // 400) + 0.5
        data = [unary, torch.rand(1, 3, 2 * width - 1), torch.tensor([0.1])]
        weight = torch.randn(1, 1, 2, width)
        results = []
        for call, to, dtype in (
            (mrf_message_passing, device, torch.float32),
            (reference.mrf_message_passing, "cpu", torch.float64),
        ):
            leaves = [t.to(to, dtype).requires_grad_() for t in data]
            out = call(*leaves, [(0, 0)])
            grads = torch.autograd.grad(out, leaves, weight.to(out))
            results.append([t.cpu().double() for t in (out, *grads)])
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("columns", (3065, 3067, 3069, 3071, 3073))
def test_lines_that_just_fit_into_shared_memory(device, columns):
    """On CUDA a line's running sums share 48 KB with what the kernel holds besides: 3068 columns are too many."""
    width = (columns + 1) // 2  # with a prior as wide as can be
    unary, prior = torch.rand(1, 1, 1, width, device=device), torch.rand(1, 1, columns, device=device)
    bias = torch.tensor([0.5], device=device)
    out = mrf_message_passing(unary, prior, bias, [(0, 0)], floor=1e-3)
    torch.testing.assert_close(out, reference.mrf_message_passing(unary, prior, bias, [(0, 0)], floor=1e-3))


@pytest.mark.parametrize("width", (3067, 3068, 3071, 3072))
def test_gradients_of_lines_that_just_fit_into_shared_memory(device, width):
    unary, bias = torch.rand(1, 1, 1, width, device=device), torch.tensor([0.5], device=device)
    prior = torch.rand(1, 1, 5, device=device, requires_grad=True)
    mrf_message_passing(unary, prior, bias, [(0, 0)], floor=1e-3).sum().backward()
    want = prior.detach().clone().requires_grad_()
    reference.mrf_message_passing(unary, want, bias, [(0, 0)], floor=1e-3).sum().backward()
    torch.testing.assert_close(prior.grad, want.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.alone
@pytest.mark.parametrize("share", (0.05, 1.0))
@pytest.mark.parametrize("kernel", (31, 15))  # 7x7 is at the limit: docs/mrf.md
def test_never_slower_than_grouped_convolution(share, kernel):
    """1.5 times its time at most, also when every pixel is active; processor time, best of ten."""
    unary = torch.where(torch.rand(2, 4, 48, 48) < share, torch.rand(2, 4, 48, 48) + 0.1, 0.0)
    edges = [(v, j) for v in range(4) for j in range(4)]
    prior, bias = torch.rand(16, kernel, kernel), torch.full((16,), 1e-3)

    def seconds(call):
        times = []
        for _ in range(10):
            start = time.process_time()
            call(unary, prior, bias, edges)
            times.append(time.process_time() - start)
        return min(times)

    torch.set_num_threads(1)
    assert seconds(mrf_message_passing) < 1.5 * seconds(reference.mrf_message_passing)


PEAK = """
import re, torch, pypose_ops

def memory(name):
    return 1024 * int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1])

def peak(call):
    call()  # thread pools, and what the allocator keeps
    before = memory("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")
    result = call()
    return memory("VmHWM") - before, result

torch.set_num_threads(2)
torch.manual_seed(0)
unary = torch.where(torch.rand(16, 17, 64, 64) < 0.05, torch.rand(16, 17, 64, 64) + 0.1, 0.0)
edges = [(v, j) for v in range(17) for j in range(17)]
prior, bias = torch.rand(289, 127, 127), torch.full((289,), 1e-3)
extra, out = peak(lambda: pypose_ops.mrf_message_passing(unary, prior, bias, edges))
flat = [end for edge in edges for end in edge]
weight = torch.rand_like(out)
backward = torch.ops.pypose_ops._mrf_message_passing_backward.default
more, grads = peak(lambda: backward(weight, unary, prior, bias, flat, [], 1e-2, True, True, True))
print(extra / out.nbytes, more / sum(g.nbytes for g in grads))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is read as on Linux")
def test_memory_is_a_few_outputs(tmp_path):
    """Peak of a call, its output included: three outputs at most, so two extra; one message per edge would be 17."""
    # Elsewhere than in the source folder, which has no _C.
    run = subprocess.run([sys.executable, "-c", PEAK], cwd=tmp_path, capture_output=True, text=True, check=True)
    forward, backward = map(float, run.stdout.split())
    assert forward <= 3 and backward <= 3


@only_on("cpu")
@pytest.mark.parametrize(("share", "side", "chosen"), [(0.02, 64, "sparse"), (1.0, 64, "fft"), (1.0, 24, "sparse")])
def test_the_method_is_chosen_by_the_active_pixels(device, share, side, chosen):
    """Bit for bit that method's messages, and its gradients; the margins are factors of 2 and more."""
    torch.manual_seed(0)
    edges = [(v, j) for v in range(5) for j in range(4)]
    unary = torch.where(torch.rand(2, 5, side, side) < share, torch.rand(2, 5, side, side) + 0.1, 0.0)
    tensors = unary.requires_grad_(), torch.rand(20, 2 * side - 1, 2 * side - 1), torch.full((20,), 1e-3)
    found = []
    for method in ("auto", chosen):
        out = mrf_message_passing(*tensors, edges, num_targets=4, method=method)
        found.append((out, torch.autograd.grad(out.sum(), unary)[0]))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_method_is_chosen_for_what_is_refused_or_empty():
    unary, prior, bias = torch.rand(1, 2, 6, 5), torch.rand(2, 5, 3), torch.ones(2)
    for bad in ([(0, 1), (7, 0)], [(0, 1), (-1, 0)], [(0, 1), (1, 10**12)]):
        with pytest.raises(ValueError, match="edges must (start|end) at a"):
            mrf_message_passing(unary, prior, bias, bad, method="auto")
    with pytest.raises(ValueError, match=r"unary must be \(B, V, H, W\)"):
        mrf_message_passing(unary[0], prior, bias, [(0, 1), (1, 0)], num_targets=2, method="auto")
    none = mrf_message_passing(unary, prior[:0], bias[:0], [], method="auto")
    assert none.shape == (1, 2, 6, 5) and not none.any()
    assert mrf_message_passing(unary[:0], prior, bias, [(0, 1), (1, 0)], method="auto").shape == (0, 2, 6, 5)
    mapped = torch.func.vmap(lambda u: mrf_message_passing(u, prior, bias, [(0, 1), (1, 0)], method="auto"))
    expected = mrf_message_passing(unary, prior, bias, [(0, 1), (1, 0)])
    torch.testing.assert_close(mapped(torch.stack((unary, unary)))[1], expected)

"""mrf_message_passing: hand-computed cases, properties, real maps."""

import math

import numpy as np
import pytest
import torch

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

"""mrf_message_passing against transforms and grouped convolution in torch.  pytest benchmarks/bench_mrf.py

Unaries are real heatmaps where the data is there (../shared/data or PYPOSE_OPS_DATA), else rendered joints with as many
active pixels. The share of pixels above the floor is part of the shape's name.
"""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from bench_tools import Rotating

from pypose_ops import gaussian_heatmaps, mrf_message_passing, reference

pytestmark = pytest.mark.benchmark(max_time=0.6, min_rounds=3, warmup=False)
OP = "mrf_message_passing"
FLOOR = 1e-2
SIZE = (64, 64)
HEADLINE = (8, 17)
JOINTS = [(8, 5), (8, 9), HEADLINE]
SHARES = [0.01, 0.05, 0.2, 0.5, 1.0]


def full(joints):
    return [(v, j) for v in range(joints) for j in range(joints)]


def real_maps():
    folder = Path(os.environ.get("PYPOSE_OPS_DATA", Path(__file__).parents[2] / "shared" / "data"))
    path = folder / "heatmaps" / "movenet_thunder_topdown.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as file:
        return torch.from_numpy(file["heatmaps"].astype(np.float32))


def unaries(batch, joints, share=None):
    """Real maps, tiled; or as many active pixels as asked for, around random joints."""
    maps = real_maps() if share is None else None
    if maps is not None:
        items = torch.arange(batch) % maps.shape[0]
        return maps[items][:, torch.arange(joints) % maps.shape[1]]
    keypoints = torch.rand(batch, joints, 2) * torch.tensor([SIZE[1] - 1.0, SIZE[0] - 1.0])
    maps = gaussian_heatmaps(keypoints, 8.0, SIZE)
    count = max(1, round((0.05 if share is None else share) * SIZE[0] * SIZE[1]))
    limit = maps.flatten(2).topk(count).values[..., -1:, None]
    return torch.where(maps >= limit, maps.clamp(min=2 * FLOOR), 0.0)


def inputs(batch, joints, device, share=None):
    edges = joints * joints
    prior = torch.rand(edges, 2 * SIZE[0] - 1, 2 * SIZE[1] - 1) / (4 * SIZE[0] * SIZE[1])
    bias = torch.full((edges,), 1e-3)
    return tuple(t.to(device) for t in (unaries(batch, joints, share), prior, bias))


def linear_fft(unary, prior, bias, edges, floor):
    """What a torch user writes: transforms as long as the whole convolution, rounded up to a fast length."""
    height, width = unary.shape[-2:]
    size = [3 * n for n in (height, width)]
    spectra = torch.fft.rfft2(unary.clamp(min=floor), s=size)
    kernels = torch.fft.rfft2(prior, s=size)
    out = []
    for target in range(unary.shape[1]):
        members = [e for e, (_, j) in enumerate(edges) if j == target]
        messages = torch.fft.irfft2(spectra[:, [edges[e][0] for e in members]] * kernels[members], s=size)
        messages = messages[..., height - 1 : 2 * height - 1, width - 1 : 2 * width - 1].clamp(min=0)
        out.append((messages + bias[members][:, None, None]).log().sum(1))
    return torch.stack(out, 1)


ROWS = {
    "op": mrf_message_passing,
    "op, method fft": partial(mrf_message_passing, method="fft"),
    "op, method auto": partial(mrf_message_passing, method="auto"),
    "FFT in torch": linear_fft,
    "grouped conv2d (reference)": reference.mrf_message_passing,
}


def close(expected, rtol=1e-3):
    def same(actual):
        for a, e in zip(actual, expected, strict=True):
            torch.testing.assert_close(a, e, rtol=rtol, atol=rtol * e.abs().max().item())

    return same


def shape_of(batch, joints, share):
    named = "real" if share is None else f"{share:.0%}"
    return (batch, joints, *SIZE, named)


# The reference takes seconds: it runs at one image, where every row can be compared with it.
CASES = [(row, *HEADLINE, None) for row in ROWS if "conv" not in row]
CASES += [(row, 1, 17, None) for row in ROWS] + [("op", *joints, None) for joints in JOINTS[:-1]]
CASES += [(row, 1, 9, share) for share in SHARES for row in ("op", "op, method fft", "op, method auto", "FFT in torch")]
CASES += [("grouped conv2d (reference)", 1, 9, 1.0)]
AGAIN = "op, messages computed again"
TRAINED_ROWS = ROWS | {AGAIN: partial(mrf_message_passing, keep_messages=False)}
TRAINED = [(row, *HEADLINE, None) for row in ("op", AGAIN, "op, method fft", "FFT in torch")]


def ids(cases):
    return [f"{batch}x{joints}-{'real' if share is None else share}-{row}" for row, batch, joints, share in cases]


@pytest.mark.parametrize(("row", "batch", "joints", "share"), CASES, ids=ids(CASES))
def test_forward(measure, device, row, batch, joints, share):
    if device.type == "cuda":
        batch *= 4
    edges = full(joints)
    torch.manual_seed(0)
    data = inputs(batch, joints, device, share)
    expected = (mrf_message_passing(*data, edges, method="fft", floor=FLOOR),)
    run = Rotating(lambda *d: ROWS[row](*d, edges, floor=FLOOR), lambda: data, device, data[0].nbytes)
    same = close(expected)
    shape = shape_of(batch, joints, share)
    measure(run, OP, shape, "forward", row, device, 2 * data[0].nbytes, lambda actual: same((actual,)))


@pytest.mark.parametrize(("row", "batch", "joints", "share"), TRAINED, ids=ids(TRAINED))
def test_forward_backward(measure, device, row, batch, joints, share):
    if device.type == "cuda":
        batch *= 4
    edges = full(joints)
    torch.manual_seed(0)
    data = [t.requires_grad_() for t in inputs(batch, joints, device, share)]
    weight = torch.rand(batch, joints, *SIZE, device=device)

    def step(*tensors, call=TRAINED_ROWS[row]):
        return torch.autograd.grad(call(*tensors, edges, floor=FLOOR), tensors, weight)

    expected = step(*data, call=ROWS["op, method fft"])
    run = Rotating(step, lambda: data, device, data[0].nbytes)
    nbytes = 4 * data[0].nbytes + 2 * data[1].nbytes
    measure(run, OP, shape_of(batch, joints, share), "forward+backward", row, device, nbytes, close(expected))

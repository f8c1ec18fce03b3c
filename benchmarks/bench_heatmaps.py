"""gaussian_heatmaps against the fill of its output, torch and other libraries.  pytest benchmarks/bench_heatmaps.py"""

import functools

import bench_tools
import mmpose_port
import pytest
import torch
from bench_tools import HEADLINE, SHAPES, Rotating, named

from pypose_ops import gaussian_heatmaps, reference

pytestmark = pytest.mark.benchmark(max_time=0.4, min_rounds=5, warmup=False)
OP = "gaussian_heatmaps"
SIGMA = 2.0


def separable(keypoints, sigma, size):
    """What a good torch user writes: the outer product of two one-dimensional Gaussians."""
    scale = -0.5 / sigma**2
    x = torch.exp(scale * (torch.arange(size[1], device=keypoints.device) - keypoints[..., 0, None]) ** 2)
    y = torch.exp(scale * (torch.arange(size[0], device=keypoints.device) - keypoints[..., 1, None]) ** 2)
    return y[..., :, None] * x[..., None, :]


def kornia_render(keypoints, sigma, size):
    kornia = pytest.importorskip("kornia")
    flat = keypoints.reshape(-1, 2)
    std = torch.full_like(flat, sigma)
    maps = kornia.geometry.subpix.render_gaussian2d(flat, std, size, normalized_coordinates=False)
    return maps.reshape(*keypoints.shape[:2], *size)


def msra(keypoints, sigma, size):
    return gaussian_heatmaps(keypoints, sigma, size, center="rounded", truncate=3)


def unit_sum(keypoints, sigma, size):
    return gaussian_heatmaps(keypoints, sigma, size, normalize="sum")


@functools.cache
def kept(shape, device):
    return torch.empty(shape, device=device)


def into_kept(keypoints, sigma, size):
    out = kept((*keypoints.shape[:2], *size), keypoints.device)
    return gaussian_heatmaps(keypoints, sigma, size, out=out)


def numpy_port(encode):
    return lambda keypoints, sigma, size: torch.from_numpy(encode(keypoints.cpu().numpy(), sigma, size))


# row -> (callable, what its values are checked against, the shapes it runs at; None for all)
FORWARD = {
    "op": (gaussian_heatmaps, reference.gaussian_heatmaps, None),
    "op, out=": (into_kept, gaussian_heatmaps, None),
    "op, msra": (msra, None, None),
    "op, unit sum": (unit_sum, None, None),
    "reference": (reference.gaussian_heatmaps, None, None),
    "compile(reference)": ("compile", gaussian_heatmaps, [HEADLINE]),
    "separable torch": (separable, gaussian_heatmaps, None),
    "kornia": (kornia_render, unit_sum, None),
    "mmpose msra (numpy port)": (numpy_port(mmpose_port.encode_msra), msra, [SHAPES[0], HEADLINE]),
    "mmpose unbiased (numpy port)": (numpy_port(mmpose_port.encode_unbiased), gaussian_heatmaps, [SHAPES[0], HEADLINE]),
}
BACKWARD = {row: FORWARD[row] for row in ("op", "reference", "compile(reference)", "separable torch")}


def cases(rows):
    return [
        pytest.param(row, shape, id=f"{named(shape)}-{row}")
        for row, (_, _, only) in rows.items()
        for shape in SHAPES
        if only is None or shape in only
    ]


def resolve(call, benchmark):
    if call != "compile":
        return call
    if benchmark.disabled:
        pytest.skip("torch.compile(reference) is only compiled to be timed: it holds none of our code")
    torch._dynamo.reset()
    return torch.compile(reference.gaussian_heatmaps, dynamic=False)


def keypoints_of(shape, device):
    batch, joints, height, width = shape
    return torch.rand(batch, joints, 2, device=device) * torch.tensor([width - 1.0, height - 1.0], device=device)


@pytest.mark.parametrize(("row", "shape"), cases(FORWARD))
def test_forward(benchmark, measure, device, row, shape):
    call, check, _ = FORWARD[row]
    if device.type == "cuda" and "numpy" in row:
        pytest.skip("runs on the CPU only")
    torch.manual_seed(0)
    call, size, nbytes = resolve(call, benchmark), shape[2:], 4 * bench_tools.pixels(shape)
    expected = check(keypoints_of(shape, device), SIGMA, size) if check else None
    torch.manual_seed(0)
    run = Rotating(lambda kp: call(kp, SIGMA, size), lambda: (keypoints_of(shape, device),), device, nbytes)

    def same(actual):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)

    measure(run, OP, shape, "forward", row, device, nbytes, same if check else None)


@pytest.mark.parametrize("shape", SHAPES, ids=named)
@pytest.mark.parametrize("row", ("floor", "floor, allocated"))
def test_forward_floor(measure, device, row, shape):
    nbytes = 4 * bench_tools.pixels(shape)
    if row == "floor":  # fill_ of memory that is there already
        run = Rotating(lambda out: out.fill_(0.5), lambda: (torch.empty(shape, device=device),), device, nbytes)
    else:
        run = Rotating(lambda: torch.full(shape, 0.5, device=device), tuple, device, nbytes)
    measure(run, OP, shape, "forward", row, device, nbytes)


@pytest.mark.parametrize(("row", "shape"), cases(BACKWARD))
def test_forward_backward(benchmark, measure, device, row, shape):
    call, check, _ = BACKWARD[row]
    torch.manual_seed(0)
    call, size, nbytes = resolve(call, benchmark), shape[2:], 8 * bench_tools.pixels(shape)

    def step(keypoints, weight, call=call):
        return torch.autograd.grad(call(keypoints, SIGMA, size), keypoints, weight)[0]

    def inputs():
        return keypoints_of(shape, device).requires_grad_(), torch.rand(shape, device=device) - 0.5

    expected = step(*inputs(), call=check) if check else None
    torch.manual_seed(0)

    def same(actual):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)

    run = Rotating(step, inputs, device, nbytes)
    measure(run, OP, shape, "forward+backward", row, device, nbytes, same if check else None)


@pytest.mark.parametrize("shape", SHAPES, ids=named)
def test_forward_backward_floor(measure, device, shape):
    """The map written once, its gradient read once."""
    nbytes = 8 * bench_tools.pixels(shape)

    def inputs():
        return torch.empty(shape, device=device), torch.rand(shape, device=device)

    run = Rotating(lambda out, weight: (out.fill_(0.5), weight.sum()), inputs, device, nbytes)
    measure(run, OP, shape, "forward+backward", "floor", device, nbytes)

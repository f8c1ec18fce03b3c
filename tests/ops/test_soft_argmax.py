"""soft_argmax under the contract of op_contract.py, by hand-computed cases, and against DSNT's and kornia's numbers."""

import math

import large_inputs as large
import pytest
import torch
from op_contract import Bad, Sample, check_op

import pypose_ops
from pypose_ops import gaussian_heatmaps, reference, soft_argmax

NAN, INF = math.nan, math.inf
generator = torch.Generator().manual_seed(13)
GRAD = ("heatmaps",)


def randn(*shape):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


MAPS = randn(2, 3, 7, 9)
BLOBS = reference.gaussian_heatmaps(
    torch.tensor([[[12.3, 10.0], [3.0, 8.75]], [[20.0, 4.2], [7.7, 0.4]]]), 2.0, (17, 24), dtype=torch.float64
)
HOLED = randn(2, 3, 7, 9)
HOLED[:, 0, 2, 3] = NAN
HOLED[:, 1, :, 4] = INF
HOLED[:, 2, 1:3] = -INF
NOTHING = torch.stack([torch.full((2, 4, 5), v) for v in (NAN, -INF)])
VARIANCE = {"return_variance": True}

SAMPLES = [
    Sample("noise", (MAPS,), {}, GRAD, traced=True),
    Sample("variance", (MAPS,), VARIANCE, GRAD, traced=True),
    Sample("temperature", (MAPS,), VARIANCE | {"temperature": 2.5}, GRAD),
    Sample("window", (BLOBS,), VARIANCE | {"window": 5, "temperature": 20.0}, GRAD, traced=True),
    Sample("window of one", (BLOBS,), VARIANCE | {"window": 1}, GRAD),
    Sample("window larger than the map", (MAPS,), {"window": 99}, GRAD),
    Sample("centers", (MAPS,), VARIANCE | {"normalized": "centers"}, GRAD, traced=True),
    Sample("corners", (MAPS,), VARIANCE | {"normalized": "corners"}, GRAD),
    Sample("constant", (torch.full((1, 2, 5, 4), -3.0),), VARIANCE, GRAD),
    # Widely different logits: a half's rounding times the temperature decides.
    Sample("large logits", ((MAPS * 64).round() * 128,), VARIANCE | {"temperature": 100.0}, GRAD),
    Sample("not finite", (HOLED,), VARIANCE),
    Sample("not finite, window", (HOLED,), VARIANCE | {"window": 3}),
    Sample("nothing finite", (NOTHING,), VARIANCE, equal_nan=True),
    Sample("nothing finite, another number", (NOTHING,), VARIANCE | {"missing": -1.0}),
    Sample("nothing finite, normalized", (NOTHING,), {"normalized": "centers", "missing": -7.0}),
    Sample("one pixel", (torch.tensor([[[[0.5]], [[-2.0]]]]),), VARIANCE | {"normalized": "corners"}, GRAD),
    Sample("one row", (randn(1, 2, 1, 37),), VARIANCE, GRAD),
    Sample("one column", (randn(1, 2, 37, 1),), VARIANCE, GRAD),
    Sample("larger than a block", (randn(1, 2, 33, 50),), {"temperature": 3.0}),
    Sample("no items", (torch.zeros(0, 3, 8, 6),), {}),
    Sample("no joints", (torch.zeros(2, 0, 8, 6),), VARIANCE),
]


def bad(name, match, maps=MAPS, error=ValueError, **kwargs):
    return Bad(name, (maps.float() if maps.is_floating_point() else maps,), kwargs, error, "soft_argmax: " + match)


BAD = [
    bad("rank 3", r"heatmaps must be \(B, K, H, W\)", MAPS[0]),
    bad("integer maps", "heatmaps must be float16, bfloat16, float32 or float64", MAPS.long()),
    bad("no rows", "heatmaps must have H and W of at least 1", torch.zeros(2, 3, 0, 4)),
    bad("temperature 0", "temperature must be positive and finite, got 0", temperature=0.0),
    bad("temperature infinite", "temperature must be positive and finite", temperature=INF),
    bad("temperature NaN", "temperature must be positive and finite", temperature=NAN),
    bad("even window", "window must be None or odd and positive, got 4", window=4),
    bad("window 0", "window must be None or odd and positive, got 0", error=ValueError, window=0),
    bad("negative window", "window must be None or odd and positive", error=ValueError, window=-3),
    bad("unknown normalized", "normalized must be None, centers or corners", error=ValueError, normalized="dsnt"),
]

TestSoftArgmax = check_op(
    soft_argmax,
    reference.soft_argmax,
    SAMPLES,
    bad=BAD,
    maps=("heatmaps",),
    batched=("heatmaps",),
    second_order="soft_argmax: double backward is not supported",
)


def test_by_hand(device):
    # Weights 1 at (0, 0), 3 at (2, 1): mean (1.5, 0.75), variance 3/16 of the squared distance.
    maps = torch.full((1, 1, 2, 3), -INF)
    maps[..., 0, 0], maps[..., 1, 2] = 0, math.log(3)
    coords, variance = soft_argmax(maps.to(device), return_variance=True)
    torch.testing.assert_close(coords.flatten().tolist(), [1.5, 0.75])
    torch.testing.assert_close(variance.flatten().tolist(), [0.75, 0.1875])
    # temperature multiplies: weights 1 and 9.
    assert soft_argmax(maps.to(device), temperature=2.0).flatten().tolist() == pytest.approx([1.8, 0.9])
    # Pixel centres of 3 columns are at -2/3, 0, 2/3 and of 2 rows at -1/2, 1/2.
    centers = soft_argmax(maps.to(device), normalized="centers").flatten().tolist()
    assert centers == pytest.approx([(2 * 1.5 + 1) / 3 - 1, (2 * 0.75 + 1) / 2 - 1])
    assert soft_argmax(maps.to(device), normalized="corners").flatten().tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_large_logits_do_not_overflow(device, dtype):
    maps = torch.zeros(1, 1, 6, 5, dtype=dtype)
    maps[..., 4, 3] = torch.finfo(dtype).max
    maps[..., 0, 0] = torch.finfo(dtype).min
    maps = maps.to(device).requires_grad_()
    coords = soft_argmax(maps, temperature=1e4)
    coords.sum().backward()
    assert coords.flatten().tolist() == [3, 4] and maps.grad.isfinite().all()


def test_window_returns_what_was_drawn(device):
    # A whole softmax is drawn to the middle of the map by the background; a window is not.
    centers = torch.tensor([[[12.0, 40.0], [20.0, 9.0]]])
    maps = gaussian_heatmaps(centers, 2.0, (64, 48)).to(device)
    assert (soft_argmax(maps, window=7).cpu() - centers).abs().max() < 1e-4
    assert (soft_argmax(maps).cpu() - centers).abs().max() > 5


def test_it_is_kornias(device):
    kornia = pytest.importorskip("kornia")
    maps = MAPS.float().to(device)
    theirs = kornia.geometry.subpix.spatial_expectation2d(
        kornia.geometry.subpix.spatial_softmax2d(maps), normalized_coordinates=True
    )
    torch.testing.assert_close(soft_argmax(maps, normalized="corners"), theirs)


def test_pixels_that_are_not_finite_weigh_nothing(device):
    maps = torch.tensor([[[[NAN, 1.0, INF], [-INF, 1.0, 0.0]]]], device=device, requires_grad=True)
    coords = soft_argmax(maps)
    share = 1 / (2 * math.e + 1)  # of the pixel of 0, at (2, 1)
    assert coords.flatten().tolist() == pytest.approx([1 + share, 1 - math.e * share])
    coords.sum().backward()
    assert maps.grad[~maps.isfinite()].tolist() == [0, 0, 0] and (maps.grad[maps.isfinite()] != 0).any()


LARGE = large.Case(pypose_ops.soft_argmax, (large.maps,), large.K * large.H * large.W, True)

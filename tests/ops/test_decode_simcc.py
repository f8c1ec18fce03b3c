"""decode_simcc under the contract of op_contract.py, by hand-computed cases, and against MMPose's formulas."""

import math
from dataclasses import replace

import large_inputs as large
import numpy as np
import pytest
import torch
from op_contract import Bad, Sample, check_op

import pypose_ops
from pypose_ops import decode_simcc, reference

NAN, INF = math.nan, math.inf
generator = torch.Generator().manual_seed(7)


def rand(*shape):
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def bumps(batch, joints, bins, sigma=6.0, border=9):
    center = border + rand(batch, joints, 1) * (bins - 1 - 2 * border)
    return (0.5 + rand(batch, joints, 1)) * torch.exp(-((torch.arange(bins) - center) ** 2) / (2 * sigma**2))


def spots(bins, *values):
    row = torch.zeros(1, 1, bins)
    for i, value in values:
        row[..., i] = value
    return row


X, Y = bumps(2, 5, 96), bumps(2, 5, 128)
NOISE = (rand(3, 4, 50) * 255).floor() / 256 - 0.25, (rand(3, 4, 70) * 255).floor() / 256 - 0.25
TRANSFORM = torch.tensor([[[3.7, 0.4, 100], [-0.3, 4.1, -50]], [[1, 0, 0], [0, 1, 0]]])
DARK = {"refine": "dark"}
HOLED = X.clone()
HOLED[:, ::2, ::7] = NAN
HOLED[:, 1, 3] = INF

SAMPLES = [
    Sample("bumps", (X, Y), {}, traced=True),
    Sample("dark", (X, Y), DARK, traced=True),
    Sample("dark of mmpose", (X, Y), DARK | {"compat": "mmpose"}, traced=True),
    Sample("dark of mmpose at the ends", (bumps(2, 5, 64, border=0), Y), DARK | {"compat": "mmpose"}),
    Sample("dark at the ends", (bumps(2, 5, 64, border=0), Y), DARK),
    Sample("two sigmas", (bumps(2, 3, 80, 4.9), bumps(2, 3, 90, 5.66)), DARK | {"sigma": (4.9, 5.66)}, traced=True),
    Sample("two kernels", (X, Y), DARK | {"kernel_size": (11, 21), "split_ratio": 3.0}),
    Sample("transform", (X, Y), DARK | {"transform": TRANSFORM, "max_offset": 0.1}),
    Sample("any offset", (X, Y), DARK | {"max_offset": None}),
    Sample("noise", NOISE, {"split_ratio": 1.5}),
    Sample("not finite", (HOLED, Y), DARK),
    Sample("not finite of mmpose", (HOLED, Y), DARK | {"compat": "mmpose"}),
    Sample("nothing positive", (-X, Y), DARK | {"transform": TRANSFORM}),
    Sample("logits", (X.log(), Y.log() - 3), {"threshold": -INF}, traced=True),
    Sample("threshold", NOISE, {"threshold": 0.7, "missing": -1.0}),
    Sample("no blur", (X, Y), DARK | {"kernel_size": None}),
    Sample("constant", (torch.ones(1, 2, 20), torch.ones(1, 2, 20)), DARK),
    Sample("one bin", (torch.ones(1, 2, 1), torch.ones(1, 2, 1)), DARK | {"compat": "mmpose"}),
    Sample("no items", (torch.zeros(0, 3, 8), torch.zeros(0, 3, 6)), DARK),
    Sample("no joints", (torch.zeros(2, 0, 8), torch.zeros(2, 0, 6)), DARK),
]
# What was not found is NaN, in the operator and in its definition.
SAMPLES = [replace(sample, equal_nan=True) for sample in SAMPLES]


def bad(name, match, x=X, y=Y, error=ValueError, **kwargs):
    return Bad(name, (x.float() if x.is_floating_point() else x, y.float()), kwargs, error, "decode_simcc: " + match)


BAD = [
    bad("rank 2", r"x must be \(B, K, bins\)", X[0]),
    bad("rank 4 of y", r"y must be \(B, K, bins\)", y=Y[None]),
    bad("integers", "x must be float16, bfloat16, float32 or float64", X.long()),
    bad("no bins", "x must have from 1 to 2.30 bins", X[..., :0]),
    bad("other joints", "y must have size 5 in dimension 1", y=Y[:, :4]),
    bad("other batch", "y must have size 2 in dimension 0", y=Y[:1]),
    bad("split_ratio 0", "split_ratio must be positive", split_ratio=0.0),
    bad("even kernel", "kernel_size must be odd and from 1 to 127, got 4", kernel_size=4),
    bad("kernel too large", "kernel_size must be odd and from 1 to 127, got 129", kernel_size=(3, 129)),
    bad("sigma 0", "sigma must be positive", error=ValueError, sigma=0.0),
    bad("unknown refine", "refine must be None or dark", error=ValueError, refine="quarter"),
    bad("unknown compat", "compat must be None or mmpose", error=ValueError, compat="hf"),
    bad("negative max_offset", "max_offset must not be negative", max_offset=-1.0),
    bad("transform of another batch", "transform must be", transform=torch.zeros(3, 2, 3)),
]

TestDecodeSimcc = check_op(
    decode_simcc, reference.decode_simcc, SAMPLES, bad=BAD, maps=("x", "y"), batched=("x", "y", "transform")
)


def test_by_hand(device):
    x, y = spots(12, (7, 0.5)).to(device), spots(9, (4, 0.75), (6, 0.75)).to(device)
    coords, scores = decode_simcc(x, y)
    assert coords.tolist() == [[[3.5, 2.0]]] and scores.tolist() == [[0.5]]
    # Without blur: slope (ln 0.4 - ln 0.2) / 2, curvature (ln 0.1 - 0 + ln 0.05) / 4: 0.3466 / 1.3246 bins.
    y = spots(9, (2, 0.05), (3, 0.2), (4, 1), (5, 0.4), (6, 0.1)).to(device)
    want = 0.5 * math.log(2) / (0.25 * math.log(200)) / 2
    coords, _ = decode_simcc(x, y, refine="dark", kernel_size=1)
    assert coords[0, 0, 1].item() == pytest.approx(2 + want, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_straight_logarithms_have_no_top(device, dtype):
    slopes = torch.linspace(0.01, 2, 300, dtype=torch.float64)[None, :, None]
    rows = torch.exp(-slopes * torch.arange(9, dtype=torch.float64)).to(dtype).to(device)
    coords, _ = decode_simcc(rows, rows, refine="dark", kernel_size=1, max_offset=None)
    assert torch.equal(coords, torch.zeros_like(coords))


def mmpose_axis(row, sigma):
    """The refined bin of one float64 vector, from MMPose's formulas."""
    k = int((20 * sigma - 7) // 3)
    k -= int(k % 2 == 0)
    taps = np.exp(-((np.arange(k) - k // 2) ** 2) / (2 * (0.3 * ((k - 1) * 0.5 - 1) + 0.8) ** 2))
    blurred = np.convolve(row, taps / taps.sum(), "same")
    h = np.log(np.clip(blurred * row.max() / blurred.max(), 1e-3, 50))
    h = np.pad(h, 2, mode="edge")
    p = row.argmax() + 2
    return row.argmax() - 0.5 * (h[p + 1] - h[p - 1]) / (1e-9 + 0.25 * (h[p + 2] - 2 * h[p] + h[p - 2]))


def test_dark_is_mmpose(device):
    x = bumps(3, 7, 120, border=1) + 0.01 * rand(3, 7, 120)
    y = bumps(3, 7, 160, border=1) + 0.01 * rand(3, 7, 160)
    coords, _ = decode_simcc(x.to(device), y.to(device), refine="dark", compat="mmpose")
    want = [
        [mmpose_axis(rows.numpy(), 6.0) / 2 for rows in (a, b)]
        for a, b in zip(x.flatten(0, 1), y.flatten(0, 1), strict=True)
    ]
    torch.testing.assert_close(coords.cpu().flatten(0, 1), torch.tensor(want), rtol=1e-5, atol=1e-5)


def test_dark_returns_what_was_drawn(device):
    center = 20 + 60 * torch.rand(4, 8, 2, dtype=torch.float64)
    rows = torch.exp(-((torch.arange(200) - 2 * center[..., None]) ** 2) / 72).float().to(device)
    coords, _ = decode_simcc(rows[:, :, 0], rows[:, :, 1], refine="dark")
    assert (coords.cpu() - center).abs().max() < 2e-3


def test_noise_never_moves_a_peak_further_than_max_offset(device):
    x, y = torch.randn(8, 17, 96).to(device), torch.randn(8, 17, 128).to(device)
    plain, steps = decode_simcc(x, y).coords, decode_simcc(x, y, refine="dark", sigma=1.0).coords
    assert 0 < (steps - plain).norm(dim=-1).max() <= 1 + 1e-5


LARGE = large.Case(
    pypose_ops.decode_simcc,
    (large.rows(large.K, 1024, dtype=large.HALF), large.rows(large.K, 1024, dtype=large.HALF)),
    large.K * 1024,
)

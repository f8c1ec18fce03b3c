"""decode_heatmaps under the contract of op_contract.py."""

import math
from dataclasses import replace

import large_inputs as large
import pytest
import torch
from contract_tools import only_on
from op_contract import Bad, Sample, check_op

import pypose_ops
from pypose_ops import decode_heatmaps, reference

NAN, INF = math.nan, math.inf
generator = torch.Generator().manual_seed(3)


def rand(*shape):
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def blobs(*shape, size=(17, 13), sigma=1.7):
    """Smooth maps with one clear peak each, at least 3 pixels from the border, so that DARK is well conditioned."""
    height, width = size
    center = 3 + rand(*shape, 2) * torch.tensor([width - 7.0, height - 7.0])
    x = torch.arange(width) - center[..., :1]
    y = torch.arange(height) - center[..., 1:]
    height_of_each = 0.5 + rand(*shape)[..., None, None]
    return height_of_each * torch.exp(-(x[..., None, :] ** 2 + y[..., :, None] ** 2) / (2 * sigma**2))


def spots(size, *pixels):
    """One map with the given values at (y, x)."""
    out = torch.zeros(1, 1, *size)
    for y, x, value in pixels:
        out[0, 0, y, x] = value
    return out


MAPS = blobs(2, 4)
FLIPPED = MAPS.flip(-1)[:, [1, 0, 2, 3]] * (0.9 + 0.1 * rand(2, 4, 17, 13))
PAIRS = [(0, 1)]
TRANSFORM = torch.tensor([[[3.7, 0.4, 100], [-0.3, 4.1, -50]], [[1, 0, 0], [0, 1, 0]]])
REFINES = (None, "quarter", "parabola", "dark", "dark_udp", "centroid")
NOISE = rand(3, 5, 16, 12) - 0.5
CORNERS = torch.cat([spots((5, 6), (y, x, 1.0)) for y in (0, 1, 4) for x in (0, 1, 5)])
FLAT = torch.cat([torch.full((1, 2, 6, 5), v) for v in (0.0, 0.25, -1.0)])
WITH_NAN = torch.cat([spots((9, 8), (0, 0, NAN), (4, 4, 0.5), (4, 5, 0.25)), torch.full((1, 1, 9, 8), NAN)])
WITH_INF = torch.cat([spots((9, 8), (2, 3, v), (5, 4, 0.5), (5, 5, 0.25)) for v in (INF, -INF)])
NAN_FAR_AWAY = reference.gaussian_heatmaps(torch.tensor([[[6.3, 8.7]]]), 1.5, (33, 13))
NAN_FAR_AWAY[..., 32, :] = NAN
TIES = torch.cat(
    [
        spots((17, 40), (3, 30, 1), (9, 2, 1), (16, 39, 1)),
        spots((17, 40), (8, 31, 1), (8, 32, 1), (8, 33, 1)),
        spots((17, 40), (2, 39, 1), (3, 0, 1)),
    ]
)


def of_each_refine(name, maps, refines=REFINES, **kwargs):
    return [Sample(f"{name}, {r}", (maps,), {"refine": r} | kwargs) for r in refines]


SAMPLES = [
    *(Sample(f"blobs, {r}", (MAPS,), {"refine": r}, traced=True) for r in REFINES),
    Sample("the default", (MAPS,), {}),
    *(Sample(f"kernel {k}", (MAPS,), {"kernel_size": k}) for k in (3, 5, 7, 9, 13, 17)),
    Sample("kernel larger than the map", (blobs(1, 2, size=(9, 9), sigma=1.2),), {"kernel_size": 21}),
    Sample(
        "flip test",
        (MAPS,),
        {"flipped": FLIPPED, "flip_pairs": PAIRS, "flip_shift": False, "transform": TRANSFORM},
        traced=True,
    ),
    *of_each_refine("flip test shifted", MAPS, flipped=FLIPPED, flip_pairs=PAIRS, flip_shift=True),
    Sample("flip test without pairs", (MAPS,), {"flipped": MAPS.flip(-1), "flip_pairs": []}),
    *of_each_refine("transform", MAPS, transform=TRANSFORM),
    Sample("one transform for all", (MAPS.reshape(4, 2, 17, 13),), {"transform": TRANSFORM[0]}),
    Sample("max_offset", (blobs(2, 3, sigma=0.6),), {"max_offset": 0.1}),
    Sample("generous max_offset", (MAPS,), {"max_offset": 2.0}, traced=True),
    Sample("any offset", (MAPS,), {"max_offset": None}),
    Sample("max_offset 0", (MAPS,), {"max_offset": 0.0}),
    *of_each_refine("noise", NOISE, (None, "quarter", "centroid")),
    *of_each_refine("ties", TIES, (None, "quarter")),
    *of_each_refine("flat", FLAT),
    *of_each_refine("corners", CORNERS, transform=TRANSFORM[:1].expand(9, 2, 3)),
    *of_each_refine("NaN", WITH_NAN),
    *of_each_refine("infinity", WITH_INF),
    *of_each_refine("NaN out of reach", NAN_FAR_AWAY),
    Sample("flip test of NaN", (WITH_NAN,), {"flipped": WITH_NAN.flip(0, -1), "flip_pairs": []}),
    *of_each_refine("all below zero", -rand(1, 2, 7, 9) - 0.1),
    *of_each_refine("one pixel", torch.tensor([0.5, 0.0, -1.0, NAN]).reshape(2, 2, 1, 1)),
    *of_each_refine("two by two", rand(2, 2, 2, 2)),
    *of_each_refine("one row", rand(1, 3, 1, 37), (None, "quarter", "parabola")),
    *of_each_refine("one column", rand(1, 3, 37, 1), (None, "quarter", "parabola")),
    *of_each_refine("odd size", blobs(1, 3, size=(37, 67), sigma=3.0)),
    *of_each_refine("real size", blobs(4, 17, size=(64, 48), sigma=2.0)),
    *of_each_refine("logits", MAPS.log(), (None, "quarter", "parabola", "centroid"), threshold=-INF),
    *of_each_refine("logits with holes", (WITH_NAN - 1), threshold=-INF, missing=-1.0),
    *of_each_refine("minus infinity", WITH_INF - 2, threshold=-INF, return_pixels=True),
    *of_each_refine("threshold", NOISE, (None, "dark"), threshold=0.497, return_pixels=True),
    Sample("threshold of a flip test", (NOISE,), {"threshold": -0.25, "flipped": NOISE.flip(-1), "flip_pairs": []}),
    Sample("negative threshold", (NOISE - 0.5,), {"refine": "parabola", "threshold": -0.1}, traced=True),
    Sample("zeros of both signs", (torch.tensor([-0.0, 0.0, -0.0]).view(1, 1, 1, 3),), {"threshold": -1.0}),
    Sample("pixels", (MAPS,), {"return_pixels": True, "transform": TRANSFORM}, traced=True),
    Sample("no blur", (MAPS,), {"kernel_size": None}),
    *(Sample(f"centroid of {k}", (MAPS,), {"refine": "centroid", "kernel_size": k}) for k in (2, 4, 6, 20)),
    *of_each_refine("no items", torch.zeros(0, 3, 8, 6)),
    *of_each_refine("no joints", torch.zeros(2, 0, 8, 6)),
]
# What was not found is NaN, in the operator and in its definition.
SAMPLES = [replace(sample, equal_nan=True) for sample in SAMPLES]


def bad(name, match, maps=MAPS, error=ValueError, **kwargs):
    return Bad(name, (maps.float() if maps.is_floating_point() else maps,), kwargs, error, "decode_heatmaps: " + match)


F = FLIPPED.float()
FLIP = {"flipped": F, "flip_pairs": PAIRS}
BAD = [
    bad("rank 3", r"heatmaps must be \(B, K, H, W\)", MAPS[0]),
    bad("rank 5", r"heatmaps must be \(B, K, H, W\)", MAPS[None]),
    bad("rank 3 of a flip test", r"heatmaps must be \(B, K, H, W\)", MAPS[0], error=ValueError, **FLIP),
    bad("integer maps", "heatmaps must be float16, bfloat16, float32 or float64", MAPS.long()),
    bad("no rows", "heatmaps must have H and W of at least 1", torch.zeros(2, 3, 0, 4)),
    bad("no columns", "heatmaps must have H and W of at least 1", torch.zeros(2, 3, 4, 0)),
    bad("unknown refine", "refine must be one of None, quarter, parabola", error=ValueError, refine="best"),
    bad("even kernel", "kernel_size must be odd and from 1 to 63, got 10", kernel_size=10),
    bad("kernel 0", "kernel_size must be odd", kernel_size=0),
    bad("negative kernel", "kernel_size must be odd", kernel_size=-3),
    bad("kernel 65", "kernel_size must be odd and from 1 to 63, got 65", kernel_size=65),
    bad("flipped of another batch", "flipped must have size 2 in dimension 0", flipped=F[:1], flip_pairs=PAIRS),
    bad("flipped of another rank", r"flipped must be \(B, K, H, W\)", flipped=F[0], flip_pairs=PAIRS),
    bad("flipped of another dtype", "flipped must have the dtype of heatmaps", flipped=F.double(), flip_pairs=PAIRS),
    bad("no pairs", "flip_pairs is required", error=ValueError, flipped=F),
    bad("pair out of range", "flip_pairs must be joints from 0 to 3", error=ValueError, flipped=F, flip_pairs=[(0, 4)]),
    bad("negative pair", "flip_pairs must be joints from 0 to 3", error=ValueError, flipped=F, flip_pairs=[(-1, 2)]),
    bad(
        "joint in two pairs",
        "flip_pairs must have each joint",
        error=ValueError,
        flipped=F,
        flip_pairs=[(0, 1), (1, 2)],
    ),
    bad("joint with itself", "flip_pairs must have each joint", error=ValueError, flipped=F, flip_pairs=[(1, 1)]),
    bad("pairs of three", "flip_pairs must be pairs", error=ValueError, flipped=F, flip_pairs=[(0, 1, 2)]),
    bad("pairs of names", "flip_pairs must be pairs", error=ValueError, flipped=F, flip_pairs=["left", "right"]),
    bad("pairs without flipped", "flip_pairs and flip_shift need flipped", error=ValueError, flip_pairs=PAIRS),
    bad("shift without flipped", "flip_pairs and flip_shift need flipped", error=ValueError, flip_shift=True),
    bad("transform of another batch", r"transform must be \(2, 3\) or \(2, 2, 3\)", transform=torch.zeros(3, 2, 3)),
    bad("transform 3x3", r"transform must be .*got shape \(2, 3, 3\)", transform=torch.zeros(2, 3, 3)),
    bad("transform of rank 1", r"transform must be .*got shape \(6\)", transform=torch.zeros(6)),
    bad("integer transform", "transform must be float32 or float64", transform=torch.zeros(2, 2, 3).long()),
    bad("half transform", "transform must be float32 or float64", transform=torch.zeros(2, 2, 3).half()),
    bad("threshold NaN", "threshold must not be NaN", threshold=NAN),
    bad("no window", "kernel_size is the window of refine 'centroid'", error=ValueError, refine="centroid",
        kernel_size=None),
    bad("window 64", "kernel_size must be from 1 to 63, got 64", refine="centroid", kernel_size=64),
    bad("both returns", "return_covariance and return_pixels", error=ValueError, return_covariance=True,
        return_pixels=True),
    bad("negative max_offset", "max_offset must not be negative", max_offset=-0.5),
    bad("max_offset NaN", "max_offset must not be negative or NaN", max_offset=NAN),
]  # fmt: skip

TestDecodeHeatmaps = check_op(
    decode_heatmaps,
    reference.decode_heatmaps,
    SAMPLES,
    bad=BAD,
    maps=("heatmaps", "flipped"),
    batched=("heatmaps", "flipped", "transform"),
)


@only_on("cuda")
def test_tensors_on_two_devices_are_refused(device):
    maps = MAPS.float().to(device)
    with pytest.raises(ValueError, match="decode_heatmaps: flipped must be on the same device as heatmaps"):
        decode_heatmaps(maps, **FLIP)
    with pytest.raises(ValueError, match="decode_heatmaps: transform must be on the same device as heatmaps"):
        decode_heatmaps(maps, transform=TRANSFORM)


LARGE = large.Case(pypose_ops.decode_heatmaps, (large.maps,), large.K * large.H * large.W)

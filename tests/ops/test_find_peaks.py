"""find_peaks under the contract of op_contract.py, by hand-computed cases and by its properties."""

import math
from dataclasses import replace

import large_inputs as large
import pytest
import torch
from op_contract import Bad, Sample, check_op

import pypose_ops
from pypose_ops import decode_heatmaps, find_peaks, reference

NAN, INF = math.nan, math.inf
generator = torch.Generator().manual_seed(5)


def rand(*shape):
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def crowd(batch, people, joints, size=(40, 30), sigma=1.5):
    height, width = size
    points = 3 + rand(batch, people, joints, 2) * torch.tensor([width - 7.0, height - 7.0])
    return reference.gaussian_heatmaps(points, sigma, size, dtype=torch.float64)


def steps(*shape, levels=4):
    """Noise of few values: plateaus of every form. Exact in every dtype."""
    return (rand(*shape) * levels).floor() / levels


def drawing(*rows, values=".123456789"):
    """One map (1, 1, H, W) from characters; 9 is 0.9 and . is 0."""
    return torch.tensor([[[[values.index(c) / 8 for c in row] for row in rows]]])


MAPS = crowd(2, 4, 3)
NOISE = (rand(2, 3, 23, 37) * 255).floor() / 256  # exact in every dtype
TRANSFORM = torch.tensor([[[3.7, 0.4, 100], [-0.3, 4.1, -50]], [[1, 0, 0], [0, 1, 0]]])
U_SHAPE = drawing("5..5.5", "5..5.5", "5555.5", "......", ".555..", ".5.5..", ".555..")
SHOULDER = drawing("333333", "333333", "333343", "......", "555555", "......")
HOLES = steps(1, 2, 19, 21, levels=2)
WITH_NAN = NOISE.clone()
WITH_NAN[:, :, ::3, 1::4] = NAN
WITH_NAN[:, :, 1::5, ::7] = INF
WITH_NAN[:, :, 2::5, ::7] = -INF

SAMPLES = [
    # Traced with a number for empty places: opcheck compares NaN with NaN as different.
    Sample("crowd", (MAPS,), {"missing": -1.0}, traced=True),
    Sample(
        "refined", (MAPS,), {"refine": "dark", "transform": TRANSFORM, "max_peaks": 5, "missing": -1.0}, traced=True
    ),
    Sample("quarter", (NOISE[:1],), {"refine": "quarter", "transform": TRANSFORM[0]}),
    Sample(
        "threshold of each joint",
        (NOISE,),
        {"threshold": torch.tensor([0.25, 0.75, NAN]), "missing": -1.0},
        traced=True,
    ),
    *(Sample(f"noise, radius {r}", (NOISE,), {"radius": r}) for r in (1, 2, 3, 7)),
    *(Sample(f"steps, radius {r}", (steps(2, 2, 13, 17),), {"radius": r, "max_peaks": 9}) for r in (1, 2, 5)),
    *(Sample(f"holes, radius {r}", (HOLES,), {"radius": r}) for r in (1, 2)),
    *(Sample(f"the best {m}", (NOISE,), {"max_peaks": m}) for m in (1, 7, 1000)),
    Sample("more peaks than a block's list holds", (rand(1, 1, 70, 90) + 1,), {"max_peaks": 20}),
    Sample(
        "the same with plateaus",
        (steps(1, 1, 70, 90, levels=16) + 1,),
        {"max_peaks": 20},
    ),
    Sample("pixels", (NOISE,), {"refine": "parabola", "return_pixels": True, "missing": -1.0}, traced=True),
    Sample("pixels of plateaus", (steps(2, 2, 13, 17),), {"max_peaks": 9, "return_pixels": True}),
    Sample("an even window", (MAPS,), {"refine": "centroid", "kernel_size": 4}),
    Sample("no blur", (MAPS,), {"refine": "dark", "kernel_size": None}),
    Sample("U shape", (U_SHAPE,), {}),
    Sample("shoulder", (SHOULDER,), {}),
    Sample("window larger than the map", (NOISE,), {"radius": 64}),
    Sample("all above a negative threshold", (NOISE - 2,), {"threshold": -5.0}),
    Sample("threshold -inf", (WITH_NAN,), {"threshold": -INF}),
    Sample("threshold above the maximum", (NOISE,), {"threshold": 3.0}),
    Sample("NaN and infinity", (WITH_NAN,), {"radius": 2}),
    Sample("all NaN", (torch.full((1, 2, 5, 4), NAN),), {"threshold": -1.0}),
    Sample("constant", (torch.full((1, 2, 9, 7), 0.5),), {"radius": 2}),
    Sample("one pixel", (torch.tensor([0.5, 0.0, -1.0, NAN]).reshape(2, 2, 1, 1),), {"max_peaks": 3}),
    Sample("one row", (steps(1, 3, 1, 37),), {}),
    Sample("one column", (steps(1, 3, 37, 1),), {"radius": 2}),
    Sample("two by two", (rand(2, 2, 2, 2),), {"refine": "dark"}),
    Sample("one row, a wide window", (steps(1, 3, 1, 37),), {"radius": 5}),
    Sample("two rows, a wide window", (steps(1, 3, 2, 37),), {"radius": 3}),
    Sample("no items", (torch.zeros(0, 3, 8, 6),), {}),
    Sample("no joints", (torch.zeros(2, 0, 8, 6),), {}),
]
# What was not found is NaN, in the operator and in its definition.
SAMPLES = [replace(sample, equal_nan=True) for sample in SAMPLES]


def bad(name, match, maps=MAPS, error=ValueError, **kwargs):
    return Bad(name, (maps.float() if maps.is_floating_point() else maps,), kwargs, error, "find_peaks: " + match)


BAD = [
    bad("rank 3", r"heatmaps must be \(B, K, H, W\)", MAPS[0]),
    bad("integer maps", "heatmaps must be float16, bfloat16, float32 or float64", MAPS.long()),
    bad("no rows", "heatmaps must have H and W of at least 1", torch.zeros(2, 3, 0, 4)),
    bad("threshold NaN", "threshold must not be NaN", threshold=NAN),
    bad("two thresholds", r"threshold must be a number or \(K,\)", threshold=torch.zeros(2)),
    bad("threshold of rank 2", r"threshold must be a number or \(K,\)", threshold=torch.zeros(2, 3)),
    bad("integer thresholds", "threshold must be float32 or float64", threshold=torch.zeros(3).long()),
    bad("radius 0", "radius must be from 1 to 64, got 0", radius=0),
    bad("radius 65", "radius must be from 1 to 64, got 65", radius=65),
    bad("no peaks", "max_peaks must be from 1 to 1024, got 0", max_peaks=0),
    bad("too many peaks", "max_peaks must be from 1 to 1024, got 1025", max_peaks=1025),
    bad("unknown refine", "refine must be one of None, quarter, parabola", error=ValueError, refine="best"),
    bad("even kernel", "kernel_size must be odd", kernel_size=2),
    bad("negative max_offset", "max_offset must not be negative", max_offset=-1.0),
    bad("transform of another batch", "transform must be", transform=torch.zeros(3, 2, 3)),
]

TestFindPeaks = check_op(
    find_peaks, reference.find_peaks, SAMPLES, bad=BAD, maps=("heatmaps",), batched=("heatmaps", "transform")
)


def places(maps, device, **options):
    """The peaks of the single map, [(x, y), ...]."""
    peaks = find_peaks(maps.to(device), **options)
    assert peaks.counts.shape == (1, 1)
    return [tuple(c) for c in peaks.coords[0, 0, : peaks.counts.item()].tolist()]


def test_peaks_are_sorted_and_ties_come_in_order(device):
    maps = drawing("5...2", ".....", "..7..", ".....", "5...5")
    peaks = find_peaks(maps.to(device), max_peaks=6, missing=-1.0)
    assert places(maps, device) == [(2, 2), (0, 0), (0, 4), (4, 4), (4, 0)]
    assert peaks.scores[0, 0].tolist() == [7 / 8, 5 / 8, 5 / 8, 5 / 8, 2 / 8, 0]
    assert peaks.coords[0, 0, 5].tolist() == [-1, -1] and peaks.counts.item() == 5
    best = find_peaks(maps.to(device), max_peaks=2, return_pixels=True)
    assert best.coords[0, 0].tolist() == [[2, 2], [0, 0]] and best.counts.item() == 5
    assert best.pixels[0, 0].tolist() == [[2, 2], [0, 0]]
    assert find_peaks(maps.to(device), max_peaks=6, return_pixels=True).pixels[0, 0, 5].tolist() == [-1, -1]
    assert places(maps, device, threshold=5 / 8) == [(2, 2)]  # higher than the threshold, not as high


def test_a_plateau_is_one_peak_at_its_first_pixel(device):
    assert places(U_SHAPE, device) == [(0, 0), (5, 0), (1, 4)]
    assert places(drawing("..5", ".5.", "5.."), device) == [(2, 0)]
    assert places(torch.full((1, 1, 6, 5), 0.5), device) == [(0, 0)]


def test_a_shoulder_is_no_peak(device):
    assert places(SHOULDER, device) == [(0, 4), (4, 2)]


def test_equal_pixels_within_the_radius_are_one_plateau(device):
    maps = drawing("5.5..5")
    assert places(maps, device, radius=1) == [(0, 0), (2, 0), (5, 0)]
    assert places(maps, device, radius=2) == [(0, 0), (5, 0)]
    assert places(maps, device, radius=3) == [(0, 0)]
    # The pixel on the left has no higher one in reach, but its plateau has.
    assert places(drawing("5.5.7"), device, radius=2) == [(4, 0)]


@pytest.mark.parametrize("size", ((16, 16), (17, 16), (40, 40)))
@pytest.mark.parametrize("levels", (1, 2, 5))
def test_maps_of_ties(device, size, levels):
    """Few values: plateaus of every form, up to the whole map; on CUDA more of them than fit into a list."""
    maps = torch.randint(1, levels + 1, (2, 3, *size), generator=torch.Generator().manual_seed(levels)).float()
    for radius, max_peaks in ((1, 8), (2, 64)):
        options = {"radius": radius, "max_peaks": max_peaks, "missing": -1.0}
        found = find_peaks(maps.to(device), **options)
        for got, want in zip(found, reference.find_peaks(maps, **options), strict=True):
            assert torch.equal(got.cpu(), want)


def test_one_map_of_ties_among_others(device):
    """The labels of plateaus have memory for a few maps; the others are done without it."""
    maps = torch.rand(40, 4, 24, 24)
    maps[3, 1] = 0.75
    maps[17] = (4 * maps[17]).round() / 4
    found = find_peaks(maps.to(device), max_peaks=400, missing=-1.0)
    for got, want in zip(found, reference.find_peaks(maps, max_peaks=400, missing=-1.0), strict=True):
        assert torch.equal(got.cpu(), want)


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16, torch.float32, torch.float64))
@pytest.mark.parametrize("span", (3.0, 1e4))
def test_hundreds_of_peaks_come_in_order(device, dtype, span):
    """Of both signs, equal ones in the order of their pixels."""
    values = (span * (torch.rand(2, 20, 20, generator=torch.Generator().manual_seed(0)) - 0.5)).to(dtype)
    values[1] = values[1].sign() * span  # many ties
    maps = torch.full((1, 2, 40, 40), -2 * span, dtype=dtype)
    maps[0, :, ::2, ::2] = values
    for max_peaks in (129, 300, 400):
        peaks = find_peaks(maps.to(device), threshold=-1.5 * span, max_peaks=max_peaks)
        assert peaks.counts.tolist() == [[400, 400]]
        for k in range(2):
            ordered, places = values[k].flatten().sort(descending=True, stable=True)
            x, y = peaks.coords[0, k].cpu().unbind(-1)
            assert torch.equal(peaks.scores[0, k].cpu(), ordered[:max_peaks].to(peaks.scores.dtype))
            assert torch.equal((y * 10 + x / 2).long(), places[:max_peaks])


def test_a_hot_pixel_in_each_corner(device):
    maps = drawing("5..5", "....", "5..5")
    assert places(maps, device) == [(0, 0), (3, 0), (0, 2), (3, 2)]


def test_every_strict_maximum_is_found(device):
    maps = torch.rand(3, 4, 20, 17)
    surround = torch.nn.functional.unfold(
        torch.nn.functional.pad(maps.flatten(0, 1)[:, None], (1,) * 4, value=-1), 3
    ).view(3, 4, 9, 20, 17)
    surround[:, :, 4] = -1
    strict = (maps > surround.amax(2)) & (maps > 0.5)
    peaks = find_peaks(maps.to(device), threshold=0.5, max_peaks=200)
    assert torch.equal(peaks.counts.cpu(), strict.sum((-2, -1)))
    x, y = peaks.coords[1, 2, : peaks.counts[1, 2]].long().cpu().unbind(-1)
    assert strict[1, 2, y, x].all()


@pytest.mark.parametrize("refine", [None, "quarter", "dark"])
def test_the_best_peak_is_the_one_of_decode_heatmaps(device, refine):
    maps = MAPS.float().to(device)
    one = decode_heatmaps(maps, refine=refine)
    peaks = find_peaks(maps, refine=refine, max_peaks=1)
    assert torch.equal(peaks.coords[:, :, 0], one.coords) and torch.equal(peaks.scores[:, :, 0], one.scores)


def test_noise_never_moves_a_peak_further_than_max_offset(device):
    maps = torch.randn(4, 5, 24, 20).to(device)
    plain = find_peaks(maps, threshold=0.0, max_peaks=100, missing=-1.0)
    steps = find_peaks(maps, threshold=0.0, max_peaks=100, refine="dark", max_offset=0.5, missing=-1.0)
    assert torch.equal(plain.counts, steps.counts)
    assert (steps.coords - plain.coords).norm(dim=-1).max() <= 0.5 * (1 + 1e-5)


LARGE = large.Case(pypose_ops.find_peaks, (large.maps,), large.K * large.H * large.W)

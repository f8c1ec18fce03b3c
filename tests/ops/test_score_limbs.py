"""score_limbs under the contract of op_contract.py, and by hand."""

import math

import large_inputs as large
import pytest
import torch
from grouping_inputs import ALL, COORDS, COUNTS, NAN, STRANGE_COORDS, ours, random_source, signed, theirs
from op_contract import Bad, Sample, check_op

import pypose_ops
from pypose_ops import score_limbs
from pypose_ops.ops.find_peaks import LocalPeaks

rand, _ = random_source(8)

LIMBS = [(0, 1), (2, 1), (1, 3)]


PAFS = 2 * rand(2, 6, 9, 11) - 1


OUTSIDE = torch.tensor([[-3.0, 2], [40, 2], [3, -0.6], [3, 8.65], [-300, 200]]).expand(1, 4, 5, 2)


STRANGE_PAFS = torch.where(rand(2, 6, 9, 11) < 0.2, NAN, PAFS)


def all_rules(name, *args, **options):
    for rule in ("openpose", "trt_pose", "trapezoid"):
        yield Sample(f"{name}, {rule}", args, {"rule": rule} | options, traced=name == "plain")


TestScoreLimbs = check_op(
    signed(ours[0], pypose_ops.score_limbs),
    signed(theirs[0], pypose_ops.score_limbs),
    [
        *all_rules("plain", PAFS, COORDS, COUNTS, LIMBS, fraction=0.3),
        *all_rules("few samples", PAFS, COORDS, COUNTS, LIMBS, samples=2, fraction=0.3),
        *all_rules("many samples", PAFS, COORDS, COUNTS, LIMBS, samples=57, fraction=0.3),
        *all_rules("outside", PAFS[:1], OUTSIDE, ALL, LIMBS, fraction=0.3),
        *all_rules("strange coordinates", PAFS[:1], STRANGE_COORDS, ALL, LIMBS, fraction=0.3),
        *all_rules("strange fields", STRANGE_PAFS, COORDS, COUNTS, LIMBS, fraction=0.3),
        *all_rules("coinciding joints", PAFS, COORDS[:, :1, :1].expand(2, 4, 5, 2), COUNTS, LIMBS, fraction=0.3),
        *all_rules("one pixel", PAFS[..., :1, :1], COORDS / 10, COUNTS, LIMBS, fraction=0.3),
        Sample("openpose's number of samples", (PAFS, COORDS, COUNTS, LIMBS), {"samples": None, "fraction": 0.3}),
        Sample("openpose's defaults", (PAFS.abs(), COORDS, COUNTS, LIMBS), {"samples": None}),
        Sample("one sample", (PAFS, COORDS, COUNTS, LIMBS), {"samples": 1}),
        Sample("short limbs", (PAFS, 5 + COORDS / 500, COUNTS, LIMBS), {"threshold": 9.0}),
        Sample("every fraction", (PAFS, COORDS, COUNTS, LIMBS), {"fraction": 0.0, "threshold": -0.5}),
        Sample("channels", (PAFS, COORDS, COUNTS, LIMBS), {"channels": [(5, 0), (2, 2), (1, 3)], "fraction": 0.3}),
        Sample("strange counts", (PAFS, COORDS, torch.tensor([[-1, 99, 5, 5]] * 2), LIMBS), {"fraction": 0.0}),
        Sample("more peaks than a vector", (PAFS, rand(2, 4, 37, 2) * 9, COUNTS + 30, LIMBS), {"fraction": 0.2}),
        Sample(
            "more limbs than a launch",
            (rand(1, 20, 9, 11), COORDS[:1], COUNTS[1:], [(0, 1)] * 150 + [(1, 2)] * 150),
            {"channels": [(i % 20, i % 7) for i in range(300)]},
        ),
        Sample("no peaks", (PAFS, COORDS, torch.zeros(2, 4).long(), LIMBS), exact=True),
        Sample("no room for peaks", (PAFS, COORDS[:, :, :0], COUNTS, LIMBS)),
        Sample("no limbs", (PAFS, COORDS, COUNTS, [])),
    ],
    bad=[
        Bad(name, args, options, error, "score_limbs: " + match)
        for name, args, options, error, match in (
            ("rank 3", (PAFS[0], COORDS, COUNTS, LIMBS), {}, ValueError, r"pafs must be \(B, C, H, W\)"),
            ("integers", (PAFS.long(), COORDS, COUNTS, LIMBS), {}, ValueError, "pafs must be float16"),
            ("coords", (PAFS, COORDS[..., 0], COUNTS, LIMBS), {}, ValueError, r"peaks.coords must be \(B, K, M, 2"),
            ("counts", (PAFS, COORDS, COUNTS[:, :2], LIMBS), {}, ValueError, "peaks.counts must have size 4"),
            ("batch", (PAFS[:1], COORDS, COUNTS, LIMBS), {}, ValueError, "peaks.coords must have size 1"),
            ("joint", (PAFS, COORDS, COUNTS, [(0, 4)]), {}, ValueError, "limbs must be pairs of two joints"),
            ("same joint", (PAFS, COORDS, COUNTS, [(2, 2)]), {}, ValueError, "limbs must be pairs of two joints"),
            ("triple", (PAFS, COORDS, COUNTS, [(0, 1, 2)]), {}, ValueError, "limbs must be pairs"),
            ("numbers", (PAFS, COORDS, COUNTS, [0, 1]), {}, ValueError, "limbs must be pairs of integers"),
            ("too few channels", (PAFS[:, :5], COORDS, COUNTS, LIMBS), {}, ValueError, "channels must be from 0"),
            ("channels", (PAFS, COORDS, COUNTS, LIMBS), {"channels": [(0, 1)]}, ValueError, "channels must be 3 pairs"),
            ("rule", (PAFS, COORDS, COUNTS, LIMBS), {"rule": "mean"}, ValueError, "rule must be one of openpose"),
            ("samples 0", (PAFS, COORDS, COUNTS, LIMBS), {"samples": 0}, ValueError, "samples must be positive"),
            (
                "one sample of two ends", (PAFS, COORDS, COUNTS, LIMBS), {"samples": 1, "rule": "trt_pose"},
                ValueError, "samples must be from 2 to 1024",
            ),
            (
                "no samples of two ends", (PAFS, COORDS, COUNTS, LIMBS), {"samples": None, "rule": "trapezoid"},
                ValueError, "samples must be from 2 to 1024",
            ),
            ("samples", (PAFS, COORDS, COUNTS, LIMBS), {"samples": 5000}, ValueError, "samples must be from 0 to"),
            ("fraction", (PAFS, COORDS, COUNTS, LIMBS), {"fraction": 1.5}, ValueError, "fraction must be from 0"),
            ("threshold", (PAFS, COORDS, COUNTS, LIMBS), {"threshold": NAN}, ValueError, "threshold must be finite"),
            ("no pixels", (PAFS[..., :0], COORDS, COUNTS, LIMBS), {}, ValueError, "pafs must not be empty maps"),
        )
    ],
    maps=("pafs",),
    batched=("pafs", "coords", "counts"),
)  # fmt: skip


# Limbs ----------------------------------------------------------------------------------------------------------------
def two_peaks(a, b):
    return LocalPeaks(torch.tensor([[[a], [b]]], dtype=torch.float32), torch.ones(1, 2, 1), torch.ones(1, 2).long())


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("openpose", (1 + 2 + 3 + 4) / 4),  # of pixels 1 ... 4, 5 is not read
        ("trt_pose", (1 + 2.0 + 3 + 4 + 5) / 5),
        ("trapezoid", (0.5 + 2 + 3 + 4 + 2.5) / 4),
    ],
)
def test_line_integral_by_hand(rule, expected):
    """A field that points right and is as long as its column's number; a limb from column 1 to 5."""
    pafs = torch.zeros(1, 2, 3, 8)
    pafs[0, 0] = torch.arange(8)
    options = {"rule": rule, "samples": 4 if rule == "openpose" else 5}
    assert score_limbs(pafs, two_peaks((1, 1), (5, 1)), [(0, 1)], **options).item() == pytest.approx(expected, abs=1e-4)
    backwards = score_limbs(pafs, two_peaks((5, 1), (1, 1)), [(0, 1)], **options).item()
    assert backwards == (-math.inf if rule == "openpose" else pytest.approx(-expected, abs=1e-4))


def test_fraction_of_samples():
    """OpenPose: more than the fraction of the samples must be above the threshold; other limbs are ignored."""
    pafs = torch.zeros(1, 2, 3, 10)
    pafs[0, 0, :, :8] = 0.5
    peaks = two_peaks((0, 1), (10, 1))
    limbs = {"limbs": [(0, 1)], "samples": 10}
    assert score_limbs(pafs, peaks, **limbs, fraction=0.7).item() == 0.5
    assert score_limbs(pafs, peaks, **limbs, fraction=0.8).item() == -math.inf
    assert score_limbs(pafs, peaks, **limbs, fraction=0.0, threshold=0.5).item() == -math.inf


def scores_of_large(pafs, coords):
    counts = torch.full(coords.shape[:2], coords.shape[2], device=coords.device)
    return pypose_ops.score_limbs(pafs, pypose_ops.LocalPeaks(coords, coords[..., 0], counts), large.LIMBS)


LARGE = large.Case(
    scores_of_large, (large.rows(6, 8, 8, dtype=large.HALF), large.rows(4, 100, 2, scale=7.0)), 3 * 100 * 100
)

"""Calls of the operators that put joints together to people."""

import numpy as np
import torch

from pypose_ops import LocalPeaks

from .calls import Call, operator
from .draws import COORDINATE_DTYPES, MAP_DTYPES, NOT_FINITE


def sigmas_of(draw, joints):
    return [draw.log_uniform(0.02, 0.12) for _ in range(joints)]


def people_of(draw, shape, joints):
    """Poses around a few places, so that some are alike."""
    places = draw.random.random((*shape[:-1], 3, 1, 2)) * 100
    chosen = draw.random.integers(3, size=shape)
    centers = np.take_along_axis(places, chosen[..., None, None], -3)
    spread = draw.pick((0.0, 1.0, 5.0, 20.0))
    return draw.bounded(draw.spoil(centers + spread * draw.random.normal(size=(*shape, joints, 2))), 1e9)


def sizes_of(draw, shape):
    """area, boxes or both."""
    dtype = draw.pick(COORDINATE_DTYPES)
    area = draw.tensor(draw.bounded(draw.spoil(draw.random.random(shape) * draw.pick((10.0, 1e4))), 1e18), dtype)
    corner = draw.random.random((*shape, 2)) * 100
    boxes = draw.tensor(
        draw.spoil(np.concatenate([corner, corner + draw.random.random((*shape, 2)) * 60 - 5], -1)), dtype
    )
    return draw.pick(({"area": area}, {"boxes": boxes}, {"area": area, "boxes": boxes}))


@operator("oks")
def oks(draw):
    joints = draw.count(5)
    batch = draw.pick(((), (draw.count(3),)))
    found, known = (*batch, draw.count(5)), (*batch, draw.count(5))
    dtype = draw.pick(COORDINATE_DTYPES)
    arguments = {
        "pred": draw.tensor(people_of(draw, found, joints), dtype),
        "target": draw.tensor(people_of(draw, known, joints), draw.pick(COORDINATE_DTYPES)),
        "sigmas": sigmas_of(draw, joints),
        "visible": draw.visible((*known, joints)),
    } | sizes_of(draw, known)
    grad = ("pred",) if draw.chance(0.5) else ()
    return Call("oks", arguments, grad, dtype, {"pred": 100.0, "target": 100.0, "area": 0.0, "boxes": 100.0})


@operator("oks_nms", whole="all")
def oks_nms(draw):
    joints = draw.count(5)
    shape = (*draw.pick(((), (draw.count(3),))), draw.count(8))
    dtype = draw.pick(COORDINATE_DTYPES)
    scores = draw.values(shape)
    scores = np.where(np.abs(scores) < 1e-30, 0.0, scores)  # the kernels may round smaller ones to 0
    arguments = {
        "keypoints": draw.tensor(people_of(draw, shape, joints), dtype),
        "scores": draw.tensor(scores, dtype),
        "threshold": draw.uniform(0.05, 0.95),
        "soft": draw.chance(0.5),
        "sigmas": sigmas_of(draw, joints),
        "visible": draw.visible((*shape, joints)),
        "max_people": draw.pick((None, None, draw.integer(0, 5))),
    } | sizes_of(draw, shape)
    return Call("oks_nms", arguments, (), dtype, {"keypoints": 100.0, "area": 0.0, "boxes": 100.0})


def peaks_of(draw, size, dtype, most=5):
    """A LocalPeaks as find_peaks gives it, in strange calls with numbers that find_peaks never gives."""
    batch, joints, places = draw.count(3), draw.integer(2, 5), draw.count(most)
    counts = draw.random.integers(0, places + 1, size=(batch, joints))
    if draw.strange and draw.chance(0.3):
        counts = draw.random.integers(-3, places + 9, size=(batch, joints))
    # Not on and between pixels: a dozen samples of a limb would be near-ties, each of which may round either way.
    coords = draw.random.random((batch, joints, places, 2)) * [size[1] + 3, size[0] + 3] - 2
    coords = draw.tensor(draw.bounded(draw.spoil(coords), 1e6), dtype)
    scores = draw.tensor(draw.bounded(draw.spoil(draw.random.random((batch, joints, places))), 1e6), dtype)
    return LocalPeaks(coords, scores, torch.as_tensor(counts))


def apart(draw, peaks, size):
    """The same with peaks in different pixels: those in one pixel have one tag, and may change places."""
    batch, joints, places = peaks.scores.shape
    pixels = np.argsort(draw.random.random((batch, joints, size[0] * size[1])), -1)[..., :places]
    coords = np.stack([pixels % size[1], pixels // size[1]], -1) + draw.random.uniform(-0.45, 0.45, (*pixels.shape, 2))
    scores = draw.random.random(peaks.scores.shape)
    if draw.strange:
        scores = np.where(draw.random.random(scores.shape) < 0.2, np.inf, scores)
        scores = np.where(draw.random.random(scores.shape) < 0.2, np.nan, scores)
    dtype = peaks.scores.dtype
    return LocalPeaks(draw.tensor(coords, dtype), draw.tensor(scores, dtype), peaks.counts)


@operator("score_limbs")
def score_limbs(draw):
    size = draw.size()
    dtype = draw.pick(MAP_DTYPES)
    peaks = peaks_of(draw, size, torch.float64 if dtype == torch.float64 else torch.float32)
    batch, joints = peaks.counts.shape
    limbs = draw.limbs(joints, distinct=True)
    channels = max(2 * len(limbs), 1) + draw.integer(0, 2)
    rule = draw.pick(("openpose", "trt_pose", "trapezoid"))
    arguments = {
        "pafs": draw.tensor(draw.bounded(draw.values((batch, channels, *size)), 1e30), dtype),
        "peaks": peaks,
        "limbs": limbs,
        "rule": rule,
        "samples": draw.pick((10, draw.integer(2, 40), None if rule == "openpose" else 7)),
        "threshold": draw.pick((0.05, -0.5, 0.0)),
        "fraction": draw.pick((0.95, 0.3, 0.0, 1.0)),
    }
    if draw.chance(0.3):
        arguments["channels"] = [(draw.integer(0, channels - 1), draw.integer(0, channels - 1)) for _ in limbs]
    return Call("score_limbs", arguments, (), dtype, {"pafs": 0.0, "peaks": float(max(size))})


@operator("group_people", whole="all")
def group_people(draw):
    peaks = peaks_of(draw, (30, 40), draw.pick(COORDINATE_DTYPES))
    batch, joints, places = peaks.scores.shape
    limbs = draw.limbs(joints, most=6, distinct=True)
    table = draw.random.random((batch, len(limbs), places, places)) - 0.2
    assignment = draw.pick(("optimal", "greedy"))
    if assignment == "greedy" and draw.chance(0.3):  # ties, whose order only "greedy" fixes
        table = np.round(4 * table) / 4
    # Beside 1e30 nothing is left of a sum of scores: which assignment is the best is then a matter of rounding.
    table = draw.spoil(table, kinds=NOT_FINITE if assignment == "optimal" else None)
    table = np.where(draw.random.random(table.shape) < 0.1, -np.inf, table)
    dtype = draw.pick(COORDINATE_DTYPES)
    arguments = {
        "peaks": peaks,
        "limb_scores": draw.tensor(table, dtype),
        "limbs": limbs,
        "assignment": assignment,
        "min_limb_score": draw.pick((0.0, 0.0, 0.3)),
        "min_joints": draw.pick((1, 2, 3)),
        "min_score": draw.pick((0.0, 0.4, -1.0)),
        "max_people": draw.pick((32, 3, 1, 0)),
        "missing": draw.pick((-1.0, float("nan"))),
    }
    return Call("group_people", arguments, (), dtype, {"limb_scores": 0.0})


@operator("group_by_tags", whole="all")
def group_by_tags(draw):
    size = (30, 40)
    dtype = draw.pick(MAP_DTYPES)
    half = dtype in (torch.float16, torch.bfloat16)  # several of which would have the same tags
    peaks = apart(draw, peaks_of(draw, size, draw.pick(COORDINATE_DTYPES), most=1 if half else 5), size)
    batch, joints, _ = peaks.scores.shape
    shape = (batch, joints, *draw.pick(((), (1,), (3,))), *size)
    order = [int(k) for k in draw.random.permutation(joints)]
    arguments = {
        "peaks": peaks,
        "tags": draw.tensor(draw.spoil(4 * draw.random.random(shape), kinds=NOT_FINITE), dtype),
        "min_score": draw.pick((0.1, 0.0, 0.5)),
        "max_distance": draw.pick((1.0, 0.2, 3.0)),
        "joint_order": draw.pick((None, order, order[:2])),
        "max_people": draw.pick((30, 2)),
        "missing": draw.pick((-1.0, float("nan"))),
    }
    return Call("group_by_tags", arguments, (), dtype, {"tags": 0.0})

"""Grouping by hand, against OpenPose's and MMPose's rules, and on OpenPose's own maps of real pictures."""

import math

import numpy as np
import pytest
import torch

from pypose_ops import (
    find_peaks,
    gaussian_heatmaps,
    group_by_tags,
    group_people,
    oks,
    oks_nms,
    score_limbs,
)
from pypose_ops.peaks_local import PeakSet
from pypose_ops.skeletons import COCO

NAN = math.nan


def test_oks_by_hand():
    target = torch.tensor([[[10.0, 10.0], [20.0, 10.0]]])
    pred = torch.tensor([[[10.0, 10.0], [20.0, 14.0]], [[10.0, NAN], [20.0, 10.0]]])
    similarity = oks(pred, target, torch.tensor([100.0]), sigmas=(0.1, 0.2))
    second = math.exp(-16 / (2 * 0.4**2 * 100))
    torch.testing.assert_close(similarity, torch.tensor([[(1 + second) / 2], [0.5]]))
    only_first = oks(pred, target, torch.tensor([100.0]), sigmas=(0.1, 0.2), visible=torch.tensor([[1, 0]]))
    assert only_first.tolist() == [[1], [0]]


def test_oks_of_somebody_without_joints():
    pred = torch.tensor([[[15.0, 25.0]], [[34.0, 25.0]]])
    box = torch.tensor([[10.0, 20.0, 20.0, 30.0]])  # doubled to every side: 0 ... 30, 10 ... 40
    invisible = {"sigmas": (0.1,), "visible": torch.zeros(1, 1), "boxes": box}
    similarity = oks(pred, torch.zeros(1, 1, 2), torch.tensor([100.0]), **invisible)
    torch.testing.assert_close(similarity, torch.tensor([[1.0], [math.exp(-16 / (2 * 0.04 * 100))]]))
    invisible.pop("boxes")
    assert not oks(pred, torch.zeros(1, 1, 2), torch.tensor([100.0]), **invisible).any()


def test_suppression_by_hand():
    """Three in one place, one elsewhere, and one whose score is missing."""
    keypoints = torch.zeros(5, 17, 2)
    keypoints[3] = 500
    scores, area = torch.tensor([0.5, 0.9, 0.9, 0.1, NAN]), torch.full((5,), 1e4)
    hard = oks_nms(keypoints, scores, area)
    assert hard.mask.tolist() == [False, True, False, True, False]  # the first of two equal scores
    torch.testing.assert_close(hard.scores, scores, equal_nan=True)
    soft = oks_nms(keypoints, scores, area, soft=True, threshold=0.5)
    assert soft.mask.tolist() == [True, True, True, True, False]
    once, twice = math.exp(-1 / 0.5), math.exp(-2 / 0.5)
    expected = torch.tensor([0.5 * twice, 0.9, 0.9 * once, 0.1, NAN])
    torch.testing.assert_close(soft.scores, expected, equal_nan=True)


def mmpose_nms(keypoints, scores, areas, threshold, soft, limit=20):
    """oks_nms and soft_oks_nms of MMPose, from their formulas."""
    variance = (2 * np.array(COCO.sigmas)) ** 2
    order = list(np.argsort(scores)[::-1])
    scores, kept = scores[order], []
    while order and (not soft or len(kept) < limit):
        best = order.pop(0)
        kept.append(best)
        rest = scores[1:]
        square = ((keypoints[order] - keypoints[best]) ** 2).sum(-1)
        exponent = square / variance / ((areas[order, None] + areas[best]) / 2 + np.spacing(1)) / 2
        similarity = np.exp(-exponent).sum(-1) / 17
        if soft:
            rest = rest * np.exp(-(similarity**2) / threshold)
            new = np.argsort(rest)[::-1]
            order, scores = [order[i] for i in new], rest[new]
        else:
            keep = similarity <= threshold
            order, scores = [o for o, k in zip(order, keep, strict=True) if k], rest[keep]
    return kept


@pytest.mark.parametrize("soft", (False, True))
def test_suppression_as_mmpose(device, soft):
    originals = torch.rand(25, 17, 2, dtype=torch.float64) * 200
    keypoints = originals[torch.randint(25, (90,))] + 6 * torch.randn(90, 17, 2)
    scores, areas = torch.rand(90, dtype=torch.float64), torch.rand(90, dtype=torch.float64) * 9000 + 500
    kept = mmpose_nms(keypoints.numpy(), scores.numpy(), areas.numpy(), 0.7, soft)
    limit = 20 if soft else None
    ours = oks_nms(
        keypoints.to(device), scores.to(device), areas.to(device), threshold=0.7, soft=soft, max_people=limit
    )
    assert ours.mask.nonzero().flatten().tolist() == sorted(kept)
    assert 10 < len(kept) < 90


# Limbs ----------------------------------------------------------------------------------------------------------------


def two_peaks(a, b):
    return PeakSet(torch.tensor([[[a], [b]]], dtype=torch.float32), torch.ones(1, 2, 1), torch.ones(1, 2).long())


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
    """OpenPose: more than the fraction of the samples must be above the threshold; the others are left out."""
    pafs = torch.zeros(1, 2, 3, 10)
    pafs[0, 0, :, :8] = 0.5
    peaks = two_peaks((0, 1), (10, 1))
    limbs = {"limbs": [(0, 1)], "samples": 10}
    assert score_limbs(pafs, peaks, **limbs, fraction=0.7).item() == 0.5
    assert score_limbs(pafs, peaks, **limbs, fraction=0.8).item() == -math.inf
    assert score_limbs(pafs, peaks, **limbs, fraction=0.0, threshold=0.5).item() == -math.inf


def chain(*limbs, joints=4, peaks=3):
    """Tables for group_people with these limbs: (a, b, i, j, score); every joint scores 0.5."""
    pairs = list(dict.fromkeys((a, b) for a, b, *_ in limbs))
    table = torch.full((1, len(pairs), peaks, peaks), -math.inf)
    for a, b, i, j, score in limbs:
        table[0, pairs.index((a, b)), i, j] = score
    coords = torch.stack(torch.meshgrid(torch.arange(joints), torch.arange(peaks), indexing="ij"), -1)[None].float()
    peak_set = PeakSet(coords, torch.full((1, joints, peaks), 0.5), torch.full((1, joints), peaks))
    return peak_set, table, pairs


def found(people):
    """Per person the peak of every joint; None where it has none."""
    rows = people.coords[0, : people.counts[0]].tolist()
    return [[None if x < 0 else int(m) for x, m in row] for row in rows]


def test_assembly_by_hand():
    limbs = [(0, 1, 0, 0, 0.9), (1, 2, 0, 1, 0.7), (0, 1, 1, 1, 0.5), (2, 3, 1, 2, 0.8)]
    people = group_people(*chain(*limbs), min_joints=2)
    assert found(people) == [[0, 0, 1, 2], [1, 1, None, None]]
    assert people.scores[0, :2].tolist() == pytest.approx([(4 * 0.5 + 2.4) / 4, (2 * 0.5 + 0.5) / 2])
    assert people.joints[0, :3].tolist() == [4, 2, 0] and people.joint_scores[0, 1].tolist() == [0.5, 0.5, 0, 0]
    assert found(group_people(*chain(*limbs))) == [[0, 0, 1, 2]]  # three joints at least
    assert found(group_people(*chain(*limbs), min_score=1.2)) == []


def test_two_halves_meet():
    limbs = [(0, 1, 0, 0, 0.9), (2, 3, 1, 1, 0.9), (1, 2, 0, 1, 0.9)]
    people = group_people(*chain(*limbs))
    assert found(people) == [[0, 0, 1, 1]]
    assert people.scores[0, 0].item() == pytest.approx((4 * 0.5 + 2.7) / 4)


def test_a_limb_that_contradicts_is_left_out():
    """Joint 3 is joined to two people; the one whose limb comes first has it. Nobody has two peaks of a joint."""
    limbs = [(0, 1, 0, 0, 0.9), (0, 1, 1, 1, 0.8), (1, 2, 0, 0, 0.9), (1, 2, 1, 1, 0.9), (0, 2, 0, 1, 0.9)]
    assert found(group_people(*chain(*limbs))) == [[0, 0, 0, None], [1, 1, 1, None]]


def test_a_circle_adds_to_the_score():
    limbs = [(0, 1, 0, 0, 0.9), (1, 2, 0, 0, 0.9), (0, 2, 0, 0, 0.6)]
    people = group_people(*chain(*limbs))
    assert people.scores[0, 0].item() == pytest.approx((3 * 0.5 + 2.4) / 3)


def test_optimal_and_greedy_assignment_differ():
    """Greedy takes 0.9 and is left with 0.1; the best sum is 0.8 + 0.7."""
    limbs = [(0, 1, 0, 0, 0.9), (0, 1, 0, 1, 0.8), (0, 1, 1, 0, 0.7), (0, 1, 1, 1, 0.1)]
    any_people = {"min_joints": 2, "min_score": 0.0}
    assert found(group_people(*chain(*limbs, joints=2), **any_people)) == [[0, 1], [1, 0]]
    assert found(group_people(*chain(*limbs, joints=2), assignment="greedy", **any_people)) == [[0, 0], [1, 1]]


def test_a_joint_that_nobody_has():
    """Its limbs connect nothing; the others still make people."""
    peaks, table, limbs = chain((0, 1, 0, 0, 0.9), (1, 2, 0, 0, 0.9), (2, 3, 0, 0, 0.9))
    peaks.counts[0, 2] = 0
    assert found(group_people(peaks, table, limbs, min_joints=2)) == [[0, 0, None, None]]
    table[:] = NAN
    assert found(group_people(peaks, table, limbs, min_joints=1)) == []
    people = group_people(peaks._replace(counts=peaks.counts * 0), table, limbs)
    assert people.counts.tolist() == [0] and (people.coords == -1).all() and not people.joint_scores.any()


@pytest.mark.parametrize("max_peaks", (5, 3))
def test_more_people_than_peaks(device, max_peaks):
    """Five upright people of two joints; the best three are kept where there is room for three peaks."""
    people = torch.tensor([[[4.0 + 8 * i, y] for y in (3.0, 11.0)] for i in range(5)])[None]
    heights = torch.tensor([0.5, 0.9, 0.6, 0.8, 0.7])
    maps = (gaussian_heatmaps(people.transpose(0, 1), 1.0, (16, 44)) * heights[:, None, None, None]).amax(0)[None]
    fields = torch.zeros(1, 2, 16, 44)
    fields[:, 1] = 1  # pointing down
    maps, fields = maps.to(device), fields.to(device)
    peaks = find_peaks(maps, max_peaks=max_peaks)
    scores = score_limbs(fields, peaks, [(0, 1)], rule="trapezoid")
    upright = scores.where(scores > 0.99, -math.inf)  # a slanted limb scores less than 1
    grouped = group_people(peaks, upright, [(0, 1)], min_joints=2)
    assert grouped.counts.tolist() == [max_peaks]
    best = heights.argsort(descending=True)[:max_peaks]
    assert grouped.coords[0, :max_peaks].tolist() == people[0, best].tolist()


def test_tags_by_hand():
    """Two people with tags 0 and 5, one of whom lacks a joint, and a stray peak with another tag."""
    coords = torch.tensor([[[[0.0, 0], [0, 1], [0, 0]], [[1, 0], [1, 1], [1, 2]]]])  # (joint, peak)
    peaks = PeakSet(coords, torch.tensor([[[0.9, 0.8, 0.0], [0.6, 0.7, 0.05]]]), torch.tensor([[2, 3]]))
    tags = torch.zeros(1, 2, 3, 2)
    tags[0, 0, :, 0] = torch.tensor([0.0, 5.0, 0.0])
    tags[0, 1, :, 1] = torch.tensor([5.2, 0.1, 0.0])
    people = group_by_tags(peaks, tags)
    assert found(people) == [[0, 1], [1, 0]]  # the third peak of joint 1 has too low a score
    assert people.scores[0, :2].tolist() == pytest.approx([(0.9 + 0.7) / 2, (0.8 + 0.6) / 2])
    tags[0, 1, 0, 1] = 9.0
    assert found(group_by_tags(peaks, tags)) == [[0, 1], [1, None], [None, 0]]


# Real data ------------------------------------------------------------------------------------------------------------

# OpenPose's joints: COCO's with a neck, which COCO does not annotate.
OPENPOSE_SIGMAS = (
    0.026, 0.079, 0.079, 0.072, 0.062, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089, 0.107, 0.087, 0.089, 0.025, 0.025,
    0.035, 0.035,
)  # fmt: skip


def openpose_people(file, i, scale=4, **options):
    """People of one picture, in picture pixels with NaN for missing joints: maps enlarged as OpenPose does."""
    limbs, channels = file["limbs"].tolist(), file["paf_channels"].tolist()
    maps, pafs = (
        torch.nn.functional.interpolate(torch.from_numpy(maps).float()[None], scale_factor=scale, mode="bicubic")
        for maps in (file[f"heat_{i}"], file[f"paf_{i}"])
    )
    peaks = find_peaks(maps[:, :18])
    people = group_people(peaks, score_limbs(pafs, peaks, limbs, channels=channels, fraction=0.8), limbs, **options)
    transform = torch.from_numpy(file[f"hm2img_{i}"])
    coords = ((people.coords[0, : people.counts[0]] + 0.5) / scale - 0.5) @ transform[:, :2].T + transform[:, 2]
    return coords.masked_fill(people.joint_scores[0, : people.counts[0], :, None] == 0, NAN)


@pytest.mark.parametrize("assignment", ("optimal", "greedy"))
def test_everybody_is_found_on_openposes_maps(shared_data, assignment):
    file = np.load(shared_data / "heatmaps" / "openpose_thin_coco_images.npz", allow_pickle=False)
    best, people = [], 0
    for i in range(int(file["n_images"])):
        coords = openpose_people(file, i, assignment=assignment)
        truth = torch.from_numpy(file[f"gt_kps_{i}"])
        visible = truth[..., 2] > 0
        visible[:, 1] = False
        width, height = torch.from_numpy(file[f"bbox_xywh_{i}"])[:, 2:].unbind(1)
        area = 0.53 * width * height  # about what a person covers of the box
        best.append(oks(coords, truth[..., :2], area, sigmas=OPENPOSE_SIGMAS, visible=visible).amax(0))
        people += len(coords)
    best = torch.cat(best)
    assert len(best) == 12 and (best > 0.5).all()
    assert best.mean() > 0.82
    assert people <= 13  # one is not annotated

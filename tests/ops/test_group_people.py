"""group_people under the contract of op_contract.py, and by hand."""

import math
import sys
import types

import numpy as np
import pytest
import torch
from grouping_inputs import COORDS, COUNTS, FULL, INF, NAN, found, ours, random_source, signed, theirs, with_holes
from op_contract import Bad, Sample, check_op

import pypose_ops
from pypose_ops import find_peaks, gaussian_heatmaps, group_people, oks, score_limbs
from pypose_ops.ops.find_peaks import LocalPeaks

rand, _ = random_source(9)

# group_people and group_by_tags ---------------------------------------------------------------------------------------
PEAKS = (COORDS, rand(2, 4, 5), COUNTS)


CYCLE = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)]


TABLE = rand(2, 5, 5, 5) - 0.2


ANY = {"min_joints": 1, "min_score": 0.0}


TestGroupPeople = check_op(
    signed(ours[1], pypose_ops.group_people),
    signed(theirs[1], pypose_ops.group_people),
    with_holes(
        [
            # opcheck does not take NaN for equal to NaN.
            Sample("a number for missing", (*PEAKS, TABLE, CYCLE), ANY | {"missing": -1.0}, traced=True),
            Sample("optimal", (*PEAKS, TABLE, CYCLE), ANY),
            Sample("greedy", (*PEAKS, TABLE, CYCLE), ANY | {"assignment": "greedy"}),
            Sample("defaults", (*PEAKS, TABLE, CYCLE)),
            Sample(
                "thresholds", (*FULL, rand(3, 5, 9, 9), CYCLE), {"min_limb_score": 0.5, "min_joints": 4, "min_score": 1}
            ),
            Sample("full, optimal", (*FULL, rand(3, 5, 9, 9), CYCLE), ANY),
            Sample("full, greedy", (*FULL, rand(3, 5, 9, 9), CYCLE), ANY | {"assignment": "greedy"}),
            Sample("parts that meet", (*FULL, rand(3, 3, 9, 9), [(0, 1), (2, 3), (1, 2)]), ANY),
            Sample("more people than rows", (*FULL, rand(3, 5, 9, 9), CYCLE), ANY | {"max_people": 3}),
            Sample("no rows", (*FULL, rand(3, 5, 9, 9), CYCLE), ANY | {"max_people": 0}),
            Sample("no limb", (*PEAKS, torch.full((2, 5, 5, 5), -INF), CYCLE), ANY, exact=True),
            Sample("strange scores", (*FULL, torch.where(rand(3, 5, 9, 9) < 0.3, NAN, rand(3, 5, 9, 9)), CYCLE), ANY),
            Sample("infinite scores", (*FULL, torch.where(rand(3, 5, 9, 9) < 0.3, INF, rand(3, 5, 9, 9)), CYCLE), ANY),
            Sample("no peaks", (*PEAKS[:2], torch.zeros(2, 4).long(), TABLE, CYCLE), ANY, exact=True),
            Sample("no room for peaks", (COORDS[:, :, :0], rand(2, 4, 0), COUNTS, TABLE[..., :0, :0], CYCLE), ANY),
            Sample("no limbs", (*PEAKS, TABLE[:, :0], []), ANY, exact=True),
        ]
    ),
    bad=[
        Bad(name, args, options, error, "group_people: " + match)
        for name, args, options, error, match in (
            ("table", (*PEAKS, TABLE[:, :3], CYCLE), {}, ValueError, "limb_scores must have size 5"),
            ("peaks", (*PEAKS, TABLE[..., :3], CYCLE), {}, ValueError, "limb_scores must have size 5"),
            ("joint", (*PEAKS, TABLE[:, :1], [(0, 4)]), {}, ValueError, "limbs must be pairs of two joints"),
            ("assignment", (*PEAKS, TABLE, CYCLE), {"assignment": "best"}, ValueError, "assignment must be one of"),
            ("negative", (*PEAKS, TABLE, CYCLE), {"min_limb_score": -1.0}, ValueError, "min_limb_score must not be"),
            ("nan", (*PEAKS, TABLE, CYCLE), {"min_score": NAN}, ValueError, "min_score must be a number"),
            ("rows", (*PEAKS, TABLE, CYCLE), {"max_people": -1}, ValueError, "max_people must not be negative"),
        )
    ],
    batched=("coords", "scores", "counts", "limb_scores"),
    on_host=True,
)


def chain(*limbs, joints=4, peaks=3):
    """Tables for group_people with these limbs: (a, b, i, j, score); every joint scores 0.5."""
    pairs = list(dict.fromkeys((a, b) for a, b, *_ in limbs))
    table = torch.full((1, len(pairs), peaks, peaks), -math.inf)
    for a, b, i, j, score in limbs:
        table[0, pairs.index((a, b)), i, j] = score
    coords = torch.stack(torch.meshgrid(torch.arange(joints), torch.arange(peaks), indexing="ij"), -1)[None].float()
    peak_set = LocalPeaks(coords, torch.full((1, joints, peaks), 0.5), torch.full((1, joints), peaks))
    return peak_set, table, pairs


def test_assembly_by_hand():
    limbs = [(0, 1, 0, 0, 0.9), (1, 2, 0, 1, 0.7), (0, 1, 1, 1, 0.5), (2, 3, 1, 2, 0.8)]
    people = group_people(*chain(*limbs), min_joints=2)
    assert found(people) == [[0, 0, 1, 2], [1, 1, None, None]]
    assert people.scores[0, :2].tolist() == pytest.approx([(4 * 0.5 + 2.4) / 4, (2 * 0.5 + 0.5) / 2])
    assert people.joint_counts[0, :3].tolist() == [4, 2, 0] and people.joint_scores[0, 1].tolist() == [0.5, 0.5, 0, 0]
    assert found(group_people(*chain(*limbs))) == [[0, 0, 1, 2]]  # three joints at least
    assert found(group_people(*chain(*limbs), min_score=1.2)) == []


def test_what_is_known_of_people_besides():
    """Two people and a pair; the second scores best. Of three people there are rows for two."""
    limbs = [(0, 1, 0, 0, 0.5), (0, 1, 1, 2, 0.4), (1, 2, 2, 1, 0.9), (2, 3, 1, 0, 0.9), (2, 3, 0, 1, 0.3)]
    people = group_people(*chain(*limbs), min_joints=2, min_score=0.0, max_people=2)
    assert people.counts.tolist() == [3] and people.joint_counts.tolist() == [[4, 2]]
    assert people.peak_indices.tolist() == [[[1, 2, 1, 0], [0, 0, -1, -1]]]
    assert people.order.tolist() == [[1, 0]]
    assert people.limb_scores[0].tolist() == pytest.approx([2.2, 0.5])
    nobody = group_people(*chain(*limbs), min_score=9.0, max_people=2)
    assert nobody.counts.tolist() == [0] and nobody.order.tolist() == [[-1, -1]] and (nobody.peak_indices == -1).all()
    assert nobody.coords.isnan().all() and not nobody.limb_scores.any()


def test_two_halves_meet():
    limbs = [(0, 1, 0, 0, 0.9), (2, 3, 1, 1, 0.9), (1, 2, 0, 1, 0.9)]
    people = group_people(*chain(*limbs))
    assert people.limb_scores[0, 0].item() == pytest.approx(2.7) and people.order[0].tolist()[:2] == [0, -1]
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
    people = group_people(peaks._replace(counts=peaks.counts * 0), table, limbs, missing=-1.0)
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


# Real data ------------------------------------------------------------------------------------------------------------
# OpenPose's joints: COCO's with a neck, which COCO does not annotate.
OPENPOSE_SIGMAS = (
    0.026, 0.079, 0.079, 0.072, 0.062, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089, 0.107, 0.087, 0.089, 0.025, 0.025,
    0.035, 0.035,
)  # fmt: skip


def openpose_people(file, i, scale=4, **options):
    """People of one image, in image pixels with NaN for missing joints: maps enlarged as OpenPose does."""
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


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize("missing", (math.nan, -1.0))
@pytest.mark.parametrize("peaks_each", (0, 6))
def test_the_host_gathers_what_torch_gathers(monkeypatch, dtype, missing, peaks_each):
    """Bit for bit, also of peaks whose memory is not in order, for several images."""
    coords = torch.rand(2, peaks_each, 4, 3, dtype=dtype).permute(3, 2, 1, 0)
    scores = 0.5 + torch.rand(peaks_each, 4, 3, dtype=dtype).permute(2, 1, 0)
    counts = torch.randint(0, peaks_each + 1, (3, 4))
    peaks = LocalPeaks(coords, scores, counts)
    table = torch.rand(3, 3, peaks_each, peaks_each, dtype=dtype)
    call = lambda: group_people(peaks, table, [(0, 1), (1, 2), (2, 3)], min_joints=2, missing=missing)  # noqa: E731
    gathered = call()
    monkeypatch.setattr(sys.modules["pypose_ops.ops.group_people"], "gathers", lambda *args: False)
    for mine, expected in zip(gathered, call(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=0, equal_nan=True)
    assert peaks_each == 0 or gathered.counts.sum() > 0


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda p: p._replace(coords=p.coords[..., :1]), r"peaks.coords must"),
        (lambda p: p._replace(coords=p.coords[0]), r"peaks.coords must be \(B, K, M, 2\)"),
        (lambda p: p._replace(scores=p.scores[:, :, :2]), r"peaks.scores must be \(1, 4, 3"),
        (lambda p: p._replace(scores=p.scores[0]), r"peaks.scores must be \(1, 4, 3"),
        (lambda p: p._replace(counts=p.counts[:, :2]), r"peaks.counts must have size 4"),
        (lambda p: p._replace(counts=p.counts.float()), r"peaks.counts must be integers"),
        (lambda p: p._replace(coords=p.coords.long()), r"peaks.coords must be float32 or float64"),
    ],
)
def test_peaks_that_do_not_fit_are_named(change, match):
    peaks, table, limbs = chain((0, 1, 0, 0, 0.9))
    with pytest.raises(ValueError, match=f"group_people: {match}"):
        group_people(change(peaks), table, limbs)


def test_peaks_of_another_dtype_and_kind():
    """Counts of int32, scores of float64 beside coordinates of float32, any object with the three tensors."""
    peaks, table, limbs = chain((0, 1, 0, 0, 0.9), (1, 2, 0, 1, 0.7))
    expected = group_people(peaks, table, limbs)
    other = LocalPeaks(peaks.coords, peaks.scores.double(), peaks.counts.int())
    for alike in (other, types.SimpleNamespace(**peaks._asdict())):
        for got, want in zip(group_people(alike, table, limbs), expected, strict=True):
            torch.testing.assert_close(got, want, check_dtype=False, equal_nan=True)

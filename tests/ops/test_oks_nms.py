"""oks_nms under the contract of op_contract.py, and by hand."""

import math

import large_inputs as large
import numpy as np
import pytest
import torch
from grouping_inputs import INF, NAN, SIGMAS, random_source
from op_contract import Bad, Sample, check_op

import pypose_ops
from pypose_ops import oks_nms, reference
from pypose_ops.skeletons import COCO

rand, generator = random_source(7)


def randint(high, *shape):
    return torch.randint(high, shape, generator=generator)


# oks_nms --------------------------------------------------------------------------------------------------------------
def crowd(batch, people, joints):
    """People of whom many are nearly the same."""
    originals = 100 * rand(batch, max(1, people // 3), joints, 2)
    return originals[:, randint(originals.shape[1], people)] + 4 * rand(batch, people, joints, 2)


KEYPOINTS, SCORES, AREAS = crowd(2, 12, 3), rand(2, 12), 3000 * rand(2, 12) + 500


NMS = {"sigmas": SIGMAS, "threshold": 0.6}


SOME_NAN = torch.where(rand(2, 12, 3, 1) < 0.3, NAN, crowd(2, 12, 3))


TestOksNms = check_op(
    pypose_ops.oks_nms,
    reference.oks_nms,
    [
        Sample("hard", (KEYPOINTS, SCORES, AREAS), NMS, traced=True),
        Sample("soft", (KEYPOINTS, SCORES, AREAS), NMS | {"soft": True}, traced=True),
        Sample("soft, a few", (KEYPOINTS, SCORES, AREAS), NMS | {"soft": True, "max_people": 3}),
        Sample("hard, a few", (KEYPOINTS, SCORES, AREAS), NMS | {"max_people": 2}),
        Sample("hard, nobody", (KEYPOINTS, SCORES, AREAS), NMS | {"max_people": 0}),
        Sample("boxes", (KEYPOINTS, SCORES), NMS | {"boxes": 60 * rand(2, 12, 4)}),
        Sample("visible", (KEYPOINTS, SCORES, AREAS), NMS | {"visible": rand(2, 12, 3) > 0.4}, traced=True),
        Sample("missing joints", (SOME_NAN, SCORES, AREAS), NMS | {"soft": True}),
        Sample("equal scores", (KEYPOINTS, (SCORES * 3).round() / 3, AREAS), NMS),
        Sample("one person often", (KEYPOINTS[:, :1].expand(2, 12, 3, 2), SCORES, AREAS), NMS),
        Sample("area 0", (KEYPOINTS, SCORES, torch.zeros(2, 12)), NMS),
        Sample(
            "strange scores",
            (KEYPOINTS[:1, :5], torch.tensor([[NAN, INF, -INF, -1.0, 0.5]]), AREAS[:1, :5]),
            NMS,
            equal_nan=True,
        ),
        Sample(
            "strange scores, soft",
            (KEYPOINTS[:1, :5], torch.tensor([[NAN, INF, -INF, -1.0, 0.5]]), AREAS[:1, :5]),
            NMS | {"soft": True},
            equal_nan=True,
        ),
        Sample("coco, more than a block", (crowd(1, 300, 17), rand(1, 300), 1e5 * rand(1, 300)), {"threshold": 0.8}),
        Sample("nobody", (KEYPOINTS[:, :0], SCORES[:, :0], AREAS[:, :0]), NMS, traced=True),
    ],
    bad=[
        Bad("rank 2", (KEYPOINTS[0, 0], SCORES, AREAS), NMS, ValueError, r"oks_nms: keypoints must be \(B, N, K, 2"),
        Bad("scores", (KEYPOINTS, SCORES[:, 1:], AREAS), NMS, ValueError, "oks_nms: scores must have size 12"),
        Bad("areas", (KEYPOINTS, SCORES, AREAS[:1]), NMS, ValueError, "oks_nms: area must have size 2"),
        Bad("no area", (KEYPOINTS, SCORES), NMS, ValueError, "oks_nms: area or boxes must be given"),
        Bad("threshold", (KEYPOINTS, SCORES, AREAS), NMS | {"threshold": 0.0}, ValueError, "threshold must be pos"),
        Bad("sigmas", (KEYPOINTS, SCORES, AREAS), {}, ValueError, "oks_nms: sigmas must have one value"),
        Bad("max", (KEYPOINTS, SCORES, AREAS), NMS | {"max_people": -1}, ValueError, "max_people must not be neg"),
        Bad("half", (KEYPOINTS.half(), SCORES, AREAS), NMS, ValueError, "oks_nms: keypoints must be float32 or"),
        Bad(
            "visible", (KEYPOINTS, SCORES, AREAS), NMS | {"visible": torch.ones(2, 2)}, ValueError,
            "oks_nms: visible must broadcast",
        ),
    ],
    batched=("keypoints", "scores", "area", "visible", "boxes"),
)  # fmt: skip


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


LARGE = large.Case(
    lambda k, s, a: pypose_ops.oks_nms(k, s, a, max_people=3),
    (large.rows(30, large.K, 2), large.rows(30), large.rows(30)),
    30 * large.K * 2,
)


@pytest.mark.parametrize("axis", (0, 1))
@pytest.mark.parametrize(
    ("threshold", "soft"), [(0.9, False), (0.3, False), (0.001, False), (0.9, True), (0.3, True), (0.05, True)]
)
def test_people_out_of_reach_change_nothing(device, threshold, soft, axis):
    """A crowd along one side, people large and small, some without joints: who is not compared must not matter."""
    random = torch.Generator().manual_seed(axis)
    places = 3000 * torch.rand(60, 1, 2, generator=random, dtype=torch.float64)
    places[..., 1 - axis] /= 50
    sizes = 10 ** (2 * torch.rand(60, 1, 1, generator=random, dtype=torch.float64))
    poses = places + sizes * torch.rand(60, 5, 2, generator=random, dtype=torch.float64)
    source = torch.randint(60, (150,), generator=random)
    nearby = torch.rand(150, 5, 2, generator=random, dtype=torch.float64) - 0.5
    keypoints = poses[source] + 0.1 * sizes[source] * nearby
    keypoints[::17] = NAN
    keypoints[5::17, 2] = INF
    scores = (20 * torch.rand(150, generator=random, dtype=torch.float64)).round() / 20
    areas = sizes[source, 0, 0] ** 2
    areas[::23] = 0
    options = {"sigmas": [0.02, 0.05, 0.1, 0.05, 0.02], "threshold": threshold, "soft": soft}
    got = oks_nms(keypoints.to(device), scores.to(device), areas.to(device), **options)
    wanted = reference.oks_nms(keypoints, scores, areas, **options)
    assert torch.equal(got.mask.cpu(), wanted.mask)
    torch.testing.assert_close(got.scores.cpu(), wanted.scores, rtol=1e-12, atol=0)
    assert soft or 0 < int((~got.mask).sum()) < 150

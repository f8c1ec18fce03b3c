"""group_by_tags under the contract of op_contract.py, and by hand."""

import sys

import pytest
import torch
from grouping_inputs import (
    ALL,
    COORDS,
    COUNTS,
    FULL,
    INF,
    NAN,
    STRANGE_COORDS,
    found,
    ours,
    random_source,
    signed,
    theirs,
    with_holes,
)
from op_contract import Bad, Sample, check_op

import pypose_ops
from pypose_ops import group_by_tags
from pypose_ops.ops.find_peaks import LocalPeaks

rand, generator = random_source(10)

# Peaks far from each other: two in one pixel have the same tag, and may change places.
FAR = torch.stack([torch.randperm(80, generator=generator).view(4, 20)[:, :5] for _ in range(4)]).view(2, 2, 4, 5)


FAR = (FAR.permute(0, 2, 3, 1).double(), rand(2, 4, 5), COUNTS)


APART = (3.0 * FULL[0].new_tensor(range(27)).view(1, 3, 9, 1).expand(3, 3, 9, 2), rand(3, 3, 9), FULL[2][:, :3])


def different_tags():
    """Tags from 0 to 4 that stay different in bfloat16: peaks with the same tag may change places."""
    tags = torch.zeros(3, 3, 80, 80, dtype=torch.float64)
    place = torch.arange(0, 80, 3)  # of APART
    for image, joint in torch.cartesian_prod(torch.arange(3), torch.arange(3)):
        tags[image, joint, place, place] = torch.randperm(251, generator=generator)[:27].double() / 64
    return tags


TAGS = 4 * rand(2, 4, 80, 80)


WIDE_TAGS = 2 * rand(2, 4, 3, 80, 80)


TestGroupByTags = check_op(
    signed(ours[2], pypose_ops.group_by_tags),
    signed(theirs[2], pypose_ops.group_by_tags),
    with_holes(
        [
            # opcheck does not take NaN for equal to NaN.
            Sample("a number for missing", (*FAR, TAGS), {"missing": -1.0}, traced=True),
            Sample("plain", (*FAR, TAGS)),
            Sample("tags of three numbers", (*FAR, WIDE_TAGS)),
            Sample("order", (*FAR, TAGS), {"joint_order": [3, 1, 0, 2]}),
            Sample("some joints", (*FAR, TAGS), {"joint_order": [3, 1]}),
            Sample("narrow", (*FAR, TAGS), {"max_distance": 0.2, "min_score": 0.5}),
            Sample("wide", (*APART, different_tags()), {"max_distance": 3.0}),
            Sample("a few rows", (*APART, different_tags()), {"max_people": 2}),
            Sample("peaks outside", (100 * FAR[0] - 500, FAR[1], COUNTS.clamp(max=1), TAGS)),
            Sample("strange peaks", (STRANGE_COORDS.flip(2), rand(1, 4, 5), ALL // 3, TAGS[:1]), equal_nan=True),
            Sample(
                "strange scores", (FAR[0], torch.where(rand(2, 4, 5) < 0.4, INF, FAR[1]), COUNTS, TAGS), equal_nan=True
            ),
            Sample("strange tags", (*FAR, torch.where(rand(2, 4, 80, 80) < 0.4, NAN, TAGS))),
            Sample("no peaks", (*FAR[:2], torch.zeros(2, 4).long(), TAGS), exact=True),
            Sample("no room for peaks", (COORDS[:, :, :0], rand(2, 4, 0), COUNTS, TAGS)),
        ]
    ),
    bad=[
        Bad(name, args, options, error, "group_by_tags: " + match)
        for name, args, options, error, match in (
            ("tags", (*FAR, TAGS[:, :2]), {}, ValueError, r"tags must be \(2, 4, H, W\) or \(2, 4, T, H, W\)"),
            ("no pixels", (*FAR, TAGS[..., :0]), {}, ValueError, "tags must not be empty maps"),
            ("order", (*FAR, TAGS), {"joint_order": [4]}, ValueError, "joint_order must name different joints"),
            ("twice", (*FAR, TAGS), {"joint_order": [1, 1]}, ValueError, "joint_order must name different joints"),
            ("distance", (*FAR, TAGS), {"max_distance": 0.0}, ValueError, "max_distance must be positive"),
        )
    ],
    maps=("tags",),
    batched=("coords", "scores", "counts", "tags"),
    on_host=True,
)


def test_tags_by_hand():
    """Two people with tags 0 and 5, one of whom lacks a joint, and a stray peak with another tag."""
    coords = torch.tensor([[[[0.0, 0], [0, 1], [0, 0]], [[1, 0], [1, 1], [1, 2]]]])  # (joint, peak)
    peaks = LocalPeaks(coords, torch.tensor([[[0.9, 0.8, 0.0], [0.6, 0.7, 0.05]]]), torch.tensor([[2, 3]]))
    tags = torch.zeros(1, 2, 3, 2)
    tags[0, 0, :, 0] = torch.tensor([0.0, 5.0, 0.0])
    tags[0, 1, :, 1] = torch.tensor([5.2, 0.1, 0.0])
    people = group_by_tags(peaks, tags)
    assert found(people) == [[0, 1], [1, 0]]  # the third peak of joint 1 has too low a score
    assert people.scores[0, :2].tolist() == pytest.approx([(0.9 + 0.7) / 2, (0.8 + 0.6) / 2])
    tags[0, 1, 0, 1] = 9.0
    assert found(group_by_tags(peaks, tags)) == [[0, 1], [1, None], [None, 0]]


def test_the_host_gathers_what_torch_gathers(monkeypatch):
    peaks = LocalPeaks(6 * rand(3, 4, 5, 2), rand(3, 4, 5), torch.randint(0, 6, (3, 4)))
    tags = rand(3, 4, 8, 8)
    gathered = group_by_tags(peaks, tags)
    monkeypatch.setattr(sys.modules["pypose_ops.ops.group_by_tags"], "gathers", lambda *args: False)
    for mine, expected in zip(gathered, group_by_tags(peaks, tags), strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=0, equal_nan=True)
    assert gathered.counts.sum() > 0

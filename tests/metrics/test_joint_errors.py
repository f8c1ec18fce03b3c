"""What went wrong with a joint: every kind by hand, and by a plain loop over all joints of all people."""

import math

import pytest
import torch

from pypose_ops import metrics, skeletons
from pypose_ops.metrics import _pairs
from pypose_ops.metrics.joint_errors import KINDS

PAIRS = ((0, 1),)  # left wrist, right wrist; joint 2, the nose, has no mirror image
PERSON = torch.tensor([[0.0, 0.0], [40.0, 0.0], [20.0, 50.0]])
GOOD = math.sqrt(math.log2(1 / 0.85))  # of the radius: where the similarity is 0.85


def kinds_of(pred, target=PERSON[None], radius=10.0, **options):
    pred, target = torch.as_tensor(pred, dtype=torch.float64), torch.as_tensor(target, dtype=torch.float64)
    result = metrics.joint_errors(pred, target, torch.full((len(target),), radius), flip_pairs=PAIRS, **options)
    return [[KINDS[k] if k >= 0 else None for k in row] for row in result.kinds.tolist()], result.on.tolist()


def moved(joint, x, y=0.0):
    pred = PERSON.clone()
    pred[joint] = torch.tensor([x, y])
    return pred[None]


@pytest.mark.parametrize(
    ("joint", "x", "y", "kind", "on"),
    [
        (0, 0.0, 0.0, "good", 0),
        (0, 10 * GOOD - 0.01, 0.0, "good", 0),
        (0, 10 * GOOD + 0.01, 0.0, "jitter", 0),
        (0, 9.99, 0.0, "jitter", 0),
        (0, 10.01, 0.0, "miss", 4),  # K + 1: near nothing
        (0, 40.0, 9.99, "inversion", 1),
        (1, 3.0, 0.0, "inversion", 0),
        (0, 20.0, 50.0, "miss", 2),  # on the nose, which is no mirror image
        (2, 0.0, 0.0, "miss", 0),
        (2, 20.0, 55.0, "jitter", 2),
        (1, math.nan, 0.0, "miss", 4),
        (1, math.inf, 0.0, "miss", 4),
    ],
)
def test_a_kind_by_hand(joint, x, y, kind, on):
    kinds, where = kinds_of(moved(joint, x, y))
    assert (kinds[0][joint], where[0][joint]) == (kind, on)
    assert all(kinds[0][other] == "good" for other in {0, 1, 2} - {joint})


def test_a_joint_between_two_is_of_the_nearer():
    target = PERSON[None].clone()
    target[0, 1] = torch.tensor([12.0, 0.0])
    assert kinds_of(moved(0, 5.0), target)[0][0][0] == "jitter"
    assert kinds_of(moved(0, 7.0), target)[0][0][0] == "inversion"  # within the radius of both


def test_swaps_are_with_the_same_or_the_mirrored_joint_of_people_of_the_same_image():
    target = torch.stack((PERSON, PERSON + 200, PERSON + 400))
    pred = target.clone()
    pred[0, 0] = target[1, 0]  # the other's left wrist
    pred[0, 1] = target[1, 0] + 1  # the other's left wrist, for the right one
    pred[1, 0] = target[0, 2]  # the other's nose: another joint
    pred[2, 0] = target[0, 0]  # a person of another image
    kinds, on = kinds_of(pred, target, image=torch.tensor([7, 7, 8]))
    assert kinds[0] == ["swap", "swap", "good"] and on[0] == [3, 3, 2]
    assert kinds[1][0] == "miss" and on[1][0] == 3  # it lies on another person, and is no swap
    assert kinds[2][0] == "miss" and on[2][0] == 4
    alone, where = kinds_of(pred, target)
    assert alone[0][:2] == ["miss", "miss"] and where[0][:2] == [4, 4]


def test_what_does_not_count():
    target = torch.stack((PERSON, PERSON))
    target[0, 0] = math.nan
    visible = torch.ones(2, 3)
    visible[0, 1] = 0
    radius = torch.tensor([10.0, 0.0])
    result = metrics.joint_errors(target, target, radius, flip_pairs=PAIRS, visible=visible)
    assert result.kinds.tolist() == [[-1, -1, 0], [-1, -1, -1]]
    assert result.on.tolist() == [[-1, -1, 2], [-1, -1, -1]]
    assert result.similarity.isnan().tolist() == [[True, True, False], [True, True, True]]
    assert result.confusion().tolist() == [[0] * 5, [0] * 5, [0, 0, 1, 0, 0]]
    assert result.shares()[2].tolist() == [1, 0, 0, 0, 0] and result.shares()[:2].isnan().all()


def test_a_joint_that_does_not_count_attracts_nothing():
    visible = torch.tensor([[1, 0, 1]])
    assert kinds_of(moved(0, 40.0), visible=visible)[0][0] == ["miss", None, "good"]


def test_nobody():
    result = metrics.joint_errors(torch.zeros(0, 3, 2), torch.zeros(0, 3, 2), torch.zeros(0), image=torch.zeros(0))
    assert result.kinds.shape == (0, 3) and result.confusion().sum() == 0


def by_loops(pred, target, radius, counted, flip, image):
    """The definition, joint by joint."""
    people, joints = target.shape[:2]

    def similarity(n, k, m, j):
        if not counted[m, j]:
            return 0.0
        return 2.0 ** -(((pred[n, k] - target[m, j]).norm() / radius[m, j]).item() ** 2)

    kinds = torch.full((people, joints), -1)
    for n in range(people):
        for k in range(joints):
            if not counted[n, k]:
                continue
            own = similarity(n, k, n, k)
            inverted = similarity(n, k, n, flip[k]) if flip[k] != k else 0.0
            others = [m for m in range(people) if m != n and image[m] == image[n]]
            swapped = max([similarity(n, k, m, j) for m in others for j in (k, flip[k])], default=0.0)
            best = max(own, inverted, swapped)
            if best < 0.5:
                kinds[n, k] = 4
            elif best == own:
                kinds[n, k] = 0 if own > 0.85 else 1
            else:
                kinds[n, k] = 2 if best == inverted else 3
    return kinds


def test_against_plain_loops():
    torch.manual_seed(0)
    skeleton, people = skeletons.COCO, 30
    image = torch.randint(0, 8, (people,))
    target = 30 * torch.rand(people, 17, 2, dtype=torch.float64) + 12 * image[:, None, None]
    pred = target + 4 * torch.randn(people, 17, 2, dtype=torch.float64)
    swapped = torch.rand(people, 17) < 0.3
    pred = torch.where(swapped[..., None], target[:, list(skeleton.flip_index)] + torch.randn(people, 17, 2), pred)
    counted = torch.rand(people, 17) > 0.2
    radius = metrics.oks_radius(torch.full((people,), 900.0), skeleton.sigmas)
    result = metrics.joint_errors(pred, target, radius, flip_pairs=skeleton.flip_pairs, visible=counted, image=image)
    expected = by_loops(pred, target, radius, counted, skeleton.flip_index, image)
    assert torch.equal(result.kinds, expected)
    assert all((expected == kind).sum() > 5 for kind in range(5))  # of each there are some
    assert result.confusion().sum() == counted.sum()
    diagonal = result.confusion()[:, :17].diagonal().sum()
    assert diagonal == ((expected == 0) | (expected == 1)).sum()


def test_the_mean_similarity_is_the_oks():
    torch.manual_seed(0)
    target, area = 100 * torch.rand(5, 17, 2, dtype=torch.float64), 2000 + 1000 * torch.rand(5, dtype=torch.float64)
    pred = target + 3 * torch.randn(5, 17, 2, dtype=torch.float64)
    radius = metrics.oks_radius(area, skeletons.COCO.sigmas)
    found = metrics.joint_errors(pred, target, radius).similarity.mean(1)
    torch.testing.assert_close(found, _pairs.pair_oks(
        _pairs.Pairs(torch.arange(5), torch.arange(5)), pred, target, area, skeletons.COCO.sigmas,
        torch.ones(5, 17, dtype=torch.bool),
    ))  # fmt: skip


def test_people_are_matched_by_score_then_oks():
    target = torch.stack((PERSON, PERSON + 200, PERSON + 400, PERSON + 600))
    pred = torch.stack((PERSON + 201, PERSON + 2, PERSON + 1, PERSON + 5000))
    found = metrics.match_people(
        pred, torch.tensor([0.9, 0.8, 0.7, 0.9]), torch.tensor([3, 3, 3, 3]), target, torch.full((4,), 4000.0),
        torch.tensor([3, 3, 3, 4]), sigmas=(0.1,) * 3, crowd=torch.tensor([False, False, True, False]),
    )  # fmt: skip
    assert found.tolist() == [1, 0, -1, -1]  # the better score has it, although prediction 2 is nearer


def test_matching_nobody():
    nobody, image = torch.zeros(0, 3, 2), torch.zeros(0, dtype=torch.int64)
    one = PERSON[None], torch.zeros(1, dtype=torch.int64)
    area, sigmas = torch.full((1,), 100.0), (0.1,) * 3
    assert metrics.match_people(nobody, torch.zeros(0), image, *one[:1], area, one[1], sigmas=sigmas).tolist() == [-1]
    found = metrics.match_people(one[0], torch.ones(1), one[1], nobody, area[:0], image, sigmas=sigmas)
    assert found.tolist() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pred": torch.zeros(2, 3, 2)}, "pred must be (1, 3, 2), got shape (2, 3, 2)"),
        ({"target": torch.zeros(3, 2)}, "target must be (N, K, 2), got shape (3, 2)"),
        ({"radius": torch.ones(2)}, "radius must be (1,) or (1, 3), got shape (2,)"),
        ({"image": torch.ones(2)}, "image must be (1,), got shape (2,)"),
        ({"visible": torch.ones(1, 2)}, "visible must be (1, 3), got shape (1, 2)"),
    ],
)
def test_wrong_arguments(change, message):
    arguments = {"pred": PERSON[None], "target": PERSON[None], "radius": torch.ones(1)} | change
    with pytest.raises(ValueError, match="joint_errors: ") as error:
        metrics.joint_errors(**arguments)
    assert message in str(error.value)

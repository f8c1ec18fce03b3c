"""Metrics on cases computed by hand, and their accumulators."""

import math

import pytest
import torch

from pypose_ops import metrics
from pypose_ops.skeletons import LSP

NAN = math.nan


def line(*distances):
    """Predictions that are off by these distances, one person a row, and their targets at the origin."""
    pred = torch.tensor(distances)
    return torch.stack((pred, torch.zeros_like(pred)), -1), torch.zeros(*pred.shape, 2)


def test_pck_by_hand():
    pred, target = line([1.0, 3.0, 10.0], [2.0, 2.0, 2.0])
    result = metrics.pck(pred, target, norm=torch.tensor([10.0, 5.0]), threshold=0.3)
    assert result["per_joint"].tolist() == [50, 50, 0]  # 1/10 3/10 10/10; 2/5 each
    assert result["mean"].item() == pytest.approx(100 / 3)
    assert result["counts"].tolist() == [2, 2, 2]
    assert result["mean"].dtype == torch.float64


def test_the_threshold_itself_is_correct_unless_strict():
    pred, target = line([0.5, 0.25])
    assert metrics.pck(pred, target, threshold=0.5)["mean"] == 100
    assert metrics.pck(pred, target, threshold=0.5, strict=True)["per_joint"].tolist() == [0, 100]


def test_what_is_not_counted():
    pred, target = line([0.0, 0.0, NAN, 9.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0])
    target[1, 1] = NAN
    visible = torch.tensor([[2, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]])
    result = metrics.pck(pred, target, visible=visible, norm=torch.tensor([1.0, 1.0, 0.0]))
    assert result["counts"].tolist() == [2, 0, 2, 2]  # the third person has no length
    assert result["per_joint"].tolist()[:1] + result["per_joint"].tolist()[2:] == [100, 50, 50]
    assert result["per_joint"][1].isnan()
    assert result["mean"].item() == pytest.approx(100 * 4 / 6)
    assert metrics.pck(pred, target, visible=visible, norm=torch.tensor([1.0, NAN, -1.0]))["counts"].tolist() == [
        1,
        0,
        1,
        1,
    ]


def test_means_over_keypoints_and_over_joints():
    pred, target = line([0.0, 9.0], [0.0, 0.0])
    visible = torch.tensor([[True, True], [False, True]])
    assert metrics.pck(pred, target, visible=visible)["mean"].item() == pytest.approx(200 / 3)
    assert metrics.pck(pred, target, visible=visible, average="joints")["mean"] == 75
    assert metrics.pck(pred, target, visible=visible, exclude=(1,))["mean"] == 100
    assert metrics.pck(pred, target, visible=visible, exclude=(-1,))["per_joint"].tolist() == [100, 50]


def test_nobody():
    empty = torch.zeros(0, 3, 2)
    result = metrics.pck(empty, empty)
    assert result["mean"].isnan() and result["per_joint"].isnan().all() and not result["counts"].any()


def test_mmpose_example():
    """The arrays of MMPose's own test of keypoint_pck_accuracy, auc, epe and nme."""
    output, target = torch.zeros(5, 4, 2), torch.zeros(5, 4, 2)
    target[:] = torch.tensor([[10.0, 0], [0, 0], [10, 10], [0, 10]])
    norm = torch.full((5,), 10.0)
    result = metrics.auc(output, target, norm=20.0, steps=4)
    # distances 10, 0, 14.14, 10 in units of 20; thresholds 0, .25, .5, .75; strictly below
    assert result["per_joint"].tolist() == [25, 75, 25, 25]
    assert result["mean"].item() == pytest.approx(37.5)
    assert metrics.epe(output, target)["mean"].item() == pytest.approx((10 + 0 + 200**0.5 + 10) / 4)
    assert metrics.nme(output, target, norm=norm)["mean"].item() == pytest.approx((1 + 0 + 2**0.5 + 1) / 4)


def test_pckh_at_a_tenth_is_a_tenth():
    """HRNet's table reads 0.11 there, from the 12th of the thresholds 0, 0.01, ... 0.5."""
    pred, target = line([0.105] * 16)
    boxes = torch.tensor([[0.0, 0.0, 3.0, 4.0]])
    assert metrics.head_size(boxes).item() == pytest.approx(3.0)
    assert metrics.pckh(pred, target, torch.ones(1), threshold=0.1)["mean"] == 0
    assert metrics.pckh(pred, target, torch.ones(1), threshold=0.11)["mean"] == 100
    curve = metrics.pdj(pred, target, torch.ones(1))
    assert curve["thresholds"].shape == curve["mean"].shape == (51,) and curve["per_joint"].shape == (51, 16)
    assert curve["mean"][10] == 0 and curve["mean"][11] == 100


def test_pckh_leaves_pelvis_and_thorax_out():
    pred, target = line([9.0 if k in (6, 7) else 0.0 for k in range(16)])
    result = metrics.pckh(pred, target, torch.ones(1))
    assert result["mean"] == 100 and result["per_joint"][6] == 0
    assert metrics.pckh(pred, target, torch.ones(1), exclude=())["mean"] == 87.5


def test_pcp_by_hand():
    target = torch.tensor([[[0.0, 0.0], [10.0, 0.0], [20.0, 0.0]]])
    pred = torch.tensor([[[0.0, 6.0], [10.0, 3.0], [20.0, 1.0]]])
    sticks = ((0, 1), (1, 2), ((0, 2), 1))  # the last from the middle of 0 and 2, which is joint 1: length 0
    strict = metrics.pcp(pred, target, sticks=sticks)
    relaxed = metrics.pcp(pred, target, sticks=sticks, rule="relaxed")
    assert strict["per_joint"].tolist() == [0, 100, 0]
    assert relaxed["per_joint"].tolist() == [100, 100, 0]  # (6 + 3) / 2 <= 5
    visible = torch.tensor([[True, True, False]])
    assert metrics.pcp(pred, target, visible=visible, sticks=sticks)["counts"].tolist() == [1, 0, 0]
    assert len(LSP.sticks) == 10 and sum((list(v) for _, v in LSP.stick_groups), []) == list(range(10))


def test_torso_size():
    target = torch.tensor([[[0.0, 0.0], [3.0, 4.0]]])
    assert metrics.torso_size(target, (0, 1)).tolist() == [5]


def bad_calls():
    pose, joints = torch.zeros(2, 3, 2), torch.ones(2, 3)
    ids = torch.zeros(2, dtype=torch.int64)
    aic = (torch.zeros(2, 14, 2), ids, torch.zeros(2, 14, 2), torch.ones(2), ids)
    coco = (torch.zeros(2, 17, 2), torch.ones(2), ids, torch.zeros(2, 17, 2), torch.ones(2), ids)

    def changed(args, i, value):
        return (*args[:i], value, *args[i + 1 :])

    return [
        (metrics.pck, (pose[0], pose), {}, r"pck: pred must be \(2, 3, 2\) like target, got shape \(3, 2\)"),
        (metrics.pck, (pose, pose[..., :1]), {}, r"pck: target must be \(N, K, 2\)"),
        (metrics.pck, (pose, pose), {"visible": joints[:1]}, r"pck: visible must be \(2, 3\), got shape \(1, 3\)"),
        (metrics.pck, (pose, pose), {"norm": joints}, r"pck: norm must be a number or \(2,\)"),
        (metrics.pck, (pose, pose), {"average": "all"}, "average must be one of keypoints, joints"),
        (metrics.pck, (pose, pose), {"exclude": (3,)}, "exclude must name joints from 0 to 2"),
        (metrics.pckh, (pose, pose, joints), {}, r"pckh: head_size must be a number or \(2,\)"),
        (metrics.pcp, (pose, pose), {}, "pcp: a stick must be two joints"),
        (metrics.pcp, (pose, pose), {"sticks": ()}, "pcp: sticks must not be empty"),
        (metrics.pcp, (pose, pose), {"sticks": ((0, 1),), "rule": "loose"}, "pcp: rule must be one of strict, relaxed"),
        (metrics.head_size, (pose,), {}, r"head_size: boxes must be \(N, 4\)"),
        (metrics.coco_ap, changed(coco, 0, pose), {}, r"coco_ap: pred must be \(N, 17, 2\), got shape \(2, 3, 2\)"),
        (metrics.coco_ap, changed(coco, 1, torch.tensor([1.0, NAN])), {}, "coco_ap: scores must be finite, 1 of 2"),
        (metrics.coco_ap, changed(coco, 2, ids[:1]), {}, r"coco_ap: pred_image must be \(2,\)"),
        (metrics.coco_ap, changed(coco, 4, joints), {}, r"coco_ap: area must be \(2,\)"),
        (metrics.coco_ap, coco, {"sigmas": (0.1,) * 16}, r"coco_ap: pred must be \(N, 16, 2\)"),
        (metrics.aic_score, aic, {"visible": joints}, r"aic_score: visible must be \(2, 14\)"),
        (metrics.aic_score, changed(aic, 4, ids[:1]), {}, r"aic_score: target_image must be \(2,\)"),
    ]


@pytest.mark.parametrize(("call", "args", "kwargs", "match"), bad_calls())
def test_bad_calls(call, args, kwargs, match):
    with pytest.raises(ValueError, match=match):
        call(*args, **kwargs)


def test_arrays_are_refused():
    with pytest.raises(TypeError, match="pck: pred and target must be tensors"):
        metrics.pck([[0.0]], [[0.0]])


# Accumulators ---------------------------------------------------------------------------------------------------------


def poses(people=40, joints=14):
    target = torch.rand(people, joints, 2) * 100
    return {
        "pred": target + torch.randn_like(target) * 5,
        "target": target,
        "visible": torch.rand(people, joints) > 0.2,
    }


def part(arguments, first, last):
    return {name: value[first:last] for name, value in arguments.items()}


CASES = {
    "pck": (metrics.PCK, metrics.pck, {"threshold": 0.1, "strict": True}, "norm"),
    "pckh": (metrics.PCKh, metrics.pckh, {"threshold": 0.1}, "head_size"),
    "auc": (metrics.AUC, metrics.auc, {"steps": 10}, "norm"),
    "nme": (metrics.NME, metrics.nme, {"average": "joints"}, "norm"),
    "epe": (metrics.EPE, metrics.epe, {"exclude": (3,)}, None),
    "pcp": (metrics.PCP, metrics.pcp, {"rule": "relaxed"}, None),
}


@pytest.mark.parametrize("name", CASES)
def test_accumulators_equal_the_functions(name):
    make, function, options, norm = CASES[name]
    arguments = poses() | ({norm: torch.rand(40) * 50 + 10} if norm else {})
    metric = make(**options)
    for first, last in ((0, 7), (7, 7), (7, 40)):
        metric.update(**part(arguments, first, last))
    expected = function(**arguments, **options)
    for _ in range(2):  # compute() changes nothing
        result = metric.compute()
        assert result.keys() == expected.keys()
        for key in expected:
            torch.testing.assert_close(result[key], expected[key], equal_nan=True)
    metric.reset()
    with pytest.raises(RuntimeError, match=rf"{make.__name__}: compute\(\) before any update\(\)"):
        metric.compute()


def test_an_accumulator_refuses_other_joints():
    metric = metrics.PCK()
    metric.update(**poses())
    with pytest.raises(ValueError, match="PCK: 5 joints came after 14 joints"):
        metric.update(**poses(joints=5))


def coco_people(images, seed=0, joints=17):
    """Some people in each image and predictions near them, with others far off and some missing."""
    generator = torch.Generator().manual_seed(seed)
    target_image = torch.repeat_interleave(torch.randint(0, 6, (images,), generator=generator))
    people = len(target_image)
    target = torch.rand(people, joints, 2, generator=generator) * 200
    copies = torch.randint(0, 4, (people,), generator=generator)
    source = torch.repeat_interleave(copies)
    spread = 40 * torch.rand(len(source), 1, 1, generator=generator)
    pred = target[source] + spread * torch.randn(len(source), joints, 2, generator=generator)
    return dict(
        pred=pred,
        scores=torch.rand(len(source), generator=generator).mul(20).round() / 20,  # with ties
        pred_image=target_image[source],
        target=target,
        visible=torch.rand(people, joints, generator=generator) > torch.rand(people, 1, generator=generator) * 1.3,
        area=torch.rand(people, generator=generator) ** 2 * 20000,
        target_image=target_image,
        boxes=torch.cat((target.amin(1), target.amax(1)), 1),
        crowd=torch.rand(people, generator=generator) < 0.1,
    )


def part_of(people, images):
    keep = {side: torch.isin(people[f"{side}_image"], images) for side in ("pred", "target")}
    return {
        name: value[keep["pred" if name in ("pred", "scores", "pred_image") else "target"]]
        for name, value in people.items()
    }


def test_coco_accumulates_and_counts_an_image_once():
    people = coco_people(40)
    metric = metrics.COCOAP()
    metric.update(**part_of(people, torch.arange(0, 25)))
    metric.update(**part_of(people, torch.arange(20, 40)))  # 20 to 24 again
    torch.testing.assert_close(metric.compute(), metrics.coco_ap(**people))
    with pytest.raises(ValueError, match="COCOAP: every update must give the same optional arguments"):
        metric.update(**part_of(people, torch.arange(3)) | {"boxes": None})


def test_aic_accumulates():
    people = coco_people(30, joints=14)
    people = {k: people[k] for k in ("pred", "pred_image", "target", "visible", "area", "target_image")}
    metric = metrics.AICScore()
    for first in range(0, 30, 10):
        metric.update(**part_of(people, torch.arange(first, first + 10)))
    torch.testing.assert_close(metric.compute(), metrics.aic_score(**people))
    assert 0.01 < metric.compute()["score"] < 1


def test_aic_by_hand():
    target = torch.zeros(3, 14, 2)
    pred = torch.stack((torch.zeros(14, 2), torch.full((14, 2), 1e4), torch.full((14, 2), 1e4)))
    score = metrics.aic_score(
        pred, torch.tensor([0, 0, 5]), target, torch.ones(3), torch.tensor([0, 7, 7]), visible=torch.ones(3, 14)
    )
    # image 0: one found, of two predicted; image 5: not counted, as it has no annotations; image 7: two missed
    assert score["score"].item() == pytest.approx(1 / (2 + 2))


def rank_main(rank, world, file, results):
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    torch.manual_seed(3)
    arguments = poses()
    pck, coco = metrics.PCK(), metrics.COCOAP()
    if rank != 1:  # a rank without data
        pck.update(**part(arguments, rank * 10, rank * 10 + 20))
    people = coco_people(20)
    coco.update(**part_of(people, torch.arange(rank * 7, min(20, rank * 7 + 8))))  # images 7 and 14 on two ranks
    results.put((rank, pck.compute()["mean"].item(), [v.item() for v in coco.compute().values()]))
    torch.distributed.destroy_process_group()


def test_ranks_are_merged(tmp_path):
    context = torch.multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    torch.multiprocessing.spawn(rank_main, (3, tmp_path / "rendezvous", results), nprocs=3)
    torch.manual_seed(3)
    arguments = poses()
    expected = metrics.pck(**arguments)["mean"].item()
    ap = [v.item() for v in metrics.coco_ap(**coco_people(20)).values()]
    for _ in range(3):
        rank, pck, coco = results.get()
        assert pck == pytest.approx(expected), rank
        assert coco == pytest.approx(ap), rank

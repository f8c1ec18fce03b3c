"""The tables of published papers and challenges, from the authors' own predictions."""

import json
import math

import numpy as np
import pytest
import scipy.io
import torch

from pypose_ops import metrics
from pypose_ops.metrics import _matching
from pypose_ops.skeletons import COCO, LSP, MPII


def grouped(values, groups):
    return [values[list(members)].mean().item() for _, members in groups]


def same_table(actual, published, digits):
    """Every cell within half a unit of its last digit; halves were rounded either way."""
    assert len(actual) == len(published)
    for ours, theirs in zip(actual, published, strict=True):
        assert abs(ours - theirs) <= 0.5 * 10**-digits + 1e-6, (actual, published)


# PCK@0.2 and its columns; strict PCP and its columns; relaxed PCP
LSP_TABLE = {
    "tompson2014": (
        72.3, (90.6, 79.2, 67.9, 63.4, 69.5, 71.0, 64.2), 66.6, (90.3, 70.4, 61.2, 63.0, 51.2, 83.7), 73.7,
    ),
    "fan2015": (
        73.0, (92.4, 75.2, 65.3, 64.0, 75.6, 68.3, 70.4), 70.1, (95.4, 77.6, 69.8, 62.8, 49.2, 86.6), 76.6,
    ),
    "wei2016": (
        90.5, (97.8, 92.5, 87.0, 83.9, 91.5, 90.8, 89.9), 88.3, (98.0, 92.2, 89.1, 85.8, 77.9, 95.0), 91.4,
    ),
}  # fmt: skip


def lsp(shared_data, name):
    folder = shared_data / "predictions"
    joints = torch.from_numpy(scipy.io.loadmat(folder / "lsp_joints.mat")["joints"][:2, :, 1000:])
    pred = torch.from_numpy(scipy.io.loadmat(folder / f"lsp_{name}.mat")["pred"].astype(np.float64))
    return pred.permute(2, 1, 0), joints.permute(2, 1, 0)


@pytest.mark.parametrize("name", LSP_TABLE)
def test_leeds_sports_pose(shared_data, name):
    pred, target = lsp(shared_data, name)
    pck_mean, pck_columns, strict_mean, strict_columns, relaxed_mean = LSP_TABLE[name]
    pck = metrics.pck(pred, target, norm=metrics.torso_size(target, (9, 2)))
    same_table([pck["mean"].item()], [pck_mean], 1)
    same_table(grouped(pck["per_joint"], LSP.groups), pck_columns, 1)
    strict = metrics.pcp(pred, target)
    same_table([strict["mean"].item()], [strict_mean], 1)
    same_table(grouped(strict["per_joint"], LSP.stick_groups), strict_columns, 1)
    same_table([metrics.pcp(pred, target, rule="relaxed")["mean"].item()], [relaxed_mean], 1)


def mpii(shared_data):
    file = scipy.io.loadmat(shared_data / "predictions" / "mpii_valid_tompson2015.mat")
    pred, target = (torch.from_numpy(file[f"pos_{which}_src"]).permute(2, 0, 1) for which in ("pred", "gt"))
    boxes = torch.from_numpy(file["headboxes_src"]).permute(2, 0, 1).flatten(1)
    visible = torch.from_numpy(1 - file["jnt_missing"].T)
    return {"pred": pred, "target": target, "head_size": metrics.head_size(boxes), "visible": visible}


def test_mpii_validation(shared_data):
    result = metrics.pckh(**mpii(shared_data))
    same_table(grouped(result["per_joint"], MPII.groups), (95.60, 92.71, 83.36, 76.74, 81.93, 73.36, 65.45), 2)
    same_table([result["mean"].item()], [82.34], 2)


def coco(shared_data):
    folder = shared_data / "predictions"
    truth = json.loads((folder / "coco_example_val.json").read_text())["annotations"]
    found = json.loads((folder / "coco_example_preds.json").read_text())
    points = torch.tensor([a["keypoints"] for a in truth], dtype=torch.float64).view(-1, 17, 3)
    boxes = torch.tensor([a["bbox"] for a in truth], dtype=torch.float64)
    boxes[:, 2:] += boxes[:, :2]
    return dict(
        pred=torch.tensor([p["keypoints"] for p in found], dtype=torch.float64).view(-1, 17, 3)[..., :2],
        scores=torch.tensor([p["score"] for p in found], dtype=torch.float64),
        pred_image=torch.tensor([p["image_id"] for p in found]),
        target=points[..., :2],
        visible=points[..., 2] > 0,
        area=torch.tensor([a["area"] for a in truth], dtype=torch.float64),
        target_image=torch.tensor([a["image_id"] for a in truth]),
        boxes=boxes,
        crowd=torch.tensor([bool(a["iscrowd"]) for a in truth]),
    )


def test_coco_example(shared_data):
    published = (0.860890, 0.993145, 0.910891, 0.775578, 0.937252, 0.875, 1.0, 0.916667, 0.78, 0.942857)
    result = metrics.coco_ap(**coco(shared_data))
    assert [v.item() for v in result.values()] == pytest.approx(published, abs=1e-6)


def test_ai_challenger_example(shared_data):
    folder = shared_data / "predictions"
    truth, found = (json.loads((folder / f"aic_example_{which}.json").read_text()) for which in ("gt", "pred"))
    number = {}  # three images of the predictions are not in the ground truth, and vice versa
    for image in truth + found:
        number.setdefault(image["image_id"], len(number))
    target = [
        (number[p["image_id"]], keypoints, p["human_annotations"][name])
        for p in truth
        for name, keypoints in p["keypoint_annotations"].items()
    ]
    pred = [(number[p["image_id"]], k) for p in found for k in p["keypoint_annotations"].values()]
    points = torch.tensor([t[1] for t in target], dtype=torch.float64).view(-1, 14, 3)
    box = torch.tensor([t[2] for t in target], dtype=torch.float64)
    result = metrics.aic_score(
        torch.tensor([p[1] for p in pred], dtype=torch.float64).view(-1, 14, 3)[..., :2],
        torch.tensor([p[0] for p in pred]),
        points[..., :2],
        (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]),
        torch.tensor([t[0] for t in target]),
        visible=points[..., 2] == 1,
    )
    assert result["score"].item() == pytest.approx(0.99674, abs=5e-6)
    assert result["per_threshold"].max().item() == pytest.approx(2752 / 2761)


def pycocotools_numbers(people, sigmas=COCO.sigmas):
    """The same ten numbers by pycocotools itself, from its own files' structures."""
    coco_module = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    joints = len(sigmas)
    oracle = coco_module.COCO()
    ids = torch.cat((people["pred_image"], people["target_image"])).unique().tolist()
    annotations = []
    for i in range(len(people["target"])):
        points = torch.cat((people["target"][i], 2.0 * people["visible"][i][:, None]), 1)
        x1, y1, x2, y2 = people["boxes"][i].double().tolist()
        annotations.append(
            dict(
                id=i + 1,
                image_id=int(people["target_image"][i]),
                category_id=1,
                area=float(people["area"][i]),
                iscrowd=int(people["crowd"][i]),
                keypoints=points.double().flatten().tolist(),
                num_keypoints=int(people["visible"][i].sum()),
                bbox=[x1, y1, x2 - x1, y2 - y1],
            )  # fmt: skip
        )
    oracle.dataset = dict(
        images=[dict(id=p) for p in ids], annotations=annotations, categories=[dict(id=1, name="person")], info={}
    )
    oracle.createIndex()
    results = [
        dict(
            image_id=int(people["pred_image"][i]),
            category_id=1,
            score=float(people["scores"][i]),
            keypoints=torch.cat((people["pred"][i], torch.ones(joints, 1)), 1).double().flatten().tolist(),
        )  # fmt: skip
        for i in range(len(people["pred"]))
    ]
    evaluation = COCOeval(oracle, oracle.loadRes(results), "keypoints")
    evaluation.params.kpt_oks_sigmas = np.array(sigmas)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats


def test_coco_example_against_pycocotools(shared_data, capsys):
    people = coco(shared_data)
    ours = [v.item() for v in metrics.coco_ap(**people).values()]
    np.testing.assert_allclose(ours, pycocotools_numbers(people), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_random_people_against_pycocotools(seed, capsys):
    """Ties, crowds, people without joints, more than 20 predictions in an image, images without either."""
    from test_metrics import coco_people

    people = coco_people(25, seed)
    people["pred_image"][::17] = 100 + seed  # images without annotations
    ours = [v.item() for v in metrics.coco_ap(**people).values()]
    np.testing.assert_allclose(ours, pycocotools_numbers(people), rtol=0, atol=1e-12)


def test_exact_predictions_against_pycocotools(capsys):
    """Somebody found exactly, inside the box of somebody without joints: both have an OKS of 1, the last one wins."""
    generator = torch.Generator().manual_seed(0)
    somebody = torch.rand(17, 2, generator=generator) * 20 + 40
    nobody, other, elsewhere = torch.rand(3, 17, 2, generator=generator) * 98 + 1
    for joints in range(1, 18):
        visible = torch.zeros(3, 17, dtype=torch.bool)
        visible[1, :joints], visible[2] = True, True
        people = dict(
            pred=torch.stack((somebody, other, elsewhere)),
            scores=torch.tensor([0.9, 0.8, 0.1]),
            pred_image=torch.tensor([0, 0, 1]),
            target=torch.stack((nobody, somebody, elsewhere)),
            visible=visible,
            area=torch.tensor([9500.0, 400.0, 4000.0]),
            target_image=torch.tensor([0, 0, 1]),
            boxes=torch.tensor([[0.0, 0, 100, 100], [40, 40, 60, 60], [0, 0, 100, 100]]),
            crowd=torch.zeros(3, dtype=torch.bool),
        )
        ours = [v.item() for v in metrics.coco_ap(**people).values()]
        np.testing.assert_allclose(ours, pycocotools_numbers(people), rtol=0, atol=1e-12, err_msg=f"{joints} joints")


def test_other_skeletons_against_pycocotools(capsys):
    from test_metrics import coco_people

    people = coco_people(25, 3, joints=5)
    sigmas = (0.05, 0.1, 0.2, 0.3, 0.4)
    ours = [v.item() for v in metrics.coco_ap(**people, sigmas=sigmas).values()]
    np.testing.assert_allclose(ours, pycocotools_numbers(people, sigmas), rtol=0, atol=1e-12)


def anywhere(people, threshold=None, max_people=20):
    """coco_ap or match_people by the code for other devices."""
    given = [people[name] for name in ("pred", "scores", "pred_image", "target", "area", "target_image", "visible")]
    given[1] = given[1].double()
    of = _matching.sorted_people(*given, people["boxes"], people["crowd"], COCO.sigmas, max_people)
    if threshold is not None:
        return _matching.matches(of, threshold, len(people["target"]))
    areas, thresholds = metrics.coco.AREAS, metrics.coco.THRESHOLDS
    return torch.stack([*metrics.coco.summary(*_matching.coco_curves(of, areas, thresholds))])


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.float16, torch.int32))
@pytest.mark.parametrize("seed", range(4))
def test_the_host_and_the_devices_agree(seed, dtype):
    """Bit for bit: ties, images in no order, several people alike, rows without joints, NaN."""
    from test_metrics import coco_people

    people = coco_people(60, seed)
    people = {name: v.to(dtype) if name in ("pred", "target", "boxes") else v for name, v in people.items()}
    if dtype.is_floating_point:
        people["target"][::9, 3], people["pred"][::7, 2, 1] = math.nan, math.nan
        people["area"][::11] = torch.tensor([math.nan, -1.0, 0.0]).repeat(99)[: len(people["area"][::11])]
    people["target"][1::10] = people["target"][: len(people["target"]) - 1 : 10]  # ties
    for side, names in {"pred": ("pred", "scores"), "target": ("target", "area", "visible", "boxes", "crowd")}.items():
        shuffled = torch.randperm(len(people[side]))
        for name in (*names, f"{side}_image"):
            people[name] = people[name][shuffled]
    people["pred_image"][::17] = 100 + seed
    for count in (0, 2, 20):
        ours = metrics.coco_ap(**people, max_people=count)
        assert torch.equal(torch.stack([*ours.values()]), anywhere(people, max_people=count))
        for threshold in (0.1, 0.5, 1.0):
            found = metrics.match_people(**people, threshold=threshold, max_people=count)
            assert torch.equal(found, anywhere(people, threshold, count))


def test_people_without_images_in_common():
    from test_metrics import coco_people

    people = coco_people(10)
    nobody = {name: value[:0] for name, value in people.items()}
    for side in ("pred", "scores", "pred_image"), ("target", "area", "target_image", "visible", "boxes", "crowd"):
        some = people | {name: nobody[name] for name in side}
        assert torch.equal(torch.stack([*metrics.coco_ap(**some).values()]), anywhere(some))
    assert torch.stack([*metrics.coco_ap(**nobody).values()]).tolist() == [-1] * 10


def test_the_same_bits_with_two_threads():
    from test_metrics import coco_people

    people = coco_people(500)
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found = metrics.match_people(**people)
        results.append((torch.stack([*metrics.coco_ap(**people).values()]), found))
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_images_need_not_be_integers():
    from test_metrics import coco_people

    people = coco_people(10)
    halves = people | {name: people[name] / 2 for name in ("pred_image", "target_image")}
    assert metrics.coco_ap(**halves) == metrics.coco_ap(**people)


@pytest.mark.parametrize("metric", (metrics.coco_ap, metrics.match_people))
def test_arguments_that_are_no_tensors(metric):
    from test_metrics import coco_people

    people = coco_people(3)
    for name in ("pred", "scores", "pred_image", "target", "area", "target_image", "visible", "crowd"):
        with pytest.raises(TypeError, match=f"^{metric.__name__}: {name} must be a tensor, got list"):
            metric(**people | {name: people[name].tolist()})
    for name in ("pred", "target", "scores", "area"):
        with pytest.raises(ValueError, match=f"^{metric.__name__}: {name} must be real, got torch.complex"):
            metric(**people | {name: people[name] + 0j})
    with pytest.raises(TypeError, match="^coco_ap: area must be a tensor, got NoneType"):
        metrics.coco_ap(**people | {"area": None})

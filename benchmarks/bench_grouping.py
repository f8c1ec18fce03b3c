"""Grouping, OKS-NMS and metrics against references and other libraries.  pytest benchmarks/bench_grouping.py

trt_pose's C++ is a row where its extension is installed (trt_pose.plugins), hotcoco's evaluation where hotcoco is.
"""

import math
import os

import numpy as np
import pytest
import torch
from bench_tools import Rotating

from pypose_ops import find_peaks, group_by_tags, group_people, metrics, oks, oks_nms, reference, score_limbs
from pypose_ops.skeletons import COCO

pytestmark = pytest.mark.benchmark(max_time=0.6, min_rounds=5, warmup=False)

# 16 images, 18 joints, 21 limbs, 10 people, 56x56: trt_pose's own set-up.
BATCH, JOINTS, LIMBS, PEOPLE, SIDE = 16, 18, 21, 10, 56
SHAPE = (BATCH, JOINTS, LIMBS, PEOPLE, SIDE)


def crowd_poses():
    """Random poses (BATCH, PEOPLE, JOINTS, 2), and the grid of the maps' pixels (SIDE, SIDE, 2)."""
    generator = torch.Generator().manual_seed(0)
    centers = 6 + (SIDE - 12) * torch.rand(BATCH, PEOPLE, 1, 2, generator=generator)
    poses = (centers + 5 * torch.randn(BATCH, PEOPLE, JOINTS, 2, generator=generator)).clamp(1, SIDE - 2)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return poses, torch.stack((x, y), -1).float()


def crowd_maps(device):
    """Heatmaps, part affinity fields and limbs of people of random poses: a tree and four limbs more."""
    poses, grid = crowd_poses()
    heatmaps = reference.gaussian_heatmaps(poses, 1.0, (SIDE, SIDE))
    limbs = [(max(0, k - 3), k) for k in range(1, JOINTS)] + [(0, 9), (4, 12), (8, 17), (2, 15)]
    pafs = torch.zeros(BATCH, 2 * LIMBS, SIDE, SIDE)
    for limb, (a, b) in enumerate(limbs):
        start, delta = poses[:, :, a, None, None], poses[:, :, b, None, None] - poses[:, :, a, None, None]
        length = delta.norm(dim=-1, keepdim=True)
        along = ((grid - start) * delta).sum(-1, keepdim=True) / length.square()
        off = (grid - start - along.clamp(0, 1) * delta).norm(dim=-1, keepdim=True)
        field = torch.where(off < 1, delta / length, 0.0).sum(1)
        pafs[:, 2 * limb : 2 * limb + 2] = field.clamp(-1, 1).permute(0, 3, 1, 2)
    return heatmaps.to(device), pafs.to(device), limbs


def ours(pafs, peaks, limbs, module_score=score_limbs, module_group=group_people):
    scores = module_score(pafs, peaks, limbs, samples=7, rule="trt_pose")
    return module_group(peaks, scores, limbs, min_limb_score=0.1, min_joints=2, min_score=0.0)


def trt_pose_parse(heatmaps, pafs, limbs, with_peaks=True):
    """trt_pose's ParseObjects. Its fields hold y before x."""
    plugins = pytest.importorskip("trt_pose.plugins")
    topology = torch.tensor([[2 * i + 1, 2 * i, a, b] for i, (a, b) in enumerate(limbs)], dtype=torch.int32)

    def find():
        counts, peaks = plugins.find_peaks(heatmaps, 0.1, 5, 32)
        return counts, plugins.refine_peaks(counts, peaks, heatmaps, 5)

    def group(counts, peaks):
        scores = plugins.paf_score_graph(pafs, topology, counts, peaks, 7)
        connections = plugins.assignment(scores, topology, counts, 0.1)
        return plugins.connect_parts(connections, topology, counts, 64)

    if with_peaks:
        return lambda: group(*find())
    found = find()
    return lambda: group(*found)


def people_found(people):
    return people.counts.float().mean().item()


@pytest.mark.parametrize("row", ("op", "op, score_limbs", "op, group_people", "op, greedy", "reference", "trt_pose"))
def test_grouping(measure, device, row):
    """From peaks to people: scores, assignment, assembly."""
    heatmaps, pafs, limbs = crowd_maps(device)
    peaks = find_peaks(heatmaps)
    scores = score_limbs(pafs, peaks, limbs, samples=7, rule="trt_pose")
    options = {"min_limb_score": 0.1, "min_joints": 2, "min_score": 0.0}
    if row == "trt_pose" and device.type == "cuda":
        pytest.skip("runs on the CPU only")
    calls = {
        "op": lambda: ours(pafs, peaks, limbs),
        "op, score_limbs": lambda: score_limbs(pafs, peaks, limbs, samples=7, rule="trt_pose"),
        "op, group_people": lambda: group_people(peaks, scores, limbs, **options),
        "op, greedy": lambda: group_people(peaks, scores, limbs, assignment="greedy", **options),
        "reference": lambda: ours(pafs, peaks, limbs, reference.score_limbs, reference.group_people),
    }
    call = trt_pose_parse(heatmaps, pafs, limbs, with_peaks=False) if row == "trt_pose" else calls[row]

    def same(actual):
        expected = calls["reference"]()
        torch.testing.assert_close(actual.scores, expected.scores, rtol=1e-3, atol=1e-4)

    run = Rotating(call, tuple, device, 0)
    measure(run, "grouping", SHAPE, "forward", row, device, 0, same if row == "op" else None)


@pytest.mark.parametrize("row", ("op", "trt_pose"))
def test_parse(measure, device, row):
    """From maps to people."""
    heatmaps, pafs, limbs = crowd_maps(device)
    if row == "trt_pose":
        if device.type == "cuda":
            pytest.skip("runs on the CPU only")
        call = trt_pose_parse(heatmaps, pafs, limbs)
    else:
        call = lambda: ours(pafs, find_peaks(heatmaps, radius=2), limbs)  # noqa: E731
    measure(Rotating(call, tuple, device, 0), "parse", SHAPE, "forward", row, device, 0)


@pytest.mark.parametrize("row", ("op", "reference"))
def test_group_by_tags(measure, device, row):
    """Associative embedding: every pixel is tagged by the person whose joint is nearest, with a little noise."""
    heatmaps, _, _ = crowd_maps(device)
    peaks = find_peaks(heatmaps)
    poses, grid = crowd_poses()
    nearest = (poses[:, :, :, None, None] - grid).norm(dim=-1).argmin(1).float()  # (BATCH, JOINTS, SIDE, SIDE)
    tags = (nearest + 0.1 * torch.randn(nearest.shape, generator=torch.Generator().manual_seed(1))).to(device)
    calls = {"op": lambda: group_by_tags(peaks, tags), "reference": lambda: reference.group_by_tags(peaks, tags)}

    def same(actual):
        torch.testing.assert_close(actual.scores, calls["reference"]().scores, rtol=1e-3, atol=1e-4)

    run = Rotating(calls[row], tuple, device, 0)
    measure(run, "group_by_tags", SHAPE, "forward", row, device, 0, same if row == "op" else None)


def crowd(people, device):
    generator = torch.Generator().manual_seed(0)
    originals = 300 * torch.rand(people // 4, 17, 2, generator=generator)
    source = torch.randint(len(originals), (people,), generator=generator)
    keypoints = originals[source] + 8 * torch.randn(people, 17, 2, generator=generator)
    scores, area = torch.rand(people, generator=generator), 2e4 * torch.rand(people, generator=generator) + 1e3
    return keypoints.to(device), scores.to(device), area.to(device)


def mmpose_nms(keypoints, scores, area):
    """What MMPose does, person by person, rewritten from its formulas in numpy."""
    keypoints, scores, area = (v.numpy().astype(np.float64) for v in (keypoints, scores, area))
    variance = (2 * np.array(COCO.sigmas)) ** 2
    order, kept = scores.argsort()[::-1], []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        similarity = np.zeros(len(order))
        for i, other in enumerate(order):
            dx, dy = (keypoints[other] - keypoints[best]).T
            e = (dx**2 + dy**2) / variance / ((area[best] + area[other]) / 2 + np.spacing(1)) / 2
            similarity[i] = np.exp(-e).sum() / len(e)
        order = order[similarity <= 0.9]
    return np.sort(kept)


@pytest.mark.parametrize("people", (30, 300))
@pytest.mark.parametrize("row", ("op", "op, soft", "reference", "mmpose (numpy port)"))
def test_oks_nms(measure, device, row, people):
    inputs = crowd(people, device)
    if "numpy" in row and device.type == "cuda":
        pytest.skip("runs on the CPU only")
    call = {
        "op": oks_nms,
        "op, soft": lambda *a: oks_nms(*a, soft=True),
        "reference": reference.oks_nms,
        "mmpose (numpy port)": mmpose_nms,
    }[row]

    def same(actual):
        np.testing.assert_array_equal(actual.mask.nonzero().flatten().cpu(), mmpose_nms(*(v.cpu() for v in inputs)))

    measure(
        Rotating(call, lambda: inputs, device, 0), "oks_nms", (people, 17), "forward", row, device, 0,
        same if row == "op" else None,
    )  # fmt: skip


@pytest.mark.parametrize("row", ("op", "op, soft"))
def test_oks_nms_of_a_large_crowd(measure, device, row):
    """People of about 100 px in one image of 20,000 px: few are in reach of one another."""
    keypoints, scores, area = crowd(20_000, "cpu")
    places = 20_000 * torch.rand(len(keypoints), 1, 2, generator=torch.Generator().manual_seed(1))
    inputs = tuple(t.to(device) for t in (keypoints / 3 + places, scores, area / 9))
    call = {"op": oks_nms, "op, soft": lambda *a: oks_nms(*a, soft=True)}[row]
    measure(Rotating(call, lambda: inputs, device, 0), "oks_nms", (20_000, 17), "forward", row, device, 0)


@pytest.mark.parametrize("row", ("op", "reference"))
def test_oks(measure, device, row):
    """Every one of 300 predicted people with every one of 300 annotated."""
    keypoints, _, area = crowd(300, device)
    inputs = keypoints + 4, keypoints, area
    call = {"op": oks, "reference": reference.oks}[row]

    def same(actual):
        torch.testing.assert_close(actual, reference.oks(*inputs), rtol=1e-5, atol=1e-6)

    run = Rotating(call, lambda: inputs, device, 0)
    measure(run, "oks", (300, 300, 17), "forward", row, device, 0, same if row == "op" else None)


N = 100_000


def metric_inputs(device):
    generator = torch.Generator().manual_seed(0)
    target = 200 * torch.rand(N, 17, 2, generator=generator)
    pred = target + 8 * torch.randn(N, 17, 2, generator=generator)
    visible, norm = torch.rand(N, 17, generator=generator) > 0.2, 50 + 50 * torch.rand(N, generator=generator)
    return [v.to(device) for v in (pred, target, visible, norm)]


def coco_inputs(device):
    """Two and a half annotated and as many predicted people an image."""
    pred, target, visible, norm = metric_inputs(device)
    image = torch.arange(N, device=device) * 2 // 5
    return pred, norm, image, target, norm**2, image, visible


def aic_inputs(device):
    pred, target, visible, norm = (v[:, :14] if v.dim() > 1 else v for v in metric_inputs(device))
    image = torch.arange(N, device=device) * 2 // 5
    return pred, image, target, norm**2, image, visible


METRICS = {
    "pck": (lambda p, t, v, norm: metrics.pck(p, t, visible=v, norm=norm), metric_inputs),
    "pcp": (lambda p, t, v, norm: metrics.pcp(p, t, visible=v), metric_inputs),
    "pdj": (lambda p, t, v, norm: metrics.pdj(p, t, norm, visible=v), metric_inputs),
    "auc": (lambda p, t, v, norm: metrics.auc(p, t, visible=v, norm=norm), metric_inputs),
    "nme": (lambda p, t, v, norm: metrics.nme(p, t, visible=v, norm=norm), metric_inputs),
    "coco_ap": (lambda *a: metrics.coco_ap(*a[:-1], visible=a[-1]), coco_inputs),
    "aic_score": (lambda *a: metrics.aic_score(*a[:-1], visible=a[-1]), aic_inputs),
}


@pytest.mark.parametrize("row", METRICS)
def test_metrics(measure, device, row):
    call, make = METRICS[row]
    inputs = make(device)

    def plausible(result):
        value = result.get("AP", result.get("score", result.get("mean"))).flatten()[-1].item()
        assert math.isfinite(value) and value > 0

    measure(Rotating(call, lambda: inputs, device, 0), "metrics", (N, 17), "forward", row, device, 0, plausible)


def crowd_of_coco(people, each):
    """Arguments of coco_ap: so many predictions, and as many annotated people, in images of ``each`` on average."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, round(people / each), (people,), generator=generator).sort().values
    size = 20 + 150 * torch.rand(people, 1, 1, generator=generator)
    target = 400 * torch.rand(people, 1, 2, generator=generator)
    target = target + size * torch.rand(people, 17, 2, generator=generator)
    spread = 0.16 * size * torch.rand(people, 1, 1, generator=generator)
    pred = target + spread * torch.randn(people, 17, 2, generator=generator)
    return dict(
        pred=pred.double(),
        scores=torch.rand(people, generator=generator).double(),
        pred_image=image,
        target=target.double(),
        area=size.flatten().double() ** 2 / 2,
        target_image=image,
        visible=torch.rand(people, 17, generator=generator) > 0.3,
        boxes=torch.cat((target.amin(1), target.amax(1)), 1).double(),
    )


def hotcoco_evaluation(people):
    """hotcoco's evaluation of the same people, which are read before."""
    os.environ["RAYON_NUM_THREADS"] = str(torch.get_num_threads())  # read once, by the first evaluation
    hotcoco = pytest.importorskip("hotcoco")
    boxes, counts = people["boxes"].clone(), people["visible"].sum(1)
    boxes[:, 2:] -= boxes[:, :2]
    truth = torch.cat((people["target"], 2.0 * people["visible"][..., None]), 2).flatten(1)
    found = torch.cat((people["pred"], torch.ones_like(people["pred"][..., :1])), 2).flatten(1)
    names = ("id", "image_id", "category_id", "keypoints", "num_keypoints", "area", "bbox", "iscrowd")
    ones = [1] * len(truth)
    columns = range(1, 1 + len(truth)), people["target_image"].tolist(), ones, truth.tolist(), counts.tolist()
    columns += people["area"].tolist(), boxes.tolist(), [0] * len(truth)
    dataset = dict(
        images=[dict(id=i, width=640, height=480, file_name="") for i in people["target_image"].unique().tolist()],
        categories=[dict(id=1, name="person", keypoints=[str(k) for k in range(17)], skeleton=[])],
        annotations=[dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)],
    )
    columns = people["pred_image"].tolist(), ones, found.tolist(), people["scores"].tolist()
    names = ("image_id", "category_id", "keypoints", "score")
    truth = hotcoco.COCO(dataset)
    found = truth.load_res([dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)])

    def evaluate():
        evaluation = hotcoco.COCOeval(truth, found, "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        return evaluation

    return evaluate


@pytest.mark.parametrize(("people", "each"), ((33_000, 4), (20_000, 2.5)))
@pytest.mark.parametrize("row", ("op", "hotcoco"))
def test_coco_ap(measure, device, row, people, each):
    inputs = crowd_of_coco(people, each)
    if row == "op":
        inputs = {name: value.to(device) for name, value in inputs.items()}
        call = lambda: metrics.coco_ap(**inputs)  # noqa: E731
    elif device.type == "cuda":
        pytest.skip("runs on the CPU only")
    else:
        call = hotcoco_evaluation(inputs)

    def same(result):
        if row == "hotcoco":
            result.summarize()
            ours = [value.item() for value in metrics.coco_ap(**inputs).values()]
            np.testing.assert_allclose(ours, result.stats, rtol=0, atol=1e-12)

    measure(Rotating(call, tuple, device, 0), "coco_ap", (people, 17), "forward", row, device, 0, same)

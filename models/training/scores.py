"""Scores of a system on people: PCK, PCP and the PCK curve, for every stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pypose_ops import geometry, metrics
from pypose_ops.datasets import PoseDataset
from pypose_ops.datasets.results import pair_of
from pypose_ops.skeletons import Skeleton, joint_map

from .crops import Crops
from .loading import eval_loader

if TYPE_CHECKING:
    from pypose_ops.models.systems.system import System


def torso_of(skeleton: Skeleton) -> tuple[int, int] | None:
    """The joints whose distance PCK is measured in: the skeleton's ``norm``, else its torso; or None."""
    return skeleton.norm or skeleton.torso


def pck_norm(keypoints: torch.Tensor, visible: torch.Tensor, skeleton: Skeleton) -> torch.Tensor:
    """The norm ``(N,)`` of PCK: the distance of the joints of :func:`torso_of`, NaN if one of them is not labelled.

    For skeletons without such joints it is the longer side of the bounds of the labelled joints.
    """
    torso = torso_of(skeleton)
    labelled = visible > 0
    if torso is not None:
        norm = metrics.torso_size(keypoints, torso)
        return norm.masked_fill(~labelled[:, list(torso)].all(1), float("nan"))
    low = keypoints.masked_fill(~labelled[..., None], float("inf")).amin(1)
    high = keypoints.masked_fill(~labelled[..., None], float("-inf")).amax(1)
    side = (high - low).amax(1)
    return side.masked_fill(~(side > 0), float("nan"))


@torch.no_grad()
def predict_people(
    system: System,
    skeleton: Skeleton,
    people: Any,
    *,
    batch: int = 32,
    device: Any = "cpu",
    flip: bool = False,
    **options: Any,
) -> Any:
    """Predicts the joints of all people, by every stage.

    Args:
        system (System): the system.
        skeleton (Skeleton): of its joints and of the people's.
        people (People): B of them.
        batch (int): people per batch.
        device: to run on.
        flip (bool): average with the prediction of the mirrored crop.
        options: of ``system.poses``.

    Returns:
        tuple: joints ``(S, N, K, 2)`` in image pixels, scores ``(S, N, K)``, indices of the people ``(N,)``, and the
        unreadable images. On the CPU.
    """
    system.to(device, memory_format=torch.channels_last).eval()
    crops, pairs = Crops(system, skeleton), list(skeleton.flip_pairs) if flip else None
    coords, scores, index, bad = [], [], [], set()
    for loaded in eval_loader(people, batch):
        bad.update(loaded.bad)
        if len(loaded) == 0:
            continue
        cut, transforms = crops(loaded.to(device))
        stages = system.poses(cut.images, flip_pairs=pairs, **options)
        coords.append(torch.stack([geometry.transform_points(p.coords.float(), transforms) for p in stages]).cpu())
        scores.append(torch.stack([p.scores.float() for p in stages]).cpu())
        index.append(loaded.index.cpu())
    if not index:
        return None, None, torch.zeros(0, dtype=torch.int64), bad
    return torch.cat(coords, 1), torch.cat(scores, 1), torch.cat(index), bad


def score(pred: torch.Tensor, keypoints: torch.Tensor, visible: torch.Tensor, skeleton: Skeleton) -> dict[str, Any]:
    """PCK@0.2 and its curve, of all labelled joints and separately of visible and occluded ones; PCP.

    Args:
        pred, keypoints (Tensor): ``(N, K, 2)`` image pixels.
        visible (Tensor): ``(N, K)``: 0 not labelled, 1 occluded, 2 visible.
        skeleton (Skeleton): its joints, groups and sticks.

    Returns:
        dict: numbers and lists in percent, for JSON; NaN becomes None.
    """
    labelled = visible > 0
    norm = pck_norm(keypoints, visible, skeleton)
    pck = metrics.pck(pred, keypoints, visible=labelled, norm=norm, threshold=0.2)
    groups = skeleton.groups or tuple((name, (k,)) for k, name in enumerate(skeleton.joints))
    result = {
        "pck": _grouped(pck, groups),
        "pck_seen": _number(metrics.pck(pred, keypoints, visible=visible == 2, norm=norm, threshold=0.2)["mean"]),
        "pck_occluded": _number(metrics.pck(pred, keypoints, visible=visible == 1, norm=norm, threshold=0.2)["mean"]),
        "per_joint": {n: _number(v) for n, v in zip(skeleton.joints, pck["per_joint"], strict=True)},
    }
    curve = metrics.pdj(pred, keypoints, norm, visible=labelled)
    result["curve"] = {"thresholds": curve["thresholds"].tolist(), "pck": [_number(v) for v in curve["mean"]]}
    for rule in ("strict", "relaxed") if skeleton.sticks else ():
        pcp = metrics.pcp(pred, keypoints, visible=labelled, sticks=skeleton.sticks, rule=rule)
        result[f"pcp_{rule}"] = _grouped(pcp, skeleton.stick_groups)
    return result


def coco_scores(
    dataset: PoseDataset, skeleton: Skeleton, coords: torch.Tensor, scores: torch.Tensor, index: list[int]
) -> dict[str, float] | None:
    """COCO's AP and AR of people found in the boxes of a COCO file, as pycocotools counts them.

    Args:
        dataset (PoseDataset): of the file.
        skeleton (Skeleton): of the joints found; all joints of the file must be among them.
        coords, scores (Tensor): ``(N, K, 2)`` image pixels and ``(N, K)``.
        index (list[int]): which people of ``dataset`` they are.

    Returns:
        dict: the ten numbers; None where the data set is not of a COCO file, or its joints have no OKS constants.
    """
    truth = dataset.people
    if truth is None or truth.skeleton.sigmas is None:
        return None
    joints = joint_map(skeleton.joints, truth.skeleton.joints)
    if min(joints) < 0:
        return None
    people = np.array([dataset.samples[i].annotation for i in index], np.int64)
    images = [truth.image[n] for n in people.tolist()]
    categories = torch.from_numpy(truth.category[people])
    pair = pair_of(truth, coords[:, joints].nan_to_num(), scores.nan_to_num().mean(1), images, categories)
    found = metrics.coco_ap_by_category(pair.people, categories, pair.category, truth.skeleton.sigmas)
    return {name: round(float(value), 5) for name, value in found.items()}


def _number(value: Any) -> float | None:
    value = float(value)
    return None if value != value else round(value, 4)


def _grouped(result: Any, groups: Any) -> dict[str, float | None]:
    columns = {name: _number(result["per_joint"][list(members)].nanmean()) for name, members in groups}
    return columns | {"mean": _number(result["mean"])}


def evaluate(
    system: System, skeleton: Skeleton, people: Any, parts: Sequence[PoseDataset] = (), **options: Any
) -> dict[str, Any]:
    """Scores of every stage of a system: ``{"people", "left_out", "stages": [...]}``; see :func:`score`.

    ``parts`` are the data sets that ``people`` are of, one after the other: a stage has ``ap``, the numbers of
    :func:`coco_scores` by name, of those that have them.
    """
    pred, scores, index, bad = predict_people(system, skeleton, people, **options)
    stages = []
    for n, stage in enumerate(() if pred is None else pred):
        stages.append(score(stage, people.keypoints[index], people.visible[index], skeleton))
        first, found = 0, {}
        for part in parts:
            rows = (index >= first) & (index < first + len(part))
            ap = coco_scores(part, skeleton, stage[rows], scores[n][rows], (index[rows] - first).tolist())
            first += len(part)
            if ap is not None:
                found[part.name] = ap
        if found:
            stages[-1]["ap"] = found
    return {"people": len(index), "left_out": sorted(bad), "stages": stages}

"""Corrects labels by a stronger model: limbs labelled on the wrong side, joints at the wrong place.

LSP Extended was crowdsourced (Johnson and Everingham, "Learning Effective Human Pose Estimation from
Inaccurate Annotation", CVPR 2011): about one limb in twenty is on the wrong side.
"""

from pathlib import Path
from typing import Any

import torch

from pypose_ops.datasets import PoseDataset
from pypose_ops.datasets.files import load_json
from pypose_ops.errors import InputError
from pypose_ops.skeletons import Skeleton

# The joints of a pair of limbs, swapped together.
LIMBS = {"arms": ("shoulder", "elbow", "wrist"), "legs": ("hip", "knee", "ankle")}
SURE = 0.8  # minimum probability of the model's joints
FAR = 0.5  # torsos: labels farther than this from a confident joint are wrong
BETTER = 0.5  # swapped limbs must be nearer than this share of the labelled distance, and than FAR


def torso_of_labels(keypoints: torch.Tensor, visible: torch.Tensor, skeleton: Skeleton) -> torch.Tensor:
    """``(N,)``: the longer diagonal from shoulder to hip, NaN if neither is labelled."""
    sides = []
    for side, other in (("left", "right"), ("right", "left")):
        a, b = skeleton.joints.index(f"{side}_shoulder"), skeleton.joints.index(f"{other}_hip")
        length = (keypoints[:, a] - keypoints[:, b]).norm(dim=-1)
        sides.append(length.masked_fill((visible[:, a] == 0) | (visible[:, b] == 0), float("nan")))
    return torch.stack(sides).nan_to_num(-1).amax(0).masked_fill(torch.stack(sides).isnan().all(0), float("nan"))


def find_corrections(
    keypoints: torch.Tensor, visible: torch.Tensor, pred: torch.Tensor, probabilities: torch.Tensor, skeleton: Skeleton
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Finds limbs to swap, and joints to ignore after that.

    Args:
        keypoints, visible (Tensor): ``(N, K, 2)`` and ``(N, K)`` labels.
        pred, probabilities (Tensor): ``(N, K, 2)`` and ``(N, K)`` of a model not trained on these labels.
        skeleton (Skeleton): of the joints.

    Returns:
        tuple[dict[str, Tensor], Tensor]: for each of ``LIMBS`` ``(N,)`` bool; and ``(N, K)`` bool.
    """
    torso = torso_of_labels(keypoints, visible, skeleton)[:, None]
    labels, exchanged = keypoints.clone(), {}
    for limb, parts in LIMBS.items():
        sides = [[skeleton.joints.index(f"{side}_{part}") for part in parts] for side in ("left", "right")]
        index = torch.tensor(sides[0] + sides[1])
        turned = torch.tensor(sides[1] + sides[0])
        # Both joints of a pair must be labelled and confident.
        known = (visible[:, index] > 0) & (visible[:, turned] > 0)
        known = known & (probabilities[:, index] >= SURE) & (probabilities[:, turned] >= SURE)
        weight = known.float() / known.sum(1, keepdim=True).clamp(min=1)
        as_is = ((keypoints[:, index] - pred[:, index]).norm(dim=-1) / torso * weight).sum(1)
        other = ((keypoints[:, turned] - pred[:, index]).norm(dim=-1) / torso * weight).sum(1)
        wrong = (known.sum(1) >= 4) & (other < BETTER * as_is) & (other < FAR) & (as_is > FAR)
        exchanged[limb] = wrong
        labels[:, index] = torch.where(wrong[:, None, None], keypoints[:, turned], keypoints[:, index])
    away = (labels - pred).norm(dim=-1) / torso
    return exchanged, (visible > 0) & (probabilities >= SURE) & (away > FAR)


def as_json(dataset: PoseDataset, exchanged: dict[str, torch.Tensor], mask: torch.Tensor) -> dict[str, Any]:
    """``{image: {"exchange": [limbs], "mask": [joints]}}``, of the images that need corrections, by file name."""
    found: dict[str, Any] = {}
    for i, sample in enumerate(dataset.samples):
        limbs = [limb for limb, rows in exchanged.items() if rows[i]]
        joints = [joint for joint, wrong in zip(dataset.skeleton.joints, mask[i].tolist(), strict=True) if wrong]
        if limbs or joints:
            found[file_name(sample)] = {"exchange": limbs, "mask": joints}
    return found


def file_name(sample: Any) -> str:
    return str(sample.image).rsplit("/", 1)[-1]


def apply_corrections(dataset: PoseDataset, path: Path | str) -> int:
    """Corrects labels in place; returns the number of changed people.

    Args:
        dataset (PoseDataset): images that the file does not name are not changed.
        path (Path or str): JSON as written by :func:`as_json`.

    Raises:
        InputError: it is none.
    """
    try:
        content = load_json(path)
        joints, changed = dataset.skeleton.joints, 0
        for sample in dataset.samples:
            said = content.get(file_name(sample))
            if said is None:
                continue
            for limb in said["exchange"]:
                for part in LIMBS[limb]:
                    pair = [joints.index(f"{side}_{part}") for side in ("left", "right")]
                    sample.keypoints[pair] = sample.keypoints[pair[::-1]]
                    sample.visible[pair] = sample.visible[pair[::-1]]
            for joint in said["mask"]:
                sample.visible[joints.index(joint)] = 0
            changed += 1
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        if reason == "no such file":
            raise InputError(f"{path}: cannot be read ({reason})") from None
        raise InputError(f"{path}: expected corrections as scripts/clean_labels.py writes them ({reason})") from None
    dataset.samples = [sample for sample in dataset.samples if sample.visible.any()]
    return changed

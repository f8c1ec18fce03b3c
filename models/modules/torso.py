"""The torso diameter, the distance of opposing torso joints: DeepPose's diam and DS-CNN's d(I)."""

from collections.abc import Iterable
from typing import Any

import torch

from pypose_ops import skeletons
from pypose_ops.skeletons import Skeleton

from ..systems.system import Batch

# Data sets that are recognised by their number of joints; AI Challenger has 14, like LSP: see torso_option.
_BY_COUNT = {len(s): s for s in (skeletons.LSP, skeletons.MPII, skeletons.COCO)}


def torso_option(skeleton: Skeleton) -> dict[str, Any]:
    """``{"torso": ...}`` for a skeleton with the two joints, else ``{}``."""
    return {} if skeleton.torso is None else {"torso": list(skeleton.torso)}


def torso_joints(system: str, num_joints: int, torso: tuple[int, int] | None = None) -> tuple[int, int]:
    """The indices of the left shoulder and the right hip.

    Args:
        system (str): for the error message.
        num_joints (int): K; LSP has 14, MPII 16, COCO 17.
        torso (tuple[int, int] or None): given ones are checked and returned.
    """
    if torso is None:
        if num_joints not in _BY_COUNT:
            raise ValueError(
                f"{system}: torso must name the left shoulder and right hip of {num_joints} joints, got None"
            )
        return _BY_COUNT[num_joints].torso
    first, second = (int(j) for j in torso)
    if not (0 <= first < num_joints and 0 <= second < num_joints) or first == second:
        raise ValueError(f"{system}: torso must be two different joints below {num_joints}, got {tuple(torso)}")
    return first, second


def torso_diameters(
    keypoints: torch.Tensor, visible: torch.Tensor, torso: tuple[int, int], default: torch.Tensor | float
) -> torch.Tensor:
    """``(B,)`` distances of the torso joints; ``default`` where one of them is not labelled.

    Args:
        keypoints (Tensor): ``(B, K, 2)``.
        visible (Tensor): ``(B, K)`` bool.
        torso (tuple[int, int]): the two joints.
        default (Tensor or float): for people without a torso.
    """
    first, second = torso
    length = torch.linalg.vector_norm(keypoints[:, first] - keypoints[:, second], dim=-1)
    known = visible[:, first] & visible[:, second] & length.isfinite() & (length > 0)
    return torch.where(known, length, torch.as_tensor(default, dtype=length.dtype, device=length.device))


def median_diameter(batches: Iterable[Batch], torso: tuple[int, int]) -> torch.Tensor | None:
    """The median over the people of ``batches`` with a labelled torso; None without such people."""
    lengths = [torso_diameters(b.keypoints, b.visible, torso, float("nan")) for b in batches]
    lengths = torch.cat(lengths) if lengths else torch.zeros(0)
    lengths = lengths[lengths.isfinite()]
    return lengths.median() if len(lengths) else None

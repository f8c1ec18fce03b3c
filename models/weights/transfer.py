"""Training that begins with the weights of a system for other joints."""

from pathlib import Path
from typing import Any

import torch

from pypose_ops.errors import InputError
from pypose_ops.skeletons import SKELETONS, Skeleton, joint_map

from ..systems.system import System
from .files import load_tensors

# A joint that the other skeleton lacks begins as the mean of these, where it has them.
NEAR = {
    "neck": ("left_shoulder", "right_shoulder"),
    "upper_neck": ("left_shoulder", "right_shoulder"),
    "thorax": ("left_shoulder", "right_shoulder"),
    "head_top": ("left_ear", "right_ear"),
    "pelvis": ("left_hip", "right_hip"),
}


def begin_with(system: System, skeleton: Skeleton, path: Path | str, other: System, info: dict[str, Any]) -> None:
    """Puts the weights of another system of the same kind into ``system``.

    Where its joints are others, the rows of the layers that have one per joint (``System.joint_layers``) are taken by
    the joints' names, of those missing the mean of joints nearby, else they stay as they are; parts that ``system``
    lacks, such as heads for people, are left out.

    Args:
        system (System): is filled.
        skeleton (Skeleton): of its joints.
        path (Path or str): of the weights, for messages.
        other (System), info (dict): what :func:`.load_weights` read there.

    Raises:
        InputError: they do not fit.
    """
    tensors, own = other.state_dict(), system.state_dict()
    if info["skeleton"] == skeleton.name:
        return load_tensors(path, system, tensors)
    if not system.joint_layers:
        raise InputError(f"{path}: weights for the joints of {info['skeleton']}, expected those of {skeleton.name}")
    theirs = SKELETONS[info["skeleton"]].joints
    for name in tensors.keys() & own.keys():
        if name.rpartition(".")[0] in system.joint_layers:
            tensors[name] = _by_joint(tensors[name], own[name], theirs, skeleton.joints)
    return load_tensors(path, system, {name: t for name, t in tensors.items() if name in own})


def _by_joint(rows: torch.Tensor, own: torch.Tensor, theirs: tuple[str, ...], ours: tuple[str, ...]) -> torch.Tensor:
    if rows.shape[1:] != own.shape[1:] or len(rows) != len(theirs):
        return rows  # load_tensors says that it does not fit
    out = own.clone()
    for k, source in enumerate(joint_map(theirs, ours)):
        near = [theirs.index(name) for name in NEAR.get(ours[k], ()) if name in theirs]
        if source >= 0 or near:
            out[k] = rows[source] if source >= 0 else rows[near].mean(0)
    return out

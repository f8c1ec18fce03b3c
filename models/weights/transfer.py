"""Initialises training with the weights of a system for other joints."""

import json
from pathlib import Path
from typing import Any

import torch

from pypose_ops.errors import InputError
from pypose_ops.skeletons import Skeleton, joint_map

from ..systems.system import System
from .files import load_tensors, skeleton_of

# Joints that the other skeleton lacks start from the mean of these, where it has them.
NEAR = {
    "neck": ("left_shoulder", "right_shoulder"),
    "upper_neck": ("left_shoulder", "right_shoulder"),
    "thorax": ("left_shoulder", "right_shoulder"),
    "head_top": ("left_ear", "right_ear"),
    "pelvis": ("left_hip", "right_hip"),
}


def begin_with(system: System, skeleton: Skeleton, path: Path | str, other: System, info: dict[str, Any]) -> list[str]:
    """Initialises ``system`` with the weights of another system of the same kind.

    The rows of layers with outputs per joint (``System.joint_layers``) are copied by joint name; missing joints start
    from the mean of nearby joints, or keep their initial values. Parts that ``system`` lacks, such as heads for people,
    are skipped; those that the file lacks keep their initial values. If ``System.joint_layers`` is empty, tensors of
    another shape keep their initial values.

    Args:
        system (System): the system to initialise.
        skeleton (Skeleton): of its joints.
        path (Path or str): of the weights, for error messages.
        other (System), info (dict): the result of :func:`.load_weights`.

    Returns:
        list[str]: tensors with initial values: the file lacks them, or has them of another shape.

    Raises:
        InputError: the weights do not fit.
    """
    tensors, own = other.state_dict(), system.state_dict()
    before = skeleton_of(info, path)
    if before == skeleton and not system.joint_layers:
        load_tensors(path, system, tensors)
        return []
    if not system.joint_layers:
        fresh = sorted(n for n, t in own.items() if n not in tensors or tensors[n].shape != t.shape)
        if len(fresh) > len(own) // 2:
            options = json.dumps(info["options"])[:200]
            raise InputError(
                f"{path}: weights for the joints of {before.name}, expected those of {skeleton.name}; and {len(fresh)} "
                f"of {len(own)} tensors have another shape, by {info['preset']} with {options}"
            )
        load_tensors(path, system, {n: t if n in fresh else tensors[n] for n, t in own.items()})
        return fresh
    theirs = before.joints
    for name in tensors.keys() & own.keys():
        if name.rpartition(".")[0] in system.joint_layers:
            tensors[name] = _by_joint(tensors[name], own[name], theirs, skeleton.joints)
    parts = {name.partition(".")[0] for name in tensors}
    fresh = sorted(name for name in own if name.partition(".")[0] not in parts)
    load_tensors(path, system, {n: t for n, t in tensors.items() if n in own} | {n: own[n] for n in fresh})
    return fresh


def _by_joint(rows: torch.Tensor, own: torch.Tensor, theirs: tuple[str, ...], ours: tuple[str, ...]) -> torch.Tensor:
    if rows.shape[1:] != own.shape[1:] or len(rows) * len(ours) != len(own) * len(theirs) or len(rows) % len(theirs):
        return rows  # load_tensors says that it does not fit
    rows, out = rows.unflatten(0, (len(theirs), -1)), own.clone().unflatten(0, (len(ours), -1))
    for k, source in enumerate(joint_map(theirs, ours)):
        near = [theirs.index(name) for name in NEAR.get(ours[k], ()) if name in theirs]
        if source >= 0 or near:
            out[k] = rows[source] if source >= 0 else rows[near].mean(0)
    return out.flatten(0, 1)

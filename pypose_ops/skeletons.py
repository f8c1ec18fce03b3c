"""Skeletons of 2D pose data sets: joint names, limbs, mirrored pairs and per-joint constants.

Left and right are the person's own, except in FLIC, which annotates what the observer sees (see :data:`FLIC`).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch


def plain_name(name: str) -> str:
    """Normalises the name of a joint: ``"LeftShoulder"``, ``"l shoulder"`` -> ``"left_shoulder"``."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    words = re.sub(r"[^a-z0-9]+", "_", words).strip("_")
    words = re.sub(r"^l_|^left_?(?=[a-z])", "left_", re.sub(r"^r_|^right_?(?=[a-z])", "right_", words))
    return re.sub(r"^(.+)_(left|right)$", r"\2_\1", words)


@dataclass(frozen=True)
class Skeleton:
    """The joints of a data set, in its order.

    Attributes:
        name: short name, a key of :data:`SKELETONS`.
        joints: joint names.
        edges: pairs of joint indices that form a limb.
        flip_pairs: pairs of joint indices that swap when an image is mirrored.
        upper_body: joint indices of the upper body.
        sigmas: OKS constants per joint, or None where the data set defines none.
        weights: loss weights per joint as used in training, or None.
        groups: the columns of the data set's result tables: names and the joints to average.
        sticks: the parts of PCP, two ends each; an end is a joint or a tuple of joints, for their midpoint.
        stick_groups: as ``groups``, of ``sticks``.
        norm: the two joints whose distance normalises PCK; None: ``torso``.
    """

    name: str
    joints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    flip_pairs: tuple[tuple[int, int], ...]
    upper_body: tuple[int, ...]
    sigmas: tuple[float, ...] | None = None
    weights: tuple[float, ...] | None = None
    groups: tuple[tuple[str, tuple[int, ...]], ...] = ()
    sticks: tuple[tuple[Any, Any], ...] = ()
    stick_groups: tuple[tuple[str, tuple[int, ...]], ...] = ()
    norm: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.joints)

    @property
    def flip_index(self) -> tuple[int, ...]:
        """The permutation of joints in a mirrored image: ``mirrored[k] = keypoints[flip_index[k]]``."""
        index = list(range(len(self)))
        for a, b in self.flip_pairs:
            index[a], index[b] = b, a
        return tuple(index)

    @property
    def torso(self) -> tuple[int, int] | None:
        """The left shoulder and the right hip, whose distance is the torso diameter; None without these joints."""
        names = [plain_name(name) for name in self.joints]
        known = "left_shoulder" in names and "right_hip" in names
        return (names.index("left_shoulder"), names.index("right_hip")) if known else None


# fmt: off
COCO = Skeleton(
    name="coco",
    joints=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
        "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
        "right_ankle",
    ),
    edges=(
        (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
        (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
    ),
    flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    upper_body=tuple(range(11)),
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087,
        0.089, 0.089,
    ),
    weights=(1, 1, 1, 1, 1, 1, 1, 1.2, 1.2, 1.5, 1.5, 1, 1, 1.2, 1.2, 1.5, 1.5),
)

MPII = Skeleton(
    name="mpii",
    joints=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax",
        "upper_neck", "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow",
        "left_wrist",
    ),
    edges=(
        (0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (8, 12), (12, 11), (11, 10), (8, 13),
        (13, 14), (14, 15),
    ),
    flip_pairs=((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)),
    upper_body=tuple(range(7, 16)),
    sigmas=(
        0.089, 0.083, 0.107, 0.107, 0.083, 0.089, 0.026, 0.026, 0.026, 0.026, 0.062, 0.072, 0.179, 0.179, 0.072,
        0.062,
    ),
    weights=(1.5, 1.2, 1, 1, 1.2, 1.5, 1, 1, 1, 1, 1.5, 1.2, 1, 1, 1.2, 1.5),
    groups=(
        ("head", (9,)), ("shoulder", (12, 13)), ("elbow", (11, 14)), ("wrist", (10, 15)), ("hip", (2, 3)),
        ("knee", (1, 4)), ("ankle", (0, 5)),
    ),
)

LSP = Skeleton(
    name="lsp",
    joints=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
        "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top",
    ),
    edges=(
        (0, 1), (1, 2), (3, 4), (4, 5), (6, 7), (7, 8), (9, 10), (10, 11), (12, 13), (8, 12), (9, 12), (2, 8), (3, 9),
    ),
    flip_pairs=((0, 5), (1, 4), (2, 3), (6, 11), (7, 10), (8, 9)),
    upper_body=tuple(range(6, 14)),
    groups=(
        ("head", (12, 13)), ("shoulder", (8, 9)), ("elbow", (7, 10)), ("wrist", (6, 11)), ("hip", (2, 3)),
        ("knee", (1, 4)), ("ankle", (0, 5)),
    ),
    sticks=(
        ((8, 9), (2, 3)), (1, 2), (4, 3), (0, 1), (5, 4), (8, 7), (9, 10), (7, 6), (10, 11), (12, 13),
    ),
    stick_groups=(
        ("torso", (0,)), ("upper leg", (1, 2)), ("lower leg", (3, 4)), ("upper arm", (5, 6)), ("lower arm", (7, 8)),
        ("head", (9,)),
    ),
)

AIC = Skeleton(
    name="aic",
    joints=(
        "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist", "right_hip",
        "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "head_top", "neck",
    ),
    edges=(
        (2, 1), (1, 0), (0, 13), (13, 3), (3, 4), (4, 5), (8, 7), (7, 6), (6, 9), (9, 10), (10, 11), (12, 13), (0, 6),
        (3, 9),
    ),
    flip_pairs=((0, 3), (1, 4), (2, 5), (6, 9), (7, 10), (8, 11)),
    upper_body=(0, 1, 2, 3, 4, 5, 12, 13),
    sigmas=(
        0.01388152, 0.01515228, 0.01057665, 0.01417709, 0.01497891, 0.01402144, 0.03909642, 0.03686941, 0.01981803,
        0.03843971, 0.03412318, 0.02415081, 0.01291456, 0.01236173,
    ),
    weights=(1, 1.2, 1.5, 1, 1.2, 1.5, 1, 1.2, 1.5, 1, 1.2, 1.5, 1, 1),
)

# The annotated columns of FLIC's examples.mat. Left and right are the observer's: for people seen from behind they are
# swapped compared with every other data set.
FLIC = Skeleton(
    name="flic",
    joints=(
        "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist", "left_hip",
        "right_hip", "left_eye", "right_eye", "nose",
    ),
    edges=((0, 1), (1, 2), (3, 4), (4, 5), (0, 3), (0, 6), (3, 7), (6, 7), (8, 10), (9, 10), (10, 0), (10, 3)),
    flip_pairs=((0, 3), (1, 4), (2, 5), (6, 7), (8, 9)),
    upper_body=tuple(range(11)),
    groups=(
        ("shoulder", (0, 3)), ("elbow", (1, 4)), ("wrist", (2, 5)), ("hip", (6, 7)), ("eye", (8, 9)), ("nose", (10,)),
    ),
)
# fmt: on

SKELETONS = {skeleton.name: skeleton for skeleton in (COCO, MPII, LSP, AIC, FLIC)}

# MPII's upper neck is the joint that LSP and AI Challenger call the neck.
_SAME_JOINT = {"upper_neck": "neck"}


def joint_map(source: Iterable[str], target: Iterable[str]) -> list[int]:
    """The index in ``source`` of every joint name of ``target``, -1 for missing ones.

    Both are sequences of joint names; MPII's ``upper_neck`` and the others' ``neck`` are the same joint.
    """
    index = {_SAME_JOINT.get(name, name): i for i, name in enumerate(source)}
    return [index.get(_SAME_JOINT.get(name, name), -1) for name in target]


def _skeleton(name: Skeleton | str) -> Skeleton:
    if isinstance(name, Skeleton):
        return name
    if name not in SKELETONS:
        raise ValueError(f"convert: a skeleton must be one of {', '.join(SKELETONS)}, got {name!r}")
    return SKELETONS[name]


def convert(
    keypoints: torch.Tensor,
    source: Skeleton | str,
    target: Skeleton | str,
    *,
    visible: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Reorders keypoints from one skeleton to another by joint name.

    Args:
        keypoints: (..., K, 2) tensor in the order of ``source``, (x, y) in any unit.
        source: the :class:`Skeleton` of ``keypoints``, or its name.
        target: the :class:`Skeleton` wanted, or its name.
        visible: (..., K) tensor, or None if every joint is visible.

    Returns:
        ``(keypoints (..., T, 2), visible (..., T) bool)``. Joints that ``source`` lacks are NaN and not visible.

    Example:
        >>> keypoints, visible = convert(torch.rand(8, 16, 2), "mpii", "coco")
        >>> keypoints.shape, bool(visible[0, 0])  # MPII has no nose
        (torch.Size([8, 17, 2]), False)
    """
    source, target = _skeleton(source), _skeleton(target)
    if keypoints.shape[-2:] != (len(source), 2):
        raise ValueError(
            f"convert: keypoints must be (..., {len(source)}, 2) for {source.name}, got {tuple(keypoints.shape)}"
        )
    if visible is None:
        visible = torch.ones(keypoints.shape[:-1], dtype=torch.bool, device=keypoints.device)
    elif visible.shape != keypoints.shape[:-1]:
        raise ValueError(
            f"convert: visible must be {tuple(keypoints.shape[:-1])} like keypoints, got {tuple(visible.shape)}"
        )
    index = torch.tensor(joint_map(source.joints, target.joints), device=keypoints.device)
    present = index >= 0
    index = index.clamp(min=0)
    moved = keypoints.index_select(-2, index).masked_fill(~present[:, None], float("nan"))
    return moved, (visible.index_select(-1, index) > 0) & present

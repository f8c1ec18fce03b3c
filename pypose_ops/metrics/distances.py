"""Metrics of the distance between predicted and annotated joints: PCK, PCKh, PDJ, AUC, EPE, NME."""

from collections.abc import Sequence

import torch

from ._tables import JointCurves, JointScores, Sums, check_norm, check_poses, distances, hits, sums_in_parts, table

# MPII's pelvis and thorax, which its evaluation excludes from the mean.
MPII_EXCLUDED = (6, 7)
# MPII's head size is 0.6 of the diagonal of the head box: 0.8 * 0.75.
HEAD_BIAS = 0.6


def head_size(boxes: torch.Tensor) -> torch.Tensor:
    """MPII's head size: 0.6 of the diagonal of the head box.

    Args:
        boxes: (N, 4) tensor of ``x1, y1, x2, y2``; any two opposite corners.

    Returns:
        (N,) tensor.
    """
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"head_size: boxes must be (N, 4), got shape {tuple(boxes.shape)}")
    return HEAD_BIAS * (boxes[:, 2:] - boxes[:, :2]).norm(dim=-1)


def torso_size(target: torch.Tensor, joints: tuple[int, int]) -> torch.Tensor:
    """The distance of two annotated joints, such as left shoulder and right hip: (N,).

    Args:
        target: (N, K, 2) tensor.
        joints: two joint indices, such as :attr:`.Skeleton.torso`.
    """
    first, second = joints
    return (target[:, first] - target[:, second]).norm(dim=-1)


def pck_sums(
    name: str,
    pred: torch.Tensor,
    target: torch.Tensor,
    visible: torch.Tensor | None,
    norm: torch.Tensor | float,
    thresholds: Sequence[float],
    strict: bool,
    argument: str = "norm",
) -> Sums:
    check_poses(name, pred, target, visible)
    norm, usable = check_norm(name, argument, norm, target)

    def sums(pred: torch.Tensor, target: torch.Tensor, counted: torch.Tensor, part: slice) -> Sums:
        return hits(distances(pred, target) / norm[part], counted & usable[part], thresholds, strict)

    return sums_in_parts(sums, pred, target, visible)


def pck(
    pred: torch.Tensor,
    target: torch.Tensor,
    *,
    visible: torch.Tensor | None = None,
    norm: torch.Tensor | float = 1.0,
    threshold: float = 0.2,
    exclude: Sequence[int] = (),
    strict: bool = False,
    average: str = "keypoints",
) -> JointScores:
    """Percentage of correct keypoints: a joint is correct when its distance is at most ``threshold * norm``.

    Args:
        pred, target: (N, K, 2) tensors.
        visible: (N, K), bool or a number that counts from 0.5 on; None: every joint. Invisible joints and non-finite
            targets are not counted. Non-finite predictions are misses.
        norm: (N,) tensor or a number: the length that distances are divided by, see :func:`torso_size` and
            :func:`head_size`. People whose norm is not positive and finite are not counted, see ``counts``.
        threshold: in units of ``norm``.
        exclude: joints excluded from the mean.
        strict: False: a distance of exactly the threshold is correct (``<=``: the data sets' own evaluations);
            True: it is not (``<``: MMPose).
        average: the mean over ``"keypoints"``, every counted joint alike, or over ``"joints"``, the columns of
            ``per_joint`` alike (MMPose).

    Returns:
        dict of float64 tensors: ``mean``, ``per_joint`` (K,), in percent, NaN if nothing was counted; ``counts``
        (K,) int64.

    Example:
        >>> target = torch.tensor([[[0.0, 0.0], [10.0, 0.0]]])
        >>> pck(target + 1, target, norm=torso_size(target, (0, 1)))["mean"].item()
        100.0
    """
    sums = pck_sums("pck", pred, target, visible, norm, [threshold], strict)
    return table(Sums(sums.values[0], sums.counts), exclude=exclude, average=average)


def pckh(
    pred: torch.Tensor,
    target: torch.Tensor,
    head_size: torch.Tensor | float,
    *,
    visible: torch.Tensor | None = None,
    threshold: float = 0.5,
    exclude: Sequence[int] = MPII_EXCLUDED,
    strict: bool = False,
    average: str = "keypoints",
) -> JointScores:
    """MPII's PCKh: :func:`pck` in units of the head size, without pelvis and thorax in the mean.

    ``head_size`` is (N,), from the head boxes by :func:`head_size`. The mean weights joints by how often they are
    annotated, as MPII's evaluation and HRNet's do; ``average="joints"`` is the plain mean of the columns. Add 1
    to predictions with pixels from 0 before comparing them with MPII's files, whose pixels start at 1.
    """
    sums = pck_sums("pckh", pred, target, visible, head_size, [threshold], strict, "head_size")
    return table(Sums(sums.values[0], sums.counts), exclude=exclude, average=average)


def pdj(
    pred: torch.Tensor,
    target: torch.Tensor,
    torso_size: torch.Tensor | float,
    *,
    visible: torch.Tensor | None = None,
    thresholds: Sequence[float] | None = None,
    exclude: Sequence[int] = (),
    strict: bool = False,
    average: str = "keypoints",
) -> JointCurves:
    """Percentage of detected joints, a curve: :func:`pck` at each of ``thresholds`` of the torso diameter.

    Args:
        pred, target, visible, exclude, strict, average: as in :func:`pck`.
        torso_size: as ``norm`` there; see :func:`torso_size`.
        thresholds: T fractions of the torso; default 0, 0.01, ... 0.5.

    Returns:
        dict: ``mean`` (T,), ``per_joint`` (T, K), ``counts`` (K,), ``thresholds`` (T,).
    """
    thresholds = [i / 100 for i in range(51)] if thresholds is None else [float(t) for t in thresholds]
    sums = pck_sums("pdj", pred, target, visible, torso_size, thresholds, strict, "torso_size")
    at = torch.tensor(thresholds, dtype=torch.float64, device=target.device)
    return JointCurves(**table(sums, exclude=exclude, average=average), thresholds=at)


def auc_thresholds(steps: int) -> list[float]:
    return [i / steps for i in range(steps)]


def auc(
    pred: torch.Tensor,
    target: torch.Tensor,
    *,
    visible: torch.Tensor | None = None,
    norm: torch.Tensor | float = 30.0,
    steps: int = 20,
    exclude: Sequence[int] = (),
    strict: bool = True,
    average: str = "joints",
) -> JointScores:
    """Area under the PCK curve: the mean over the thresholds ``0, 1/steps, ..., (steps-1)/steps`` of ``norm``.

    The defaults are MMPose's: 20 steps of 30 pixels, ``<``, the plain mean over joints. In percent, as :func:`pck`.
    """
    sums = pck_sums("auc", pred, target, visible, norm, auc_thresholds(steps), strict)
    return table(Sums(sums.values.mean(0), sums.counts), exclude=exclude, average=average)


def error_sums(
    name: str, pred: torch.Tensor, target: torch.Tensor, visible: torch.Tensor | None, norm: torch.Tensor | float
) -> Sums:
    check_poses(name, pred, target, visible)
    norm, usable = check_norm(name, "norm", norm, target)

    def sums(pred: torch.Tensor, target: torch.Tensor, counted: torch.Tensor, part: slice) -> Sums:
        counted = counted & usable[part]
        return Sums((distances(pred, target) / norm[part]).where(counted, 0.0).sum(0), counted.sum(0))

    return sums_in_parts(sums, pred, target, visible)


def epe(
    pred: torch.Tensor,
    target: torch.Tensor,
    *,
    visible: torch.Tensor | None = None,
    exclude: Sequence[int] = (),
    average: str = "keypoints",
) -> JointScores:
    """End-point error: the mean distance, in the unit of the coordinates; same dict as :func:`pck`, not percent.

    A non-finite prediction makes the error of its joint NaN or infinite: a missing joint has no distance.
    """
    return table(error_sums("epe", pred, target, visible, 1.0), exclude=exclude, average=average, scale=1.0)


def nme(
    pred: torch.Tensor,
    target: torch.Tensor,
    *,
    visible: torch.Tensor | None = None,
    norm: torch.Tensor | float = 1.0,
    exclude: Sequence[int] = (),
    average: str = "keypoints",
) -> JointScores:
    """Normalised mean error: the mean of distance / ``norm``, a ratio; as :func:`epe` otherwise."""
    return table(error_sums("nme", pred, target, visible, norm), exclude=exclude, average=average, scale=1.0)

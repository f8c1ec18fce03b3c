"""What went wrong with a joint: jitter, inversion, swap or miss (Ronchi & Perona, ICCV 2017)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from ._pairs import check_each, check_visible, match_images

KINDS = ("good", "jitter", "inversion", "swap", "miss")
# Of their similarity: nearer than GOOD is right, farther than NEAR is another place.
GOOD, NEAR = 0.85, 0.5
# Pairs of people per chunk of (K, K) distances.
_CHUNK = 1 << 12


class JointErrors(NamedTuple):
    """The result of :func:`joint_errors`.

    Attributes:
        kinds: (N, K) int64: an index into ``KINDS``; -1 where the joint does not count.
        on: (N, K) int64: the annotated joint of the same person that the prediction lies on; K for another person's,
            K + 1 for none; -1 where the joint does not count.
        similarity: (N, K) float64, to the joint's own annotation, from 0 to 1; NaN where it does not count.
    """

    kinds: torch.Tensor
    on: torch.Tensor
    similarity: torch.Tensor

    def shares(self) -> torch.Tensor:
        """(K, 5) float64: the share of each kind among a joint's predictions; NaN for joints that never count."""
        count = torch.stack([(self.kinds == kind).sum(0) for kind in range(len(KINDS))], 1).double()
        return count / count.sum(1, keepdim=True)

    def confusion(self) -> torch.Tensor:
        """(K, K + 2) int64: how often the prediction of a joint (row) lies on which annotated joint (column)."""
        joints = self.on.shape[1]
        count = self.on.new_zeros(joints, joints + 3)
        count.scatter_add_(1, self.on.T.remainder(joints + 3), torch.ones_like(self.on.T))
        return count[:, : joints + 2]


def joint_errors(
    pred: torch.Tensor,
    target: torch.Tensor,
    radius: torch.Tensor,
    *,
    flip_pairs: Sequence[tuple[int, int]] = (),
    visible: torch.Tensor | None = None,
    image: torch.Tensor | None = None,
) -> JointErrors:
    """Sorts the predicted joints of people into good ones and four kinds of errors.

    A prediction at distance d from an annotated joint has the similarity ``2^-(d / radius)^2``. Its kind follows from
    the most similar of the joint itself, its mirror image (the left for the right wrist) and both of the other people
    of the image:

    - good: the joint itself, above 0.85; jitter: the joint itself, from 0.5 on;
    - inversion: its mirror image of the same person, from 0.5 on;
    - swap: the same joint or its mirror image of another person, from 0.5 on;
    - miss: none of them.

    Args:
        pred: (N, K, 2), the prediction of each annotated person; NaN joints are misses.
        target: (N, K, 2), every annotated person. Joints that are not finite do not count.
        radius: (N,) or (N, K): the distance at which a joint's similarity is 0.5, in pixels; people for whom it is not
            positive and finite do not count. COCO's keypoint similarity has :func:`oks_radius`; for PCK it is
            threshold times norm: what is good or off by jitter, or more similar to another joint, is correct there.
        flip_pairs: pairs of joints that are each other's mirror image.
        visible: (N, K), bool or a number that counts from 0.5 on.
        image: (N,) integers, the image of each person; None: each in an image of its own, without swaps.

    Returns:
        kinds, joints that predictions lie on, and similarities. People whose ``pred`` is NaN in all joints count with
        misses; exclude people without a prediction to see errors of location only.

    Raises:
        ValueError: an argument of the wrong shape.
    """
    joints = _checked(pred, target, radius)
    check_each("joint_errors", "image", image, target)
    counted = check_visible("joint_errors", visible, target) & target.isfinite().all(-1)
    pred, target = pred.double(), target.double()
    radius = (radius if radius.dim() == 2 else radius[:, None]).double().expand(-1, joints)
    counted = counted & (radius > 0) & radius.isfinite()
    mirror = torch.arange(joints, device=pred.device)
    for a, b in flip_pairs:
        mirror[a], mirror[b] = b, a

    everyone = torch.arange(len(pred), device=pred.device)
    own, mirrored, nearest, nearest_joint = [], [], [], []
    for part in everyone.split(_CHUNK):
        among = _similarity(pred, target, radius, counted, part, part)
        own.append(among.diagonal(dim1=1, dim2=2))
        mirrored.append(_column(among, mirror).masked_fill(mirror == torch.arange(joints, device=mirror.device), 0))
        best = among.max(2)
        nearest.append(best.values)
        nearest_joint.append(best.indices)
    empty = pred.new_zeros(0, joints)
    own, mirrored, nearest = (torch.cat([empty, *values]) for values in (own, mirrored, nearest))
    nearest_joint = torch.cat([empty.long(), *nearest_joint])
    others, swap = _others(pred, target, radius, counted, mirror, image)

    best = torch.stack((own, mirrored, swap)).max(0)  # a tie goes to the first
    kinds = best.indices + 1
    kinds = torch.where((best.indices == 0) & (own > GOOD), 0, kinds)
    kinds = torch.where(best.values < NEAR, KINDS.index("miss"), kinds)
    itself = torch.arange(joints, device=pred.device).expand_as(kinds)
    elsewhere = torch.where(others > nearest, joints, nearest_joint)
    elsewhere = torch.where(torch.maximum(nearest, others) < NEAR, joints + 1, elsewhere)
    choices = torch.stack((itself, itself, mirror.expand_as(kinds), torch.full_like(kinds, joints), elsewhere))
    on = choices.gather(0, kinds[None])[0]
    return JointErrors(
        kinds.masked_fill(~counted, -1), on.masked_fill(~counted, -1), own.masked_fill(~counted, math.nan)
    )


def oks_radius(area: torch.Tensor, sigmas: Sequence[float]) -> torch.Tensor:
    """The distance at which COCO's keypoint similarity is 0.5, (N, K), for people of these areas (N,)."""
    constants = torch.as_tensor(sigmas, dtype=torch.float64, device=area.device)
    return 2 * math.sqrt(2 * math.log(2)) * area.double().clamp(min=0).sqrt()[:, None] * constants


def _checked(pred: torch.Tensor, target: torch.Tensor, radius: torch.Tensor) -> int:
    if target.dim() != 3 or target.shape[2] != 2:
        raise ValueError(f"joint_errors: target must be (N, K, 2), got shape {tuple(target.shape)}")
    if pred.shape != target.shape:
        raise ValueError(f"joint_errors: pred must be {tuple(target.shape)}, got shape {tuple(pred.shape)}")
    if radius.shape not in (target.shape[:1], target.shape[:2]):
        raise ValueError(
            f"joint_errors: radius must be ({len(target)},) or {tuple(target.shape[:2])}, "
            f"got shape {tuple(radius.shape)}"
        )
    return target.shape[1]


def _similarity(
    pred: torch.Tensor,
    target: torch.Tensor,
    radius: torch.Tensor,
    counted: torch.Tensor,
    of: torch.Tensor,
    to: torch.Tensor,
) -> torch.Tensor:
    """(P, K, K): of every joint of the predictions ``of`` to every joint of the annotated people ``to``."""
    offset = pred[of][:, :, None] - target[to][:, None]
    similarity = torch.exp2(-offset.square().sum(-1) / radius[to][:, None].square())
    return torch.where(counted[to][:, None] & similarity.isfinite(), similarity, 0.0)


def _column(similarity: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """``[p, k, index[k]]``: (P, K)."""
    return similarity.gather(2, index[None, :, None].expand(len(similarity), -1, 1))[..., 0]


def _others(
    pred: torch.Tensor,
    target: torch.Tensor,
    radius: torch.Tensor,
    counted: torch.Tensor,
    mirror: torch.Tensor,
    image: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest similarity to any joint of another person of the image, and to the same joint or its mirror image."""
    anything, swap = (pred.new_zeros(pred.shape[:2]) for _ in range(2))
    if image is None or not len(pred):
        return anything, swap
    order = torch.argsort(image, stable=True)
    images, number = torch.unique(image[order], return_inverse=True)
    pairs = match_images(number, number, len(images))
    different = pairs.pred != pairs.target
    itself = torch.arange(len(mirror), device=mirror.device)
    one, other = order[pairs.pred[different]], order[pairs.target[different]]
    for of, to in zip(one.split(_CHUNK), other.split(_CHUNK), strict=True):
        among = _similarity(pred, target, radius, counted, of, to)
        rows = of[:, None].expand(-1, len(mirror))
        anything.scatter_reduce_(0, rows, among.amax(2), "amax")
        swap.scatter_reduce_(0, rows, torch.maximum(_column(among, itself), _column(among, mirror)), "amax")
    return anything, swap

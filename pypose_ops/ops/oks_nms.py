"""Suppression of people that were found twice, by object keypoint similarity."""

from collections.abc import Sequence

import torch

from ..skeletons import COCO
from ._arguments import check_tensor, expand_visible
from ._autograd import call, register_fake, vmap_by_batch
from ._results import NmsResult
from .oks import _sigmas, batched, box_areas

_ops = torch.ops.pypose_ops


def oks_nms(
    keypoints: torch.Tensor,
    scores: torch.Tensor,
    area: torch.Tensor | None = None,
    *,
    threshold: float = 0.9,
    soft: bool = False,
    sigmas: Sequence[float] = COCO.sigmas,
    visible: torch.Tensor | None = None,
    boxes: torch.Tensor | None = None,
    max_people: int | None = None,
) -> NmsResult:
    """Suppresses duplicate predictions of a person by their OKS with better ones.

    The person with the highest score left is kept (the first among equals), the others are compared with it, and so on.
    The OKS of two people is that of :func:`oks` with the mean of their areas, over the joints that both have.

    Args:
        keypoints: ``(N, K, 2)`` or ``(B, N, K, 2)``, float32 or float64, ``(x, y)`` in image pixels. Non-finite joints
            do not count.
        scores: ``(N,)`` or ``(B, N)``; entries with a non-finite score are ignored, which pads images with fewer
            people.
        area: as in :func:`oks`, of these people; this or ``boxes`` is required.
        threshold: hard: people with a higher OKS with a kept person are suppressed; soft: the scale of the decay.
        soft: keep all people and multiply their scores by ``exp(-oks^2 / threshold)``.
        sigmas: as in :func:`oks`.
        visible: as in :func:`oks`, of these people.
        boxes: as in :func:`oks`, of these people.
        max_people: the most that are kept per image; None: no limit.

    Returns:
        :class:`NmsResult` with ``mask`` and ``scores``, of the shape of ``scores``. Not differentiable.

    Raises:
        TypeError: an argument of the wrong Python type.
        ValueError: an argument of the wrong shape, dtype, device or value, or neither ``area`` nor ``boxes``.

    :func:`pypose_ops.reference.oks_nms` is the definition in plain torch.

    Example:
        >>> twice = (torch.rand(1, 17, 2) * 100).repeat(2, 1, 1)
        >>> oks_nms(twice, torch.tensor([0.5, 0.9]), torch.tensor([5000.0, 5000.0])).mask
        tensor([False,  True])
    """
    single = check_tensor("oks_nms", "keypoints", keypoints).dim() == 3
    keypoints = keypoints.detach()
    scores = check_tensor("oks_nms", "scores", scores).detach().to(keypoints.dtype)
    area, _ = box_areas("oks_nms", area, boxes, keypoints)
    if visible is not None:
        visible = expand_visible("oks_nms", visible, keypoints)
    if single:
        keypoints, scores, area, visible = batched(keypoints, scores, area, visible)
    if max_people is None:
        max_people = keypoints.shape[1] if keypoints.dim() > 1 else 0
    mask, scores = call(
        _ops.oks_nms.default,
        (),
        keypoints,
        scores,
        area,
        visible,
        _sigmas("oks_nms", sigmas),
        threshold,
        soft,
        max_people,
    )
    return NmsResult(mask[0], scores[0]) if single else NmsResult(mask, scores)


@register_fake("pypose_ops::oks_nms")
def _(keypoints, scores, area, visible, sigmas, threshold, soft, max_people):
    torch._check(keypoints.dim() == 4, lambda: "oks_nms: keypoints must be (B, N, K, 2)")
    shape = keypoints.shape[:2]
    return keypoints.new_empty(shape, dtype=torch.bool), keypoints.new_empty(shape)


vmap_by_batch("oks_nms", 0, 1, 2, 3)

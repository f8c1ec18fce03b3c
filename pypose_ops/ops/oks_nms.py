"""Suppression of people who are found twice, by object keypoint similarity."""

import torch

from ..skeletons import COCO
from ._arguments import check_tensor, expand_visible
from ._autograd import call
from ._results import NmsResult
from .oks import _sigmas, batched, box_areas

_ops = torch.ops.pypose_ops


def oks_nms(
    keypoints,
    scores,
    area=None,
    *,
    threshold=0.9,
    soft=False,
    sigmas=COCO.sigmas,
    visible=None,
    boxes=None,
    max_people=None,
):
    """Suppresses people who are predicted twice, by their OKS with better ones.

    The person of the highest score left is kept (the first of equals), the others are compared with it, and so on. The
    OKS of two people is that of :func:`oks` with the mean of their areas, over the joints that both have.

    Args:
        keypoints (Tensor): ``(N, K, 2)`` or ``(B, N, K, 2)``; float32 or float64; ``(x, y)`` in picture pixels. Joints
            that are not finite do not count.
        scores (Tensor): ``(N,)`` or ``(B, N)``; whoever's is not finite is not kept and suppresses nobody, so that
            pictures with fewer people can be filled up.
        area, boxes (Tensor, optional): as in :func:`oks`, of these people; one of them must be given.
        threshold (float): hard: who has an OKS above it with somebody kept is suppressed; soft: the scale below.
        soft (bool): nobody is suppressed, but scores are multiplied by ``exp(-oks^2 / threshold)``.
        sigmas, visible: as in :func:`oks`.
        max_people (int, optional): how many are kept at most, in every picture.

    Returns:
        NmsResult: ``mask`` and ``scores``, of the shape of ``scores``.

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


@torch.library.register_fake("pypose_ops::oks_nms")
def _(keypoints, scores, area, visible, sigmas, threshold, soft, max_people):
    torch._check(keypoints.dim() == 4, lambda: "oks_nms: keypoints must be (B, N, K, 2)")
    shape = keypoints.shape[:2]
    return keypoints.new_empty(shape, dtype=torch.bool), keypoints.new_empty(shape)

"""Boxes to poses: the joints of people in an image."""

import numpy as np
import torch
from torch import nn

from pypose_ops import crop_patches, geometry, oks_nms


def find_joints(system, skeleton, image, boxes, rotations=0.0, *, padding=1.25, flip=False, **options):
    """The joints of the person in each box of one picture.

    Args:
        system (System): on any device.
        skeleton (Skeleton): of its joints.
        image: PIL image, or anything else of ``(H, W, 3)`` uint8.
        boxes (Tensor): ``(N, 4)`` two corners, picture pixels.
        rotations (Tensor or float): ``(N,)`` degrees.
        padding (float): by how much the crop is larger than the box.
        flip (bool): look at the mirrored crop too.
        options: of ``system.poses``.

    Returns:
        tuple[Tensor, Tensor]: joints ``(N, K, 2)`` in picture pixels, NaN where there is no trace of one, and their
        scores ``(N, K)``; on the system's device.
    """
    device = next(system.parameters()).device
    image, boxes = torch.from_numpy(np.array(image)).to(device), boxes.float().to(device)
    if isinstance(rotations, torch.Tensor):
        rotations = rotations.float().to(device)
    with torch.no_grad():
        return Poses(system, skeleton, padding=padding, flip=flip)(image, boxes, rotations, **options)


class Poses(nn.Module):
    """An image and boxes to joints, tensors only: crops, system, flip test, decoding and affine.

    ``forward(image, boxes, rotations)`` takes ``(H, W, 3)`` uint8, ``(N, 4)`` two corners in image pixels and degrees;
    what it returns is that of :func:`find_joints`.
    """

    def __init__(self, system, skeleton, *, padding=1.25, flip=False):
        super().__init__()
        self.system, self.padding = system, padding
        self.flip_pairs = list(skeleton.flip_pairs) if flip else None

    def forward(self, image, boxes, rotations=0.0, **options):
        system = self.system
        size, dtype = system.input_size, next(system.parameters()).dtype
        center, scale = geometry.box_to_center_and_scale(boxes, size, padding=self.padding)
        transforms = geometry.box_to_transform(center, scale, rotations, size, align="center")
        mean, std = tuple(system.mean), tuple(system.std)
        crops = crop_patches(image.permute(2, 0, 1)[None], transforms, size, mean=mean, std=std, antialias=True)
        peaks = system.poses(crops.to(dtype), flip_pairs=self.flip_pairs, **options)[-1]
        coords, scores = geometry.transform_points(peaks.coords.float(), transforms), peaks.scores.float()
        return coords.where(scores[..., None] > 0, float("nan")), scores


def find_people(system, skeleton, image, boxes, scores, rotations, *, nms=0.9, **options):
    """The people in boxes of one picture, nobody twice.

    Args:
        scores (Tensor): ``(N,)`` of the boxes.
        nms (float): OKS from which two people are one.
        Others as in :func:`find_joints`.

    Returns:
        tuple: joints ``(M, K, 2)`` in picture pixels, their scores ``(M, K)``, people's scores ``(M,)``, highest first,
        and which boxes they are of. On the CPU.
    """
    coords, joint_scores = find_joints(system, skeleton, image, boxes, rotations, **options)
    return best_people(skeleton, coords, joint_scores, boxes, scores, nms=nms)


def best_people(skeleton, coords, joint_scores, boxes, scores, *, nms=0.9):
    """What :func:`find_people` returns, of the joints and scores of all boxes."""
    people, boxes = scores.to(joint_scores) * joint_scores.mean(1), boxes.to(coords)
    sigmas = skeleton.sigmas or (0.08,) * len(skeleton)  # LSP defines none: about the mean of COCO's body
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = oks_nms(coords.nan_to_num(), people, area, sigmas=sigmas, threshold=nms).mask
    order = people.masked_fill(~kept, -1).argsort(descending=True, stable=True)[: int(kept.sum())]
    return coords[order].cpu(), joint_scores[order].cpu(), people[order].cpu(), order.cpu()

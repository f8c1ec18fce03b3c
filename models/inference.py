"""Inference: the joints of the people in an image, given their boxes."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from pypose_ops import crop_patches, geometry, oks_nms
from pypose_ops.skeletons import Skeleton

from .modules.memory_format import fast_on_cpu
from .systems.system import System


def find_joints(
    system: System,
    skeleton: Skeleton,
    image: Any,
    boxes: torch.Tensor,
    rotations: torch.Tensor | float = 0.0,
    *,
    padding: float = 1.25,
    flip: bool = False,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Finds the joints of the person in each box of an image.

    Args:
        system (System): on any device.
        skeleton (Skeleton): of its joints.
        image: PIL image, or an ``(H, W, 3)`` uint8 array or tensor.
        boxes (Tensor): ``(N, 4)`` two corners, image pixels.
        rotations (Tensor or float): ``(N,)`` degrees.
        padding (float): size of the crop relative to the box.
        flip (bool): average with the prediction of the mirrored crop.
        options: of ``system.poses``.

    Returns:
        tuple[Tensor, Tensor]: joints ``(N, K, 2)`` in image pixels, NaN where none was found, and their
        scores ``(N, K)``; on the system's device.
    """
    device = next(system.parameters()).device
    image, boxes = torch.from_numpy(np.array(image)).to(device), boxes.float().to(device)
    if isinstance(rotations, torch.Tensor):
        rotations = rotations.float().to(device)
    with torch.no_grad():
        return Poses(system, skeleton, padding=padding, flip=flip)(image, boxes, rotations, **options)


class Poses(nn.Module):
    """Crops, network, flip test, decoding and affine transform as one module on tensors.

    ``forward(image, boxes, rotations)`` takes ``(H, W, 3)`` uint8, ``(N, 4)`` two corners in image pixels and degrees,
    and returns what :func:`find_joints` does.
    """

    def __init__(self, system: System, skeleton: Skeleton, *, padding: float = 1.25, flip: bool = False) -> None:
        super().__init__()
        self.system: System = system
        self.padding: float = padding
        self.flip_pairs: list[tuple[int, int]] | None = list(skeleton.flip_pairs) if flip else None

    def forward(
        self, image: torch.Tensor, boxes: torch.Tensor, rotations: float = 0.0, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        crops, transforms = self.cut(image, boxes, rotations)
        return self.find(crops, transforms, **options)

    def cut(
        self, image: torch.Tensor, boxes: torch.Tensor, rotations: torch.Tensor | float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The crops ``(N, 3, *input_size)`` of the boxes of an image, and ``(N, 2, 3)`` from them to the image."""
        system = self.system
        size, dtype = system.input_size, next(system.parameters()).dtype
        center, scale = geometry.box_to_center_and_scale(boxes, size, padding=self.padding)
        transforms = geometry.box_to_transform(center, scale, rotations, size, align="center")
        mean, std = tuple(system.mean), tuple(system.std)
        crops = crop_patches(image.permute(2, 0, 1)[None], transforms, size, mean=mean, std=std, antialias=True)
        return crops.to(dtype), transforms

    def find(self, crops: torch.Tensor, transforms: torch.Tensor, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The joints in crops, of any images, in pixels of those images, and their scores."""
        peaks = self.system.poses(fast_on_cpu(crops), flip_pairs=self.flip_pairs, **options)[-1]
        coords, scores = geometry.transform_points(peaks.coords.float(), transforms), peaks.scores.float()
        return coords.where(scores[..., None] > 0, float("nan")), scores


def find_people(
    system: System,
    skeleton: Skeleton,
    image: Any,
    boxes: torch.Tensor,
    scores: torch.Tensor,
    rotations: torch.Tensor | float,
    *,
    nms: float = 0.9,
    batch: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Finds the people in boxes of an image and removes duplicates by OKS.

    Args:
        scores (Tensor): ``(N,)`` of the boxes.
        nms (float): OKS above which two people are duplicates.
        batch (int, optional): boxes per forward pass; default: 8 on a CPU, whose caches hold the maps of few, else 32.
        options: as in :func:`find_joints`.

    Returns:
        tuple: joints ``(M, K, 2)`` in image pixels, their scores ``(M, K)``, people's scores ``(M,)``, highest first,
        and the indices of their boxes. On the CPU.
    """
    if not isinstance(rotations, torch.Tensor):
        rotations = torch.full((len(boxes),), float(rotations))
    return next(find_people_in([(image, boxes, scores, rotations)], system, skeleton, nms=nms, batch=batch, **options))


People = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
_WAITING = 16  # images; each is kept until its people are found


@dataclass
class _Waiting:
    """An image of which ``count`` boxes are done."""

    boxes: torch.Tensor
    scores: torch.Tensor
    coords: torch.Tensor
    joint_scores: torch.Tensor
    count: int = 0

    def add(self, coords: torch.Tensor, joint_scores: torch.Tensor) -> None:
        """Copies what was found: kept as it is, between the large blocks of its batch, it would keep them as well."""
        if not self.count:
            self.coords = coords.new_empty((len(self.boxes), *coords.shape[1:]))
            self.joint_scores = joint_scores.new_empty((len(self.boxes), *joint_scores.shape[1:]))
        part = slice(self.count, self.count + len(coords))
        self.coords[part], self.joint_scores[part] = coords, joint_scores
        self.count = part.stop


@torch.no_grad()
def find_people_in(
    images: Iterable[tuple[Any, torch.Tensor, torch.Tensor, torch.Tensor]],
    system: System,
    skeleton: Skeleton,
    *,
    nms: float = 0.9,
    batch: int | None = None,
    padding: float = 1.25,
    flip: bool = False,
    **options: Any,
) -> Iterator[People]:
    """Finds people as :func:`find_people` in one image after the other, in batches across images.

    Args:
        images (iterable): image, boxes, scores and rotations of each. As it is read up to 16 images ahead of what is
            returned, memory does not grow with their number.

    Yields:
        tuple: what :func:`find_people` returns, of each image in their order.
    """
    poses = Poses(system, skeleton, padding=padding, flip=flip)
    device = next(system.parameters()).device
    batch = batch or (8 if device.type == "cpu" else 32)
    waiting: deque[_Waiting] = deque()
    queue: list[tuple[_Waiting, torch.Tensor, torch.Tensor]] = []  # where the joints go, crops, transforms

    def run_batch() -> None:
        if queue:
            places, crops, transforms = zip(*queue, strict=True)
            found = poses.find(torch.cat(crops), torch.cat(transforms), **options)
            for place, *part in zip(places, *(t.split([len(c) for c in crops]) for t in found), strict=True):
                place.add(*part)
        queue.clear()

    def finished() -> Iterator[People]:
        while waiting and waiting[0].count == len(waiting[0].boxes):
            done = waiting.popleft()
            yield best_people(skeleton, done.coords, done.joint_scores, done.boxes, done.scores, nms=nms)

    for image, boxes, scores, rotations in images:
        pixels = torch.from_numpy(np.array(image)).to(device)
        nobody = torch.zeros(0, len(skeleton), 2, device=device), torch.zeros(0, len(skeleton), device=device)
        waiting.append(_Waiting(boxes, scores, *nobody))
        at = 0
        while at < len(boxes):
            part = slice(at, at + batch - sum(len(crops) for _, crops, _ in queue))
            queue.append((waiting[-1], *poses.cut(pixels, *(t[part].float().to(device) for t in (boxes, rotations)))))
            at = part.stop
            if at <= len(boxes):
                run_batch()
        if len(waiting) >= _WAITING:
            run_batch()
        yield from finished()
    run_batch()
    yield from finished()


def best_people(
    skeleton: Skeleton,
    coords: torch.Tensor,
    joint_scores: torch.Tensor,
    boxes: torch.Tensor,
    scores: torch.Tensor,
    *,
    nms: float = 0.9,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Turns the joints and scores of all boxes into what :func:`find_people` returns."""
    people, boxes = scores.to(joint_scores) * joint_scores.mean(1), boxes.to(coords)
    sigmas = skeleton.sigmas or (0.08,) * len(skeleton)  # LSP defines none: about the mean of COCO's body joints
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    # Joints that score low are guesses, and differ between two boxes around one person.
    sure = joint_scores >= joint_scores.amax(1, keepdim=True) / 3
    kept = oks_nms(coords.nan_to_num(), people, area, sigmas=sigmas, threshold=nms, visible=sure).mask
    order = people.masked_fill(~kept, -1).argsort(descending=True, stable=True)[: int(kept.sum())]
    return coords[order].cpu(), joint_scores[order].cpu(), people[order].cpu(), order.cpu()

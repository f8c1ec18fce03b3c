"""Finds the boxes of people, for the systems that estimate one person at a time."""

from typing import Any, TypeGuard

import numpy as np
import torch

from pypose_ops import crop_patches, geometry, oks_nms
from pypose_ops.skeletons import COCO

from .modules.memory_format import fast_on_cpu
from .systems.heatmap_net import HeatmapNet
from .systems.system import System

MULTIPLE = 32  # the network needs multiples of it
LONGER_SIDES = (256, 512)  # large people are found in the first, small ones in the second
SAME = 0.5  # OKS above which two people are duplicates


def finds_people(system: System | None) -> TypeGuard[HeatmapNet]:
    """Whether a system has heads for people."""
    return isinstance(system, HeatmapNet) and system.config.people


def finder_of(system: System | None = None) -> HeatmapNet:
    """Returns a system that finds people: ``system`` itself if it can, else the one that ships with the package.

    Systems for another number of joints than COCO's do not: they know crops of one person, as ``lsp14``.
    """
    if finds_people(system) and system.num_joints == len(COCO):
        return system
    from .weights.files import load_packaged

    return load_packaged("coco17")[0]


@torch.no_grad()
def find_boxes(
    finder: HeatmapNet, image: Any, *, threshold: float = 0.3, longer_sides: tuple[int, ...] = LONGER_SIDES
) -> tuple[torch.Tensor, torch.Tensor]:
    """Finds the boxes of all people in an image by their centres, in the whole image at several scales.

    Args:
        finder (HeatmapNet): with ``people=True``, of COCO's joints, on any device.
        image: PIL image, or an ``(H, W, 3)`` uint8 array or tensor.
        threshold (float): minimum probability of a person.
        longer_sides (tuple[int, ...]): what the longer side of the image is scaled to, in pixels.

    Returns:
        tuple[Tensor, Tensor]: ``(N, 4)`` two corners in image pixels, around the joints, which may reach beyond the
        image; and ``(N,)`` probabilities, highest first. On the finder's device.

    Example:
        >>> boxes, scores = find_boxes(pretrained()[0], Image.open("street.jpg"))  # doctest: +SKIP
    """
    device = next(finder.parameters()).device
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).to(device)
    found = [_people(finder, pixels, side, threshold) for side in longer_sides]
    joints, scores = (torch.cat(parts) for parts in zip(*found, strict=True))
    low, high = joints.amin(1), joints.amax(1)
    area = (high - low).clamp(min=1).prod(1)
    kept = oks_nms(joints, scores, area, sigmas=COCO.sigmas, threshold=SAME).mask
    order = scores.masked_fill(~kept, -1).argsort(descending=True, stable=True)[: int(kept.sum())]
    return torch.cat((low, high), 1)[order], scores[order]


def _people(finder: HeatmapNet, image: torch.Tensor, side: int, threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Joints ``(N, K, 2)`` in image pixels and scores of people, the longer side scaled to ``side``."""
    height, width = image.shape[-2:]
    scale = side / max(height, width)
    size = tuple(-(-max(1, round(n * scale)) // MULTIPLE) * MULTIPLE for n in (height, width))
    half = 0.5 / scale - 0.5
    rows = [[1 / scale, 0.0, half], [0.0, 1 / scale, half]]
    transform = torch.tensor([rows], device=image.device)
    pixels: dict[str, Any] = {"mean": tuple(finder.mean), "std": tuple(finder.std)}
    whole = fast_on_cpu(crop_patches(image[None], transform, size, antialias=True, **pixels))
    found = finder.people(whole, threshold=threshold)
    count = int(found.counts[0])
    return geometry.transform_points(found.joints[0, :count], transform[0]), found.scores[0, :count]

"""Crops people from images into a :class:`.Batch`, on the device, with one affine transform per person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from pypose_ops import crop_patches, geometry
from pypose_ops._constants import constant
from pypose_ops.skeletons import Skeleton

from ..systems.system import Batch

if TYPE_CHECKING:
    from pypose_ops.models.systems.system import System

DRAWS = 12  # uniform random numbers per person


@dataclass(frozen=True)
class Augmentation:
    """The ranges of the augmentation; 0 for none.

    Attributes:
        scale (float): the box is scaled by up to ``1 + scale`` or its inverse.
        rotation (float): maximum angle in degrees, with a triangular distribution.
        shift (float): relative to the size of the box.
        flip (float): probability of mirroring; left and right joints are swapped.
        half_body (float): probability, for people with 8 labelled joints, of a box around the upper or lower body.
        colour (float): gain of the image up to ``1 + colour``, and of each channel up to a third of that.
    """

    scale: float = 0.3
    rotation: float = 40.0
    shift: float = 0.05
    flip: float = 0.5
    half_body: float = 0.1
    colour: float = 0.3


class Crops:
    """Crops people from images.

    Args:
        system (System): its ``input_size``, ``mean`` and ``std``.
        skeleton (Skeleton): for the joints to swap when mirroring, and those of the upper body.
        augmentation (Augmentation, optional): None for upright crops.
    """

    size: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __init__(self, system: System, skeleton: Skeleton, augmentation: Any = None) -> None:
        self.size, self.mean, self.std = system.input_size, tuple(system.mean), tuple(system.std)
        self.augmentation = augmentation
        self.flip_index: tuple[int, ...] = tuple(skeleton.flip_index)
        self.upper: tuple[bool, ...] = tuple(k in skeleton.upper_body for k in range(len(skeleton)))

    def __call__(self, loaded: Any, draws: torch.Tensor = None) -> Batch:
        """Crops of :class:`.loading.Loaded` people.

        Joints outside the crop do not count.

        Args:
            loaded (Loaded): B people.
            draws (Tensor, optional): ``(B, DRAWS)`` uniform random numbers for the augmentation; None: no augmentation.

        Returns:
            tuple[Batch, Tensor]: the crops, and the transforms ``(B, 2, 3)``, crop pixels -> image pixels.
        """
        boxes, padding, flip, rotation = loaded.boxes, loaded.padding, False, 0.0
        how = self.augmentation if draws is not None else None
        if how is not None:
            u = draws.to(boxes).unbind(1)
            boxes, padding = self._half_bodies(loaded, u[6] < how.half_body, u[7] < 0.5)
            flip, rotation = u[0] < how.flip, how.rotation * (u[2] + u[3] - 1)
        center, scale = geometry.box_to_center_and_scale(boxes, self.size, padding=1.0)
        scale = scale * padding[:, None]
        if how is not None:
            center = center + how.shift * (2 * torch.stack((u[4], u[5]), 1) - 1) * scale
            scale = scale * (1 + how.scale) ** (2 * u[1] - 1)[:, None]
        transforms = geometry.box_to_transform(center, scale, rotation, self.size, align="center", flip=flip)
        images = self._images(loaded, transforms)
        if how is not None and how.colour:
            images = self._coloured(images, torch.stack(u[8:12], 1))
        return self._batch(loaded, images, transforms, flip), transforms

    def _images(self, loaded: Any, transforms: torch.Tensor) -> torch.Tensor:
        if len(loaded) == 0:
            return transforms.new_empty(0, 3, *self.size)
        images = crop_patches(loaded.images(), transforms, self.size, mean=self.mean, std=self.std, antialias=True)
        # Convolutions are faster in this layout: a compact hourglass trains in two thirds of the time on a CPU.
        return images.contiguous(memory_format=torch.channels_last)

    def _half_bodies(self, loaded: Any, wanted: Any, upper: Sequence[int]) -> Any:
        labelled = loaded.visible > 0
        half = labelled & (constant(self.upper, device=upper.device) == upper[:, None])
        usable = wanted & (labelled.sum(1) >= 8) & (half.sum(1) >= 3)
        points, inf = loaded.keypoints, float("inf")
        low = points.masked_fill(~half[..., None], inf).amin(1)
        high = points.masked_fill(~half[..., None], -inf).amax(1)
        boxes = torch.where(usable[:, None], torch.cat((low, high), 1), loaded.boxes)
        return boxes, torch.where(usable, 1.5, loaded.padding)

    def _coloured(self, images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """``gain * pixel`` of normalised pixels, as one fused multiply-add."""
        colour = self.augmentation.colour
        gain = (1 + colour) ** (2 * u[:, :1] - 1) * (1 + colour / 3) ** (2 * u[:, 1:] - 1)
        mean, std = (constant(v, device=images.device, dtype=images.dtype) for v in (self.mean, self.std))
        shift = (gain - 1) * mean / std
        return torch.addcmul(shift[..., None, None], images, gain[..., None, None])

    def _batch(self, loaded: Any, images: torch.Tensor, transforms: torch.Tensor, flip: bool) -> Batch:
        inverse = geometry.invert_transform(transforms)
        height, width = self.size
        points = geometry.transform_points(loaded.keypoints, inverse)
        last = constant((width - 0.5, height - 0.5), device=points.device, dtype=points.dtype)
        inside = ((points >= -0.5) & (points <= last)).all(-1)
        visible, occluded = (loaded.visible > 0) & inside, (loaded.visible == 1) & inside
        others = None if loaded.others is None else geometry.transform_points(loaded.others, inverse[:, None])
        if isinstance(flip, torch.Tensor):
            index = constant(self.flip_index, device=points.device)
            points = torch.where(flip[:, None, None], points[:, index], points)
            visible = torch.where(flip[:, None], visible[:, index], visible)
            occluded = torch.where(flip[:, None], occluded[:, index], occluded)
            if others is not None:
                others = torch.where(flip[:, None, None, None], others[:, :, index], others)
        return Batch(images, points, visible, occluded, others)

"""Labels of whole people for one-stage networks: boxes, areas and keypoints."""

from typing import NamedTuple

import torch


class InstanceLabels(NamedTuple):
    """People in units of the image size.

    Attributes:
        keypoints: ``(..., N, K, 2)``.
        areas: ``(..., N)``, or None.
        boxes: ``(..., N, 4)``, centre and size, or None.
    """

    keypoints: torch.Tensor
    areas: torch.Tensor | None
    boxes: torch.Tensor | None


class Instances(NamedTuple):
    """The best people of every image.

    Attributes:
        boxes: ``(B, n, 4)``, two corners.
        coords: ``(B, n, K, 2)``.
        scores: ``(B, n)``, in descending order.
    """

    boxes: torch.Tensor
    coords: torch.Tensor
    scores: torch.Tensor


class EDPoseLabel:
    """Keypoints, boxes and areas in units of the image (ED-Pose, Yang et al., ICLR 2023).

    Args:
        num_select: number of people to decode.
        num_keypoints: number of joints per person.
    """

    num_select: int
    num_keypoints: int

    def __init__(self, num_select: int = 100, num_keypoints: int = 17) -> None:
        self.num_select, self.num_keypoints = num_select, num_keypoints

    def encode(
        self,
        keypoints: torch.Tensor,
        size: tuple[int, int],
        areas: torch.Tensor | None = None,
        boxes: torch.Tensor | None = None,
    ) -> InstanceLabels:
        """People to labels.

        Args:
            keypoints: ``(..., N, K, 2)``, in pixels.
            size: ``(height, width)`` of the image.
            areas: ``(..., N)``, in squared pixels.
            boxes: ``(..., N, 4)``, two corners.
        """
        height, width = size
        x, y = keypoints.unbind(-1)
        if boxes is not None:
            left, top, right, bottom = boxes.unbind(-1)
            sides = ((left + right) / (2 * width), (top + bottom) / (2 * height))
            boxes = torch.stack((*sides, (right - left) / width, (bottom - top) / height), -1)
        areas = None if areas is None else areas / (width * height)
        return InstanceLabels(torch.stack((x / width, y / height), -1), areas, boxes)

    def decode(
        self, logits: torch.Tensor, boxes: torch.Tensor, keypoints: torch.Tensor, sizes: torch.Tensor
    ) -> Instances:
        """The best people of every image, in pixels.

        Args:
            logits: ``(B, N, classes)``.
            boxes: ``(B, N, 4)``, centre and size.
            keypoints: ``(B, N, 3 K)``: x and y of every joint, then K unused numbers.
            sizes: ``(B, 2)``, ``(height, width)`` of the images.
        """
        values, index = logits.flatten(1).topk(min(self.num_select, logits[0].numel()), -1)
        person = index.div(logits.shape[2], rounding_mode="floor")
        scale = sizes.to(boxes.dtype).flip(-1)[:, None]
        center, extent = boxes[..., :2] * scale, boxes[..., 2:] * scale
        corners = torch.cat((center - extent / 2, center + extent / 2), -1)
        coords = keypoints[..., : 2 * self.num_keypoints].unflatten(-1, (-1, 2)) * scale[:, :, None]
        return Instances(
            corners.gather(1, person[..., None].expand(-1, -1, 4)),
            coords.gather(1, person[..., None, None].expand(-1, -1, *coords.shape[2:])),
            values,
        )


def boxes_around_keypoints(boxes: torch.Tensor, keypoints: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Boxes, two corners ``(..., 4)``, enlarged to hold every visible joint ``(..., K, 2)`` (YOLOX-Pose)."""
    seen = (visible > 0)[..., None]
    low = torch.where(seen, keypoints, float("inf")).amin(-2)
    high = torch.where(seen, keypoints, float("-inf")).amax(-2)
    return torch.cat((torch.minimum(boxes[..., :2], low), torch.maximum(boxes[..., 2:], high)), -1)

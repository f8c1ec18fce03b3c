"""Codecs for several people per map."""

import math
from typing import Any

import torch

from ..ops._results import Peaks
from ..ops.decode_heatmaps import kernel_size_for
from ..ops.gaussian_heatmaps import gaussian_heatmaps
from ._base import GaussianCodec, Pair, check_joints, dark_for, weigh, within


class CPMHeatmap(GaussianCodec):
    """The maps of convolutional pose machines (Wei et al., CVPR 2016): people summed and clipped, then the background.

    ``align="center"``; the last of the ``K + 1`` maps is 1 minus the highest of the others. Stage 1 of a CPM is trained
    on all people, later stages on the person in the centre: ``encode(keypoints)`` and ``encode(keypoints[:, :1])``.
    Maps are decoded by DARK with the blur that fits ``sigma``, below 1.5 with UDP's narrower differences.

    ``compat="cpm"``: each blob ends where it falls below ``exp(-4.6052)``, about 0.01.

    Args:
        input_size: ``(w, h)`` of the net's input.
        heatmap_size: ``(w, h)`` of the maps.
        sigma: in heatmap pixels; 7 / 8 in the paper's code, 7 pixels of the input.
        center_sigma: of the centre map, in input pixels.
        compat: None or ``"cpm"``.

    Example:
        >>> codec = CPMHeatmap((368, 368), (46, 46))
        >>> maps, weights = codec.encode(torch.rand(2, 5, 14, 2) * 368)  # 5 people in each of 2 images
        >>> maps.shape, weights.shape
        (torch.Size([2, 15, 46, 46]), torch.Size([2, 5, 14]))
    """

    refine: str
    kernel_size: int

    align = "center"
    peers: tuple[str, ...] = ("cpm",)

    def __init__(
        self,
        input_size: Pair,
        heatmap_size: Pair,
        sigma: float = 0.875,
        center_sigma: float = 21.0,
        compat: str | None = None,
    ) -> None:
        super().__init__(input_size, heatmap_size, sigma, compat)
        self.center_sigma = center_sigma
        self.drawing["combine"] = "sum_clip"
        self.refine, self.kernel_size = dark_for(self.sigma), kernel_size_for("CPMHeatmap", "dark", self.sigma)

    def draw(self, at: torch.Tensor, known: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        if self.compat is None:
            maps = super().draw(at, known, dtype)
        else:
            people = at if at.dim() == 4 else at[:, None]
            visible = known.reshape(people.shape[:-1]).flatten(0, 1)
            blobs = gaussian_heatmaps(people.flatten(0, 1), self.sigma, self.size, visible=visible, dtype=dtype)
            blobs = torch.where(blobs >= math.exp(-4.6052), blobs, 0.0)
            maps = blobs.unflatten(0, people.shape[:2]).sum(1).clamp(max=1)
        if maps.shape[1] == 0:
            return torch.ones_like(maps[:, :1])
        return torch.cat((maps, 1 - maps.amax(1, keepdim=True)), 1)

    def center_map(self, centers: torch.Tensor, *, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Centre maps ``(B, 1, h, w)`` of the input size, of people at ``(B, 2)`` input pixels."""
        return gaussian_heatmaps(centers[:, None], self.center_sigma, self.input_size[::-1], dtype=dtype)

    def decode(self, heatmaps: torch.Tensor, **options: Any) -> Peaks:
        """As :meth:`HeatmapCodec.decode`, without the last map, the background."""
        flipped = options.pop("flipped", None)
        if flipped is not None:
            options["flipped"] = flipped[:, :-1]
        return super().decode(heatmaps[:, :-1], **options)

    def loss(
        self, pred: torch.Tensor, keypoints: torch.Tensor, visible: torch.Tensor | None = None, **options: Any
    ) -> torch.Tensor:
        """:meth:`GaussianCodec.loss` of the joints' maps; ``pred`` is without the background."""
        return super().loss(pred, keypoints, visible, **options)


class CenterNetHeatmap(GaussianCodec):
    """The maps of CenterNet (Zhou et al., 2019), with blobs scaled to the person's box; ``align="index"``.

    The radius is how far the corners of a box may move while its IoU with the original stays above ``min_overlap``;
    the blob, on the nearest pixel, has a sigma of ``(2 radius + 1) / 6`` and is truncated at the radius.

    ``compat="centernet"``: the radius comes from the wrong roots of its three quadratic equations, as in the authors'
    code and its forks, and the blob is on the pixel ``floor(x)``.

    Args:
        input_size: ``(w, h)`` of the net's input.
        heatmap_size: ``(w, h)`` of the maps.
        min_overlap: between 0 and 1.
        compat: None or ``"centernet"``.
    """

    peers: tuple[str, ...] = ("centernet",)

    def __init__(
        self, input_size: Pair, heatmap_size: Pair, min_overlap: float = 0.7, compat: str | None = None
    ) -> None:
        super().__init__(input_size, heatmap_size, 1.0, compat)
        if not 0 < min_overlap < 1:
            raise ValueError(f"CenterNetHeatmap: min_overlap must be between 0 and 1, got {min_overlap}")
        self.min_overlap = min_overlap
        self.drawing: dict[str, Any] = self.rounded()

    def encode(  # type: ignore[override]
        self,
        keypoints: torch.Tensor,
        visible: torch.Tensor | None = None,
        *,
        boxes: torch.Tensor,
        dtype: torch.dtype = torch.float32,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encodes keypoints as maps.

        Args:
            keypoints: ``(B, P, K, 2)``, ``(x, y)`` in input pixels.
            visible: ``(B, P, K)``.
            boxes: ``(B, P, 2)``, width and height of each person's bounding box in input pixels.
            dtype: of the maps.

        Returns:
            Maps ``(B, K, h, w)`` and weights ``(B, P, K)``, 0 for joints outside of the map.
        """
        if keypoints.dim() != 4 or boxes.shape != (*keypoints.shape[:2], 2):
            raise ValueError(
                "CenterNetHeatmap: keypoints must be (B, P, K, 2) and boxes (B, P, 2), got shapes "
                f"{tuple(keypoints.shape)} and {tuple(boxes.shape)}"
            )
        at = self.to_heatmap(keypoints)
        if self.compat is not None:
            at = torch.trunc(at)
        check_joints("CenterNetHeatmap", at, visible)
        width, height = self.heatmap_size
        weights, known = weigh(at, visible, within(torch.floor(at + 0.5), (0, 0), (width - 1, height - 1)))
        sigma = ((2 * self.radius(boxes) + 1) / 6)[..., None].expand(known.shape)
        maps = gaussian_heatmaps(at, sigma, self.size, visible=known, dtype=dtype, **self.drawing)
        return maps, weights

    def radius(self, boxes: torch.Tensor) -> torch.Tensor:
        """``(..., 2)``, width and height in input pixels, to whole heatmap pixels."""
        scale = [n / m for n, m in zip(self.heatmap_size, self.input_size, strict=True)]
        width, height = torch.ceil(boxes[..., 0] * scale[0]), torch.ceil(boxes[..., 1] * scale[1])
        return overlap_radius(width, height, self.min_overlap, self.compat is not None).floor()

    def loss(self, *args: Any, **options: Any) -> torch.Tensor:
        raise ValueError("CenterNetHeatmap: loss needs a sigma per person; use heatmap_mse_loss with radius(boxes)")


def overlap_radius(width: torch.Tensor, height: torch.Tensor, min_overlap: float, wrong_roots: bool) -> torch.Tensor:
    """How far the corners of a box may move with an IoU of at least ``min_overlap``; at least 0."""
    o, total, area = min_overlap, width + height, width * height
    # One corner in and one out, both in, both out: a r^2 - b r + c = 0.
    cases = (
        (1.0, total, area * (1 - o) / (1 + o)),
        (4.0, 2 * total, (1 - o) * area),
        (4 * o, -2 * o * total, (o - 1) * area),
    )
    roots = []
    for i, (a, b, c) in enumerate(cases):
        root = (b * b - 4 * a * c).clamp(min=0).sqrt()
        if wrong_roots:
            roots.append((b + root) / 2)
        else:
            roots.append((b - root if i < 2 else b + root) / (2 * a))
    return torch.stack(roots).amin(0).clamp(min=0)

"""Systems whose stages end in heatmaps."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from pypose_ops import Peaks, crop_patches
from pypose_ops._constants import constant
from pypose_ops.codecs._base import GaussianCodec
from pypose_ops.ops.decode_heatmaps import kernel_size_for

from .system import Batch, System


class GaussianHeatmap(GaussianCodec):
    """Exact Gaussians on a grid that shares its borders with the input (``align="center"``), decoded by UDP's DARK.

    The mirror image of such a map is the map of the mirror image, so a flip test needs no shift.
    """

    align: str = "center"
    refine: str = "dark_udp"

    def __init__(self, input_size: tuple[int, int], heatmap_size: tuple[int, int], sigma: float) -> None:
        super().__init__(input_size, heatmap_size, sigma)
        self.kernel_size: int = kernel_size_for("GaussianHeatmap", self.refine, self.sigma)


class HeatmapSystem(System):
    """A system whose stages end in one map per joint.

    Subclasses define :meth:`heatmaps`, and :meth:`codec` where it is not :class:`GaussianHeatmap`.

    Attributes:
        sigma (float): of the targets, in heatmap pixels.
        flip_shift (bool): shift mirrored maps by a pixel, for grids with ``align="index"``.
        refine (str or None): of :func:`pypose_ops.decode_heatmaps`; ``"auto"``: the codec's.
    """

    sigma: float = 1.0
    flip_shift = False
    refine: str | None = "auto"

    def codec(self, images: torch.Tensor, maps: torch.Tensor) -> GaussianCodec:
        """The codec between these images and these maps."""
        return GaussianHeatmap(images.shape[:-3:-1], maps.shape[:-3:-1], self.sigma)

    def heatmaps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Heatmaps ``(B, K, h, w)`` per stage."""
        return self(images)

    def losses(self, batch: Batch, phase: str | None = None) -> dict[str, torch.Tensor]:
        maps = self.heatmaps(batch.images)
        codec = self.codec(batch.images, maps[-1])
        return stage_losses(codec, maps, batch.keypoints, batch.visible)

    @torch.no_grad()
    def poses(
        self,
        images: torch.Tensor,
        *,
        flip_pairs: Sequence[tuple[int, int]] | None = None,
        scales: Sequence[float] = (1.0,),
    ) -> list[Peaks]:
        """As :meth:`System.poses`.

        Args:
            images (Tensor): ``(B, 3, H, W)``.
            flip_pairs (list[tuple[int, int]] or None): average with the prediction of the mirrored crop.
            scales (tuple[float, ...]): average over the crop zoomed around its centre by each of these; any but 1
                resamples it.
        """
        stages = self._at_scales(images, scales)
        mirrored = None if flip_pairs is None else self._at_scales(images.flip(-1), scales)
        peaks = []
        for s, maps in enumerate(stages):
            options = {}
            if mirrored is not None:
                options = {"flipped": mirrored[s], "flip_pairs": flip_pairs, "flip_shift": self.flip_shift}
            peaks.append(self.decode(images, maps, stage=s, **options))
        return peaks

    def decode(self, images: torch.Tensor, maps: torch.Tensor, *, stage: int = -1, **options: Any) -> Peaks:
        """Decodes the maps ``(B, K, h, w)`` of a stage to :class:`pypose_ops.Peaks` in pixels of the images."""
        if self.refine != "auto":
            options = {"refine": self.refine} | options
        # The decode of codecs with a background drops the last map.
        return GaussianCodec.decode(self.codec(images, maps), maps, **options)

    def _at_scales(self, images: torch.Tensor, scales: Sequence[float]) -> list[torch.Tensor]:
        total = None
        for scale in scales:
            maps = self.heatmaps(images if scale == 1 else zoom(images, scale))
            maps = maps if scale == 1 else [zoom(m, 1 / scale) for m in maps]
            total = maps if total is None else [a + b for a, b in zip(total, maps, strict=True)]
        return total if len(scales) == 1 else [m / len(scales) for m in total]


def zoom(maps: torch.Tensor, scale: float) -> torch.Tensor:
    """Zooms ``(B, C, H, W)`` around its centre, keeping the size; zeros outside."""
    height, width = maps.shape[-2:]
    x, y = (width - 1) / 2, (height - 1) / 2
    rows = ((1 / scale, 0.0, x - x / scale), (0.0, 1 / scale, y - y / scale))
    transforms = constant(rows, device=maps.device).expand(len(maps), 2, 3)
    return crop_patches(maps, transforms, (height, width), antialias=scale < 1)


def map_cross_entropy(
    codec: GaussianCodec,
    logits: torch.Tensor,
    keypoints: torch.Tensor,
    visible: torch.Tensor,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """The mean cross-entropy of maps of probabilities ``(B, K, h, w)`` against the codec's maps of the person.

    ``keypoints`` and ``visible`` as in ``codec.encode``, of one person or several per map. Maps count by ``weight``
    ``(B, K)``; None: the codec's weights of the person.
    """
    target, known = codec.encode(keypoints, visible)
    each = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none").mean((-2, -1))
    return (each * (known if weight is None else weight)).mean()


def stage_losses(
    codec: GaussianCodec, stages: Iterable[torch.Tensor], keypoints: torch.Tensor, visible: torch.Tensor
) -> dict[str, torch.Tensor]:
    """``{"stage1": ...}``: the mean squared error of each stage against the codec's maps of the person.

    Maps of joints that are not ``visible`` count 0. Stages share their targets, so one call handles all of them.
    """
    # Maps in channels_last would be copied once more for the gradient.
    maps = torch.stack(tuple(stages)).contiguous()
    losses = codec.loss(maps, keypoints, visible, reduction="none")
    return {f"stage{s + 1}": loss for s, loss in enumerate(losses.mean((1, 2)).unbind())}

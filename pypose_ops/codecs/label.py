"""Codecs without a pixel grid: regression of coordinates."""

import numpy as np
import torch

from .._constants import constant
from ..ops._autograd import is_plain
from ..ops._results import Peaks
from ._base import Pair, between, check_joints, two
from .heatmap import MSRAHeatmap

# What numpy can compute in place of torch: with the labels of a batch each call costs as much as its arithmetic, and
# those of numpy cost less.
_NUMPY = (torch.float32, torch.float64, torch.int64, torch.bool)
_MOST = 1 << 16  # numbers; for more there are torch's threads


class RegressionLabel:
    """Coordinates relative to the input size (DeepPose and its successors).

    ``compat="mmpose"``: a joint counts from a visibility above 0.5.

    Args:
        input_size: ``(w, h)`` of the net's input.
        compat: None or ``"mmpose"``.
    """

    def __init__(self, input_size: Pair, compat: str | None = None) -> None:
        self.input_size: Pair = two("RegressionLabel", "input_size", input_size)
        self.compat: str | None = check_compat("RegressionLabel", compat)

    def encode(self, keypoints: torch.Tensor, visible: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """``(B, K, 2)`` in input pixels to ``(B, K, 2)`` of about [0, 1], and weights ``(B, K)``, 0 outside.

        Coordinates that are not finite become 0, with weight 0: NaN times a weight of 0 would be a loss of NaN.
        """
        width, height = self.input_size
        check_joints("RegressionLabel", keypoints, visible)
        if self._is_small(keypoints, visible):
            return self._encode_in_numpy(keypoints, visible)
        limits = ((0.0, 0.0), (width - 1.0, height - 1.0), (float(width), float(height)))
        # One constant and few calls: with the labels of a batch each call costs as much as its arithmetic.
        first, last, size = constant(limits, device=keypoints.device, dtype=keypoints.dtype).unbind()
        known = between(keypoints, first, last)
        if visible is not None:
            known = known & (visible >= 0.5 if self.compat is None else visible > 0.5)
        return torch.nan_to_num(keypoints / size, 0.0, 0.0, 0.0), known.type_as(keypoints)

    @staticmethod
    def _is_small(keypoints: torch.Tensor, visible: torch.Tensor | None) -> bool:
        if not is_plain(keypoints, visible) or keypoints.dtype not in _NUMPY[:2] or keypoints.numel() > _MOST:
            return False
        return visible is None or visible.dtype in _NUMPY

    def _encode_in_numpy(
        self, keypoints: torch.Tensor, visible: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same numbers as :meth:`encode`."""
        width, height = self.input_size
        at = keypoints.detach().resolve_neg().numpy()
        x, y = at[..., 0], at[..., 1]
        known = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        if visible is not None:
            seen = visible.detach().resolve_neg().numpy()
            known &= seen >= 0.5 if self.compat is None else seen > 0.5
        labels = at / np.array(self.input_size, at.dtype)
        labels[~np.isfinite(labels)] = 0
        return torch.from_numpy(labels), torch.from_numpy(known.astype(at.dtype))

    def decode(self, labels: torch.Tensor, scores: torch.Tensor | None = None) -> Peaks:
        """Labels to input pixels.

        Args:
            labels: ``(..., K, 2)``, or ``(..., K, 4)`` with the deviations of x and y, as predicted by RLE.
            scores: ``(..., K)``, predicted scores. Default: the mean of 1 minus the deviations, or 1.

        Returns:
            ``coords (..., K, 2)`` and ``scores (..., K)``.
        """
        if labels.shape[-1] not in (2, 4):
            raise ValueError(f"RegressionLabel: labels must be (..., 2) or (..., 4), got shape {tuple(labels.shape)}")
        width, height = self.input_size
        x, y = labels[..., :2].unbind(-1)
        if scores is None:
            scores = torch.ones_like(x) if labels.shape[-1] == 2 else (1 - labels[..., 2:]).mean(-1)
        return Peaks(torch.stack((x * width, y * height), -1), scores)


class IntegralRegressionLabel:
    """Coordinates, with maps as additional supervision (integral regression, Sun et al., ECCV 2018).

    Args:
        input_size: ``(w, h)`` of the net's input.
        heatmap_size: ``(w, h)`` of the maps.
        sigma: of the maps, in heatmap pixels.
        unbiased: of :class:`MSRAHeatmap`, which draws the maps.
        blur_kernel_size: of :class:`MSRAHeatmap`.
        normalize: scale the pixels of each map to a sum of 1.
        compat: None or ``"mmpose"``.
    """

    heatmap_codec: MSRAHeatmap

    def __init__(
        self,
        input_size: Pair,
        heatmap_size: Pair,
        sigma: float,
        unbiased: bool = False,
        blur_kernel_size: int = 11,
        normalize: bool = True,
        compat: str | None = None,
    ) -> None:
        self.heatmap_codec = MSRAHeatmap(input_size, heatmap_size, sigma, unbiased, blur_kernel_size, compat)
        self.keypoint_codec: RegressionLabel = RegressionLabel(input_size, compat)
        self.normalize = normalize
        if normalize and self.heatmap_codec.one_call:
            self.heatmap_codec.drawing["normalize"] = "sum"

    def encode(
        self, keypoints: torch.Tensor, visible: torch.Tensor | None = None, *, dtype: torch.dtype = torch.float32
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
        """``(B, K, 2)`` to ``((labels (B, K, 2), maps (B, K, h, w)), weights (B, K))``."""
        maps, _ = self.heatmap_codec.encode(keypoints, visible, dtype=dtype)
        labels, weights = self.keypoint_codec.encode(keypoints, visible)
        if self.normalize and "normalize" not in self.heatmap_codec.drawing:
            maps = maps / (maps.sum((-2, -1), keepdim=True) + 1e-24)
        return (labels, maps), weights

    def decode(self, labels: torch.Tensor, scores: torch.Tensor | None = None) -> Peaks:
        """As :meth:`RegressionLabel.decode`."""
        return self.keypoint_codec.decode(labels, scores)


def check_compat(codec: str, compat: str | None) -> str | None:
    """Checks ``compat`` of a codec that exists in MMPose only."""
    if compat not in (None, "mmpose"):
        raise ValueError(f"{codec}: compat must be None or one of mmpose, got {compat!r}")
    return compat

"""Codecs without a grid of pixels: labels per axis, and coordinates themselves."""

import torch

from ..ops._results import Peaks
from ..ops.decode_simcc import decode_simcc
from ..ops.simcc_labels import simcc_labels
from ._base import check_joints, two, weigh, within
from .heatmap import MSRAHeatmap


class SimCCLabel:
    """The labels of SimCC (Li et al., ECCV 2022): see :func:`simcc_labels`.

    Args:
        input_size (tuple[int, int]): ``(w, h)``.
        smoothing_type (str): ``"gaussian"``, or ``"standard"``: one-hot with label smoothing.
        sigma (float or tuple[float, float]): of Gaussians, in bins.
        simcc_split_ratio (float): bins per pixel.
        label_smooth_weight (float): of ``"standard"``, in [0, 1).
        normalize (bool): Gaussians as densities instead of with a top of 1.
        use_dark (bool): decode below the bin.
        center (str): ``"rounded"`` Gaussians as in the paper, or ``"exact"`` ones.
    """

    def __init__(
        self, input_size, smoothing_type="gaussian", sigma=6.0, simcc_split_ratio=2.0, label_smooth_weight=0.0,
        normalize=True, use_dark=False, center="rounded",
    ):  # fmt: skip
        self.input_size = two("SimCCLabel", "input_size", input_size)
        self.sigma = two("SimCCLabel", "sigma", sigma, float)
        if smoothing_type not in ("gaussian", "standard"):
            raise ValueError(f"SimCCLabel: smoothing_type must be one of gaussian, standard, got {smoothing_type!r}")
        self.gaussian, self.smoothing, self.normalize = smoothing_type == "gaussian", label_smooth_weight, normalize
        self.simcc_split_ratio, self.use_dark, self.center = simcc_split_ratio, use_dark, center

    def encode(self, keypoints, visible=None, *, dtype=torch.float32):
        """``(B, K, 2)`` in input pixels to x ``(B, K, bins)``, y ``(B, K, bins)`` and weights ``(B, K)``.

        Joints that are not visible, not finite, or whose label lies outside of either axis (a Gaussian's with three
        sigmas) have labels of zeros and weight 0.
        """
        check_joints("SimCCLabel", keypoints, visible)
        at = keypoints * self.simcc_split_ratio
        at = torch.round(at) if self.center == "rounded" or not self.gaussian else at
        last = [round(n * self.simcc_split_ratio) - 1 for n in self.input_size]
        reach = [3 * sigma if self.gaussian else 0.0 for sigma in self.sigma]
        known = within(at, [-r for r in reach], [n + r for n, r in zip(last, reach, strict=True)])
        weights, known = weigh(keypoints, visible, known)
        x, y = simcc_labels(
            keypoints,
            self.sigma,
            self.input_size[::-1],
            split_ratio=self.simcc_split_ratio,
            visible=known,
            profile="gaussian" if self.gaussian else "one_hot",
            center=self.center,
            normalize="density" if self.normalize and self.gaussian else "peak",
            smoothing=self.smoothing,
            dtype=dtype,
        )
        return (x, y), weights

    def decode(self, x, y, **options):
        """Labels or logits to keypoints ``(B, K, 2)`` in input pixels, -1 where there is no peak, and scores."""
        settings = {"refine": "dark", "sigma": self.sigma} if self.use_dark else {}
        return decode_simcc(x, y, split_ratio=self.simcc_split_ratio, **(settings | options))


class RegressionLabel:
    """Coordinates divided by the input's size (DeepPose and its successors).

    Args:
        input_size (tuple[int, int]): ``(w, h)``.
    """

    def __init__(self, input_size):
        self.input_size = two("RegressionLabel", "input_size", input_size)

    def encode(self, keypoints, visible=None):
        """``(B, K, 2)`` in input pixels to ``(B, K, 2)`` of about [0, 1], and weights ``(B, K)``, 0 outside."""
        width, height = self.input_size
        check_joints("RegressionLabel", keypoints, visible)
        _, known = weigh(keypoints, visible, within(keypoints, (0, 0), (width - 1, height - 1)))
        x, y = keypoints.unbind(-1)
        return torch.stack((x / width, y / height), -1), known.to(keypoints.dtype)

    def decode(self, labels, scores=None):
        """``(B, K, 2)`` to input pixels; the scores are those of the net, or 1."""
        width, height = self.input_size
        x, y = labels[..., :2].unbind(-1)
        scores = torch.ones_like(x) if scores is None else scores
        return Peaks(torch.stack((x * width, y * height), -1), scores)


class IntegralRegressionLabel:
    """Coordinates, and maps to supervise what they are the expectation of (Sun et al., ECCV 2018).

    Args:
        input_size, heatmap_size (tuple[int, int]): ``(w, h)``.
        sigma (float): of the maps, in heatmap pixels.
        unbiased, blur_kernel_size: of :class:`MSRAHeatmap`, which draws the maps.
        normalize (bool): each map's pixels add up to 1.
        compat (str, optional): None or ``"mmpose"``, of the maps.
    """

    def __init__(
        self, input_size, heatmap_size, sigma, unbiased=False, blur_kernel_size=11, normalize=True, compat=None
    ):
        self.heatmap_codec = MSRAHeatmap(input_size, heatmap_size, sigma, unbiased, blur_kernel_size, compat)
        self.keypoint_codec = RegressionLabel(input_size)
        self.normalize = normalize
        if normalize and compat is None:
            self.heatmap_codec.drawing["normalize"] = "sum"

    def encode(self, keypoints, visible=None, *, dtype=torch.float32):
        """``(B, K, 2)`` to ``((labels (B, K, 2), maps (B, K, h, w)), weights (B, K))``."""
        maps, _ = self.heatmap_codec.encode(keypoints, visible, dtype=dtype)
        labels, weights = self.keypoint_codec.encode(keypoints, visible)
        if self.normalize and self.heatmap_codec.compat is not None:
            maps = maps / (maps.sum((-2, -1), keepdim=True) + 1e-24)
        return (labels, maps), weights

    def decode(self, labels, scores=None):
        """As :meth:`RegressionLabel.decode`."""
        return self.keypoint_codec.decode(labels, scores)

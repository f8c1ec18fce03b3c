"""SimCC codecs, one vector per joint and axis, in two and three dimensions."""

from typing import Any, NamedTuple

import torch

from ..ops._results import Peaks
from ..ops.decode_simcc import decode_simcc
from ..ops.simcc_labels import simcc_labels
from . import _mmpose
from ._base import Pair, SizedCodec, check_joints, two, weigh, within
from .label import check_compat


class PeaksWithVisibility(NamedTuple):
    """One joint per pair of vectors, with the probability that it is visible.

    Attributes:
        coords: ``(B, K, 2)``, in input pixels.
        scores: ``(B, K)``.
        visibility: ``(B, K)``, in [0, 1].
    """

    coords: torch.Tensor
    scores: torch.Tensor
    visibility: torch.Tensor


class SimCCLabel(SizedCodec):
    """The labels of SimCC (Li et al., ECCV 2022): see :func:`simcc_labels`.

    ``compat="mmpose"``: weights are the visibilities, also above 1 and below 0.5, and Gaussians may extend one bin
    further to the left and up; DARK follows MMPose.

    Args:
        input_size: ``(w, h)`` of the net's input.
        smoothing_type: ``"gaussian"``, or ``"standard"``: one-hot with label smoothing.
        sigma: of Gaussians, in bins; one, or one for x and one for y.
        simcc_split_ratio: bins per pixel.
        label_smooth_weight: of ``"standard"``, in [0, 1].
        normalize: draw Gaussians as densities instead of with a peak of 1.
        use_dark: refine the highest bin by DARK.
        decode_visibility: also decode the probability that a joint is visible (RTMW).
        decode_beta: of ``decode_visibility``: the vectors are multiplied by it and by sigma before their softmax.
        center: ``"rounded"`` Gaussians as in the paper, or ``"exact"`` ones.
        compat: None or ``"mmpose"``.
    """

    gaussian: bool
    smoothing: float
    normalize: bool
    simcc_split_ratio: float
    use_dark: bool
    center: str
    decode_visibility: bool
    decode_beta: float

    def __init__(
        self,
        input_size: Pair,
        smoothing_type: str = "gaussian",
        sigma: float | tuple[float, float] = 6.0,
        simcc_split_ratio: float = 2.0,
        label_smooth_weight: float = 0.0,
        normalize: bool = True,
        use_dark: bool = False,
        decode_visibility: bool = False,
        decode_beta: float = 150.0,
        center: str = "rounded",
        compat: str | None = None,
    ) -> None:
        self.input_size: Pair = two("SimCCLabel", "input_size", input_size)
        self.sigma: tuple[float, float] = two("SimCCLabel", "sigma", sigma, float)
        if smoothing_type not in ("gaussian", "standard"):
            raise ValueError(f"SimCCLabel: smoothing_type must be one of gaussian, standard, got {smoothing_type!r}")
        self.gaussian, self.smoothing, self.normalize = smoothing_type == "gaussian", label_smooth_weight, normalize
        if not 0 <= label_smooth_weight <= 1 or (self.gaussian and label_smooth_weight > 0):
            raise ValueError(
                "SimCCLabel: label_smooth_weight must be in [0, 1], and 0 for smoothing_type 'gaussian', got "
                f"{label_smooth_weight}"
            )
        self.simcc_split_ratio, self.use_dark, self.center = simcc_split_ratio, use_dark, center
        self.decode_visibility, self.decode_beta = decode_visibility, decode_beta
        self.compat: str | None = check_compat("SimCCLabel", compat)

    def encode(
        self, keypoints: torch.Tensor, visible: torch.Tensor | None = None, *, dtype: torch.dtype = torch.float32
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
        """``(B, K, 2)`` in input pixels to x ``(B, K, bins)``, y ``(B, K, bins)`` and weights ``(B, K)``.

        Joints that are not visible, not finite, or whose label lies outside of either axis (a Gaussian's with three
        sigmas) have labels of zeros and weight 0.
        """
        check_joints("SimCCLabel", keypoints, visible)
        weights, known = self.weights(keypoints, visible)
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

    def weights(self, keypoints: torch.Tensor, visible: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights per joint and which joints have labels; ``keypoints`` and their input may have more than two axes."""
        at = keypoints * self.simcc_split_ratio
        at = torch.round(at) if self.center == "rounded" or not self.gaussian else at
        last = [round(n * self.simcc_split_ratio) - 1 for n in self.input_size]
        reach = [3 * sigma if self.gaussian else 0.0 for sigma in self.sigma]
        if self.compat is None or not self.gaussian:
            known = within(at, (-reach[0], -reach[1]), (last[0] + reach[0], last[1] + reach[1]))
        else:
            known = torch.ones_like(at[..., 0], dtype=torch.bool)
            for axis, (end, r) in enumerate(zip(last, reach, strict=True)):
                known = known & (at[..., axis] - r < end + 1) & (at[..., axis] + r + 1 >= 0)
        return weigh(keypoints, visible, known) if self.compat is None else _mmpose.weigh(at, visible, known)

    def decode(self, x: torch.Tensor, y: torch.Tensor, **options: Any) -> Peaks | PeaksWithVisibility:
        """Labels or logits to keypoints ``(B, K, 2)`` in input pixels and scores; joints without a peak are missing.

        With ``decode_visibility`` also the lower of the highest softmax of x and that of y.
        """
        for argument, scores, size in zip("xy", (x, y), self.input_size, strict=True):
            check_bins(self, argument, scores, size, self.simcc_split_ratio)
        peaks = self.peaks(x, y, **options)
        if not self.decode_visibility:
            return peaks
        tops = [
            torch.softmax(scores.detach().float() * (self.decode_beta * sigma), -1).amax(-1)
            for scores, sigma in zip((x, y), self.sigma, strict=True)
        ]
        return PeaksWithVisibility(peaks.coords, peaks.scores, torch.minimum(*tops))

    def peaks(self, x: torch.Tensor, y: torch.Tensor, **options: Any) -> Peaks:
        """As :meth:`decode`, of labels of any length and without visibilities."""
        settings: dict[str, Any] = {"refine": "dark", "sigma": self.sigma} if self.use_dark else {}
        if self.use_dark and self.compat is not None:
            settings["compat"] = self.compat
        return decode_simcc(x, y, split_ratio=self.simcc_split_ratio, **(settings | options))


def check_bins(codec: SizedCodec, name: str, scores: object, pixels: int, split_ratio: float) -> None:
    """Raises ValueError unless ``scores`` have ``pixels`` times ``split_ratio`` bins."""
    bins = round(pixels * split_ratio)
    if not codec.any_size and isinstance(scores, torch.Tensor) and scores.shape[-1:] != (bins,):
        raise ValueError(
            f"{type(codec).__name__}: {name} must be (B, K, {bins}), {pixels} pixels times simcc_split_ratio, got "
            f"shape {tuple(scores.shape)}"
        )


class Labels3D(NamedTuple):
    """The labels of :class:`SimCC3DLabel`.

    Attributes:
        x: ``(B, K, bins)``.
        y: ``(B, K, bins)``.
        z: ``(B, K, bins)``.
        weights: ``(B, K)``.
        root_z: ``(B,)``, the depth of the root, which ``z`` is relative to.
    """

    x: torch.Tensor
    y: torch.Tensor
    z: torch.Tensor
    weights: torch.Tensor
    root_z: torch.Tensor


class Peaks3D(NamedTuple):
    """Joints in three dimensions.

    Attributes:
        coords: ``(B, K, 3)``: input pixels, and the depth relative to the root.
        scores: ``(B, K)``, of x and y.
        bins: ``(B, K, 3)``, in pixels along all three axes, z from 0 to the depth of the input.
    """

    coords: torch.Tensor
    scores: torch.Tensor
    bins: torch.Tensor


class SimCC3DLabel(SizedCodec):
    """SimCC with a third axis, the depth relative to the root joint (RTMW3D).

    Depths from ``-z_range`` to ``z_range`` are mapped to pixels from 0 to the depth of the input. As in MMPose, weights
    are the visibilities, 0 for joints whose Gaussian lies outside of any axis, and the score is that of x and y.

    Args:
        input_size: ``(w, h, d)`` of the net's input.
        sigma: of the Gaussians, in bins; one, or one per axis.
        simcc_split_ratio: bins per pixel.
        normalize: draw Gaussians as densities instead of with a peak of 1.
        use_dark: refine the highest bin by DARK.
        root_index: the root joint, or joints whose mean depth is that of the root.
        z_range: half the range of depths; by default 2.1744869.
    """

    root_z: float = 5.14388  # the mean over MMPose's training sets, for people without a depth

    def __init__(
        self,
        input_size: tuple[int, int, int],
        sigma: float | tuple[float, float, float] = 6.0,
        simcc_split_ratio: float = 2.0,
        normalize: bool = True,
        use_dark: bool = False,
        root_index: int | tuple[int, ...] = 0,
        z_range: float | None = None,
    ) -> None:
        width, height, depth = input_size
        self.depth: int = depth
        sigmas: tuple[float, ...] = (sigma,) * 3 if isinstance(sigma, (int, float)) else tuple(sigma)
        if len(sigmas) != 3:
            raise ValueError(f"SimCC3DLabel: sigma must be one or three numbers, got {sigma!r}")
        shared: dict[str, Any] = {
            "simcc_split_ratio": simcc_split_ratio, "normalize": normalize, "use_dark": use_dark, "compat": "mmpose"
        }  # fmt: skip
        self.plane: SimCCLabel = SimCCLabel((width, height), sigma=(sigmas[0], sigmas[1]), **shared)
        # The z axis is treated as the x axis of an input one pixel high.
        self.axis: SimCCLabel = SimCCLabel((self.depth, 1), sigma=(sigmas[2], sigmas[2]), **shared)
        self.root_index: list[int] = [root_index] if isinstance(root_index, int) else list(root_index)
        self.z_range: float = 2.1744869 if z_range is None else z_range

    def encode(
        self,
        keypoints: torch.Tensor,
        depths: torch.Tensor | None = None,
        visible: torch.Tensor | None = None,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> Labels3D:
        """Keypoints and their depths to labels.

        Args:
            keypoints: ``(B, K, 2)``, in input pixels.
            depths: ``(B, K)``, in the unit of ``z_range``; None: every joint is at pixel 1, as in MMPose.
            visible: ``(B, K)``.
            dtype: of the labels.
        """
        check_joints("SimCC3DLabel", keypoints, visible)
        if depths is None:
            z = torch.ones_like(keypoints[..., 0])
            root_z = z.new_full((len(z),), self.root_z)
        else:
            root_z = torch.stack([depths[:, index] for index in self.root_index]).mean(0)
            z = ((depths - root_z[:, None]) / self.z_range + 1) * (self.depth / 2)
        on_axis = torch.stack((z, torch.zeros_like(z)), -1)
        weights, known = self.plane.weights(keypoints, visible)
        _, inside = self.axis.weights(on_axis, None)
        weights = torch.where(known & ~inside, 0.0, weights)
        drawn = (known & inside).to(keypoints.dtype)
        (x, y), _ = self.plane.encode(keypoints, drawn, dtype=dtype)
        (of_z, _), _ = self.axis.encode(on_axis, drawn, dtype=dtype)
        return Labels3D(x, y, of_z, weights, root_z)

    def decode(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> Peaks3D:
        """Labels or logits to joints in three dimensions."""
        for argument, scores, pixels in zip("xyz", (x, y, z), (*self.plane.input_size, self.depth), strict=True):
            check_bins(self, argument, scores, pixels, self.plane.simcc_split_ratio)
        (plane, scores), (axis, _) = self.plane.peaks(x, y), self.axis.peaks(z, z)
        bins = torch.cat((plane, axis[..., :1]), -1)
        depth = (bins[..., 2:] / (self.depth / 2) - 1) * self.z_range
        return Peaks3D(torch.cat((bins[..., :2], depth), -1), scores, bins)

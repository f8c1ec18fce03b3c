"""Shared by the codecs: the two grids, weights, and decoding to input pixels."""

from typing import Any, ClassVar

import torch

from .._constants import constant
from ..geometry import scale_coordinates
from ..ops._arguments import check_tensor
from ..ops._results import Peaks
from ..ops.decode_heatmaps import decode_heatmaps
from ..ops.gaussian_heatmaps import gaussian_heatmaps, gaussian_targets
from ..ops.heatmap_mse_loss import heatmap_mse_loss

Pair = tuple[int, int]


def two(codec: str, name: str, value: Any, kind: type = int) -> tuple[Any, Any]:
    """A pair ``(w, h)`` of positive numbers."""
    try:
        pair = tuple(kind(v) for v in value) if isinstance(value, (tuple, list)) else (kind(value),) * 2
    except (TypeError, ValueError):
        pair = ()
    if len(pair) != 2 or not all(0 < v < float("inf") for v in pair):
        raise ValueError(f"{codec}: {name} must be two positive numbers (w, h), got {value!r}")
    return pair


# With small tensors every operation costs as much as the drawing.


def check_joints(codec: str, keypoints: torch.Tensor, visible: torch.Tensor | None) -> None:
    check_tensor(codec, "keypoints", keypoints)
    if visible is not None:
        check_tensor(codec, "visible", visible)
    if keypoints.dim() not in (3, 4) or keypoints.shape[-1] != 2:
        raise ValueError(f"{codec}: keypoints must be (B, K, 2) or (B, P, K, 2), got shape {tuple(keypoints.shape)}")
    if visible is not None and visible.shape != keypoints.shape[:-1]:
        raise ValueError(
            f"{codec}: visible must be {tuple(keypoints.shape[:-1])}, as keypoints, got shape {tuple(visible.shape)}"
        )


def check_instances(codec: str, keypoints: torch.Tensor, visible: torch.Tensor | None) -> None:
    """Of codecs for several people: the axis of people is required."""
    check_joints(codec, keypoints, visible)
    if keypoints.dim() != 4:
        raise ValueError(f"{codec}: keypoints must be (B, P, K, 2), got shape {tuple(keypoints.shape)}")


def within(keypoints: torch.Tensor, low: tuple[float, float], high: tuple[float, float]) -> torch.Tensor:
    """Which points have ``low <= x <= high`` on both axes; False for non-finite points."""
    first, last = constant((low, high), device=keypoints.device, dtype=keypoints.dtype).unbind()
    return between(keypoints, first, last)


def between(keypoints: torch.Tensor, first: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """Which points have ``first <= (x, y) <= last``; False for non-finite points."""
    return (keypoints == keypoints.clamp(first, last)).all(-1)


def weigh(
    keypoints: torch.Tensor, visible: torch.Tensor | None, known: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (``visible``, at most 1; 0 for joints that are not visible or not ``known``) and which joints count."""
    if visible is None:
        return known.to(keypoints.dtype), known
    known = known & (visible >= 0.5)
    return torch.where(known, visible.to(keypoints.dtype).clamp(max=1), 0.0), known


def dark_for(sigma: float) -> str:
    """The variant of DARK that decodes exact Gaussians within 0.01 pixels: narrow ones need narrow differences."""
    return "dark" if sigma >= 1.5 else "dark_udp"


class SizedCodec:
    """A codec that decodes outputs of one size.

    Attributes:
        any_size: decode outputs of other sizes as well, at the scale of the codec's, as MMPose does: its heads
            enlarge maps to the input first, and its bottom-up pipelines test at the size of each image.
    """

    any_size: bool = False


def check_maps(codec: SizedCodec, argument: str, maps: torch.Tensor, size: Pair) -> None:
    """Maps of another size than the codec's would be decoded to wrong coordinates."""
    name = type(codec).__name__
    if not isinstance(maps, torch.Tensor):
        raise TypeError(f"{name}: {argument} must be a tensor, got {type(maps).__name__}")
    if not codec.any_size and tuple(maps.shape[-2:]) != tuple(size):
        height, width = size
        raise ValueError(
            f"{name}: {argument} must be maps of {height} x {width} (height x width), those of the codec's "
            f"heatmap_size, got shape {tuple(maps.shape)}"
        )


class HeatmapCodec(SizedCodec):
    """A codec whose targets are maps on a grid of ``heatmap_size`` over an input of ``input_size``."""

    align: str = "index"  # rule of scale_coordinates between the two grids
    peers: ClassVar[tuple[str, ...]] = ("mmpose",)
    refine: str = "quarter"  # of decode_heatmaps, as the next
    kernel_size: int = 11
    shift: float = 0.0  # added to decoded heatmap pixels
    sigma: float  # in heatmap pixels
    drawing: dict[str, Any]  # options of gaussian_heatmaps

    def __init__(self, input_size: Pair, heatmap_size: Pair, compat: str | None = None) -> None:
        name = type(self).__name__
        self.input_size: Pair = two(name, "input_size", input_size)
        self.heatmap_size: Pair = two(name, "heatmap_size", heatmap_size)
        if compat is not None and compat not in self.peers:
            raise ValueError(f"{name}: compat must be None or one of {', '.join(self.peers)}, got {compat!r}")
        self.compat: str | None = compat

    @property
    def size(self) -> Pair:
        """``(height, width)`` of the maps."""
        return self.heatmap_size[::-1]

    def to_heatmap(self, keypoints: torch.Tensor) -> torch.Tensor:
        """Input pixels to heatmap pixels."""
        check_tensor(type(self).__name__, "keypoints", keypoints)
        if self.compat == "mmpose":
            return keypoints / self.scale_factor(keypoints.device)
        return scale_coordinates(keypoints, self.input_size[::-1], self.size, align=self.align)

    def scale_factor(self, device: torch.device) -> torch.Tensor:
        """``(2,)`` float32, input pixels per heatmap pixel; kept per device."""
        less = 1 if self.align == "corners" else 0
        pairs = zip(self.input_size, self.heatmap_size, strict=True)
        return constant(tuple((n - less) / max(m - less, 1) for n, m in pairs), device=device)

    def to_input(self, device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """``(2, 3)``, decoded heatmap pixels to input pixels; kept per device."""
        (a, x), (d, y) = self._axes()
        rows = ((a, 0.0, a * self.shift + x), (0.0, d, d * self.shift + y))
        return constant(rows, device=device, dtype=torch.float64 if dtype == torch.float64 else torch.float32)

    def from_heatmap(self, keypoints: torch.Tensor) -> torch.Tensor:
        """Heatmap pixels to input pixels."""
        return scale_coordinates(keypoints, self.size, self.input_size[::-1], align=self.align)

    def _axes(self) -> list[tuple[float, float]]:
        """Ratio and offset of each axis, x first: :meth:`from_heatmap` is ``ratio * v + offset``."""
        less, half = (1 if self.align == "corners" else 0), (0.5 if self.align == "center" else 0.0)
        pairs = zip(self.input_size, self.heatmap_size, strict=True)
        ratios = [(n - less) / (m - less) for n, m in pairs]
        return [(ratio, half * (ratio - 1)) for ratio in ratios]

    def weights(
        self, at: torch.Tensor, visible: torch.Tensor | None, reach: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights per joint and which joints draw: visible ones within ``reach`` of the map."""
        check_joints(type(self).__name__, at, visible)
        width, height = self.heatmap_size
        return weigh(at, visible, within(at, (-reach, -reach), (width - 1 + reach, height - 1 + reach)))

    def targets(
        self,
        keypoints: torch.Tensor,
        visible: torch.Tensor | None,
        down: bool,
        reach: float,
        scale: float,
        dtype: torch.dtype,
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Maps and weights by :func:`gaussian_targets`; None where that does not apply."""
        less = 1 if self.align == "corners" else 0
        (n, m), (width, height) = self.input_size, self.heatmap_size
        if self.align == "center" or len(self.drawing) != 2 or (less and min(n, m, width, height) < 2):
            return None
        return gaussian_targets(
            keypoints, visible, ((width - less) / (n - less), (height - less) / (m - less)), self.sigma,
            (height, width), down=down, reach=reach, scale=scale, dtype=dtype, **self.drawing,
        )  # fmt: skip

    def decode(self, heatmaps: torch.Tensor, **options: Any) -> Peaks:
        """Decodes maps to keypoints and scores.

        Args:
            heatmaps: ``(B, K, h, w)``.
            options: ``flipped``, ``flip_pairs``, ``flip_shift``, ``max_offset``, ... of :func:`decode_heatmaps`.

        Returns:
            ``coords (B, K, 2)`` in input pixels, NaN where a map has no peak, and ``scores (B, K)``.

        Raises:
            ValueError: maps of another size than the codec's.
        """
        check_maps(self, "heatmaps", heatmaps, self.size)
        settings: dict[str, Any] = {"refine": self.refine, "kernel_size": self.kernel_size}
        if self.compat == "mmpose":
            settings["compat"] = "mmpose"
        elif self.compat is not None:
            settings["max_offset"] = None
        transform = self.to_input(heatmaps.device, heatmaps.dtype)
        return decode_heatmaps(heatmaps, transform=transform, **(settings | options))


class GaussianCodec(HeatmapCodec):
    """A codec whose target is one call of :func:`gaussian_heatmaps`."""

    def __init__(self, input_size: Pair, heatmap_size: Pair, sigma: float, compat: str | None = None) -> None:
        super().__init__(input_size, heatmap_size, compat)
        self.sigma: float = float(sigma)
        if not 0 < self.sigma < float("inf"):
            raise ValueError(f"{type(self).__name__}: sigma must be positive and finite, got {sigma}")
        self.drawing: dict[str, Any] = {"center": "exact", "truncate": None}

    def rounded(self) -> dict[str, Any]:
        """The drawing options for blobs on the nearest pixel, truncated at three sigmas."""
        return {"center": "rounded", "truncate": 3.0}

    def encode(
        self, keypoints: torch.Tensor, visible: torch.Tensor | None = None, *, dtype: torch.dtype = torch.float32
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encodes keypoints as maps.

        Args:
            keypoints: ``(B, K, 2)``, ``(x, y)`` in input pixels; or ``(B, P, K, 2)`` for P people per map.
            visible: ``keypoints.shape[:-1]``; joints count from 0.5 on.
            dtype: of the maps.

        Returns:
            Maps ``(B, K, h, w)``, and weights of the shape of ``visible``: its values, up to 1, and 0 for joints that
            are not visible, not finite, or too far outside to draw a pixel within three sigmas.
        """
        if self.at_once:
            found = self.targets(keypoints, visible, *self.placement, 1.0, dtype)
            if found is not None:
                return found
        at = self.to_heatmap(keypoints)
        weights, known = self.weights(at, visible, 3 * self.sigma)
        return self.draw(at, known, dtype), weights

    @property
    def at_once(self) -> bool:
        """Whether one call may place, weigh and draw: not in a class that places, weighs or draws in its own way."""
        return False

    @property
    def placement(self) -> tuple[bool, float]:
        """For that call: whether joints are on the pixel below, and how far outside of the map they may be."""
        return False, 3 * self.sigma

    def draw(self, at: torch.Tensor, known: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Maps of the joints ``at`` heatmap pixels that are ``known``."""
        return gaussian_heatmaps(at, self.sigma, self.size, visible=known, dtype=dtype, **self.drawing)

    def loss(
        self,
        pred: torch.Tensor,
        keypoints: torch.Tensor,
        visible: torch.Tensor | None = None,
        *,
        weight: torch.Tensor | None = None,
        reduction: str = "mean",
    ) -> torch.Tensor:
        """:func:`heatmap_mse_loss` of predicted maps against the targets of ``encode``, without materialising them.

        ``weight`` is multiplied by the weights of ``encode``; with several people, by the largest weight of each map.
        """
        if self.compat is not None:
            raise ValueError(
                f"{type(self).__name__}: loss is not defined with compat={self.compat!r}; encode and compare"
            )
        check_maps(self, "pred", pred, self.size)
        at = self.to_heatmap(keypoints)
        own, known = self.weights(at, visible, 3 * self.sigma)
        own = own.amax(1) if own.dim() == 3 else own
        weight = own if weight is None else own * weight
        return heatmap_mse_loss(
            pred, at, self.sigma, weight=weight.detach(), visible=known, reduction=reduction, **self.drawing
        )

"""Codecs for one person: one or three maps per joint."""

import math
from typing import Any

import torch

from ..ops._results import Peaks
from ..ops.decode_heatmaps import decode_heatmaps
from ..ops.gaussian_heatmaps import scaled_heatmaps
from ..ops.offset_heatmaps import offset_heatmaps
from . import _mmpose
from ._base import GaussianCodec, HeatmapCodec, Pair, check_joints, check_maps, dark_for, within


class MSRAHeatmap(GaussianCodec):
    """Gaussian maps of Xiao et al. (ECCV 2018) and, ``unbiased``, of DARK (Zhang et al., CVPR 2020); ``align="index"``.

    Biased blobs are centred on the nearest pixel, truncated at three sigmas and decoded by the quarter offset; unbiased
    ones are exact, cover the whole map and are decoded by DARK (below sigma 1.5 with UDP's narrower differences),
    within 0.01 map pixels if ``blur_kernel_size`` fits ``sigma``, also at the borders.

    ``compat="mmpose"``: where 3 sigma is not an integer, the windows and blobs of joints near the left and upper
    borders are a pixel off; joints at -0.5 and below are rounded towards 0; a joint whose window ends right
    at the border keeps its weight; weights are the visibilities, also above 1 and below 0.5; DARK's step is not
    limited, and there is none next to the border.

    Args:
        input_size: ``(w, h)`` of the net's input.
        heatmap_size: ``(w, h)`` of the maps.
        sigma: in heatmap pixels.
        unbiased: exact blobs, see above.
        blur_kernel_size: of DARK: 3 for sigma 1, 7 for sigma 1.5, 11 for sigma 2, 17 for sigma 3.
        compat: None or ``"mmpose"``.

    Example:
        >>> codec = MSRAHeatmap((192, 256), (48, 64), 2.0, unbiased=True)
        >>> maps, weights = codec.encode(torch.tensor([[[50.3, 100.0]]]))
        >>> codec.decode(maps).coords.round(decimals=1)
        tensor([[[ 50.3000, 100.0000]]])
    """

    unbiased: bool
    kernel_size: int

    def __init__(
        self,
        input_size: Pair,
        heatmap_size: Pair,
        sigma: float,
        unbiased: bool = False,
        blur_kernel_size: int = 11,
        compat: str | None = None,
    ) -> None:
        super().__init__(input_size, heatmap_size, sigma, compat)
        self.unbiased, self.kernel_size = unbiased, blur_kernel_size
        if unbiased:
            self.refine: str = dark_for(self.sigma) if compat is None else "dark"
        else:
            self.drawing: dict[str, Any] = self.rounded()

    @property
    def at_once(self) -> bool:
        return type(self) is MSRAHeatmap and self.compat is None

    @property
    def one_call(self) -> bool:
        """Whether :func:`gaussian_heatmaps` draws the maps."""
        return self.compat is None or self.unbiased or (3 * self.sigma).is_integer()

    def weights(
        self, at: torch.Tensor, visible: torch.Tensor | None, reach: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.compat is None:
            return super().weights(at, visible, reach)
        check_joints("MSRAHeatmap", at, visible)
        if not self.unbiased:
            return _mmpose.weigh(at, visible, _mmpose.windowed_within(at, self.sigma, self.heatmap_size))
        (width, height), reach = self.heatmap_size, 3 * self.sigma
        # The window of an unbiased blob starts before the end of the map, which is not in it.
        inside = within(at, (-reach - 1,) * 2, (width + reach, height + reach))
        return _mmpose.weigh(at, visible, inside)

    def draw(self, at: torch.Tensor, known: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        if self.compat is None or self.unbiased:
            return super().draw(at, known, dtype)
        if self.one_call:  # the window of the definition, around MMPose's pixel
            return super().draw(_mmpose.nearest_pixel(at), known, dtype)
        return _mmpose.draw_windowed(at, self.sigma, self.size, known, dtype, exact=False)


class UDPHeatmap(GaussianCodec):
    """The maps of UDP (Huang et al., CVPR 2020): ``align="corners"``, exact centres.

    ``"gaussian"`` maps are decoded by UDP's variant of DARK. ``"combined"`` maps, three per joint, are
    :func:`offset_heatmaps` with a radius of ``radius_factor * max(heatmap_size)``: the map of the disc is blurred, and
    the offset at its peak is added.

    ``compat="mmpose"``: a Gaussian ends at a window around the nearest pixel, placed as in :class:`MSRAHeatmap`'s
    compatible mode, and weights are as there; where people overlap, the offsets of the last one remain; in combined
    maps, joints outside keep their weight; decoding stretches by ``w / (w - 1)``, which MMPose compensates for after
    the codec; steps are not limited.

    Args:
        input_size: ``(w, h)`` of the net's input.
        heatmap_size: ``(w, h)`` of the maps.
        heatmap_type: ``"gaussian"`` or ``"combined"``.
        sigma: of Gaussian maps, in heatmap pixels.
        radius_factor: of combined maps.
        blur_kernel_size: of the decoder: 11 for sigma 2; combined maps are blurred by twice that plus 1.
        compat: None or ``"mmpose"``.
    """

    kernel_size: int

    align = "corners"
    refine = "dark_udp"

    def __init__(
        self,
        input_size: Pair,
        heatmap_size: Pair,
        heatmap_type: str = "gaussian",
        sigma: float = 2.0,
        radius_factor: float = 0.0546875,
        blur_kernel_size: int = 11,
        compat: str | None = None,
    ) -> None:
        super().__init__(input_size, heatmap_size, sigma, compat)
        if heatmap_type not in ("gaussian", "combined"):
            raise ValueError(f"UDPHeatmap: heatmap_type must be one of gaussian, combined, got {heatmap_type!r}")
        self.heatmap_type, self.kernel_size = heatmap_type, blur_kernel_size
        self.radius: float = radius_factor * max(self.heatmap_size)

    @property
    def at_once(self) -> bool:
        return type(self) is UDPHeatmap and self.compat is None and self.heatmap_type == "gaussian"

    def weights(
        self, at: torch.Tensor, visible: torch.Tensor | None, reach: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        combined = self.heatmap_type == "combined"
        if self.compat is None:
            return super().weights(at, visible, self.radius if combined else reach)
        check_joints("UDPHeatmap", at, visible)
        if combined:
            return _mmpose.weigh(at, visible, torch.ones_like(at[..., 0], dtype=torch.bool))
        return _mmpose.weigh(at, visible, _mmpose.windowed_within(at, self.sigma, self.heatmap_size))

    def draw(self, at: torch.Tensor, known: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        if self.heatmap_type == "combined":
            winner = "nearest" if self.compat is None else "last"
            return offset_heatmaps(at, self.radius, self.size, visible=known, combine=winner, dtype=dtype)
        if self.compat is None:
            return super().draw(at, known, dtype)
        return _mmpose.draw_windowed(at, self.sigma, self.size, known, dtype, exact=True)

    def loss(
        self, pred: torch.Tensor, keypoints: torch.Tensor, visible: torch.Tensor | None = None, **options: Any
    ) -> torch.Tensor:
        if self.heatmap_type == "combined":
            raise ValueError("UDPHeatmap: loss is for heatmap_type='gaussian'; encode combined maps and compare")
        return super().loss(pred, keypoints, visible, **options)

    def decode(self, heatmaps: torch.Tensor, **options: Any) -> Peaks:
        """As :meth:`HeatmapCodec.decode`; combined maps are ``(B, 3 K, h, w)``."""
        if self.heatmap_type == "combined":
            # The blur reflects the map: in a corner its peak is further than a radius from the joint.
            limit: dict[str, Any] = {} if self.compat is not None else {"max_offset": 2 * self.radius}
            radius = self.radius * max(heatmaps.shape[-2:]) / max(self.size)
            options = {"refine": "offset", "radius": radius} | limit | options
        return super().decode(heatmaps, **options)

    def from_heatmap(self, keypoints: torch.Tensor) -> torch.Tensor:
        if self.compat is None:
            return super().from_heatmap(keypoints)
        x, y = keypoints.unbind(-1)
        (w, h), (width, height) = self.input_size, self.heatmap_size
        return torch.stack((x / (width - 1) * w, y / (height - 1) * h), -1)

    def _axes(self) -> list[tuple[float, float]]:
        if self.compat is None:
            return super()._axes()
        return [(n / (m - 1), 0.0) for n, m in zip(self.input_size, self.heatmap_size, strict=True)]


class MegviiHeatmap(HeatmapCodec):
    """The maps of CPN and MSPN (Chen et al., CVPR 2018): blurred single pixels with a peak of 255; ``align="index"``.

    The pixel of a joint is ``floor(x)``, and the decoder adds half a pixel to the quarter offset, also for peaks next
    to the border.

    ``compat="mmpose"``: kernels of up to 9 pixels are OpenCV's tables; near a border the blur is mirrored and the blob
    deformed; coordinates between -1 and 0 are in pixel 0; weights are the visibilities, also above 1 and below 0.5; the
    decoder blurs the maps once more, adds nothing next to the border, and scores are divided by 255, plus 0.5. Maps
    without a peak still decode to NaN, where MMPose returns pixel 0 and a score of NaN.

    Args:
        input_size: ``(w, h)`` of the net's input.
        heatmap_size: ``(w, h)`` of the maps.
        kernel_size: odd; sigma is ``0.3 ((kernel_size - 1) / 2 - 1) + 0.8``, as for OpenCV from 11 on.
        compat: None or ``"mmpose"``.
    """

    def __init__(self, input_size: Pair, heatmap_size: Pair, kernel_size: int, compat: str | None = None) -> None:
        super().__init__(input_size, heatmap_size, compat)
        if not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"MegviiHeatmap: kernel_size must be odd and positive, got {kernel_size}")
        self.blur = kernel_size
        self.sigma: float = 0.3 * ((kernel_size - 1) / 2 - 1) + 0.8
        # Half a pixel more than the reach of the kernel, against rounding of the product with sigma.
        self.drawing: dict[str, Any] = {"center": "rounded", "truncate": kernel_size / 2 / self.sigma}

    def encode(
        self, keypoints: torch.Tensor, visible: torch.Tensor | None = None, *, dtype: torch.dtype = torch.float32
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As :meth:`GaussianCodec.encode`; joints outside of the map draw nothing and have weight 0."""
        if type(self) is MegviiHeatmap and self.compat is None:
            found = self.targets(keypoints, visible, True, 0.0, 255.0, dtype)
            if found is not None:
                return found
        at = self.to_heatmap(keypoints)
        if self.compat is None:
            at = torch.floor(at)
            weights, known = self.weights(at, visible, 0.0)
            maps = scaled_heatmaps(at, self.sigma, self.size, 255, visible=known, dtype=dtype, **self.drawing)
            return maps, weights
        check_joints("MegviiHeatmap", at, visible)
        at = torch.trunc(at)
        width, height = self.heatmap_size
        inside = within(at, (0, 0), (width - 1, height - 1))
        weights, known = _mmpose.weigh(at, visible, inside)
        return _mmpose.mirrored_blob(at, self.blur, self.size, known, dtype), weights

    @property
    def shift(self) -> float:  # type: ignore[override]
        return 0.5 if self.compat is None else 0.0

    def decode(self, heatmaps: torch.Tensor, **options: Any) -> Peaks:
        """As :meth:`HeatmapCodec.decode`; the compatible one takes no ``transform``."""
        if self.compat is None:
            return super().decode(heatmaps, **options)
        check_maps(self, "heatmaps", heatmaps, self.size)
        found = heatmaps.detach().amax((-2, -1)) > 0
        heatmaps = _mmpose.blur(heatmaps.detach(), self.blur)
        (x, y), scores = self._peaks(heatmaps, None, options)
        (finer_x, finer_y), _ = self._peaks(heatmaps, "quarter", options)
        height, width = heatmaps.shape[-2:]
        inner = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
        coords = torch.stack((torch.where(inner, finer_x + 0.5, x), torch.where(inner, finer_y + 0.5, y)), -1)
        coords = torch.where(found[..., None], self.from_heatmap(coords), float("nan"))
        return Peaks(coords, torch.where(found, scores / 255 + 0.5, 0.0))

    def _peaks(
        self, heatmaps: torch.Tensor, refine: str | None, options: dict[str, Any]
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        coords, scores = decode_heatmaps(heatmaps, refine=refine, max_offset=None, **options)
        return coords.unbind(-1), scores


class HourglassHeatmap(GaussianCodec):
    """The maps of stacked hourglasses (Newell et al., ECCV 2016): blobs on the nearest pixel; ``align="index"``.

    ``compat="hourglass"``: as in the authors' Torch7 code, the blob is on the pixel ``floor(x)``,
    with a window of ``2 ceil(3 sigma) + 1`` pixels and a standard deviation of a quarter of that (1.75 for sigma 1);
    decoding adds half a pixel.

    Args:
        input_size: ``(w, h)`` of the net's input.
        heatmap_size: ``(w, h)`` of the maps.
        sigma: in heatmap pixels.
        compat: None or ``"hourglass"``.
    """

    peers: tuple[str, ...] = ("hourglass",)

    def __init__(self, input_size: Pair, heatmap_size: Pair, sigma: float = 1.0, compat: str | None = None) -> None:
        super().__init__(input_size, heatmap_size, sigma, compat)
        self.drawing: dict[str, Any] = self.rounded()
        self.reach = 3 * self.sigma
        if compat is not None:
            self.reach: float = math.ceil(3 * self.sigma)
            self.sigma: float = 0.25 * (2 * self.reach + 1)
            self.drawing["truncate"] = self.reach / self.sigma * (1 + 1e-6)

    @property
    def at_once(self) -> bool:
        return type(self) is HourglassHeatmap

    @property
    def placement(self) -> tuple[bool, float]:
        return self.compat is not None, self.reach

    def to_heatmap(self, keypoints: torch.Tensor) -> torch.Tensor:
        at = super().to_heatmap(keypoints)
        return at if self.compat is None else torch.floor(at)

    def weights(
        self, at: torch.Tensor, visible: torch.Tensor | None, reach: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return super().weights(at, visible, self.reach)

    @property
    def shift(self) -> float:  # type: ignore[override]
        return 0.0 if self.compat is None else 0.5

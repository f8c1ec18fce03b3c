"""Codecs of one person: a map, or three, per joint."""

import math

import torch

from ..ops._results import Peaks
from ..ops.decode_heatmaps import decode_heatmaps
from ..ops.gaussian_heatmaps import gaussian_heatmaps, scaled_heatmaps
from ..ops.offset_heatmaps import offset_heatmaps
from ._base import GaussianCodec, HeatmapCodec, cut_window, dark_for, mmpose_meets, mmpose_window

ANYWHERE = 1e30  # a reach that leaves out only what is not finite


class MSRAHeatmap(GaussianCodec):
    """Gaussian maps of Xiao et al. (ECCV 2018) and, ``unbiased``, of DARK (Zhang et al., CVPR 2020); ``align="index"``.

    Biased maps have their blob on the nearest pixel, up to three sigmas from it, and are decoded by the quarter offset;
    unbiased ones have it at the exact place, all over the map, and are decoded by DARK (below sigma 1.5 with UDP's
    narrower differences), within 0.01 map pixels where ``blur_kernel_size`` fits ``sigma``, at the borders too.

    ``compat="mmpose"``: where 3 sigma is not an integer, the window and with it the blob of joints near the left and
    the upper border is a pixel off; joints at -0.5 and below are rounded towards 0; a joint whose window ends right at
    the border keeps its weight; DARK's step is not limited, and there is none next to the border.

    Args:
        input_size, heatmap_size (tuple[int, int]): ``(w, h)``.
        sigma (float): in heatmap pixels.
        unbiased (bool): see above.
        blur_kernel_size (int): of DARK: 3 for sigma 1, 7 for sigma 1.5, 11 for sigma 2, 17 for sigma 3.
        compat (str, optional): None or ``"mmpose"``.

    Example:
        >>> codec = MSRAHeatmap((192, 256), (48, 64), 2.0, unbiased=True)
        >>> maps, weights = codec.encode(torch.tensor([[[50.3, 100.0]]]))
        >>> codec.decode(maps).coords.round(decimals=1)
        tensor([[[ 50.3000, 100.0000]]])
    """

    def __init__(self, input_size, heatmap_size, sigma, unbiased=False, blur_kernel_size=11, compat=None):
        super().__init__(input_size, heatmap_size, sigma, compat)
        self.unbiased, self.kernel_size = unbiased, blur_kernel_size
        if unbiased:
            self.refine = dark_for(self.sigma) if compat is None else "dark"
        else:
            self.drawing = self.rounded()

    def weights(self, at, visible, reach):
        if self.compat is None:
            return super().weights(at, visible, reach)
        weights, known = super().weights(at, visible, ANYWHERE)
        first, end = (at - reach, at + reach + 1) if self.unbiased else mmpose_window(at, self.sigma)[:2]
        inside = mmpose_meets(first, end, self.heatmap_size)
        return torch.where(inside, weights, 0.0), known & inside

    def draw(self, at, known, dtype):
        if self.compat is None or self.unbiased:
            return super().draw(at, known, dtype)
        return draw_windowed(at, torch.zeros_like(at), self.sigma, self.size, known, dtype)


def draw_windowed(at, offset, sigma, size, known, dtype):
    """MMPose's blobs: in a window that its rounding places, around the window's middle plus ``offset``."""
    if at.dim() != 3:
        raise ValueError("compat='mmpose' is for one person, keypoints (B, K, 2)")
    first, end, middle = mmpose_window(at, sigma)
    return cut_window(gaussian_heatmaps(middle + offset, sigma, size, visible=known, dtype=dtype), first, end)


class UDPHeatmap(GaussianCodec):
    """The maps of UDP (Huang et al., CVPR 2020): ``align="corners"``, exact centres.

    ``"gaussian"`` maps are decoded by UDP's variant of DARK. ``"combined"`` maps, three per joint, are
    :func:`offset_heatmaps` with a radius of ``radius_factor * max(heatmap_size)``: the disc's map is blurred, and the
    offset at its peak is added.

    ``compat="mmpose"``: a Gaussian ends at a window around the nearest pixel, with the faults of
    :class:`MSRAHeatmap`; of several people the last one's offsets stay; joints outside keep their weight in combined
    maps; decoding stretches by ``w / (w - 1)``, which MMPose makes up for after the codec; steps are not limited.

    Args:
        input_size, heatmap_size (tuple[int, int]): ``(w, h)``.
        heatmap_type (str): ``"gaussian"`` or ``"combined"``.
        sigma (float): of Gaussian maps, in heatmap pixels.
        radius_factor (float): of combined maps.
        blur_kernel_size (int): of the decoder: 11 for sigma 2; combined maps are blurred by twice that plus 1.
        compat (str, optional): None or ``"mmpose"``.
    """

    align = "corners"
    refine = "dark_udp"

    def __init__(
        self, input_size, heatmap_size, heatmap_type="gaussian", sigma=2.0, radius_factor=0.0546875,
        blur_kernel_size=11, compat=None,
    ):  # fmt: skip
        super().__init__(input_size, heatmap_size, sigma, compat)
        if heatmap_type not in ("gaussian", "combined"):
            raise ValueError(f"UDPHeatmap: heatmap_type must be one of gaussian, combined, got {heatmap_type!r}")
        self.heatmap_type, self.kernel_size = heatmap_type, blur_kernel_size
        self.radius = radius_factor * max(self.heatmap_size)

    def weights(self, at, visible, reach):
        combined = self.heatmap_type == "combined"
        if self.compat is None:
            return super().weights(at, visible, self.radius if combined else reach)
        weights, known = super().weights(at, visible, ANYWHERE)
        inside = known if combined else mmpose_meets(*mmpose_window(at, self.sigma)[:2], self.heatmap_size)
        return torch.where(inside, weights, 0.0), known & inside

    def draw(self, at, known, dtype):
        if self.heatmap_type == "combined":
            winner = "nearest" if self.compat is None else "last"
            return offset_heatmaps(at, self.radius, self.size, visible=known, combine=winner, dtype=dtype)
        if self.compat is None:
            return super().draw(at, known, dtype)
        return draw_windowed(at, at - torch.trunc(at + 0.5), self.sigma, self.size, known, dtype)

    def loss(self, pred, keypoints, visible=None, **options):
        if self.heatmap_type == "combined":
            raise ValueError("UDPHeatmap: loss is for heatmap_type='gaussian'; encode combined maps and compare")
        return super().loss(pred, keypoints, visible, **options)

    def decode(self, heatmaps, **options):
        """As :meth:`HeatmapCodec.decode`; combined maps are ``(B, 3 K, h, w)``."""
        if self.heatmap_type == "combined":
            # The blur mirrors the map: in a corner its peak is further than a radius from the joint.
            limit = {} if self.compat is not None else {"max_offset": 2 * self.radius}
            options = {"refine": "offset", "radius": self.radius} | limit | options
        return super().decode(heatmaps, **options)

    def from_heatmap(self, keypoints):
        if self.compat is None:
            return super().from_heatmap(keypoints)
        x, y = keypoints.unbind(-1)
        (w, h), (width, height) = self.input_size, self.heatmap_size
        return torch.stack((x / (width - 1) * w, y / (height - 1) * h), -1)


class MegviiHeatmap(HeatmapCodec):
    """The maps of CPN and MSPN (Chen et al., CVPR 2018): a pixel blurred by a kernel, its top 255; ``align="index"``.

    A joint counts for the pixel that it is in, ``floor(x)``, and the decoder adds half a pixel to the quarter offset,
    also where the peak is next to the border.

    ``compat="mmpose"``: near a border the blur is mirrored and the blob deformed; coordinates between -1 and 0 are
    in pixel 0; next to the border nothing is added; scores are divided by 255, plus 0.5.

    Args:
        input_size, heatmap_size (tuple[int, int]): ``(w, h)``.
        kernel_size (int): odd; sigma is ``0.3 ((kernel_size - 1) / 2 - 1) + 0.8``, as for OpenCV from 11 on.
        compat (str, optional): None or ``"mmpose"``.
    """

    def __init__(self, input_size, heatmap_size, kernel_size, compat=None):
        super().__init__(input_size, heatmap_size, compat)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"MegviiHeatmap: kernel_size must be odd and positive, got {kernel_size}")
        self.blur = kernel_size
        self.sigma = 0.3 * ((kernel_size - 1) / 2 - 1) + 0.8
        self.drawing = {"center": "rounded", "truncate": max((kernel_size - 1) / 2, 0.5) / self.sigma}

    def encode(self, keypoints, visible=None, *, dtype=torch.float32):
        """As :meth:`GaussianCodec.encode`; joints outside of the map draw nothing and have weight 0."""
        at = self.to_heatmap(keypoints)
        at = torch.floor(at) if self.compat is None else torch.trunc(at)
        weights, known = self.weights(at, visible, 0.0)
        if self.compat is None:
            maps = scaled_heatmaps(at, self.sigma, self.size, 255, visible=known, dtype=dtype, **self.drawing)
            return maps, weights
        return self._mirrored(at, known, dtype), weights

    def _mirrored(self, at, known, dtype):
        """The blur of a pixel whose picture is mirrored at its borders, without repeating them, divided by its peak."""
        x, y = at.unbind(-1)
        far = torch.stack((2 * (self.heatmap_size[0] - 1) - x, 2 * (self.heatmap_size[1] - 1) - y), -1)
        images = torch.stack((at, -at, far), 1)  # (B, 3, K, 2)
        seen = torch.stack((torch.ones_like(at, dtype=torch.bool), -at != at, far != at), 1)
        reach = (self.blur - 1) / 2
        weight = torch.exp(-0.5 * ((images - at[:, None]) / self.sigma) ** 2)
        peak = torch.where(seen & ((images - at[:, None]).abs() <= reach), weight, 0.0).sum(1).prod(-1)
        pairs = [(i, j) for i in range(3) for j in range(3)]
        people = torch.stack([torch.stack((images[:, i, :, 0], images[:, j, :, 1]), -1) for i, j in pairs], 1)
        drawn = torch.stack([seen[:, i, :, 0] & seen[:, j, :, 1] & known for i, j in pairs], 1)
        maps = gaussian_heatmaps(
            people, self.sigma, self.size, visible=drawn, combine="sum", dtype=dtype, **self.drawing
        )
        return maps * (255 / peak)[..., None, None].to(dtype)

    @property
    def shift(self):
        return 0.5 if self.compat is None else 0.0

    def decode(self, heatmaps, **options):
        """As :meth:`HeatmapCodec.decode`; MMPose blurs the maps once more first."""
        if self.compat is None:
            return super().decode(heatmaps, **options)
        heatmaps = self._blurred(heatmaps)
        (x, y), scores = self._peaks(heatmaps, None, options)
        (finer_x, finer_y), _ = self._peaks(heatmaps, "quarter", options)
        width, height = self.heatmap_size
        inner = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
        coords = torch.stack((torch.where(inner, finer_x + 0.5, x), torch.where(inner, finer_y + 0.5, y)), -1)
        return Peaks(self.from_heatmap(coords), scores / 255 + 0.5)

    def _blurred(self, heatmaps):
        """Zeros around the map; what the blur takes from its maximum is given back."""
        taps = torch.exp(-0.5 * ((torch.arange(self.blur, device=heatmaps.device) - self.blur // 2) / self.sigma) ** 2)
        taps = (taps / taps.sum()).to(heatmaps.dtype)
        maps = heatmaps.flatten(0, 1)[:, None]
        maps = torch.nn.functional.conv2d(maps, taps.reshape(1, 1, 1, -1), padding=(0, self.blur // 2))
        maps = torch.nn.functional.conv2d(maps, taps.reshape(1, 1, -1, 1), padding=(self.blur // 2, 0))
        maps = maps[:, 0].unflatten(0, heatmaps.shape[:2])
        return maps * (heatmaps.amax((-2, -1), keepdim=True) / maps.amax((-2, -1), keepdim=True))

    def _peaks(self, heatmaps, refine, options):
        coords, scores = decode_heatmaps(heatmaps, refine=refine, max_offset=None, **options)
        return coords.unbind(-1), scores


class HourglassHeatmap(GaussianCodec):
    """The maps of stacked hourglasses (Newell et al., ECCV 2016): a blob on the nearest pixel; ``align="index"``.

    ``compat="hourglass"``: as in the authors' Torch7 code: the blob is on the pixel that the joint is in, ``floor(x)``,
    has a window of ``2 ceil(3 sigma) + 1`` pixels and a standard deviation of a quarter of that (1.75 for sigma 1), and
    decoding adds half a pixel.

    Args:
        input_size, heatmap_size (tuple[int, int]): ``(w, h)``.
        sigma (float): in heatmap pixels.
        compat (str, optional): None or ``"hourglass"``.
    """

    peers = ("hourglass",)

    def __init__(self, input_size, heatmap_size, sigma=1.0, compat=None):
        super().__init__(input_size, heatmap_size, sigma, compat)
        self.drawing = self.rounded()
        self.reach = 3 * self.sigma
        if compat is not None:
            self.reach = math.ceil(3 * self.sigma)
            self.sigma = 0.25 * (2 * self.reach + 1)
            self.drawing["truncate"] = self.reach / self.sigma * (1 + 1e-6)

    def to_heatmap(self, keypoints):
        at = super().to_heatmap(keypoints)
        return at if self.compat is None else torch.floor(at)

    def weights(self, at, visible, reach):
        return super().weights(at, visible, self.reach)

    @property
    def shift(self):
        return 0.0 if self.compat is None else 0.5

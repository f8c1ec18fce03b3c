"""What the codecs share: two grids, weights, and decoding into input pixels."""

import torch

from ..geometry import scale_coordinates
from ..ops.decode_heatmaps import decode_heatmaps
from ..ops.gaussian_heatmaps import gaussian_heatmaps
from ..ops.heatmap_mse_loss import heatmap_mse_loss


def two(codec, name, value, kind=int):
    """A pair ``(w, h)`` of positive numbers."""
    try:
        pair = tuple(kind(v) for v in value) if isinstance(value, (tuple, list)) else (kind(value),) * 2
    except (TypeError, ValueError):
        pair = ()
    if len(pair) != 2 or not all(0 < v < float("inf") for v in pair):
        raise ValueError(f"{codec}: {name} must be two positive numbers (w, h), got {value!r}")
    return pair


# Small tensors: every operation counts as much as the drawing.


def check_joints(codec, keypoints, visible):
    if keypoints.dim() not in (3, 4) or keypoints.shape[-1] != 2:
        raise ValueError(f"{codec}: keypoints must be (B, K, 2) or (B, P, K, 2), got shape {tuple(keypoints.shape)}")
    if visible is not None and visible.shape != keypoints.shape[:-1]:
        raise ValueError(
            f"{codec}: visible must be {tuple(keypoints.shape[:-1])}, as keypoints, got shape {tuple(visible.shape)}"
        )


def within(keypoints, low, high):
    """Which points have ``low <= x <= high`` on both axes; false for those that are not finite, if the ends are."""
    inside = None
    for value, first, last in zip(keypoints.unbind(-1), low, high, strict=True):
        on_axis = (value - 0.5 * (first + last)).abs() <= 0.5 * (last - first)
        inside = on_axis if inside is None else inside & on_axis
    return inside


def weigh(keypoints, visible, known):
    """Weights, ``visible`` up to 1 or 0 for joints that are not visible or not ``known``, and which joints count."""
    if visible is None:
        return known.to(keypoints.dtype), known
    known = known & (visible >= 0.5)
    return torch.where(known, visible.to(keypoints.dtype).clamp(max=1), 0.0), known


def dark_for(sigma):
    """Which DARK decodes exact Gaussians within 0.01 pixels: the wide differences are too wide for small ones."""
    return "dark" if sigma >= 1.5 else "dark_udp"


class HeatmapCodec:
    """A codec whose targets are maps on a grid of ``heatmap_size`` over an input of ``input_size``."""

    align = "index"  # the rule of scale_coordinates between the two grids
    peers = ("mmpose",)
    refine, kernel_size = "quarter", 11  # of decode_heatmaps
    shift = 0.0  # where in its pixel a decoded joint is

    def __init__(self, input_size, heatmap_size, compat=None):
        name = type(self).__name__
        self.input_size = two(name, "input_size", input_size)
        self.heatmap_size = two(name, "heatmap_size", heatmap_size)
        if compat is not None and compat not in self.peers:
            raise ValueError(f"{name}: compat must be None or one of {', '.join(self.peers)}, got {compat!r}")
        self.compat = compat
        self._transforms = {}

    @property
    def size(self):
        """``(height, width)`` of the maps."""
        return self.heatmap_size[::-1]

    def to_heatmap(self, keypoints):
        """Input pixels to heatmap pixels."""
        return scale_coordinates(keypoints, self.input_size[::-1], self.size, align=self.align)

    def to_input(self, device, dtype=torch.float32):
        """``(2, 3)``, decoded heatmap pixels to input pixels; kept per device."""
        dtype = torch.float64 if dtype == torch.float64 else torch.float32
        if (device, dtype) not in self._transforms:
            ends = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64) + self.shift
            zero, one = self.from_heatmap(ends).tolist()
            rows = [[one[0] - zero[0], 0.0, zero[0]], [0.0, one[1] - zero[1], zero[1]]]
            self._transforms[device, dtype] = torch.tensor(rows, dtype=dtype, device=device)
        return self._transforms[device, dtype]

    def from_heatmap(self, keypoints):
        """Heatmap pixels to input pixels."""
        return scale_coordinates(keypoints, self.size, self.input_size[::-1], align=self.align)

    def weights(self, at, visible, reach):
        """Weights per joint and which joints draw: those visible whose blob of half width ``reach`` meets the map."""
        check_joints(type(self).__name__, at, visible)
        width, height = self.heatmap_size
        return weigh(at, visible, within(at, (-reach, -reach), (width - 1 + reach, height - 1 + reach)))

    def decode(self, heatmaps, **options):
        """Maps to keypoints and scores.

        Args:
            heatmaps (Tensor): ``(B, K, h, w)``.
            options: ``flipped``, ``flip_pairs``, ``flip_shift``, ``max_offset``, ... of :func:`decode_heatmaps`.

        Returns:
            Peaks: ``(B, K, 2)`` in input pixels, -1 where a map has no peak, and ``(B, K)``.
        """
        settings = {"refine": self.refine, "kernel_size": self.kernel_size}
        if self.compat == "mmpose":
            settings["compat"] = "mmpose"
        elif self.compat is not None:
            settings["max_offset"] = None
        transform = self.to_input(heatmaps.device, heatmaps.dtype)
        return decode_heatmaps(heatmaps, transform=transform, **(settings | options))


class GaussianCodec(HeatmapCodec):
    """A codec whose target is one call of :func:`gaussian_heatmaps`."""

    def __init__(self, input_size, heatmap_size, sigma, compat=None):
        super().__init__(input_size, heatmap_size, compat)
        self.sigma = float(sigma)
        if not 0 < self.sigma < float("inf"):
            raise ValueError(f"{type(self).__name__}: sigma must be positive and finite, got {sigma}")
        self.drawing = {"center": "exact", "truncate": None}

    def rounded(self):
        """The options of a blob on the nearest pixel that ends after three sigmas."""
        return {"center": "rounded", "truncate": 3.0}

    def encode(self, keypoints, visible=None, *, dtype=torch.float32):
        """Keypoints to maps.

        Args:
            keypoints (Tensor): ``(B, K, 2)``, ``(x, y)`` in input pixels; or ``(B, P, K, 2)`` for P people per map.
            visible (Tensor, optional): ``keypoints.shape[:-1]``; counts from 0.5 on.
            dtype (torch.dtype): of the maps.

        Returns:
            tuple[Tensor, Tensor]: maps ``(B, K, h, w)``, and weights of the shape of ``visible``: its values, up to 1,
            and 0 for joints that are not visible, not finite, or too far outside to draw a pixel within three sigmas.
        """
        at = self.to_heatmap(keypoints)
        weights, known = self.weights(at, visible, 3 * self.sigma)
        return self.draw(at, known, dtype), weights

    def draw(self, at, known, dtype):
        return gaussian_heatmaps(at, self.sigma, self.size, visible=known, dtype=dtype, **self.drawing)

    def loss(self, pred, keypoints, visible=None, *, weight=None, reduction="mean"):
        """:func:`heatmap_mse_loss` of predicted maps against ``encode(keypoints, visible)``, which are not made.

        ``weight`` is multiplied with the weights of ``encode``; with people, each map's largest of those counts.
        """
        if self.compat is not None:
            raise ValueError(
                f"{type(self).__name__}: loss is not defined with compat={self.compat!r}; encode and compare"
            )
        at = self.to_heatmap(keypoints)
        own, known = self.weights(at, visible, 3 * self.sigma)
        own = own.amax(1) if own.dim() == 3 else own
        weight = own if weight is None else own * weight
        return heatmap_mse_loss(
            pred, at, self.sigma, weight=weight.detach(), visible=known, reduction=reduction, **self.drawing
        )


def mmpose_window(at, sigma):
    """Where MMPose places the window of a blob: its first pixel, the one past its last, and its array's middle.

    With ``r = 3 sigma`` and integers got by dropping fractions: from ``mu - r`` to ``mu + r + 1``. The middle of the
    array that is cut to it stands ``(2 r + 1) // 2`` after its first element.
    """
    reach = 3 * sigma
    pixel = torch.trunc(at + 0.5)
    first, end = torch.trunc(pixel - reach), torch.trunc(pixel + reach + 1)
    return first, end, first + (2 * reach + 1) // 2


def mmpose_meets(first, end, heatmap_size):
    """Which windows count as meeting the map: those that end right before it too."""
    width, height = heatmap_size
    return (first[..., 0] < width) & (first[..., 1] < height) & (end >= 0).all(-1)


def cut_window(maps, first, end):
    """Sets the pixels outside of the windows to 0, in place: maps ``(B, K, H, W)``, corners ``(B, K, 2)``."""
    for axis, dim in ((0, -1), (1, -2)):
        grid = torch.arange(maps.shape[dim], device=maps.device)
        keep = (grid >= first[..., axis, None]) & (grid < end[..., axis, None])
        maps.mul_(keep[..., None, :] if dim == -1 else keep[..., :, None])
    return maps

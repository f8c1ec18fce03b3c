"""Draws poses and heatmaps on images: takes and returns PIL images.

Coordinates are ``(x, y)`` in image pixels with pixel centres at integers, as everywhere in pypose_ops.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageColor

from ._strokes import blend, near_line
from .skeletons import COCO, Skeleton

ImageLike = Image.Image | np.ndarray | torch.Tensor  # arrays and tensors are (H, W, 3) uint8

COLORS: dict[str, str] = {"left": "#ff8c1a", "right": "#1fa2ff", "centre": "#7bdc5a"}
_DPI = 64  # a power of two: size / dpi * dpi is exact, so the canvas has exactly the image's size
_FAR = 1e6  # joints further than this from the image, in pixels, are not drawn
_POINTS = 72 / _DPI  # points, matplotlib's unit of line widths and text, per pixel


def _array(values: Any, dtype: Any = np.float64) -> np.ndarray:
    """Converts a tensor on any device, or anything array-like, to a numpy array."""
    if hasattr(values, "detach"):
        values = values.detach().double().cpu().numpy()
    return np.asarray(values, dtype)


def to_image(image: ImageLike) -> Image.Image:
    """Converts a PIL image or an (H, W, 3) uint8 array or tensor to an RGB PIL image."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(_array(image, np.uint8))
    return image.convert("RGB")


def _side(*names: str) -> str:
    sides = {name.split("_")[0] for name in names} & {"left", "right"}
    return sides.pop() if len(sides) == 1 else "centre"


def _color(*names: str) -> tuple[int, int, int]:
    red, green, blue = ImageColor.getrgb(COLORS[_side(*names)])[:3]
    return red, green, blue


def _canvas(width: int, height: int, background: str = "none") -> tuple[Any, Any]:
    """A figure whose axes are the pixels of an image of this size."""
    # Here: drawing poses does without matplotlib, which takes long to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor=background)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.axis("off")
    return canvas, axes


def _rendered(canvas: Any) -> Image.Image:
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba()), "RGBA")


def draw_pose(
    image: ImageLike,
    keypoints: torch.Tensor | np.ndarray,
    scores: torch.Tensor | np.ndarray | None = None,
    skeleton: Skeleton = COCO,
    *,
    threshold: float = 0.2,
    scale: float = 1.0,
) -> Image.Image:
    """Draws the skeletons of one or several people on an image.

    The person's left side is orange, the right side blue, limbs between them green.

    Args:
        image: PIL image, or (H, W, 3) uint8 array or tensor.
        keypoints: (K, 2) or (P, K, 2), (x, y) in image pixels; non-finite joints are not drawn.
        scores: (K,) or (P, K), or None to draw every joint.
        skeleton: the :class:`~pypose_ops.skeletons.Skeleton` of the keypoints.
        threshold: joints with a lower score, and their limbs, are not drawn.
        scale: line width relative to the default, which depends on the image size.

    Returns:
        PIL image of the size of ``image``.
    """
    image = to_image(image)
    keypoints = _array(keypoints).reshape(-1, len(skeleton), 2)
    shown = np.isfinite(keypoints).all(-1)
    if scores is not None:
        shown &= _array(scores).reshape(shown.shape) >= threshold
    line = scale * max(1.5, 0.0065 * math.sqrt(image.width * image.height))
    # A dark outline keeps limbs visible on bright backgrounds.
    outline = (line + max(1.0, line / 2), (0, 0, 0), 0.55)
    pixels = np.array(image)
    size = pixels.shape[:2]
    for person, drawn in zip(keypoints, shown & (np.abs(keypoints) < _FAR).all(-1), strict=True):
        limbs = [(a, b) for a, b in skeleton.edges if drawn[a] and drawn[b]]
        near = [near_line(size, person[a], person[b], outline[0]) for a, b in limbs]
        for pixels_of_limb in near:
            blend(pixels, pixels_of_limb, [outline])
        for (a, b), pixels_of_limb in zip(limbs, near, strict=True):
            blend(pixels, pixels_of_limb, [(line, _color(skeleton.joints[a], skeleton.joints[b]), 1.0)])
        for k in np.flatnonzero(drawn):
            disc = [(2.5 * line, (255, 255, 255), 1.0), (1.7 * line, _color(skeleton.joints[k]), 1.0)]
            blend(pixels, near_line(size, person[k], person[k], disc[0][0]), disc)
    return Image.fromarray(pixels)


def whole_image(heatmap_size: Sequence[int], image_size: Sequence[int]) -> np.ndarray:
    """The affine transform (2, 3) heatmap px -> image px of maps that cover the whole image; sizes (width, height)."""
    scale = np.divide(image_size, heatmap_size)
    return np.column_stack([np.diag(scale), (scale - 1) / 2])


def warp_to_image(
    heatmap: torch.Tensor | np.ndarray, size: tuple[int, int], transform: torch.Tensor | np.ndarray
) -> np.ndarray:
    """Resamples a heatmap (H, W) to image pixels: (height, width) float32, 0 outside the map.

    Args:
        heatmap: (H, W).
        size: (width, height) of the image, as PIL has it.
        transform: (2, 3) heatmap px -> image px.
    """
    square = np.vstack([_array(transform), [0, 0, 1]])
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # PIL puts pixel centres at halves
    inverse = half @ np.linalg.inv(square) @ np.linalg.inv(half)
    source = Image.fromarray(_array(heatmap, np.float32))
    return np.asarray(source.transform(size, Image.Transform.AFFINE, inverse[:2].ravel(), Image.Resampling.BICUBIC))


def heatmap_overlay(
    image: ImageLike,
    heatmap: torch.Tensor | np.ndarray,
    transform: torch.Tensor | np.ndarray | None = None,
    *,
    vmax: float | None = None,
    cmap: str = "inferno",
) -> Image.Image:
    """Overlays a heatmap on a darkened image; colour and opacity depend on the value.

    Args:
        image: PIL image, or (H, W, 3) uint8 array or tensor.
        heatmap: (h, w); take the maximum over joints to see them all at once.
        transform: (2, 3) affine heatmap px -> image px; None: the map covers the whole image.
        vmax: the value drawn as the brightest; default: the largest of the map.
        cmap: name of a matplotlib colour map.

    Returns:
        PIL image of the size of ``image``.
    """
    from matplotlib import colormaps

    image, heatmap = to_image(image), np.nan_to_num(_array(heatmap, np.float32))
    if transform is None:
        transform = whole_image(heatmap.shape[::-1], image.size)
    value = np.clip(warp_to_image(heatmap, image.size, transform) / max(vmax or heatmap.max(), 1e-12), 0, 1)
    grey = np.asarray(image.convert("L"), np.float32)[..., None] * 0.55
    value = np.sqrt(value)  # so that faint parts of the map are visible
    opacity = value[..., None]
    blended = grey * (1 - opacity) + 255 * colormaps[cmap](0.2 + 0.8 * value)[..., :3] * opacity
    return Image.fromarray(blended.round().astype(np.uint8))


def _tile(image: ImageLike, heatmap_size: Sequence[int], transform: Any, side: int) -> Image.Image:
    """The part of the image that a map covers, scaled to ``side``, and the affine transform image px -> tile px."""
    width, height = heatmap_size
    x, y = (-0.5, width - 0.5), (-0.5, height - 0.5)
    corners = np.array([[x[i], y[j], 1] for i in (0, 1) for j in (0, 1)]) @ transform.T
    low, extent = corners.min(0), np.maximum(np.ptp(corners, axis=0), 1e-6)
    scale = side / extent.max()
    size = tuple(max(1, round(length * scale)) for length in extent)
    box = (*(low + 0.5), *(low + extent + 0.5))  # PIL puts pixel centres at halves
    crop = image.transform(size, Image.Transform.EXTENT, box, Image.Resampling.BICUBIC)
    return crop, np.array([[scale, 0, -scale * low[0] - 0.5], [0, scale, -scale * low[1] - 0.5]])


def heatmap_montage(
    image: ImageLike,
    heatmaps: torch.Tensor | np.ndarray,
    transform: torch.Tensor | np.ndarray | None = None,
    *,
    names: Sequence[str] | None = None,
    keypoints: torch.Tensor | np.ndarray | None = None,
    scores: torch.Tensor | np.ndarray | None = None,
    tile: int = 200,
    columns: int = 6,
) -> Image.Image:
    """Overlays all heatmaps of a person on the part of the image that they cover, with a common colour scale.

    The first tile shows the maximum over the joints.

    Args:
        image: PIL image, or (H, W, 3) uint8 array or tensor.
        heatmaps: (K, h, w).
        transform: (2, 3) affine heatmap px -> image px; None: the maps cover the whole image.
        names: K titles.
        keypoints: (K, 2) in image pixels, marked by a circle; scores: (K,), appended to the names.
        tile: the longer side of one tile, in pixels.
        columns: tiles in a row.

    Returns:
        PIL image.
    """
    image, heatmaps = to_image(image), np.nan_to_num(_array(heatmaps, np.float32))
    map_size = heatmaps.shape[:0:-1]
    transform = whole_image(map_size, image.size) if transform is None else _array(transform)
    crop, to_tile = _tile(image, map_size, transform, tile)
    map_to_tile = to_tile @ np.vstack([transform, [0, 0, 1]])
    titles = [f"joint {k}" for k in range(len(heatmaps))] if names is None else [n.replace("_", " ") for n in names]
    if scores is not None:
        titles = [f"{title}  {score:.2f}" for title, score in zip(titles, _array(scores), strict=True)]
    maps = [heatmaps.max(0), *heatmaps]
    rings = np.empty((0, 2)) if keypoints is None else _array(keypoints) @ to_tile[:, :2].T + to_tile[:, 2]
    rings = [rings, *rings[:, None]] if len(rings) else [rings] * len(maps)

    gap, head = 6, 20
    columns = min(columns, len(maps))
    step_x, step_y = crop.width + gap, crop.height + head + gap
    width, height = columns * step_x + gap, -(-len(maps) // columns) * step_y + gap
    canvas, axes = _canvas(width, height, background="white")
    for k, (title, values, ring) in enumerate(zip(["all joints", *titles], maps, rings, strict=True)):
        left, top = gap + k % columns * step_x, gap + head + k // columns * step_y
        panel = heatmap_overlay(crop, values, map_to_tile, vmax=heatmaps.max())
        box = (left - 0.5, left + crop.width - 0.5, top + crop.height - 0.5, top - 0.5)
        axes.imshow(panel, extent=box, interpolation="nearest")
        axes.text(left, top - 5, title, fontsize=11 * _POINTS)
        ring = ring[((ring >= 0) & (ring < crop.size)).all(-1)]
        axes.plot(*(ring + (left, top)).T, "o", markersize=11, markerfacecolor="none", markeredgecolor="white")
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))  # imshow changes the limits
    return _rendered(canvas).convert("RGB")

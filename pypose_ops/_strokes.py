"""Anti-aliased lines with round ends and discs, blended into the pixels of an image in place.

Only the pixels around a stroke are touched: a figure of matplotlib takes some 30 ms before its first line.
"""

import numpy as np

Color = tuple[int, int, int]


def stroke(pixels: np.ndarray, a: np.ndarray, b: np.ndarray, widths: list[tuple[float, Color, float]]) -> None:
    """Draws the line from ``a`` to ``b``, a disc where they are equal.

    Args:
        pixels: (H, W, 3) uint8, changed.
        a, b: (2,), (x, y), finite.
        widths: width in pixels, colour and opacity of strokes on top of one another.
    """
    height, width = pixels.shape[:2]
    margin = max(w for w, _, _ in widths) / 2 + 1
    low, high = np.minimum(a, b) - margin, np.maximum(a, b) + margin
    left, top = (int(n) for n in np.clip(np.ceil(low), 0, (width, height)))
    right, bottom = (int(n) for n in np.clip(np.floor(high) + 1, 0, (width, height)))
    if left >= right or top >= bottom:
        return
    part = pixels[top:bottom, left:right]
    distance = _distance(np.arange(left, right), np.arange(top, bottom), a, b)
    near = np.nonzero(distance < margin)
    distance = distance[near]
    values = part[near].astype(np.float32)
    for wide, color, opacity in widths:
        covered = opacity * np.clip(wide / 2 + 0.5 - distance, 0, 1)[:, None]
        values += covered * (np.array(color, np.float32) - values)
    part[near] = np.rint(values)


def _distance(xs: np.ndarray, ys: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(len(ys), len(xs)) float32: how far the pixels are from the line."""
    x, y = (xs - a[0]).astype(np.float32), (ys - a[1]).astype(np.float32)[:, None]
    dx, dy = b - a
    length = float(np.hypot(dx, dy))
    if length == 0:
        return np.hypot(x, y)
    dx, dy = np.float32(dx / length), np.float32(dy / length)
    along = x * dx + y * dy
    beyond = along - np.clip(along, 0, np.float32(length))
    return np.hypot(x * dy - y * dx, beyond)

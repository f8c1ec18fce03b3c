"""Anti-aliased lines with round ends and discs, blended into the pixels of an image in place.

Only the pixels around a stroke are touched: a figure of matplotlib takes some 30 ms before its first line.
"""

import math

import numpy as np

Color = tuple[int, int, int]
Near = tuple[np.ndarray, np.ndarray]


def near_line(size: tuple[int, int], a: np.ndarray, b: np.ndarray, width: float) -> Near:
    """The pixels that a line with round ends touches, a disc where ``a`` and ``b`` are equal.

    Args:
        size: (height, width) of the image.
        a, b: (2,), (x, y), finite.
        width: of the line, in pixels.

    Returns:
        flat indices of the pixels, and their distances (float32) from the middle of the line.
    """
    (x0, y0), (x1, y1) = a.tolist(), b.tolist()
    (rows, columns), (row, column) = size, (size[1], 1)  # how many, and the steps between them
    if abs(x1 - x0) > abs(y1 - y0):
        x0, y0, x1, y1, rows, columns, row, column = y0, x0, y1, x1, columns, rows, column, row
    # The line is steep now: every row has a short span of columns around it. Beyond the ends it is that of the end.
    dx, dy, margin, length = x1 - x0, y1 - y0, width / 2 + 1, math.hypot(x1 - x0, y1 - y0)
    first, last = math.ceil(max(0, min(y0, y1) - margin)), math.floor(min(rows - 1, max(y0, y1) + margin))
    ys = np.arange(first, last + 1)[:, None]
    reach, begin = margin, np.full(ys.shape, x0)
    if length:
        reach = margin * length / abs(dy)
        begin = x0 + np.minimum(np.maximum((ys - y0) / dy, 0), 1) * dx
    xs = np.ceil(begin - reach).astype(np.intp) + np.arange(int(2 * reach) + 1)
    x, y = (xs - x0).astype(np.float32), (ys - y0).astype(np.float32)
    if length:
        dx, dy = np.float32(dx / length), np.float32(dy / length)
        along = x * dx + y * dy
        beyond = along - np.minimum(np.maximum(along, 0), np.float32(length))
        x, y = x * dy - y * dx, beyond
    distance = np.hypot(x, y)
    touched = (distance < margin) & (xs >= 0) & (xs < columns)
    return (ys * row + xs * column)[touched], distance[touched]


def blend(pixels: np.ndarray, near: Near, strokes: list[tuple[float, Color, float]]) -> None:
    """Blends strokes along one line into an image.

    Args:
        pixels: (H, W, 3) uint8, contiguous, changed.
        near: of :func:`near_line`, with the width of the widest stroke.
        strokes: width in pixels, colour and opacity, on top of one another.
    """
    index, distance = near
    flat = pixels.reshape(-1, 3)
    values = flat[index].astype(np.float32)
    for width, color, opacity in strokes:
        covered = opacity * np.minimum(np.maximum(width / 2 + 0.5 - distance, 0), 1)[:, None]
        values += covered * (np.array(color, np.float32) - values)
    flat[index] = np.rint(values)

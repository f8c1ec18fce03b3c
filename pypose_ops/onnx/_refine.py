"""Subpixel refinement: the steps of the peak operators, computed from the window around each peak."""

import math

import numpy as np

from . import _graph as g

_RIDGE = 2.0**-23  # numpy.finfo(numpy.float32).eps, which MMPose adds
_EPSILON = 2.0**-23
_WIDE = 8  # columns of a 5 x 5 neighbourhood: ONNX Runtime multiplies small matrices faster when they have these more


def gaussian_taps(kernel_size, sigma=None):
    """The weights of ``cv2.getGaussianKernel(kernel_size, 0)``: fixed ones up to 9, the formula from 11 on."""
    fixed = {
        1: (1,),
        3: (1, 2, 1),
        5: (1, 4, 6, 4, 1),
        7: (2, 7, 14, 18, 14, 7, 2),
        9: (4, 13, 30, 51, 60, 51, 30, 13, 4),
    }
    if sigma is None and kernel_size in fixed:
        weights = np.array(fixed[kernel_size], np.float64)
    else:
        sigma = sigma or 0.3 * ((kernel_size - 1) * 0.5 - 1) + 0.8
        weights = np.exp(-((np.arange(kernel_size) - kernel_size // 2) ** 2) / (2 * sigma**2))
    return weights / weights.sum()


class Maps:
    """``(B, K, H, W)`` and M peaks in each, P = K M in an image: their columns and rows, integers ``(B, P)``.

    x and y stay apart: along an axis of two, or of one, ONNX Runtime broadcasts element by element.
    """

    def __init__(self, maps, sizes, x, y, peaks=1):
        self.maps, (self.batch, self.joints, self.height, self.width) = maps, sizes
        self.count = self.joints * peaks
        self.peak = [g.reshape(v, [self.batch, self.count]) for v in (x, y)] if peaks != 1 else [x, y]
        self.last = [self.width - 1, self.height - 1]
        self._flat = None

    def at(self, pixels, *shape):
        """Values ``(B, P, *shape)`` at flat pixel indices of that shape."""
        if self._flat is None:
            self._flat = g.reshape(self.maps, [self.batch, self.joints, -1])
        values = g.gather_elements(self._flat, g.reshape(pixels, [self.batch, self.joints, -1]))
        return g.reshape(values, [self.batch, self.count, *shape])

    def around(self, *offsets):
        """Values ``(B, P)`` at each offset ``(dx, dy)`` from the peaks; outside the map, those of its border."""
        x, y = (
            g.clamp(g.unsqueeze(peak, -1) + g.constant(away, "i"), 0, last)
            for peak, away, last in zip(self.peak, zip(*offsets, strict=True), self.last, strict=True)
        )
        values = g.transpose(self.at(y * self.width + x, len(offsets)), 2, 0, 1)
        return [g.pick(values, i, 0) for i in range(len(offsets))]

    def window(self, columns, rows, size):
        """Values ``(B, P, size, size)`` at columns and rows ``(B, P, size)`` inside the map."""
        return self.at(g.unsqueeze(rows * self.width, -1) + g.unsqueeze(columns, -2), size, size)

    def blurred(self, columns, rows, size, weights_x, weights_y):
        """``weights_y @ window @ weights_x``: ``(..., 5, size)``, ``(..., size, size)`` and ``(..., size, 8)``.

        A pixel that is not finite makes all that its window says not finite: 0 times it is NaN.
        """
        return g.matmul(g.matmul(weights_y, self.window(columns, rows, size)), weights_x)


def step(found, refine, compat, kernel_size, max_offset, covariance=False):
    """The steps ``(B, P)`` along x and y, None for none, and the covariance ``(B, P, 2, 2)`` if requested."""
    if refine is None:
        return None, None
    kernel_size = kernel_size or 1  # 0: no blur
    if refine in ("dark", "dark_udp"):
        logs = _logs_inside(found, refine, kernel_size) if compat is None else _logs_of_peers(
            found, refine, compat, kernel_size
        )  # fmt: skip
        ridge = 0.0 if compat is None or refine == "dark" else _RIDGE
        moved, spread = _newton(found, logs, refine, ridge, covariance)
        return limited(moved, max_offset, compat is None), spread
    plain = {"quarter": _quarter, "parabola": _parabola, "centroid": _centroid}[refine]
    return limited(plain(found, compat, kernel_size), max_offset), None


def limited(steps, max_offset, finite=False):
    """Limits steps along x and y to ``max_offset``; non-finite ones become 0."""
    x, y = steps
    if not finite:
        whole = g.is_finite(x + y)
        x, y = g.where(whole, x, 0.0), g.where(whole, y, 0.0)
    if max_offset is None or math.isinf(max_offset):
        return x, y
    if max_offset == 0:
        return x * 0.0, y * 0.0
    factor = max_offset / g.maximum(g.sqrt(x * x + y * y), float(max_offset))
    return x * factor, y * factor


def _quarter(found, compat, kernel_size):
    w, e, n, s = found.around((-1, 0), (1, 0), (0, -1), (0, 1))
    inside = [(peak > 1) & (peak < last) for peak, last in zip(found.peak, found.last, strict=True)]
    others = inside if compat in ("hrnet", "mmpose0") else [peak > 0 for peak in found.peak]
    steps = []
    for low, high, here, other in ((w, e, inside[0], others[1]), (n, s, inside[1], others[0])):
        towards = (g.cast(high > low, "f") - g.cast(high < low, "f")) * 0.25
        steps.append(g.where(here & other, towards, 0.0))
    return steps


def _parabola(found, compat, kernel_size):
    middle, w, e, n, s = found.around((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
    steps = []
    for before, after, peak, last in ((w, e, found.peak[0], found.last[0]), (n, s, found.peak[1], found.last[1])):
        curvature = before - middle * 2.0 + after
        curved = (peak > 0) & (peak < last) & (curvature < 0.0)
        steps.append(g.where(curved, (before - after) * 0.5 / g.where(curved, curvature, -1.0), 0.0))
    return steps


def _places(center, reach):
    """The columns or rows of a window around centres, ``(B, P, 2 reach + 1)``."""
    return g.unsqueeze(center, -1) + g.constant(np.arange(-reach, reach + 1), "i")


def _inside(columns, rows, last):
    """Which pixels at columns and rows are in the map, ``(B, P, n, n)``."""
    x, y = ((places >= 0) & (places <= end) for places, end in zip((columns, rows), last, strict=True))
    return g.unsqueeze(y, -1) & g.unsqueeze(x, -2)


def _centroid(found, compat, size):
    columns, rows = (_places(peak, size // 2) for peak in found.peak)
    inside = _inside(columns, rows, found.last)
    window = found.window(g.clamp(columns, 0, found.last[0]), g.clamp(rows, 0, found.last[1]), size)
    weight = g.where(inside & g.is_finite(window) & (window > 0.0), window, 0.0)
    offset = g.constant(np.arange(size) - size // 2, "f")
    total = g.reduce("Sum", weight, [-2, -1])
    return [g.reduce("Sum", g.reduce("Sum", weight, [axis]) * offset, [-1]) / total for axis in (-2, -1)]


class _Logs:
    """Logarithms of a blurred map around a centre: ``values (B, P, 5, 8)``, of which 5 columns count; ``shift`` is
    where the centre is from the peak, along x and y.

    ``valid (B, P)``: a step may be taken; ``definite``: only where there is a maximum.
    """

    def __init__(self, values, shift, valid, definite):
        self.values, self.shift, self.valid, self.definite = values, shift, valid, definite


def _distance(radius):
    """Offsets of the pixels of a window from each of the five columns or rows: ``(5, n)``."""
    return np.arange(-radius - 2, radius + 3) - np.arange(-2, 3)[:, None]


def _columns(weights):
    """``(..., 5, n)`` for the rows as ``(..., n, 8)`` for the columns."""
    wider = [(0, 0)] * (weights.ndim - 2) + [(0, _WIDE - 5), (0, 0)]
    return g.constant(np.pad(weights, wider).swapaxes(-1, -2), "f")


def _middle(values):
    return g.pick(g.pick(values, 2, -2), 2)


def _logs_inside(found, refine, kernel_size):
    """At the centre closest to the peak whose differences stay in the map; the blur is narrowed until it does, too."""
    reach, radius = 2 if refine == "dark" else 1, kernel_size // 2
    distance = _distance(radius)
    taps = gaussian_taps(kernel_size)[(distance + radius).clip(0, kernel_size - 1)]
    # For every width of the blur, the weights of the window for the five blurred columns or rows.
    table = np.stack([np.where(np.abs(distance) <= room, taps, 0) for room in range(radius + 1)])
    places, weights, shift = [], [], []
    for peak, last, widths in zip(found.peak, found.last, (_columns(table), g.constant(table, "f")), strict=True):
        most = last - reach
        center = g.minimum(g.maximum(peak, reach), most)
        room = g.clamp(g.minimum(center - reach, most - center), 0, radius)
        places.append(g.clamp(_places(center, radius + 2), 0, last))
        weights.append(g.gather(widths, room, 0))
        shift.append(g.cast(center - peak, "f"))
    blurred = found.blurred(*places, kernel_size + 4, *weights)
    valid = g.is_finite(_middle(blurred))
    smallest = g.minimum(found.height, found.width)
    if isinstance(smallest, g.Value):
        valid = valid & (smallest > 2 * reach)
    elif smallest <= 2 * reach:
        valid = valid & ~valid
    return _Logs(g.log(g.maximum(blurred, 1e-10)), shift, valid, True)


def _logs_of_peers(found, refine, compat, kernel_size):
    radius = kernel_size // 2
    border = {"mmpose0": "reflect101", "hf": "reflect"}.get(compat, "zeros") if refine == "dark_udp" else "zeros"
    distance = _distance(radius)
    taps = gaussian_taps(kernel_size, 0.8 if compat == "hf" else None)[(distance + radius).clip(0, kernel_size - 1)]
    taps = np.where(np.abs(distance) <= radius, taps, 0)
    window = [_places(peak, radius + 2) for peak in found.peak]
    places, weights = [], []
    for axis, (index, last, taken) in enumerate(
        zip(window, found.last, (_columns(taps), g.constant(taps, "f")), strict=True)
    ):
        if border == "zeros":
            counted = g.cast((index >= 0) & (index <= last), "f")
            weights.append(taken * g.unsqueeze(counted, -1 - axis))
            places.append(g.clamp(index, 0, last))
        else:
            weights.append(taken)
            places.append(reflected(index, last + 1, border))
    blurred = found.blurred(*places, kernel_size + 4, *weights)
    finite = g.is_finite(_middle(blurred))
    if refine == "dark":
        for peak, last in zip(found.peak, found.last, strict=True):
            finite = finite & (peak >= 2) & (peak <= last - 2)
        return _Logs(g.log(g.maximum(blurred, 1e-10)), None, finite, False)
    if compat == "mmpose":
        blurred = _as_high_as_before(found, blurred)
    blurred = _borders_repeated(found, blurred)
    return _Logs(g.log(g.clamp(blurred, 1e-3, 50.0)), None, finite, False)


def _as_high_as_before(found, blurred):
    """Scales the highest of the 13 pixels in the map to the height of the peak."""
    diamond = np.abs(np.arange(-2, 3)) + np.abs(np.arange(-2, 3))[:, None] <= 2
    inside = _inside(*(_places(peak, 2) for peak in found.peak), found.last) & g.constant(diamond)
    highest = g.reduce("Max", g.where(inside, g.slices(blurred, 0, 5), 0.0), [-2, -1])
    (top,) = found.around((0, 0))
    return blurred * g.unsqueeze(top / highest, -1, -2)


def _borders_repeated(found, blurred):
    """Pixels outside the map are replaced by those at its border."""
    columns, lines = (
        g.clamp(_places(peak, 2), 0, last) - g.unsqueeze(peak, -1) + 2  # (B, P, 5)
        for peak, last in zip(found.peak, found.last, strict=True)
    )
    columns = g.expand(g.unsqueeze(columns, -2), [found.batch, found.count, 5, 5])
    lines = g.expand(g.unsqueeze(lines, -1), [found.batch, found.count, 5, _WIDE])
    blurred = g.gather_elements(blurred, g.concat([columns, g.slices(columns, 0, _WIDE - 5)]))
    return g.gather_elements(blurred, lines, -2)


def reflected(index, size, border):
    """Which pixels of a line of ``size`` stand at ``index``: dcb|abcd|cba, or with the border twice cba|abcd|dcb."""
    twice = 0 if border == "reflect101" else 1
    period = g.maximum(size * 2 - (2 - 2 * twice), 1)
    index = (index % period + period) % period
    return g.minimum(index, period - twice - index)


def _differences(refine):
    """Of 5 x 8 logarithms, rows of y: the derivatives dx, dy, dxx, dyy, dxy, and the middle one."""
    table = np.zeros((5, _WIDE, 6))
    table[2, (3, 1), 0] = table[(3, 1), 2, 1] = 0.5, -0.5
    if refine == "dark":
        table[2, (4, 2, 0), 2] = table[(4, 2, 0), 2, 3] = 0.25, -0.5, 0.25
        table[(3, 1, 1, 3), (3, 3, 1, 1), 4] = 0.25, -0.25, 0.25, -0.25
    else:
        table[2, (3, 2, 1), 2] = table[(3, 2, 1), 2, 3] = 1, -2, 1
        table[(3, 2, 3, 2, 2, 1, 1), (3, 3, 2, 2, 1, 2, 1), 4] = 0.5, -0.5, -0.5, 1, -0.5, -0.5, 0.5
    table[2, 2, 5] = 1
    return table.reshape(-1, 6)


def _newton(found, logs, refine, ridge, covariance):
    """The step to the maximum of the Gaussian, and its covariance; NaN if there is no maximum."""
    table = g.matmul(g.reshape(logs.values, [-1, 5 * _WIDE]), g.constant(_differences(refine), "f"))
    table = g.reshape(g.transpose(table, 1, 0), [6, found.batch, found.count])
    dx, dy, dxx, dyy, dxy, middle = (g.pick(table, i, 0) for i in range(6))
    if ridge:
        dxx, dyy = dxx + ridge, dyy + ridge
    determinant = dxx * dyy - dxy * dxy
    least = (g.absolute(middle) + 1.0) * (64 * _EPSILON)
    valid = logs.valid & (dxx < 0.0) & (dyy < 0.0) & (determinant > -(dxx + dyy) * least)
    moved = [(dxy * dy - dyy * dx) / determinant, (dxy * dx - dxx * dy) / determinant]
    if logs.shift is not None:
        moved = [shift + more for shift, more in zip(logs.shift, moved, strict=True)]
    moved = [g.where(valid if logs.definite else logs.valid, each, 0.0) for each in moved]
    if not covariance:
        return moved, None
    spread = g.stack([-dyy, dxy, dxy, -dxx]) / g.unsqueeze(determinant, -1)
    spread = g.where(g.unsqueeze(valid, -1), spread, float("nan"))
    return moved, g.reshape(spread, [found.batch, found.count, 2, 2])

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
    """``(B, K, H, W)`` and one peak, or M, in each: ``peak`` is ``(B, K, M, 2)``, integers ``(x, y)``."""

    def __init__(self, maps, sizes, peak, peaks):
        self.maps, (self.batch, self.joints, self.height, self.width) = maps, sizes
        self.peak, self.peaks = peak, peaks
        self.last = g.shape_of([self.width - 1, self.height - 1])
        self._flat = None

    def at(self, pixels):
        """Values at flat pixel indices ``(B, K, n)``."""
        if self._flat is None:
            self._flat = g.reshape(self.maps, [self.batch, self.joints, -1])
        return g.gather_elements(self._flat, pixels)

    def around(self, *offsets):
        """Values ``(B, K, M)`` at each offset ``(dx, dy)`` from the peaks; outside the map, those of its border."""
        places = g.clamp(g.unsqueeze(self.peak, -2) + g.constant(offsets, "i"), 0, self.last)  # (B, K, M, n, 2)
        pixels = g.pick(places, 1) * self.width + g.pick(places, 0)
        values = self.at(g.reshape(pixels, [self.batch, self.joints, -1]))
        values = g.reshape(values, [self.batch, self.joints, self.peaks, len(offsets)])
        return [g.pick(values, i) for i in range(len(offsets))]

    def window(self, places, size):
        """Values ``(B, K, M, size, size)`` at columns and rows ``places (B, K, M, 2, size)`` inside the map."""
        columns, rows = g.pick(places, 0, -2), g.pick(places, 1, -2)
        pixels = g.unsqueeze(rows * self.width, -1) + g.unsqueeze(columns, -2)
        values = self.at(g.reshape(pixels, [self.batch, self.joints, -1]))
        return g.reshape(values, [self.batch, self.joints, self.peaks, size, size])

    def blurred(self, places, size, weights_x, weights_y):
        """``weights_y @ window @ weights_x``: ``(..., 5, size)``, ``(..., size, size)`` and ``(..., size, 8)``.

        A pixel that is not finite makes all that its window says not finite: 0 times it is NaN.
        """
        if self.peaks != 1:
            return g.matmul(g.matmul(weights_y, self.window(places, size)), weights_x)
        # Whole rows are gathered; single columns only from the result of the first product.
        columns, rows = g.pick(places, 0, -2), g.pick(places, 1, -2)
        number = g.reshape(g.arange(self.batch * self.joints), [self.batch, self.joints, 1, 1])
        lines = g.gather(g.reshape(self.maps, [-1, self.width]), number * self.height + rows, 0)  # (B, K, 1, n, W)
        lines = g.matmul(weights_y, lines)
        index = g.expand(g.unsqueeze(columns, -2), [self.batch, self.joints, 1, 5, size])
        return g.matmul(g.gather_elements(lines, index), weights_x)


def step(found, refine, compat, kernel_size, max_offset, covariance=False):
    """The step ``(B, K, M, 2)``, None for none, and the covariance ``(B, K, M, 2, 2)`` if requested."""
    if refine is None:
        return None, None
    kernel_size = kernel_size or 1  # 0: no blur
    if refine in ("dark", "dark_udp"):
        logs = _logs_inside(found, refine, kernel_size) if compat is None else _logs_of_peers(
            found, refine, compat, kernel_size
        )  # fmt: skip
        moved, spread = _newton(logs, refine, 0.0 if compat is None or refine == "dark" else _RIDGE, covariance)
        return limited(moved, max_offset, compat is None), spread
    plain = {"quarter": _quarter, "parabola": _parabola, "centroid": _centroid}[refine]
    return limited(plain(found, compat, kernel_size), max_offset), None


def limited(step, max_offset, finite=False):
    """Limits steps to ``max_offset``; non-finite steps become 0."""
    if not finite:
        whole = g.is_finite(g.reduce("Sum", step, [-1], keepdims=True))
        step = g.where(whole, step, 0.0)
    if max_offset is None or math.isinf(max_offset):
        return step
    if max_offset == 0:
        return step * 0.0
    length = g.sqrt(g.reduce("Sum", step * step, [-1], keepdims=True))
    return step * (max_offset / g.maximum(length, float(max_offset)))


def _quarter(found, compat, kernel_size):
    peak = found.peak
    w, e, n, s = found.around((-1, 0), (1, 0), (0, -1), (0, 1))
    low, high = g.stack([w, n]), g.stack([e, s])
    towards = (g.cast(high > low, "f") - g.cast(high < low, "f")) * 0.25
    inside = (peak > 1) & (peak < found.last)
    other = inside if compat in ("hrnet", "mmpose0") else peak > 0
    return g.where(inside & g.gather(other, [1, 0], -1), towards, 0.0)


def _parabola(found, compat, kernel_size):
    middle, w, e, n, s = found.around((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
    before, after = g.stack([w, n]), g.stack([e, s])
    curvature = before - g.unsqueeze(middle, -1) * 2.0 + after
    curved = (found.peak > 0) & (found.peak < found.last) & (curvature < 0.0)
    return g.where(curved, (before - after) * 0.5 / g.where(curved, curvature, -1.0), 0.0)


def _places(center, reach):
    """The columns and rows of a window around centres, ``(B, K, M, 2, 2 reach + 1)``."""
    return g.unsqueeze(center, -1) + g.constant(np.arange(-reach, reach + 1), "i")


def _centroid(found, compat, size):
    places = _places(found.peak, size // 2)
    last = g.unsqueeze(found.last, -1)
    inside = (places >= 0) & (places <= last)
    inside = g.unsqueeze(g.pick(inside, 1, -2), -1) & g.unsqueeze(g.pick(inside, 0, -2), -2)
    window = found.window(g.clamp(places, 0, last), size)
    weight = g.where(inside & g.is_finite(window) & (window > 0.0), window, 0.0)
    offset = g.constant(np.arange(size) - size // 2, "f")
    moments = [g.reduce("Sum", g.reduce("Sum", weight, [axis]) * offset, [-1]) for axis in (-2, -1)]
    return g.stack(moments) / g.reduce("Sum", g.reduce("Sum", weight, [-1]), [-1], keepdims=True)


class _Logs:
    """Logarithms of a blurred map around a centre: ``values (B, K, M, 5, 8)``, of which 5 columns count; ``shift`` is
    where the centre is from the peak.

    ``valid (B, K, M, 1)``: a step may be taken; ``definite``: only where there is a maximum.
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
    return g.unsqueeze(g.pick(g.pick(values, 2), 2), -1)


def _logs_inside(found, refine, kernel_size):
    """At the centre closest to the peak whose differences stay in the map; the blur is narrowed until it does, too."""
    reach, radius = 2 if refine == "dark" else 1, kernel_size // 2
    distance = _distance(radius)
    taps = gaussian_taps(kernel_size)[(distance + radius).clip(0, kernel_size - 1)]
    # For every width of the blur, the weights of the window for the five blurred columns or rows.
    table = np.stack([np.where(np.abs(distance) <= room, taps, 0) for room in range(radius + 1)])
    most = found.last - reach
    center = g.minimum(g.maximum(found.peak, reach), most)
    room = g.clamp(g.minimum(center - reach, most - center), 0, radius)
    weights_x = g.gather(_columns(table), g.pick(room, 0), 0)
    weights_y = g.gather(g.constant(table, "f"), g.pick(room, 1), 0)
    places = g.clamp(_places(center, radius + 2), 0, g.unsqueeze(found.last, -1))
    blurred = found.blurred(places, kernel_size + 4, weights_x, weights_y)
    valid = g.is_finite(_middle(blurred))
    smallest = g.minimum(found.height, found.width)
    if isinstance(smallest, g.Value):
        valid = valid & (smallest > 2 * reach)
    elif smallest <= 2 * reach:
        valid = valid & ~valid
    return _Logs(g.log(g.maximum(blurred, 1e-10)), g.cast(center - found.peak, "f"), valid, True)


def _logs_of_peers(found, refine, compat, kernel_size):
    radius = kernel_size // 2
    border = {"mmpose0": "reflect101", "hf": "reflect"}.get(compat, "zeros") if refine == "dark_udp" else "zeros"
    distance = _distance(radius)
    taps = gaussian_taps(kernel_size, 0.8 if compat == "hf" else None)[(distance + radius).clip(0, kernel_size - 1)]
    taps = np.where(np.abs(distance) <= radius, taps, 0)
    weights_x, weights_y = _columns(taps), g.constant(taps, "f")
    places, last = _places(found.peak, radius + 2), g.unsqueeze(found.last, -1)
    inside = (places >= 0) & (places <= last)
    if border == "zeros":
        counted = g.cast(inside, "f")
        weights_x = weights_x * g.unsqueeze(g.pick(counted, 0, -2), -1)
        weights_y = weights_y * g.unsqueeze(g.pick(counted, 1, -2), -2)
        places = g.clamp(places, 0, last)
    else:
        places = reflected(places, last + 1, border)
    blurred = found.blurred(places, kernel_size + 4, weights_x, weights_y)
    finite = g.is_finite(_middle(blurred))
    if refine == "dark":
        inner = g.cast((found.peak >= 2) & (found.peak <= found.last - 2), "f")
        finite = finite & (g.reduce("Min", inner, [-1], keepdims=True) > 0.5)
        return _Logs(g.log(g.maximum(blurred, 1e-10)), None, finite, False)
    if compat == "mmpose":
        blurred = _as_high_as_before(found, blurred, g.slices(inside, radius, radius + 5))
    blurred = _borders_repeated(found, blurred)
    return _Logs(g.log(g.clamp(blurred, 1e-3, 50.0)), None, finite, False)


def _as_high_as_before(found, blurred, inside):
    """Scales the highest of the 13 pixels in the map to the height of the peak."""
    diamond = np.abs(np.arange(-2, 3)) + np.abs(np.arange(-2, 3))[:, None] <= 2
    inside = g.unsqueeze(g.pick(inside, 1, -2), -1) & g.unsqueeze(g.pick(inside, 0, -2), -2) & g.constant(diamond)
    highest = g.reduce("Max", g.where(inside, g.slices(blurred, 0, 5), 0.0), [-2, -1], keepdims=True)
    (top,) = found.around((0, 0))
    return blurred * (g.unsqueeze(top, -1, -2) / highest)


def _borders_repeated(found, blurred):
    """Pixels outside the map are replaced by those at its border."""
    peak = g.unsqueeze(found.peak, -1)
    index = g.clamp(_places(found.peak, 2), 0, g.unsqueeze(found.last, -1)) - peak + 2  # (B, K, M, 2, 5)
    shape = [found.batch, found.joints, found.peaks, 5]
    columns = g.expand(g.unsqueeze(g.pick(index, 0, -2), -2), [*shape, 5])
    lines = g.expand(g.unsqueeze(g.pick(index, 1, -2), -1), [*shape, _WIDE])
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


def _newton(logs, refine, ridge, covariance):
    """The step to the maximum of the Gaussian, and its covariance; NaN if there is no maximum."""
    flat = g.op("Reshape", logs.values, g.constant([0, 0, 0, -1], "i"))
    found = g.matmul(flat, g.constant(_differences(refine), "f"))
    first, second, cross, middle = (g.slices(found, *ends) for ends in ((0, 2), (2, 4), (4, 5), (5, 6)))
    if ridge:
        second = second + ridge
    second_of_other = g.gather(second, [1, 0], -1)
    determinant = g.slices(second, 0, 1) * g.slices(second, 1, 2) - cross * cross
    least = (g.absolute(middle) + 1.0) * (64 * _EPSILON)
    maximum = g.reduce("Max", second, [-1], keepdims=True) < 0.0
    maximum = maximum & (determinant > -g.reduce("Sum", second, [-1], keepdims=True) * least)
    moved = (cross * g.gather(first, [1, 0], -1) - second_of_other * first) / determinant
    if logs.shift is not None:
        moved = logs.shift + moved
    valid = logs.valid & maximum
    moved = g.where(valid if logs.definite else logs.valid, moved, 0.0)
    if not covariance:
        return moved, None
    spread = g.concat([-g.slices(second, 1, 2), cross, cross, -g.slices(second, 0, 1)]) / determinant
    spread = g.where(valid, spread, float("nan"))
    return moved, g.op("Reshape", spread, g.constant([0, 0, 0, 2, 2], "i"))

"""Random sizes, values, layouts and options: everything about a call is drawn from its seed and number alone."""

import math

import numpy as np
import torch
from contract_tools import LAYOUTS, strided

MAP_DTYPES = (torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16)
COORDINATE_DTYPES = (torch.float32, torch.float32, torch.float64)
NOT_FINITE = (math.nan, math.inf, -math.inf)
EXTREME = (1e30, -1e30, 3e38, -3e38, 1e-38, -1e-40, 1e-45, 65504.0, 0.0, -0.0)


class Draw:
    """The random numbers of one call."""

    def __init__(self, seed, number, scale=1):
        self.random = np.random.default_rng([seed, number])
        self.scale = scale  # of the sizes: larger ones reach the kernels' other paths, and the thread pool
        # Most calls are ordinary numbers: a NaN in every call would leave few values to compare.
        self.strange = self.chance(0.25)

    def chance(self, probability):
        return self.random.random() < probability

    def pick(self, choices):
        return choices[int(self.random.integers(len(choices)))]

    def integer(self, low, high):
        """From low to high, both included."""
        return int(self.random.integers(low, high + 1))

    def uniform(self, low, high):
        return float(self.random.uniform(low, high))

    def log_uniform(self, low, high):
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def count(self, high, empty=0.03):
        """A small number of things, sometimes 0."""
        return 0 if self.chance(empty) else self.integer(1, high * self.scale)

    def size(self, high=20):
        """(height, width) of a map, from one pixel on."""
        high = high * self.scale
        if self.chance(0.1):
            return self.pick([(1, 1), (1, high), (high, 1), (2, 2), (33, 5), (7, 65)])
        return self.integer(1, high), self.integer(1, high)

    # Tensors ----------------------------------------------------------------------------------------------------------

    def tensor(self, values, dtype):
        """Values in a dtype and a random layout."""
        out = torch.as_tensor(np.asarray(values)).to(dtype)
        return strided(out, self.pick(LAYOUTS)) if self.chance(0.3) else out

    def values(self, shape):
        """float64 numbers of one of several characters, as numpy's."""
        kind = self.pick(("unit", "unit", "signed", "signed", "few", "sparse", "magnitudes", "constant"))
        unit = self.random.random(shape)
        if kind == "unit":
            out = unit
        elif kind == "signed":
            out = 2 * unit - 1
        elif kind == "few":  # ties
            out = np.floor(unit * 4) / 4
        elif kind == "sparse":
            out = np.where(unit < 0.15, self.random.random(shape), 0.0)
        elif kind == "magnitudes":
            out = 10.0 ** (8 * unit - 4)
        else:
            out = np.full(shape, self.pick((0.0, 0.25, -1.0, 1.0)))
        return self.spoil(out)

    def maps(self, shape):
        """Like values, or smooth peaks as a network gives them, (..., H, W)."""
        return self.spoil(self.peaks(shape)) if self.chance(0.4) else self.values(shape)

    def one_sided(self, values):
        """Values for a blur: large negative ones are smaller than large positive ones.

        What a symmetric blur leaves of 1e30 to the left and -1e30 to the right is rounding alone, anything from 0 to
        1e23, and DARK takes its logarithm.
        """
        return np.where((values < -1e20) & np.isfinite(values), 0.3 * values, values)

    def peaks(self, shape):
        """Maps (..., H, W) with one smooth peak each."""
        height, width = shape[-2:]
        center = self.random.random((*shape[:-2], 2)) * [width + 1, height + 1] - 1
        sigma = self.uniform(0.7, 3)
        x = np.exp(-0.5 * ((np.arange(width) - center[..., :1]) / sigma) ** 2)
        y = np.exp(-0.5 * ((np.arange(height) - center[..., 1:]) / sigma) ** 2)
        noise = 0.05 * self.random.random(shape) if self.chance(0.5) else 0.0
        return x[..., None, :] * y[..., :, None] + noise

    def points(self, shape, size, reach=2.0):
        """Coordinates (*shape, 2) in and around a map: anywhere, on pixels, between them, or all in one place."""
        height, width = size
        out = self.random.random((*shape, 2)) * [width + 2 * reach - 1, height + 2 * reach - 1] - reach
        kind = self.pick(("anywhere", "anywhere", "anywhere", "pixels", "halves", "one"))
        if kind == "pixels":
            out = np.round(out)
        elif kind == "halves":
            out = np.round(2 * out) / 2
        elif kind == "one" and out.size:
            out = np.broadcast_to(out.reshape(-1, 2)[0], out.shape).copy()
        return self.spoil(out, (1e6, -1e6, 1e5, -0.5, 1e9))

    def spoil(self, values, extra=(), kinds=None):
        """Some of the values replaced by NaN, infinity, huge or tiny ones, in strange calls."""
        if not self.strange or not self.chance(0.6):
            return values
        kinds = kinds or self.pick((NOT_FINITE, EXTREME + extra, NOT_FINITE + EXTREME + extra))
        where = self.random.random(values.shape) < self.pick((0.05, 0.3, 1.0))
        return np.where(where, np.asarray(kinds)[self.random.integers(len(kinds), size=values.shape)], values)

    def bounded(self, values, limit):
        """The finite values clipped: where larger ones would only show that sums overflow."""
        return np.where(np.isfinite(values), np.clip(values, -limit, limit), values)

    # Options ----------------------------------------------------------------------------------------------------------

    def number(self, low, high, extremes=(1e-3, 1e3)):
        """A positive number, in strange calls sometimes an extreme one."""
        if self.strange and self.chance(0.15):
            return self.pick(extremes)
        return self.pick((self.log_uniform(low, high), float(round(self.log_uniform(low, high) + 0.5))))

    def visible(self, shape):
        """None, flags, or COCO's numbers, of the whole shape or broadcast to it."""
        if self.chance(0.5):
            return None
        shape = tuple(1 if self.chance(0.1) else n for n in shape)[self.pick((0, 0, 0, min(1, len(shape) - 1))) :]
        flags = self.random.random(shape) < self.pick((0.7, 0.7, 0.0))
        kind = self.pick(("bool", "coco", "share"))
        if kind == "bool":
            return torch.as_tensor(flags)
        if kind == "coco":
            return torch.as_tensor(np.where(flags, self.random.integers(1, 3, size=shape), 0))
        return self.tensor(self.spoil(np.where(flags, 0.5, 0.49) * np.ones(shape)), torch.float32)

    def transform(self, batch):
        """None, or affine maps (2, 3) or (B, 2, 3)."""
        if self.chance(0.6):
            return None
        shape = self.pick(((2, 3), (batch, 2, 3)))
        values = self.spoil(self.random.normal(size=shape) * [3, 3, 50], kinds=(math.nan, *EXTREME))
        return self.tensor(self.bounded(values, 1e10), self.pick(COORDINATE_DTYPES))

    def limbs(self, joints, most=4, distinct=False):
        """Pairs of joints; of different ones where that is asked for."""
        if joints < (2 if distinct else 1):
            return []
        pairs = []
        for _ in range(self.count(most, empty=0.05)):
            a, b = self.integer(0, joints - 1), self.integer(0, joints - 1)
            if distinct and a == b:
                b = (a + 1) % joints
            pairs.append((a, b))
        return pairs

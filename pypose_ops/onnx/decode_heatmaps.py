"""decode_heatmaps and UDP's combined maps: one peak per map."""

from ..ops._peak_arguments import COMPATS, REFINES
from . import _graph as g
from ._refine import Maps, gaussian_taps, limited, reflected, step

_OP = "decode_heatmaps"


def decode_heatmaps(
    heatmaps, refine, compat, kernel_size, flipped, flip_index, flip_shift, transform, max_offset, covariance
):
    maps = merged(g.floating(_OP, "heatmaps", heatmaps), flipped, flip_index, flip_shift)
    sizes = g.sizes_of(g.Value(heatmaps, None))
    peak, scores = highest(maps, sizes)
    found = Maps(maps, sizes, g.unsqueeze(peak, 2), 1)
    moved, spread = step(found, REFINES[refine], COMPATS[compat], kernel_size, max_offset, covariance)
    coords = g.cast(peak, "f")
    if moved is not None:
        coords = coords + g.squeeze(moved, 2)
    transform = None if transform is None else g.as_float(transform)
    spread = _covariance(g.squeeze(spread, 2), scores, transform) if covariance else g.constant([], "f")
    return placed(coords, scores, transform), g.op("Identity", scores).value, spread.value


def placed(coords, scores, transform):
    """Coordinates, through the affine where there is one, -1 where there is no peak."""
    if transform is not None:
        coords = g.affine(coords, transform)
    return g.where(g.unsqueeze(scores > 0.0, -1), coords, -1.0).value


def _covariance(spread, scores, transform):
    if transform is not None:
        linear = g.linear(transform, 2)
        for _ in range(2):  # A C, then (A C)^T is C A^T: A (A C)^T = A C A^T
            spread = g.reduce("Sum", g.unsqueeze(linear, -1) * g.unsqueeze(spread, -3), [-2])
            spread = g.transpose(spread, 0, 1, 3, 2)
    return g.where(g.unsqueeze(scores > 0.0, -1, -2), spread, float("nan"))


def merged(maps, flipped, flip_index, flip_shift, signs=None):
    """The mean of the maps and their mirrored twins."""
    if flipped is None:
        return maps
    back = g.slices(g.gather(g.as_float(flipped), flip_index, 1), -1, -(2**62), -1, -1)
    if flip_shift:
        back = g.concat([g.slices(back, 0, 1), g.slices(back, 0, -1)])
    if signs is not None:
        back = back * signs
    return maps * 0.5 + back * 0.5


def highest(maps, sizes):
    """The first highest finite pixel of every map, ``(B, K, 2)``, and its value, 0 where none is positive.

    Maximum and sum are what runtimes do fastest: the sum tells whether a pixel is not finite anywhere, and only then
    the maps are copied without those; the place is looked for in the maxima of the rows, then in one row.
    """
    total = g.op("ReduceSum", g.reduce("Sum", maps, [-2, -1]), keepdims=0)  # in two: a sum of all is one thread's
    number = g.reshape(g.arange(sizes[0] * sizes[1]), sizes[:2])

    def search(maps):
        lines = g.reduce("Max", maps, [-1])
        y = g.arg_max(lines)
        line = g.gather(g.reshape(maps, [-1, sizes[3]]), number * sizes[2] + y, 0)  # (B, K, W)
        return g.stack([g.arg_max(line), y]), g.reduce("Max", line, [-1])

    peak, value = g.either(
        g.is_finite(total), lambda: search(maps), lambda: search(g.where(g.is_finite(maps), maps, -1.0))
    )
    return peak, g.maximum(value, 0.0)


def decode_offsets(heatmaps, kernel_size, radius, flipped, flip_index, flip_shift, transform, max_offset):
    maps = g.floating(_OP, "heatmaps", heatmaps)
    batch, channels, height, width = g.sizes_of(g.Value(heatmaps, None))
    joints = channels // 3
    split = [batch, joints, 3, height, width]
    maps = g.reshape(maps, split)
    if flipped is not None:
        signs = g.constant([[[1.0]], [[-1.0]], [[1.0]]], "f")  # class, x, y: x points the other way
        flipped = g.reshape(g.as_float(flipped), split).value
        maps = merged(maps, flipped, flip_index, flip_shift, signs)
    parts = [g.pick(maps, part, 2) for part in range(3)]
    sizes = [batch, joints, height, width]
    blurred = _blurred(parts[0], sizes, gaussian_taps(2 * kernel_size + 1))
    peak, scores = highest(blurred, sizes)
    moved = [Maps(part, sizes, g.unsqueeze(peak, 2), 1).around((0, 0))[0] for part in parts[1:]]
    coords = g.cast(peak, "f") + g.squeeze(limited(g.stack(moved) * radius, max_offset), 2)
    transform = None if transform is None else g.as_float(transform)
    return placed(coords, scores, transform), g.op("Identity", scores).value


def _blurred(maps, sizes, taps):
    """With borders reflected at the outermost pixels; what is not finite counts as 0."""
    batch, joints, height, width = sizes
    radius = len(taps) // 2
    planes = g.where(g.is_finite(maps), maps, 0.0)
    planes = g.reshape(planes, [-1, 1, height, width])
    for axis, size in ((2, height), (3, width)):
        index = reflected(g.value(g.arange(size + 2 * radius), "i") - radius, size, "reflect101")
        planes = g.gather(planes, index, axis)
    for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
        planes = g.op("Conv", planes, g.constant(taps.reshape(shape), "f"))
    return g.reshape(planes, sizes)

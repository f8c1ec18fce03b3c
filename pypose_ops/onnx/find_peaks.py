"""find_peaks: local maxima of maps."""

from typing import Any

from ..ops._peak_arguments import REFINES
from . import _graph as g
from ._refine import Maps, step
from .decode_heatmaps import pixels_of, placed

_OP = "find_peaks"
_NONE = 2.0**24  # above every label: pixels are numbered in float32, for which pooling is fast everywhere


def find_peaks(
    heatmaps: Any,
    threshold: Any,
    threshold_value: Any,
    radius: Any,
    max_peaks: Any,
    refine: Any,
    kernel_size: Any,
    max_offset: Any,
    transform: Any,
    missing: Any,
    pixels: Any,
) -> Any:
    maps = g.floating(_OP, "heatmaps", heatmaps)
    max_peaks, radius = g.static(_OP, "max_peaks", max_peaks), g.static(_OP, "radius", radius)
    sizes = g.sizes_of(g.Value(heatmaps, None))
    batch, joints, height, width = sizes
    if not isinstance(height, g.Value) and not isinstance(width, g.Value) and height * width >= _NONE:
        raise g.ExportError(f"{_OP}: heatmaps must have less than 2^24 pixels for ONNX, got {height} x {width}")
    values = g.where(g.is_finite(maps), maps, float("-inf"))
    if threshold is None:
        least = g.constant(g.bound(threshold_value, float("-inf")), "f")
    else:
        least = g.unsqueeze(g.as_float(threshold), -1, -2)
    is_peak = _peaks(values, values > least, radius, height, width)

    flat = [batch, joints, -1]
    ranked = g.where(is_peak, values, float("-inf"))
    ranked = g.reshape(ranked, flat)
    if isinstance(height, g.Value) or isinstance(width, g.Value) or height * width < max_peaks:
        ranked = g.concat([ranked, g.expand(g.constant(float("-inf"), "f"), [batch, joints, max_peaks])])
    scores, index = g.op(
        "TopK", ranked, g.constant([max_peaks], "i"), kind="fi", outputs=2, axis=-1, largest=1, sorted=1
    )
    valid = ~g.op("IsInf", scores, kind="b")
    counts = g.reduce("Sum", g.cast(g.reshape(is_peak, flat), "i"), [-1])
    index = g.where(valid, index, 0)
    around = Maps(maps, sizes, index % width, index // width, max_peaks)
    moved, _ = step(around, REFINES[refine], None, kernel_size, max_offset)
    transform = None if transform is None else g.as_float(transform)
    there = g.reshape(valid, [batch, around.count])
    coords = g.reshape(placed(around.peak, moved, there, transform, missing), [batch, joints, max_peaks, 2])
    where = pixels_of(around.peak, there, pixels)
    if pixels:
        where = g.reshape(g.Value(where, "i"), [batch, joints, max_peaks, 2]).value
    return coords.value, g.where(valid, scores, 0.0).value, counts.value, where


def _highest(maps, radius):
    """The maximum over the window around each pixel, one axis after the other."""
    planes = maps
    for kernel, pads in (((1, 2 * radius + 1), (0, radius)), ((2 * radius + 1, 1), (radius, 0))):
        planes = g.op("MaxPool", planes, kernel_shape=kernel, pads=pads * 2, strides=(1, 1))
    return planes


def _peaks(values, above, radius, height, width):
    """The first pixel of each plateau without a higher pixel in reach.

    Candidates, the highest pixels of their windows, are equal where one is in another's window. A candidate beside an
    equal pixel that is none is on a slope's step: that spreads through its plateau, as the first pixel's number does.
    Most maps have no plateaus, and the loop does not run.
    """
    candidates = above & values.equals(_highest(values, radius))
    others = g.where(candidates, float("-inf"), values)
    step_beside = _highest(others, radius) >= values
    pixels = g.real(g.reshape(g.arange(height * width), [1, 1, height, width]))
    labels = g.where(candidates, g.where(step_beside, -1.0, pixels), _NONE)

    def spread(labels):
        return g.where(candidates, -_highest(-labels, radius), _NONE)

    def changed(before, after):
        return g.some(~before.equals(after))

    def body(number, labels):
        after = spread(labels)
        return changed(labels, after), after

    first = spread(labels)
    (labels,) = g.loop(body, [first], condition=changed(labels, first))
    return candidates & labels.equals(pixels)

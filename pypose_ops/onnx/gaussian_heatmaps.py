"""gaussian_heatmaps: one blob per keypoint."""

from typing import Any

from . import _graph as g

_OP = "gaussian_heatmaps"
_PROFILES = ("gaussian", "disc")


def gaussian_heatmaps(
    keypoints: Any,
    sigma: Any,
    sigma_value: Any,
    visible: Any,
    height: Any,
    width: Any,
    profile: Any,
    center: Any,
    truncate: Any,
    combine: Any,
    normalize: Any,
    scale: Any,
    dtype: Any,
) -> Any:
    if dtype == g.ir.DataType.DOUBLE:
        raise g.ExportError(f"{_OP}: dtype must be float16, bfloat16 or float32 for ONNX, got float64")
    people = len(keypoints.shape) == 4
    points = g.floating(_OP, "keypoints", keypoints)
    gaussian = profile == 0
    drawn = g.is_finite(points)
    axes = [(g.pick(points, axis), g.pick(drawn, axis)) for axis in range(2)]
    drawn = axes[0][1] & axes[1][1]
    if sigma is None:
        sigmas = [g.constant(float(sigma_value), "f")] * 2
    else:
        sigmas = g.floating(_OP, "sigma", sigma)
        sigmas = [g.pick(sigmas, axis) for axis in range(2)]
        for each in sigmas:
            drawn = drawn & g.is_finite(each) & (each > 0.0)
        sigmas = [g.where(drawn, each, 1.0) for each in sigmas]
    if visible is not None:
        drawn = drawn & g.as_bool(visible)
    x, y = (
        _line(g.where(drawn, mean, 0.0), each, size, gaussian, center == 1, truncate)
        for (mean, _), each, size in zip(axes, sigmas, (width, height), strict=True)
    )
    if gaussian and normalize == 1:
        x, y = (line / (g.reduce("Sum", line, [-1], keepdims=True) + 1e-8) for line in (x, y))
    x, y = g.unsqueeze(x, -2), g.unsqueeze(y, -1)
    maps = x * y if gaussian else g.cast(x + y <= 1.0, "f")
    if not gaussian and normalize == 1:
        maps = maps / g.maximum(g.reduce("Sum", maps, [-2, -1], keepdims=True), 1.0)
    maps = g.where(g.unsqueeze(drawn, -1, -2), maps, 0.0)
    if people:
        maps = g.reduce("Max" if combine == 0 else "Sum", maps, [1])
    if combine == 2:
        maps = g.minimum(maps, 1.0)
    return g.written_as(maps * float(scale), dtype)


def _line(mean, sigma, size, gaussian, rounded, truncate):
    """One axis of every blob: ``exp(-u^2 / 2)``, or ``u^2`` for a disc, with ``u = (i - mean) / sigma``."""
    if rounded:
        mean = g.floor(mean + 0.5)
    size = g.Value(size, "i") if isinstance(size, g.ir.Value) else size
    distance = g.real(g.arange(size)) - g.unsqueeze(mean, -1)
    sigma = g.unsqueeze(sigma, -1)
    u = distance / sigma
    u = u * u
    inside = True if truncate is None else g.absolute(distance) <= sigma * truncate
    return g.where(inside, g.exp(u * -0.5), 0.0) if gaussian else g.where(inside, u, float("inf"))

"""Calls of the operators that draw targets, and of the loss that draws them on the fly."""

import numpy as np
import torch

from .calls import Call, operator
from .draws import COORDINATE_DTYPES, MAP_DTYPES, NOT_FINITE


def keypoints_of(draw, size, people=True, farthest=float("inf"), apart=False):
    """Keypoints (B, K, 2) or (B, P, K, 2). ``apart``: far people are not equally far but for rounding."""
    shape = (draw.count(3), draw.count(4))
    if people and draw.chance(0.5):
        shape = (shape[0], draw.count(4), shape[1])
    points = draw.bounded(draw.points(shape, size), farthest)
    if apart and points.ndim == 4:
        points = np.where(np.abs(points) > 2048, points * (1 - 0.01 * np.arange(shape[1])[:, None, None]), points)
    points = np.where(np.abs(points) < 1e-30, 0.0, points)  # subnormal, so may count as 0: sigmas as small would tell
    return draw.tensor(points, draw.pick(COORDINATE_DTYPES))


def sigma_of(draw, keypoints):
    """A number, or a tensor that broadcasts to the keypoints in one of the documented ways."""
    if draw.chance(0.5):
        return draw.number(0.3, 8)
    shape = keypoints.shape if draw.chance(0.3) else keypoints.shape[:-1]
    if len(shape) < keypoints.dim():
        shape = shape[draw.integer(0, len(shape)) :]  # joints alone, or no dimension at all
    shape = tuple(1 if draw.chance(0.2) else n for n in shape)
    values = draw.spoil(0.3 + 4 * draw.random.random(shape))
    return draw.tensor(values, draw.pick(COORDINATE_DTYPES))


def drawing(draw, keypoints):
    """The options that gaussian_heatmaps and heatmap_mse_loss share."""
    return {
        "sigma": sigma_of(draw, keypoints),
        "visible": draw.visible(tuple(keypoints.shape[:-1])),
        "profile": draw.pick(("gaussian", "gaussian", "gaussian", "disc")),
        "center": draw.pick(("exact", "exact", "rounded")),
        "truncate": draw.pick((None, None, draw.number(0.2, 4))),
        "combine": draw.pick(("max", "sum", "sum_clip")),
        "normalize": draw.pick(("peak", "peak", "sum")),
    }


def differentiable(draw, arguments):
    """Some of the arguments that have a derivative with these options."""
    names = []
    if arguments["profile"] == "gaussian":
        if arguments["center"] == "exact":
            names.append("keypoints")
        if isinstance(arguments["sigma"], torch.Tensor):
            names.append("sigma")
    return some(draw, *names)


def some(draw, *names):
    return tuple(n for n in names if draw.chance(0.5))


def rounding(size):
    """How coarsely the coordinates of a map are rounded: on the scale of the map."""
    return {"keypoints": max(size), "sigma": 0.0}


@operator("gaussian_heatmaps")
def gaussian_heatmaps(draw):
    size = draw.size()
    keypoints = keypoints_of(draw, size)
    dtype = draw.pick(MAP_DTYPES)
    arguments = {"keypoints": keypoints, "size": size, "dtype": dtype} | drawing(draw, keypoints)
    return Call("gaussian_heatmaps", arguments, differentiable(draw, arguments), dtype, rounding(size))


@operator("heatmap_mse_loss")
def heatmap_mse_loss(draw):
    size = draw.size()
    keypoints = keypoints_of(draw, size)
    dtype = draw.pick(MAP_DTYPES)
    shape = (keypoints.shape[0], keypoints.shape[-2], *size)
    if draw.chance(0.3):
        shape = (draw.count(2), *shape)
    options = drawing(draw, keypoints)
    # Of one that adds up to 1 the gradient is a difference, of what may be a thousand times larger.
    limit = 1.0 if options["normalize"] == "sum" else 1e12
    weight = None
    if draw.chance(0.5):
        of = shape[:-2][draw.pick((0, 0, len(shape) - 3)) :]
        values = draw.spoil(draw.random.random(of) - 0.2, kinds=(*NOT_FINITE, 0.0, -0.0, 1e-6, 65504.0))
        weight = draw.tensor(draw.bounded(values, limit), draw.pick(COORDINATE_DTYPES))
    arguments = {
        "pred": draw.tensor(draw.bounded(draw.maps(shape), limit), dtype),
        "keypoints": keypoints,
        "weight": weight,
        # The mean of nothing is NaN, as in torch.
        "reduction": draw.pick(("none", "mean", "sum")) if 0 not in shape else draw.pick(("none", "sum")),
    } | options
    # The derivative of NaN is none: what a blob that reaches no pixel gets from a map of NaN is not defined.
    grad = differentiable(draw, arguments) if arguments["pred"].isfinite().all() else ()
    grad += ("pred",) if draw.chance(0.5) else ()
    return Call("heatmap_mse_loss", arguments, grad, dtype, rounding(size) | {"pred": 0.0})


def limb_arguments(draw):
    size = draw.size()
    keypoints = keypoints_of(draw, size)
    dtype = draw.pick(MAP_DTYPES)
    arguments = {
        "keypoints": keypoints,
        "limbs": draw.limbs(keypoints.shape[-2]),
        "limb_radius": draw.number(0.3, 6),
        "size": size,
        "visible": draw.visible(tuple(keypoints.shape[:-1])),
        "dtype": dtype,
    }
    return arguments, dtype, {"keypoints": max(size)}


@operator("part_affinity_fields")
def part_affinity_fields(draw):
    arguments, dtype, perturbed = limb_arguments(draw)
    arguments["profile"] = draw.pick(("band", "openpose", "trt_pose", "sleap", "linear"))
    soft = arguments["profile"] in ("trt_pose", "sleap")
    arguments["combine"] = draw.pick(("mean", "sum") if soft else ("mean", "sum", "last"))
    return Call("part_affinity_fields", arguments, some(draw, "keypoints"), dtype, perturbed)


@operator("limb_masks")
def limb_masks(draw):
    arguments, dtype, perturbed = limb_arguments(draw)
    return Call("limb_masks", arguments, (), dtype, perturbed)


@operator("offset_heatmaps")
def offset_heatmaps(draw):
    size = draw.size()
    # Well below 1e6, where a slightly moved keypoint would be ignored.
    keypoints = keypoints_of(draw, size, farthest=5e5, apart=True)
    dtype = draw.pick(MAP_DTYPES)
    arguments = {
        "keypoints": keypoints,
        "radius": draw.number(0.5, 6),
        "size": size,
        "visible": draw.visible(tuple(keypoints.shape[:-1])),
        "combine": draw.pick(("nearest", "last")),
        "dtype": dtype,
    }
    return Call("offset_heatmaps", arguments, some(draw, "keypoints"), dtype, {"keypoints": max(size)})


@operator("simcc_labels")
def simcc_labels(draw):
    size = draw.size()
    keypoints = keypoints_of(draw, size, people=False)
    dtype = draw.pick(MAP_DTYPES)
    one = draw.number(0.3, 8)
    ratio = draw.pick((1, 2, 2, 3, 2.0, 1.3, 0.7))
    if any(round(n * ratio) == 0 for n in size):
        ratio = 2
    arguments = {
        "keypoints": keypoints,
        "sigma": draw.pick((one, (one, draw.number(0.3, 8)))),
        "size": size,
        "split_ratio": ratio,
        "visible": draw.visible(tuple(keypoints.shape[:-1])),
        "profile": draw.pick(("gaussian", "gaussian", "one_hot")),
        "center": draw.pick(("exact", "rounded")),
        "normalize": draw.pick(("peak", "density")),
        "smoothing": draw.pick((0.0, 0.1, 0.5)),
        "dtype": dtype,
    }
    if draw.chance(0.4):
        shape = keypoints.shape if draw.chance(0.3) else keypoints.shape[:-1]
        values = draw.spoil(0.3 + 4 * draw.random.random(tuple(shape)))
        arguments["sigma"] = draw.tensor(values, draw.pick(COORDINATE_DTYPES))
    grad = differentiable(draw, arguments)
    return Call("simcc_labels", arguments, grad, dtype, {"keypoints": max(size), "sigma": 0.0})

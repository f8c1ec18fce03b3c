"""Calls of the crops, of the votes of boxes and of the messages between heatmaps."""

import numpy as np
import torch

from .calls import Call, operator
from .draws import COORDINATE_DTYPES, MAP_DTYPES


def affine(draw, count, size, image, spoilt=True):
    """Maps (N, 2, 3) from patches to places in and around an image."""
    kind = draw.pick(("turn", "turn", "shift", "any"))
    if kind == "any":
        out = draw.random.normal(size=(count, 2, 3)) * [1, 1, 5]
    else:
        angle = draw.random.random(count) * 2 * np.pi * (kind == "turn")
        scale = 2 ** draw.random.uniform(-1, 2, count) if kind == "turn" else np.ones(count)
        linear = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1).reshape(-1, 2, 2)
        linear = linear * scale[:, None, None]
        center = draw.random.random((count, 2)) * [image[1], image[0]]
        if kind == "shift":  # whole and half pixels: kinks
            center = np.round(2 * center) / 2
        offset = center - linear @ np.asarray([(size[1] - 1) / 2, (size[0] - 1) / 2])
        out = np.concatenate([linear, offset[..., None]], -1)
    # Not 1e30 here and -1e30 there, which cancel or not by the order of the sum.
    return draw.bounded(draw.spoil(out), 1e4) if spoilt else out


def images_of(draw, dtype, channels):
    """One tensor, one image, or a list of images of different sizes; and how many there are."""
    kind = draw.pick(("batch", "batch", "one", "list"))
    shapes = [draw.size(16) for _ in range(draw.integer(1, 4) if kind == "list" else 1)]

    def values(*shape):
        if dtype == torch.uint8:
            return draw.random.integers(0, 256, size=shape)
        return draw.values(shape)

    if kind == "list":
        images = [draw.tensor(values(channels, *size), dtype) for size in shapes]
        return images, len(images), shapes[0]
    if kind == "one":
        return draw.tensor(values(channels, *shapes[0]), dtype), 1, shapes[0]
    count = draw.count(3)
    return draw.tensor(values(count, channels, *shapes[0]), dtype), count, shapes[0]


def channel_numbers(draw, channels, low, high):
    one = draw.uniform(low, high)
    return draw.pick((one, [draw.uniform(low, high) for _ in range(channels)])) if channels else one


@operator("crop_patches")
def crop_patches(draw):
    dtype = draw.pick((torch.uint8, torch.uint8, *MAP_DTYPES))
    channels = draw.pick((1, 3, 3, 2, draw.count(9)))
    images, count, image = images_of(draw, dtype, channels)
    size = draw.size(12)
    index = None
    patches = count
    if count == 1 or draw.chance(0.6):
        patches = draw.count(4)
        if count != 1 or draw.chance(0.3):
            values = draw.random.integers(-1 if draw.chance(0.2) else 0, count + 1, size=patches)
            index = draw.tensor(values, draw.pick((torch.int64, torch.int32)))
    # Infinity times a weight that rounding makes 0 or not: of such images no near-ties.
    finite = all(not image.isinf().any() for image in (images if isinstance(images, list) else [images]))
    mode = draw.pick(("bilinear", "bilinear", "nearest", "bicubic"))
    padding = draw.pick(("zeros", "constant", "border", "reflect"))
    out = draw.pick((None, None, torch.uint8, *MAP_DTYPES))
    arguments = {
        "images": images,
        "transforms": draw.tensor(affine(draw, patches, size, image, finite), draw.pick(COORDINATE_DTYPES)),
        "size": size,
        "image_index": index,
        "mode": mode,
        "padding": padding,
        "fill": channel_numbers(draw, channels, -2, 2) if padding == "constant" else 0.0,
        "mean": channel_numbers(draw, channels, -1, 1) if draw.chance(0.4) else None,
        "std": channel_numbers(draw, channels, 0.2, 3) if draw.chance(0.4) else None,
        "antialias": mode != "nearest" and draw.chance(0.3),
        "dtype": out,
    }
    if draw.chance(0.2):
        corner = draw.points((patches, 2), image).reshape(patches, 4)
        arguments["mask"] = draw.tensor(corner, draw.pick(COORDINATE_DTYPES))
    grad = ()
    if out != torch.uint8:
        if dtype != torch.uint8 and isinstance(images, torch.Tensor) and draw.chance(0.4):
            grad += ("images",)
        # A sample of a pixel that is not finite has no derivative by where it lies.
        if mode != "nearest" and not draw.strange and draw.chance(0.4):
            grad += ("transforms",)
    reach = float(max(image) + max(size))
    tolerance = next((d for d in (torch.bfloat16, torch.float16) if d in (dtype, out)), None)
    if tolerance is None:
        tolerance = torch.float64 if torch.float64 in (dtype, out) else torch.float32
    perturbed = {"transforms": reach, "mask": reach}
    return Call(
        "crop_patches", arguments, grad, tolerance, perturbed | ({} if dtype == torch.uint8 else {"images": 0.0})
    )


@operator("box_vote")
def box_vote(draw):
    size = draw.size()
    dtype = draw.pick(MAP_DTYPES)
    boxes, joints = draw.count(6), draw.count(3)
    batch = draw.pick(((), (draw.count(3),)))
    corner = draw.points((*batch, boxes), size)
    other = corner + draw.random.random(corner.shape) * draw.pick((6, 6, 30)) - draw.pick((0, 0, 3))
    if draw.chance(0.3):
        corner, other = np.round(corner), np.round(other)
    coordinates = np.concatenate([corner, other], -1)
    weights = draw.tensor(draw.values((*batch, boxes, joints)), dtype)
    arguments = {"boxes": draw.tensor(coordinates, draw.pick(COORDINATE_DTYPES)), "weights": weights, "size": size}
    grad = ("weights",) if draw.chance(0.5) and weights.isfinite().all() else ()
    # Documented: weights below 2^-60 of the largest weight times the number of boxes count as 0.
    finite = weights[weights.isfinite()].double()
    lost = float(finite.abs().max()) * boxes * 2.0**-60 if finite.numel() else 0.0
    return Call("box_vote", arguments, grad, dtype, {"weights": 0.0}, lost=lost)


def distribution(draw, shape):
    """Weights of displacements. Not 1e30 beside 1e-3, of which sums over the prior keep no digit."""
    return draw.bounded(draw.spoil(draw.random.random(shape)), 1) * draw.pick((1.0, 1.0, 1e-3, 1e3))


@operator("mrf_message_passing")
def mrf_message_passing(draw):
    dtype = draw.pick(MAP_DTYPES)
    size = draw.size(12)
    batch, joints = draw.count(3), draw.integer(1, 4)
    targets = draw.pick((None, None, draw.integer(1, 5)))
    pairs = {(draw.integer(0, joints - 1), draw.integer(0, (targets or joints) - 1)) for _ in range(draw.count(5))}
    edges = sorted(pairs)
    index = None
    priors = len(edges)
    if edges and draw.chance(0.3):
        priors = draw.integer(1, 3)
        index = [draw.integer(0, priors - 1) for _ in edges]
    kernel = tuple(2 * draw.integer(0, n // 2 + 2) + 1 for n in size)
    bias = (len(edges),) if draw.chance(0.7) else (len(edges), *size)
    arguments = {
        "unary": draw.tensor(draw.bounded(draw.maps((batch, joints, *size)), 1e30), dtype),
        "prior": draw.tensor(distribution(draw, (priors, *kernel)), draw.pick(COORDINATE_DTYPES)),
        "bias": draw.tensor(1e-3 + distribution(draw, bias), draw.pick(COORDINATE_DTYPES)),
        "edges": edges,
        "num_targets": targets,
        "floor": draw.number(1e-3, 0.5, extremes=(1e-6, 10.0)),
        "prior_index": index,
    }
    grad = tuple(n for n in ("unary", "prior", "bias") if draw.chance(0.3))
    return Call("mrf_message_passing", arguments, grad, dtype, {"unary": 0.0, "prior": 0.0, "bias": 0.0})

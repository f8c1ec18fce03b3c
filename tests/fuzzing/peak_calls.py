"""Calls of the operators that read coordinates out of maps and vectors."""

import numpy as np
import torch

from pypose_ops.ops._peak_arguments import COMPATS_OF, REFINES, kernel_size_of, simcc_kernels
from pypose_ops.reference.decode_heatmaps import refined
from pypose_ops.reference.decode_simcc import decode_axis

from .calls import Call, operator
from .compare import HESSIAN_ULPS, ROUNDING, covariance_rows
from .draws import COORDINATE_DTYPES, MAP_DTYPES, NOT_FINITE


def maps_of(draw, dtype, channels=None):
    shape = (draw.count(3), draw.count(4) if channels is None else channels, *draw.size())
    return draw.tensor(draw.one_sided(draw.maps(shape)), dtype)


def limit(draw):
    return draw.pick(("auto", "auto", None, draw.uniform(0, 3), 0.0))


def kernel(draw, refine):
    """kernel_size, sigma, or neither."""
    if refine == "centroid" and draw.chance(0.5):
        return {"kernel_size": draw.integer(1, 17)}
    if refine != "centroid" and draw.chance(0.1):
        return {"kernel_size": None}
    if draw.chance(0.4):
        return {"kernel_size": 2 * draw.integer(0, 15 if refine == "offset" else 31 if draw.chance(0.1) else 8) + 1}
    if refine != "centroid" and draw.chance(0.3):
        sigmas = (0.5, 1, 1.5, 2.2, 3) if refine == "offset" else (0.5, 1, 1.5, 2.2, 3, 4.7, 100.0)
        return {"sigma": draw.pick(sigmas)}
    return {}


def flips(draw, maps, joints, values):
    """Maps of the mirrored image, drawn like the maps by ``values(shape)``."""
    if draw.chance(0.6):
        return {}
    order = [int(k) for k in draw.random.permutation(joints)]
    pairs = list(zip(order[::2], order[1::2], strict=False))[: draw.integer(0, 2)]
    flipped = draw.tensor(draw.one_sided(values(tuple(maps.shape))), maps.dtype)
    if draw.chance(0.5):  # what a net would say
        flipped = maps.flip(-1)
    return {"flipped": flipped, "flip_pairs": pairs, "flip_shift": draw.chance(0.5)}


def step_rounding(call, arguments):
    """What the rounding of g and H costs DARK's steps -H^-1 g: to first order C (dg + dH step) with C = -H^-1."""
    if arguments["refine"] not in ("dark", "dark_udp"):
        return None
    free = arguments | {"transform": None, "max_offset": None, "missing": -1.0, "return_pixels": False}
    pixels = call.reference(**free | {"refine": None} | ({"compat": None} if "compat" in free else {})).coords
    if call.name == "decode_heatmaps":
        coords, _, covariance = call.reference(**free | {"return_covariance": True})
    else:
        size = kernel_size_of(call.name, free["refine"], free.get("kernel_size", "auto"), free.get("sigma")) or 1
        coords, covariance = refined(free["heatmaps"], pixels.clamp(min=0).long(), free["refine"], size, None)
    step = (coords - pixels).norm(dim=-1, keepdim=True)
    error = rounding_of_steps(call, step, covariance_rows(covariance))
    return through_transform(torch.where(pixels >= 0, error, 0.0), arguments)


def bin_rounding(call, arguments):
    """The same of decode_simcc's steps, in pixels."""
    sizes = [n or 1 for n in simcc_kernels(arguments.get("kernel_size", "auto"), arguments.get("sigma", 6.0))]
    rows, options = (arguments["x"], arguments["y"]), (arguments["refine"], arguments["compat"])
    axes = [decode_axis(row, size, *options) for row, size in zip(rows, sizes, strict=True)]
    _, step, _, variance = (torch.stack(parts, -1) for parts in zip(*axes, strict=True))
    ratio = arguments["split_ratio"]
    step = (step / ratio).norm(dim=-1, keepdim=True)
    return through_transform(rounding_of_steps(call, step, variance / ratio), arguments)


def rounding_of_steps(call, step, covariance):
    """Of steps (..., 1) as long as ``step``, those past max_offset shortened to it; ``covariance (..., 2)`` by rows."""
    error = HESSIAN_ULPS * ROUNDING.get(call.dtype, 2.0**-24) * covariance * (1 + step)
    limit = call.arguments["max_offset"]
    limit = (1.0 if call.arguments.get("compat") is None else None) if limit == "auto" else limit
    if limit is None:
        return error
    # Shortened together with the step; the direction's error counts too, up to the opposite direction.
    return torch.where(step > limit, (2 * error * limit / step).clamp(max=2 * limit), error)


def through_transform(error, arguments):
    transform = arguments.get("transform")
    if transform is not None:
        linear = transform[..., :2].abs()
        error = error @ (linear if linear.dim() == 2 or error.dim() == 3 else linear[:, None]).mT
    return error


def offsets_apart(arguments, joints):
    """The same maps with their offsets in tensors of their own."""
    out = {}
    for name, offsets in (("heatmaps", "offsets"), ("flipped", "flipped_offsets")):
        if name in arguments:
            channels = arguments[name].unflatten(1, (joints, 3))
            out |= {name: channels[:, :, 0], offsets: channels[:, :, 1:]}
    return out


@operator("decode_heatmaps", whole=2)
def decode_heatmaps(draw):
    dtype = draw.pick(MAP_DTYPES)
    refine = draw.pick((*REFINES, "offset"))
    joints = draw.count(4)
    compat = draw.pick((None, *COMPATS_OF.get(refine, (None,))))
    maps = maps_of(draw, dtype, 3 * joints if refine == "offset" else joints)
    # There logarithms are clamped, H may be singular but for 1e-7, and a step is taken all the same: of noise that says
    # nothing in float32, and has seven digits in float64.
    singular = refine == "dark_udp" and compat is not None
    clear = singular and dtype != torch.float64
    if clear:  # a peak within a map that is wider than the blur
        size = (12 + draw.integer(0, 8), 12 + draw.integer(0, 8))
        maps = draw.tensor(draw.peaks((*maps.shape[:2], *size)), dtype)
    elif refine == "offset":  # blurred, few values or a mirror nearby leave pixels equal but for rounding
        size = (draw.integer(3, 20), draw.integer(3, 20))
        maps = draw.tensor(draw.spoil(draw.random.random((*maps.shape[:2], *size)), kinds=NOT_FINITE), dtype)
    arguments = {
        "heatmaps": maps,
        "refine": refine,
        "compat": compat,
        "transform": None if singular else draw.transform(maps.shape[0]),
        "max_offset": draw.uniform(0, 3) if singular else limit(draw),
        "return_covariance": refine in ("dark", "dark_udp") and draw.chance(0.3),
        "missing": draw.pick((-1.0, -1.0, float("nan"))),
    }
    if not clear:
        arguments["threshold"] = draw.pick((0.0, 0.0, 0.0, -float("inf"), -0.5, 0.3))
    arguments["return_pixels"] = not arguments["return_covariance"] and draw.chance(0.3)
    values = draw.peaks if clear else draw.random.random if refine == "offset" else draw.maps
    arguments |= kernel(draw, refine) | flips(draw, maps, joints, values)
    if clear:
        arguments |= {"kernel_size": draw.pick((3, 5, 7, 9)), "sigma": None}
    if refine == "offset":
        arguments |= {"kernel_size": draw.integer(0, min(maps.shape[-2:]) // 4) * 2 + 1, "sigma": None}
        arguments["radius"] = draw.number(0.5, 6)
        if draw.chance(0.4):
            arguments |= offsets_apart(arguments, joints)
    perturbed = {"heatmaps": 0.0, "flipped": 0.0, "transform": 0.0, "offsets": 0.0, "flipped_offsets": 0.0}
    lost = 1e-6 if singular else 0.0
    return Call("decode_heatmaps", arguments, (), dtype, perturbed, lost, conditioned=step_rounding)


@operator("find_peaks", whole=2)
def find_peaks(draw):
    dtype = draw.pick(MAP_DTYPES)
    maps = maps_of(draw, dtype)
    refine = draw.pick(REFINES)
    threshold = draw.pick((0.1, 0.0, -1.0, 0.5, -float("inf"), 2.0))
    if draw.chance(0.3):
        values = draw.spoil(draw.random.random(maps.shape[1]) - 0.3)
        threshold = draw.tensor(values, draw.pick(COORDINATE_DTYPES))
    small = maps.shape[-2] * maps.shape[-1] < 200  # the reference compares with every pixel of the window
    arguments = {
        "heatmaps": maps,
        "threshold": threshold,
        "radius": draw.pick((3, 7, 64)) if small and draw.chance(0.05) else draw.integer(1, 2),
        "max_peaks": draw.pick((1, 3, 32, 32, 1000)) if draw.chance(0.3) else draw.integer(1, 8),
        "refine": refine,
        "max_offset": limit(draw),
        "transform": draw.transform(maps.shape[0]),
        "missing": draw.pick((-1.0, float("nan"))),
        "return_pixels": draw.chance(0.3),
    } | kernel(draw, refine)
    perturbed = {"heatmaps": 0.0, "transform": 0.0}
    return Call("find_peaks", arguments, (), dtype, perturbed, conditioned=step_rounding)


@operator("soft_argmax")
def soft_argmax(draw):
    dtype = draw.pick(MAP_DTYPES)
    maps = maps_of(draw, dtype)
    arguments = {
        "heatmaps": maps,
        "temperature": draw.number(0.1, 50),
        "window": draw.pick((None, None, 1, 3, 7, 65)),
        "normalized": draw.pick((None, None, "centers", "corners")),
        "missing": draw.pick((-1.0, float("nan"))),
        "return_variance": draw.chance(0.4),
    }
    grad = ("heatmaps",) if draw.chance(0.5) else ()
    # The temperature is a factor of the gradient, and so of its rounding.
    lost = arguments["temperature"] * (1e-12 if dtype == torch.float64 else 1e-6) if grad else 0.0
    return Call("soft_argmax", arguments, grad, dtype, {"heatmaps": 0.0}, lost=lost)


@operator("decode_simcc", whole=2)
def decode_simcc(draw):
    dtype = draw.pick(MAP_DTYPES)
    batch, joints = draw.count(3), draw.count(4)
    compat = draw.pick((None, None, "mmpose"))
    # A step where the logarithm is straight but for 1e-9: as in decode_heatmaps.
    singular = compat is not None
    values = draw.peaks if singular and dtype != torch.float64 else draw.maps
    shapes = [(batch, joints, 1, draw.size(40)[1]) for _ in range(2)]
    x, y = (draw.tensor(draw.one_sided(values(shape))[:, :, 0], dtype) for shape in shapes)
    sigmas = (0.5, 2, 6.0, (4.9, 5.66))
    arguments = {
        "x": x,
        "y": y,
        "split_ratio": draw.pick((1, 2.0, 2.0, 3, 1.3)),
        "refine": draw.pick((None, "dark", "dark")),
        "compat": compat,
        "transform": None if singular else draw.transform(batch),
        "max_offset": draw.uniform(0, 3) if singular else limit(draw),
        "threshold": draw.pick((0.0, 0.0, -float("inf"), 0.3)),
        "missing": draw.pick((-1.0, float("nan"))),
    }
    if draw.chance(0.5):
        arguments["sigma"] = draw.pick(sigmas)
    else:
        one = 2 * draw.integer(0, 20) + 1
        arguments["kernel_size"] = draw.pick((one, (one, 2 * draw.integer(0, 63) + 1)))
    perturbed = {"x": 0.0, "y": 0.0, "transform": 0.0}
    lost = 1e-6 if singular else 0.0
    return Call("decode_simcc", arguments, (), dtype, perturbed, lost, conditioned=bin_rounding)


@operator("decode_roi_heatmaps", whole=2)
def decode_roi_heatmaps(draw):
    dtype = draw.pick(MAP_DTYPES)
    batch = draw.count(3)
    # Differences of larger ones overflow in float32.
    maps = draw.bounded(draw.maps((batch, draw.count(4), *draw.size())), 1e30)
    corner = draw.random.random((batch, 2)) * 200 - 50
    sides = draw.random.random((batch, 2)) * draw.pick((3, 40, 40, 40, 300))
    # In sixteenths, whose differences are the same in float32: one pixel more or less of the resized map changes all.
    boxes = np.round(16 * np.concatenate([corner, corner + sides - draw.pick((0, 0, 2))], 1)) / 16
    if draw.strange and draw.chance(0.3):
        spoilt = draw.random.random(boxes.shape) < 0.2
        values = np.asarray((*NOT_FINITE, 1e30, -1e9))
        boxes = np.where(spoilt, values[draw.random.integers(len(values), size=boxes.shape)], boxes)
    wide = torch.float64 if dtype == torch.float64 else draw.pick(COORDINATE_DTYPES)
    arguments = {"heatmaps": draw.tensor(maps, dtype), "boxes": draw.tensor(boxes, wide)}
    return Call("decode_roi_heatmaps", arguments, (), dtype, {"heatmaps": 0.0})

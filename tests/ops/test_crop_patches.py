"""crop_patches under the contract of op_contract.py."""

import math

import large_inputs as large
import torch
from op_contract import Bad, Sample, check_op

import pypose_ops
from pypose_ops import crop_patches, reference

NAN, INF = math.nan, math.inf
generator = torch.Generator().manual_seed(3)


def rand(*shape):
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def turned(count, size=(4, 3), image=(6, 7), scale=(0.5, 1.7)):
    """Rotated boxes with their centres in and a little outside of the image."""
    angle, zoom = (rand(count) - 0.5) * 6, rand(count) * (scale[1] - scale[0]) + scale[0]
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    linear = torch.stack([cos, -sin, sin, 1.1 * cos], -1).reshape(count, 2, 2)
    center = rand(count, 2) * torch.tensor([image[1] + 2.0, image[0] + 2.0]) - 1.5
    middle = torch.tensor([(size[1] - 1) / 2, (size[0] - 1) / 2], dtype=torch.float64)
    return torch.cat([linear, (center - linear @ middle)[..., None]], -1)


SIZE = (4, 3)
MAPS = rand(2, 3, 6, 7)  # small: numerical gradients take two calls per pixel
BYTES = torch.randint(256, (2, 3, 6, 7), generator=generator, dtype=torch.uint8)
LIST = [rand(3, 6, 7), rand(3, 4, 17), rand(3, 1, 6)]
ONE = turned(2)
THREE = turned(3)
INDEX = torch.tensor([1, 0, 1])
SMALLER = turned(3, scale=(1.6, 3.4))
UPRIGHT = torch.tensor([[[2.3, 0, -1.2], [0, 1.7, 0.4]], [[-1.9, 0, 5.3], [0, 2.6, -2.1]]], dtype=torch.float64)
SHIFT = torch.tensor([[[1.0, 0, 2], [0, 1, 3]]]).expand(2, 2, 3)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
BOXES = torch.cat([rand(3, 2) * 3, rand(3, 2) * 3 + 3], 1)
STRANGE = torch.tensor(
    [
        [[NAN, 0, 1], [0, 1, 1]],
        [[1, 0, INF], [0, 1, 1]],
        [[1, 0, 1e30], [0, 1, 1]],
        [[3e38, 0, 1], [0, 3e38, 1]],
        [[0, 0, 2.5], [0, 0, 3.25]],
        [[1, 1, 0], [1, 1, 0.5]],
        [[1, 0, -2e9], [0, 1, 3e9]],
        [[0.5, 0, -50], [0, 0.5, -50]],
    ]
)
GRAD = ("images", "transforms")
WITH_INDEX = {"image_index": INDEX}
# Float32 coordinates in a mirrored image come from a remainder of larger ones.
FAR = {torch.float32: (1e-3, 1e-4)}

SAMPLES = [
    Sample("plain", (MAPS, ONE, SIZE), grad=GRAD, traced=True),
    Sample("index", (MAPS, THREE, SIZE), WITH_INDEX, grad=GRAD, traced=True),
    Sample("one image", (MAPS[:1], ONE[:1], SIZE), grad=GRAD),
    Sample("no image", (MAPS, THREE, SIZE), {"image_index": torch.tensor([0, -1, 2])}, grad=GRAD),
    Sample("constant", (MAPS, THREE, SIZE), WITH_INDEX | {"padding": "constant", "fill": 0.7}, grad=GRAD, traced=True),
    Sample("three fills", (MAPS, ONE, SIZE), {"padding": "constant", "fill": [0.1, 0.2, 0.3]}, grad=GRAD),
    Sample("border", (MAPS, THREE, SIZE), WITH_INDEX | {"padding": "border"}, grad=GRAD, traced=True),
    Sample("reflect", (MAPS, THREE, SIZE), WITH_INDEX | {"padding": "reflect"}, grad=GRAD, traced=True),
    Sample("reflect, far out", (MAPS, 3 * THREE, SIZE), WITH_INDEX | {"padding": "reflect"}, grad=GRAD, tolerances=FAR),
    Sample("nearest", (MAPS, THREE, SIZE), WITH_INDEX | {"mode": "nearest"}, grad=("images",), traced=True),
    Sample(
        "nearest, border", (MAPS, THREE, SIZE), WITH_INDEX | {"mode": "nearest", "padding": "border"}, grad=("images",)
    ),
    Sample("nearest, reflect", (MAPS, ONE, SIZE), {"mode": "nearest", "padding": "reflect"}, grad=("images",)),
    Sample("normalised", (MAPS, THREE, SIZE), WITH_INDEX | {"mean": MEAN, "std": STD}, grad=GRAD, traced=True),
    Sample("one mean", (MAPS, ONE, SIZE), {"mean": 0.5, "std": 0.25}, grad=GRAD),
    Sample(
        "normalised fill", (MAPS, ONE, SIZE), {"mean": MEAN, "std": STD, "padding": "constant", "fill": 0.3}, grad=GRAD
    ),
    Sample("antialias", (MAPS, SMALLER, SIZE), WITH_INDEX | {"antialias": True}, grad=GRAD, traced=True),
    Sample(
        "antialias, border", (MAPS, SMALLER, SIZE), WITH_INDEX | {"antialias": True, "padding": "border"}, grad=GRAD
    ),
    Sample(
        "antialias, fill", (MAPS, SMALLER[:2], SIZE), {"antialias": True, "padding": "constant", "fill": 1.0}, grad=GRAD
    ),
    Sample("antialias, reflect", (MAPS, SMALLER[:2], SIZE), {"antialias": True, "padding": "reflect"}, grad=GRAD),
    Sample("bicubic", (MAPS, THREE, SIZE), WITH_INDEX | {"mode": "bicubic"}, grad=GRAD, traced=True),
    Sample(
        "bicubic, border",
        (MAPS, THREE, SIZE),
        WITH_INDEX | {"mode": "bicubic", "padding": "border"},
        grad=GRAD,
        traced=True,
    ),
    Sample(
        "bicubic, reflect, far out",
        (MAPS, 3 * THREE, SIZE),
        WITH_INDEX | {"mode": "bicubic", "padding": "reflect"},
        grad=GRAD,
        tolerances=FAR,
    ),
    Sample(
        "bicubic, many copies",
        (MAPS, 60 * ONE, SIZE),
        {"mode": "bicubic", "padding": "reflect"},
        grad=("images",),
        tolerances={torch.float32: (1e-2, 1e-3)},
    ),
    Sample(
        "bicubic, normalised fill",
        (MAPS, ONE, SIZE),
        {"mode": "bicubic", "mean": MEAN, "std": STD, "padding": "constant", "fill": [0.1, 0.2, 0.3]},
        grad=GRAD,
    ),
    Sample("bicubic, antialias", (MAPS, SMALLER, SIZE), WITH_INDEX | {"mode": "bicubic", "antialias": True}, grad=GRAD),
    Sample(
        "bicubic, antialias, border",
        (MAPS, SMALLER[:2], SIZE),
        {"mode": "bicubic", "antialias": True, "padding": "border"},
        grad=GRAD,
    ),
    Sample(
        "bicubic, antialias, reflect",
        (MAPS, SMALLER[:2], SIZE),
        {"mode": "bicubic", "antialias": True, "padding": "reflect"},
        grad=GRAD,
    ),
    Sample(
        "bicubic, antialias, fill",
        (MAPS, UPRIGHT, SIZE),
        {"mode": "bicubic", "antialias": True, "padding": "constant", "fill": 0.7},
        grad=GRAD,
    ),
    Sample("bicubic, upright, wide", (rand(2, 9, 19, 41), UPRIGHT * 0.4, (33, 67)), {"mode": "bicubic"}),
    Sample(
        "bicubic, bytes", (BYTES, THREE, SIZE), WITH_INDEX | {"mode": "bicubic", "std": 255.0}, grad=("transforms",)
    ),
    Sample(
        "bicubic, list",
        (LIST, THREE, SIZE),
        {"image_index": torch.tensor([2, 0, 1]), "mode": "bicubic", "padding": "reflect"},
        grad=("transforms",),
    ),
    Sample(
        "bicubic, strange",
        (MAPS, STRANGE, SIZE),
        {"image_index": torch.arange(8) % 2, "mode": "bicubic"},
        grad=("images",),
    ),
    Sample("mask", (MAPS, THREE, SIZE), WITH_INDEX | {"mask": BOXES}, grad=GRAD, traced=True),
    Sample("mask, normalised", (MAPS, THREE, SIZE), WITH_INDEX | {"mask": BOXES, "mean": MEAN, "std": STD}, grad=GRAD),
    Sample("bytes", (BYTES, THREE, SIZE), WITH_INDEX | {"mean": 120.0, "std": 60.0}, grad=("transforms",), traced=True),
    Sample("bytes, border", (BYTES, ONE, SIZE), {"padding": "border", "std": 60.0}, grad=("transforms",)),
    Sample(
        "bytes, antialias", (BYTES, SMALLER, SIZE), WITH_INDEX | {"antialias": True, "std": 255.0}, grad=("transforms",)
    ),
    Sample(
        "rgb", (BYTES.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), THREE, SIZE), WITH_INDEX | {"std": 255.0}
    ),
    Sample("one channel of bytes", (BYTES[:, :1], THREE, SIZE), WITH_INDEX | {"std": 255.0}),
    Sample("list", (LIST, THREE, SIZE), {"image_index": torch.tensor([2, 0, 1])}, grad=("transforms",), traced=True),
    Sample("list of bytes", ([t[0] for t in BYTES.split(1)], THREE, SIZE), WITH_INDEX | {"std": 255.0}),
    Sample(
        "long list",
        ([rand(2, 3, 4) for _ in range(70)], turned(70, image=(3, 4)), (3, 3)),
        {"image_index": torch.arange(70)},
    ),
    Sample("many channels", (rand(2, 9, 3, 4), turned(2, (2, 2), (3, 4)), (2, 2)), grad=GRAD),
    Sample("identity", (MAPS, SHIFT * torch.tensor([1.0, 1, 0]), (6, 7)), grad=("images",), exact=True),
    Sample("whole shift", (MAPS, SHIFT, (6, 7)), grad=("images",), exact=True),
    Sample("strange transforms", (MAPS, STRANGE, SIZE), {"image_index": torch.arange(8) % 2}, grad=("images",)),
    Sample(
        "strange, filled",
        (MAPS, STRANGE, SIZE),
        {"image_index": torch.arange(8) % 2, "padding": "constant", "fill": 1.0},
    ),
    Sample(
        "strange, border",
        (MAPS, STRANGE, SIZE),
        {"image_index": torch.arange(8) % 2, "padding": "border"},
        grad=("images",),
    ),
    Sample("strange, antialias", (MAPS, STRANGE, (2, 2)), {"image_index": torch.arange(8) % 2, "antialias": True}),
    Sample("strange, bytes", (BYTES, STRANGE, SIZE), {"image_index": torch.arange(8) % 2, "std": 255.0}),
    Sample("images of one pixel", (rand(2, 3, 1, 1), turned(2, image=(1, 1)), SIZE), grad=GRAD),
    Sample("one pixel, border", (rand(2, 3, 1, 1), turned(2, image=(1, 1)), SIZE), {"padding": "border"}, grad=GRAD),
    Sample("one pixel, reflect", (rand(2, 3, 1, 1), turned(2, image=(1, 1)), SIZE), {"padding": "reflect"}, grad=GRAD),
    Sample("one row", (rand(2, 2, 1, 9), turned(2, image=(1, 9)), SIZE), grad=GRAD),
    Sample("one column", (rand(2, 2, 9, 1), turned(2, image=(9, 1)), SIZE), {"padding": "reflect"}, grad=GRAD),
    Sample("two bytes", (BYTES[:, :, :2, :1], turned(2, image=(2, 1)), SIZE), {"std": 255.0}),
    Sample("patches of one pixel", (MAPS, turned(2, size=(1, 1)), (1, 1)), grad=GRAD),
    Sample("odd size", (rand(2, 2, 37, 41), turned(2, size=(33, 67), image=(37, 41)), (33, 67))),
    Sample("no patches", (MAPS, THREE[:0], SIZE), {"image_index": INDEX[:0]}, grad=GRAD, traced=True),
    Sample("no images", (MAPS[:0], ONE[:0], SIZE), grad=GRAD),
    Sample("no images, patches of fill", (MAPS[:0], ONE, SIZE), {"image_index": torch.tensor([0, -1])}),
    Sample("no channels", (MAPS[:, :0], ONE, SIZE), {"mask": BOXES[:2]}),
]


def bad(name, match, *args, error=ValueError, **kwargs):
    defaults = (MAPS.float(), ONE.float(), SIZE)
    return Bad(name, args + defaults[len(args) :], kwargs, error, "crop_patches: " + match)


M, T = MAPS.float(), ONE.float()
BAD = [
    bad("rank 5", r"images must be \(B, C, H, W\)", M[None]),
    bad("rank 2", r"images must be \(B, C, H, W\)", M[0, 0]),
    bad("empty list", "images must be .* at least one", []),
    bad("not tensors", "images must be a tensor", [1, 2], error=TypeError),
    bad("list of batches", r"a list of images must hold \(C, H, W\)", [M], error=ValueError),
    bad("integer images", "images must be uint8, float16", M.int()),
    bad("list of two dtypes", "images must share one dtype, got Float and Double", [M[0], M[1].double()]),
    bad("list of two channels", "images must have the same number of channels, got 3 and 2", [M[0], M[1, :2]]),
    bad("image without rows", "images must have sides from 1", M[:, :, :0]),
    bad("transforms of 3x3", r"transforms must be \(N, 2, 3\), got shape \(2, 3, 3\)", M, torch.rand(2, 3, 3)),
    bad("one transform", r"transforms must be \(N, 2, 3\)", M, T[0]),
    bad("half transforms", "transforms must be float32 or float64", M, T.half()),
    bad("no index", "image_index must be given for 3 transforms and 2 images", M, THREE.float()),
    bad("index of another length", r"image_index must be \(N,\) for 2 transforms", image_index=torch.zeros(3)),
    bad("floating index", "image_index must be int64", image_index=torch.zeros(2)),
    bad("size 0", "size must be positive", M, T, (0, 7), error=ValueError),
    bad("huge size", "size must be from 1 to", M, T, (1 << 40, 7)),
    bad("overflow", "size is too large for 2 patches of 3 channels", M, T, (1 << 28, 1 << 28)),
    bad("two means", "mean must be a number, or one for each of the 3 channels, got 2", mean=(0.1, 0.2)),
    bad("four stds", "std must be a number, or one for each of the 3 channels, got 4", std=(1, 1, 1, 1)),
    bad("std 0", "std must be positive, got 0", std=(0.1, 0.0, 0.2)),
    bad("negative std", "std must be positive", std=-1.0),
    bad("NaN mean", "mean must be finite", mean=NAN),
    bad("infinite std", "std must be finite", std=INF),
    bad("tensor mean", "mean must be a number or a list", mean=torch.zeros(3), error=TypeError),
    bad("65 means", "mean must be a number, or at most 64 numbers, got 65", torch.rand(2, 65, 3, 3), mean=[0.0] * 65),
    bad("fill without constant", "fill needs padding='constant'", fill=1.0, error=ValueError),
    bad("unknown mode", "mode must be one of bilinear, nearest, bicubic", mode="cubic", error=ValueError),
    bad("unknown padding", "padding must be one of constant, border, reflect, zeros", padding="wrap", error=ValueError),
    bad("nearest antialias", "antialias needs mode='bilinear' or 'bicubic'", mode="nearest", antialias=True),
    bad("mask of another length", r"mask must be \(N, 4\)", mask=torch.rand(3, 4)),
    bad("mask of centres", r"mask must be \(N, 4\)", mask=torch.rand(2, 2)),
    bad("integer mask", "mask must be float32 or float64", mask=torch.ones(2, 4).long()),
    bad("integer patches", "dtype must be uint8, float16", dtype=torch.int32),
]

TestCropPatches = check_op(
    crop_patches,
    reference.crop_patches,
    SAMPLES,
    bad=BAD,
    maps=("images",),
    batched=("transforms", "images", "image_index", "mask"),
    dtype_argument="dtype",
    second_order="crop_patches.*: double backward is not supported",
)


def crops_of_large(images, shift):
    """One patch of each image."""
    transforms = torch.eye(2, 3, device=images.device) + shift[..., None] * images.new_tensor([0.0, 0.0, 1.0])
    return pypose_ops.crop_patches(images, transforms.float(), (large.H, large.W))


LARGE = large.Case(
    crops_of_large, (large.rows(3, large.H, large.W, dtype=large.HALF), large.rows(2)), 3 * large.H * large.W, True
)

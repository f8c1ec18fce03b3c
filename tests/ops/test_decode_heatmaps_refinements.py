"""The compat modes of decode_heatmaps, its offset maps and its covariances under the contract of op_contract.py."""

import math
from dataclasses import replace

import pytest
import torch
from op_contract import Bad, Sample, check_op

from pypose_ops import decode_heatmaps, reference

NAN, INF = math.nan, math.inf
generator = torch.Generator().manual_seed(11)


def rand(*shape):
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def blobs(*shape, size=(17, 13), sigma=1.7, border=0.4):
    """Smooth maps with one clear peak each, down to the border."""
    height, width = size
    center = border + rand(*shape, 2) * torch.tensor([width - 1 - 2 * border, height - 1 - 2 * border])
    x = torch.arange(width) - center[..., :1]
    y = torch.arange(height) - center[..., 1:]
    return (0.5 + rand(*shape)[..., None, None]) * torch.exp(
        -(x[..., None, :] ** 2 + y[..., :, None] ** 2) / (2 * sigma**2)
    )


def combined(batch, joints, radius, size=(17, 13)):
    """UDP's combined targets: discs and the vectors to their centres, (B, 3 K, H, W)."""
    height, width = size
    center = 2 + rand(batch, joints, 2) * torch.tensor([width - 5.0, height - 5.0])
    x = (center[..., 0, None, None] - torch.arange(width)).expand(-1, -1, height, -1)
    y = (center[..., 1, None, None] - torch.arange(height)[:, None]).expand(-1, -1, -1, width)
    maps = torch.stack([(x**2 + y**2 <= radius**2).double(), x / radius, y / radius], 2)
    return (maps + 0.01 * rand(*maps.shape)).flatten(1, 2)


def mirrored(maps):
    """What the net might say of the mirrored image, joints 0 and 1 swapped."""
    channels = maps.flip(-1).unflatten(1, (-1, 3))[:, [1, 0, 2]].clone()
    channels[:, :, 1] *= -1
    return (channels * (0.9 + 0.1 * rand(*channels.shape))).flatten(1, 2)


MAPS = blobs(2, 6, border=3)
EDGES = blobs(3, 6)
TRANSFORM = torch.tensor([[[3.7, 0.4, 100], [-0.3, 4.1, -50]], [[1, 0, 0], [0, 1, 0]]])
NOISE = rand(3, 5, 16, 12) - 0.5
COMBINED = combined(2, 3, 3.0)
OFFSET = {"refine": "offset", "radius": 3.0, "kernel_size": 3}
FLIP = {"flipped": mirrored(COMBINED), "flip_pairs": [(0, 1)]}
CHANNELS = COMBINED.unflatten(1, (3, 3))
CLASSES, SEPARATE = CHANNELS[:, :, 0], {"refine": "offset", "radius": 3.0, "offsets": CHANNELS[:, :, 1:]}
TWINS = {
    "flipped": FLIP["flipped"].unflatten(1, (3, 3))[:, :, 0],
    "flipped_offsets": FLIP["flipped"].unflatten(1, (3, 3))[:, :, 1:],
    "flip_pairs": [(0, 1)],
}
HOLED = COMBINED.clone()
HOLED[:, :, ::5, ::4] = NAN
HOLED[:, 1, 3, 4] = INF
MODES = {
    "quarter": ("hrnet", "mmpose", "mmpose0"),
    "dark": ("hrnet", "mmpose", "mmpose0"),
    "dark_udp": ("mmpose", "mmpose0", "hf"),
}
SAMPLES = [
    *(
        Sample(
            f"{refine} of {compat}", (MAPS,), {"refine": refine, "compat": compat}, traced=compat in ("hf", "mmpose")
        )
        for refine, parities in MODES.items()
        for compat in parities
    ),
    *(
        Sample(f"dark_udp of {compat} at the border", (EDGES,), {"refine": "dark_udp", "compat": compat})
        for compat in ("mmpose", "mmpose0", "hf")
    ),
    Sample("quarter of hrnet on noise", (NOISE,), {"refine": "quarter", "compat": "hrnet"}),
    Sample("dark_udp at the border", (EDGES,), {"refine": "dark_udp"}),
    Sample("parabola at the border", (EDGES,), {"refine": "parabola"}),
    Sample("centroid of 3", (EDGES,), {"refine": "centroid", "kernel_size": 3}),
    Sample(
        "kernel larger than the map, reflected",
        (blobs(1, 3, size=(8, 7), sigma=0.8, border=2),),
        {"refine": "dark_udp", "compat": "mmpose0", "kernel_size": 15},
        # Reflected twice and blurred, little is left of the peak: the Hessian is some 0.01.
        tolerances={torch.float32: (1e-3, 1e-3), torch.float16: (2e-2, 2e-2), torch.bfloat16: (0.2, 0.2)},
    ),
    Sample("sigma 1.5", (MAPS,), {"sigma": 1.5}, traced=True),
    Sample("limited compat", (MAPS,), {"refine": "dark_udp", "compat": "hf", "max_offset": 0.25}),
    Sample("covariance", (MAPS,), {"return_covariance": True}, traced=True),
    Sample(
        "covariance in the image",
        (blobs(2, 3, border=4),),
        {"refine": "dark_udp", "return_covariance": True, "transform": TRANSFORM},
        tolerances={torch.float32: (1e-3, 1e-4)},  # multiplied by 16
        traced=True,
    ),
    Sample(
        "no covariance",
        (torch.stack([torch.zeros(2, 9, 8), torch.full((2, 9, 8), NAN)]),),
        {"return_covariance": True},
        equal_nan=True,
    ),
    Sample("offset", (COMBINED,), OFFSET, traced=True),
    Sample("offset of mmpose", (COMBINED,), OFFSET | {"compat": "mmpose", "kernel_size": 11}),
    Sample("offset, transform", (COMBINED,), OFFSET | {"transform": TRANSFORM, "max_offset": 0.5}),
    Sample("offset, flip test", (COMBINED,), OFFSET | FLIP, traced=True),
    Sample("offset, flip test shifted", (COMBINED,), OFFSET | FLIP | {"flip_shift": True}),
    Sample("offset, larger than a tile", (combined(1, 2, 4.0, (37, 70)),), OFFSET | {"radius": 4.0, "kernel_size": 11}),
    Sample("offset, not finite", (HOLED,), OFFSET),
    Sample("offset, one pixel", (rand(2, 3, 1, 1),), OFFSET),
    Sample("offset, one row", (rand(2, 3, 1, 5),), OFFSET),
    Sample("offset, all below zero", (-COMBINED.abs() - 1,), OFFSET),
    Sample("offset, no blur", (HOLED,), OFFSET | {"kernel_size": None, "return_pixels": True}, traced=True),
    Sample("offset, no blur, flip test", (COMBINED,), OFFSET | FLIP | {"kernel_size": None, "flip_shift": True}),
    Sample("offset, logits", (COMBINED - 3,), OFFSET | {"threshold": -INF, "missing": -1.0}),
    Sample("offset, logits without blur", (HOLED - 3,), OFFSET | {"threshold": -INF, "kernel_size": None}),
    Sample("separate offsets", (CLASSES,), SEPARATE, traced=True),
    Sample("separate offsets, blur", (CLASSES,), SEPARATE | {"kernel_size": 3, "threshold": 0.4}),
    Sample("separate offsets, flip test", (CLASSES,), SEPARATE | TWINS | {"return_pixels": True}, traced=True),
    Sample("separate offsets, limited", (CLASSES,), SEPARATE | TWINS | {"flip_shift": True, "max_offset": 0.5}),
    Sample("offset, no joints", (torch.zeros(2, 0, 8, 6),), OFFSET),
]
# What was not found is NaN, in the operator and in its definition.
SAMPLES = [replace(sample, equal_nan=True) for sample in SAMPLES]


def bad(name, match, maps=MAPS, error=ValueError, **kwargs):
    return Bad(name, (maps.float(),), kwargs, error, "decode_heatmaps: " + match)


BAD = [
    bad("unknown compat", "compat must be None or one of hrnet, mmpose", error=ValueError, compat="detectron"),
    bad("compat of another refine", "compat 'hf' has no refine 'dark'", error=ValueError, compat="hf"),
    bad("kernel and sigma", "give kernel_size or sigma", error=ValueError, kernel_size=3, sigma=1),
    bad("sigma 0", "sigma must be positive and finite", error=ValueError, sigma=0),
    bad("sigma NaN", "sigma must be positive and finite", error=ValueError, sigma=NAN),
    bad("quarter covariance", "return_covariance is for", error=ValueError, refine="quarter", return_covariance=True),
    bad("radius of dark", "radius is for refine 'offset'", error=ValueError, radius=2.0),
    bad("no radius", "radius is required", COMBINED, ValueError, refine="offset"),
    bad("radius 0", "radius must be positive and finite", COMBINED, **OFFSET | {"radius": 0.0}),
    bad("radius infinite", "radius must be positive and finite", COMBINED, **OFFSET | {"radius": INF}),
    bad("offset kernel 33", "kernel_size must be odd and from 1 to 31", COMBINED, **OFFSET | {"kernel_size": 33}),
    bad("four channels", r"heatmaps with offsets must be \(B, 3 K, H, W\)", MAPS[:, :4], **OFFSET),
    bad("offsets of dark", "offsets are for refine 'offset'", CLASSES, ValueError, offsets=CLASSES),
    bad("offsets of rank 4", r"offsets must be \(B, K, 2, H, W\)", CLASSES, **SEPARATE | {"offsets": CLASSES.float()}),
    bad("offsets of another size", "offsets must have size 3 in dimension 1", CLASSES,
        **SEPARATE | {"offsets": CHANNELS[:, :2, 1:].float()}),
    bad("offsets of another dtype", "offsets must have the dtype of heatmaps", CLASSES,
        **SEPARATE | {"offsets": CHANNELS[:, :, 1:].half()}),
    bad("no flipped offsets", "flipped_offsets and flipped go together", CLASSES,
        **SEPARATE | {"offsets": CHANNELS[:, :, 1:].float(), "flipped": CLASSES.float(), "flip_pairs": []}),
    bad("offset of rank 3", r"heatmaps must be \(B, K, H, W\)", COMBINED[0], **OFFSET),
    bad("offset pairs", "flip_pairs must be joints from 0 to 2", COMBINED, ValueError, **OFFSET,
        flipped=COMBINED.float(), flip_pairs=[(0, 3)]),
]  # fmt: skip

TestDecoders = check_op(
    decode_heatmaps,
    reference.decode_heatmaps,
    SAMPLES,
    bad=BAD,
    maps=("heatmaps", "flipped", "offsets", "flipped_offsets"),
    batched=("heatmaps", "flipped", "transform", "offsets", "flipped_offsets"),
)


def test_layouts_that_keep_offsets_apart(device):
    """One joint at (11.75, 6.5) of an image of stride 4: DeepLabCut's, PoseNet's and MoveNet's heads say so."""
    scores = torch.zeros(1, 1, 4, 5, device=device)
    scores[0, 0, 1, 2] = 0.75
    offsets = torch.zeros(1, 1, 2, 4, 5, device=device)
    # Pixel (2, 1) is at (2 * 4 + 2, 1 * 4 + 2); the remainder, (1.75, 0.5), is given in units of 7.
    offsets[0, 0, :, 1, 2] = torch.tensor([1.75, 0.5]) / 7
    to_image = torch.tensor([[4.0, 0, 2], [0, 4, 2]], device=device)
    locref = offsets.movedim(2, -1).contiguous().movedim(-1, 2)  # x and y next to each other
    options = {"refine": "offset", "transform": to_image, "return_pixels": True}
    coords, found, pixels = decode_heatmaps(scores, offsets=locref, radius=7 / 4, **options)
    assert coords.flatten().tolist() == [11.75, 6.5] and found.item() == 0.75 and pixels.flatten().tolist() == [2, 1]
    # (y, x), from the pixel's corner, in image pixels.
    posenet = torch.zeros(1, 2, 1, 4, 5, device=device)
    posenet[0, :, 0, 1, 2] = torch.tensor([2.5, 3.75])
    apart = posenet.flip(1).transpose(1, 2)
    corner = {"transform": torch.tensor([[4.0, 0, 0], [0, 4, 0]], device=device)}
    coords, _, _ = decode_heatmaps(scores, offsets=apart, radius=1 / 4, **options | corner)
    assert coords.flatten().tolist() == [11.75, 6.5]


def test_a_logit_of_any_sign_can_win(device):
    maps = torch.full((1, 1, 5, 6), -7.0, device=device)
    maps[0, 0, 3, 4] = -2.5
    coords, scores = decode_heatmaps(maps, refine=None)
    assert coords.isnan().all() and scores.item() == 0
    coords, scores = decode_heatmaps(maps, refine=None, threshold=-INF)
    assert coords.flatten().tolist() == [4, 3] and scores.item() == -2.5
    assert decode_heatmaps(maps, threshold=-2.5, missing=-1.0).coords.tolist() == [[[-1, -1]]]


def test_even_windows_lie_between_the_pixels(device):
    """Window 2: four points, each the mean of four pixels. Columns 0, 4, 2: means 2 and 3, half a pixel away each."""
    maps = torch.zeros(1, 1, 3, 5, device=device)
    maps[0, 0, 1, 1:4] = torch.tensor([0.0, 4.0, 2.0])
    coords, _ = decode_heatmaps(maps, refine="centroid", kernel_size=2)
    assert coords.flatten().tolist() == [pytest.approx(2 + 0.5 * (3 - 2) / (3 + 2)), 1]

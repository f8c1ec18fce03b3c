"""The peers' modes of decode_heatmaps, its offset maps and its covariances under the contract of op_contract.py."""

import math

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
    Sample("offset, no joints", (torch.zeros(2, 0, 8, 6),), OFFSET),
]


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
    bad("offset of rank 3", r"heatmaps must be \(B, K, H, W\)", COMBINED[0], **OFFSET),
    bad("offset pairs", "flip_pairs must be joints from 0 to 2", COMBINED, ValueError, **OFFSET,
        flipped=COMBINED.float(), flip_pairs=[(0, 3)]),
]  # fmt: skip

TestDecoders = check_op(
    decode_heatmaps,
    reference.decode_heatmaps,
    SAMPLES,
    bad=BAD,
    maps=("heatmaps", "flipped"),
    batched=("heatmaps", "flipped", "transform"),
)

"""decode_roi_heatmaps under the contract of op_contract.py, by hand, and against torch's interpolation."""

import math
from dataclasses import replace

import large_inputs as large
import pytest
import torch
import torch.nn.functional as F
from op_contract import Bad, Sample, check_op

import pypose_ops
from pypose_ops import decode_roi_heatmaps, reference

NAN, INF = math.nan, math.inf
generator = torch.Generator().manual_seed(11)


def rand(*shape):
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def eighths(boxes):
    """Their sides are the same in float32 and in float64."""
    return (8 * boxes).round() / 8


def boxes(count, least, most):
    corner = 100 * rand(count, 2) - 20
    return eighths(torch.cat([corner, corner + least + (most - least) * rand(count, 2)], 1))


def peaks(batch, joints, height, width, sigma=2.5):
    at = rand(batch, joints, 2) * torch.tensor([width + 1.0, height + 1.0]) - 1
    maps = 12 * reference.gaussian_heatmaps(at, sigma, (height, width)) - 4
    return maps + 0.3 * torch.randn(maps.shape, generator=generator, dtype=torch.float64)


def noise(*shape):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


MAPS, ROIS = peaks(3, 4, 56, 56), boxes(3, 40, 200)
HOLED = noise(2, 4, 9, 21)
HOLED[:, 0, 3, ::5] = NAN
HOLED[:, 1, 2:4] = INF
HOLED[:, 2, :, 7] = -INF
HOLED[:, 3] = NAN
STRANGE = torch.tensor(
    [
        [NAN, 0, 10, 10],
        [0, 0, INF, 10],
        [0, -INF, 10, 10],
        [30, 40, 10, 20],
        [5, 5, 5, 5],
        [0, 0, 40000, 3],
        [1e30, 0, 1e30, 9],
        [0, 0, 0.25, 7.5],
    ],
    dtype=torch.float64,
)

SAMPLES = [
    Sample("peaks", (MAPS, ROIS), traced=True),
    Sample("noise", (noise(3, 4, 56, 56), ROIS), traced=True),
    Sample("made smaller", (noise(4, 3, 40, 33), boxes(4, 1, 30))),
    Sample("much smaller", (noise(4, 3, 70, 90), boxes(4, 1, 5))),
    Sample("wider than vectors", (noise(1, 2, 5, 3), torch.tensor([[2.0, 1, 300, 90.5]]))),
    Sample("large box", (peaks(1, 1, 20, 30), torch.tensor([[0.0, 0, 1500.25, 900.5]]))),
    Sample("of the maps' size", (noise(2, 3, 20, 24), torch.tensor([[0.0, 0, 24, 20], [3.5, 2.25, 27.5, 22.25]]))),
    Sample("one row", (noise(2, 3, 1, 23), torch.tensor([[0.0, 0, 40, 1], [1, 2, 30.5, 3]]))),
    Sample("one column", (noise(2, 3, 19, 1), torch.tensor([[0.0, 0, 1, 40], [1, 2, 2, 30.5]]))),
    Sample("two rows", (noise(2, 3, 2, 5), torch.tensor([[0.0, 0, 31, 17], [1, 2, 30.5, 3]]))),
    Sample("one pixel", (noise(2, 3, 1, 1), torch.tensor([[0.0, 0, 4, 5], [1, 2, 3.5, 2]]))),
    Sample("constant", (torch.full((2, 3, 12, 17), 0.625), boxes(2, 5, 60))),
    Sample("zeros", (torch.zeros(2, 3, 12, 17), boxes(2, 5, 60))),
    Sample("all negative", (noise(2, 3, 12, 17).abs() * -1 - 1, boxes(2, 5, 60))),
    Sample("not finite", (HOLED, boxes(2, 10, 60))),
    Sample("strange boxes", (noise(8, 2, 9, 11), STRANGE)),
    Sample("no items", (torch.zeros(0, 3, 8, 9), torch.zeros(0, 4))),
    Sample("no joints", (torch.zeros(2, 0, 8, 9), boxes(2, 5, 60))),
]
# What was not found is NaN, in the operator and in its definition.
SAMPLES = [replace(sample, equal_nan=True) for sample in SAMPLES]


def bad(name, match, maps=MAPS, rois=ROIS, error=ValueError):
    args = [t.float() if isinstance(t, torch.Tensor) and t.dtype == torch.float64 else t for t in (maps, rois)]
    return Bad(name, tuple(args), {}, error, "decode_roi_heatmaps: " + match)


BAD = [
    bad("rank 3", r"heatmaps must be \(B, K, H, W\)", MAPS[0]),
    bad("integers", "heatmaps must be float16, bfloat16, float32 or float64", MAPS.long()),
    bad("no rows", "heatmaps must have H and W of at least 1", MAPS[:, :, :0]),
    bad("list", "heatmaps must be a tensor, got list", [1.0], error=TypeError),
    bad("box of a list", "boxes must be a tensor, got list", rois=[0, 0, 1, 1], error=TypeError),
    bad("one box", r"boxes must be \(3, 4\), got shape \(4\)", rois=ROIS[0]),
    bad("too few boxes", r"boxes must be \(3, 4\), got shape \(2, 4\)", rois=ROIS[:2]),
    bad("boxes with numbers of images", r"boxes must be \(3, 4\), got shape \(3, 5\)", rois=torch.rand(3, 5)),
    bad("integer boxes", "boxes must be float32 or float64", rois=ROIS.long()),
    bad("half boxes", "boxes must be float32 or float64", rois=ROIS.half()),
]

TestDecodeRoiHeatmaps = check_op(
    decode_roi_heatmaps,
    reference.decode_roi_heatmaps,
    SAMPLES,
    bad=BAD,
    maps=("heatmaps",),
    batched=("heatmaps", "boxes"),
)


def test_by_hand(device):
    maps = torch.zeros(1, 1, 3, 3)
    maps[0, 0, 1, 2] = 2.0
    # 6 pixels across: the fifth at 4.5 / 2 - 0.5 = 1.75, the sixth beyond the edge, at 2.25. With a = -0.75 the pixel
    # at 2 weighs 0.87890625 at a quarter from it, and its copies at 3 and 4 0.26171875 and -0.03515625 at 2.25.
    coords, scores = decode_roi_heatmaps(maps.to(device), torch.tensor([[10.0, 20.0, 16.0, 23.0]], device=device))
    copied = 0.87890625 + 0.26171875 - 0.03515625
    assert coords.tolist() == [[[15.5, 21.5]]] and scores.item() == pytest.approx(2 * copied, abs=1e-6)


def test_first_of_equal_pixels(device):
    boxes = torch.tensor([[10.0, 20.0, 30.5, 60.25]], device=device)
    for value in (0.0, 0.1, -3.0):
        coords, scores = decode_roi_heatmaps(torch.full((1, 1, 56, 56), value, device=device), boxes)
        assert scores.item() == torch.tensor(value).item()
        torch.testing.assert_close(coords.cpu()[0, 0], torch.tensor([10 + 0.5 * 20.5 / 21, 20 + 0.5 * 40.25 / 41]))
    # Two equal peaks: of the upper half, and of the lower.
    maps = torch.zeros(1, 2, 8, 8, device=device)
    maps[0, 0, 2, 6] = maps[0, 0, 5, 1] = maps[0, 1, 4, 2] = maps[0, 1, 4, 5] = 1.0
    coords, _ = decode_roi_heatmaps(maps, torch.tensor([[0.0, 0.0, 8.0, 8.0]], device=device))
    assert coords.tolist() == [[[6.5, 2.5], [2.5, 4.5]]]


@pytest.mark.parametrize("kind", ("peaks", "noise", "plateau", "ramp", "edge"))
@pytest.mark.parametrize("size", ((56, 56), (7, 30), (1, 5), (64, 20)))
def test_highest_of_torchs_interpolation(device, kind, size):
    """No resized pixel is higher than the one found, which has the score."""
    maps = {
        "peaks": lambda: peaks(6, 3, *size),
        "noise": lambda: noise(6, 3, *size),
        "plateau": lambda: peaks(6, 3, *size).clamp(max=1.0),
        "ramp": lambda: torch.arange(size[1]) - 3.0 * torch.arange(size[0])[:, None] + torch.zeros(6, 3, 1, 1),
        "edge": lambda: peaks(6, 3, *size) - 40 * (torch.arange(size[1]) > 0),
    }[kind]().float()
    rois = boxes(6, 0.5, 90).float()
    coords, scores = (out.cpu() for out in decode_roi_heatmaps(maps.to(device), rois.to(device)))
    for i, (x1, y1, x2, y2) in enumerate(rois.tolist()):
        extent = torch.tensor([max(1.0, x2 - x1), max(1.0, y2 - y1)])
        width, height = extent.ceil().int().tolist()
        resized = F.interpolate(maps[i][None], (height, width), mode="bicubic", align_corners=False)[0]
        at = (coords[i] - rois[i, :2]) / (extent / extent.ceil()) - 0.5
        x, y = at.round().long().unbind(-1)
        torch.testing.assert_close(at, torch.stack([x, y], -1).float(), rtol=0, atol=1e-3)
        atol = 1e-5 * float(maps.abs().max())
        torch.testing.assert_close(scores[i], resized.flatten(1).amax(1), rtol=0, atol=atol)
        torch.testing.assert_close(resized[torch.arange(3), y, x], scores[i], rtol=0, atol=atol)


LARGE = large.Case(
    lambda maps, corner: pypose_ops.decode_roi_heatmaps(maps, torch.cat([corner, corner + 20], 1).float()),
    (large.rows(large.K, large.H, large.W, dtype=large.HALF), large.rows(2)),
    large.K * large.H * large.W,
)

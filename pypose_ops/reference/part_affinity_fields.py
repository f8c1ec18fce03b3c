"""Part affinity fields: which way limbs run. In plain torch."""

from collections.abc import Sequence
from typing import Literal

import torch

from ._arguments import pairs, visibility

FARTHEST, SHORTEST = 1e6, 1e-6


def part_affinity_fields(
    keypoints: torch.Tensor,
    limbs: Sequence[tuple[int, int]],
    limb_radius: float,
    size: tuple[int, int],
    *,
    visible: torch.Tensor | None = None,
    profile: Literal["band", "openpose", "trt_pose", "sleap", "linear"] = "band",
    combine: Literal["mean", "sum", "last"] = "mean",
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Definition of :func:`pypose_ops.part_affinity_fields`: every person's field in memory at once."""
    dtype = dtype or _map_dtype(keypoints)
    limb = _limbs(keypoints, limbs, size, visible, dtype)
    drawn = limb["present"] & (limb["length"] >= SHORTEST)[..., None, None]
    across, along = limb["across"], limb["along"]
    covers = drawn
    if profile in ("band", "openpose"):
        covers = drawn & (across.abs() <= limb_radius) & _box(limb, limb_radius, size, profile == "openpose")
        weight = covers.to(across)
    elif profile == "linear":
        covers = drawn & (across.abs() <= limb_radius) & _between_ends(limb)
        weight = torch.where(covers, 1 - across.abs() / limb_radius, 0.0)
    elif profile == "trt_pose":
        beyond = along - along.clamp(min=0).minimum(limb["length"][..., None, None])
        weight = torch.exp(-(across**2 + beyond**2) / limb_radius**2)
    else:
        length = limb["length"][..., None, None]
        nearest = (along * length / (length**2).clamp(min=1)).clamp(0, 1) * length
        weight = torch.exp(-((across**2 + (along - nearest) ** 2) ** 2) / (2 * limb_radius**2))
    weight = torch.where(drawn, weight, 0.0)
    fields = weight[..., None, :, :] * limb["direction"][..., None, None]  # (B, P, L, 2, H, W)
    fields = torch.where(drawn[..., None, :, :], fields, 0.0)
    covers = covers.expand_as(weight).to(torch.int64)  # (B, P, L, H, W)
    if combine == "last":
        if profile in ("trt_pose", "sleap"):
            raise ValueError("part_affinity_fields: the soft profiles have no edge to be combined by last")
        later = covers.flip(1).cumsum(1).flip(1) - covers  # how many of the people after this one cover the pixel
        fields = torch.where((later == 0)[..., None, :, :], fields, 0.0)
    fields = fields.sum(1)
    if combine == "mean":
        fields = fields / covers.sum(1).clamp(min=1)[:, :, None]
    return fields.flatten(1, 2).to(dtype)


def _map_dtype(keypoints):
    return torch.float64 if keypoints.dtype == torch.float64 else torch.float32


def _people(keypoints, visible, acc):
    """Keypoints with a people axis, 0 where they draw nothing, and whether they do."""
    drawn = (keypoints.abs() <= FARTHEST).all(-1)
    if visible is not None:
        drawn = drawn & visibility(visible, keypoints)
    points = torch.where(drawn[..., None], keypoints.to(acc), 0.0)
    return (points, drawn) if keypoints.dim() == 4 else (points[:, None], drawn[:, None])


def _limbs(keypoints, limbs, size, visible, dtype):
    """Every limb seen from every pixel: (B, P, L) and (B, P, L, H, W)."""
    height, width = size
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    points, drawn = _people(keypoints, visible, acc)
    first, second = pairs(limbs).to(points.device).unbind(1)
    start, end = points[:, :, first], points[:, :, second]
    length = (end - start).norm(dim=-1)
    has_length = length >= SHORTEST
    forward = torch.tensor([1.0, 0.0]).to(points)  # of a limb without length
    # Placeholders keep NaN out of the graph.
    direction = (end - start) / torch.where(has_length, length, 1.0)[..., None]
    direction = torch.where(has_length[..., None], direction, forward)
    dx = (torch.arange(width).to(points) - start[..., 0, None])[..., None, :]
    dy = (torch.arange(height).to(points) - start[..., 1, None])[..., :, None]
    ux, uy = direction[..., 0, None, None], direction[..., 1, None, None]
    return {
        "start": start,
        "end": end,
        "length": length,
        "direction": direction,
        "present": (drawn[:, :, first] & drawn[:, :, second])[..., None, None],
        "dx": dx,
        "dy": dy,
        "across": dx * uy - dy * ux,
        "along": dx * ux + dy * uy,
    }


def _box(limb, radius, size, rounded):
    """Which pixels are in the limb's bounding box, grown by the radius."""
    inside = []
    for axis, pixels in enumerate((size[1], size[0])):
        a, b = limb["start"][..., axis, None], limb["end"][..., axis, None]
        low, high = torch.minimum(a, b) - radius, torch.maximum(a, b) + radius
        grid = torch.arange(pixels).to(low)
        if rounded:  # halves away from zero, as in C
            low, high = (v.sign() * torch.floor(v.abs() + 0.5) for v in (low, high))
            inside.append((grid >= low) & (grid < high))
        else:
            inside.append((grid >= low) & (grid <= high))
    return inside[0][..., None, :] & inside[1][..., :, None]


def _between_ends(limb):
    """Which pixels are between the lines across the limb through its ends, borders included."""
    x, y = ((e - s)[..., None, None] for e, s in zip(limb["end"].unbind(-1), limb["start"].unbind(-1), strict=True))
    along = limb["dx"] * x + limb["dy"] * y
    return (along >= 0) & (along <= x * x + y * y)

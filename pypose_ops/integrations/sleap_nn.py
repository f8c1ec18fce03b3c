"""Peaks, crops, confidence maps, part affinity fields and grouping of sleap-nn 0.3, with its names and arguments.

    import pypose_ops.integrations.sleap_nn as fast

    fast.replace()  # replaces sleap-nn's functions; .undo() restores them

The functions work without sleap-nn. Everything but the grouping stays on the device of its tensors.
"""

import math
from typing import Any

import torch

from ..ops.crop_patches import crop_patches
from ..ops.decode_heatmaps import decode_heatmaps
from ..ops.find_peaks import find_peaks, list_peaks
from ..ops.gaussian_heatmaps import gaussian_heatmaps
from ..ops.part_affinity_fields import part_affinity_fields
from ._peer import Replacement, require
from ._sleap_nn_grouping import group_instances as group_instances
from ._sleap_nn_grouping import predict
from ._sleap_nn_grouping import score_paf_lines_batch as score_paf_lines_batch

VERSIONS = ("0.3",)
FEW_PEAKS = 256  # per map, of the first search
MAX_PEAKS = 1024  # per map, the limit of find_peaks
TILE = 64  # pixels a side, in which there cannot be more peaks
LocalPeakList = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


_OWN: dict[str, Any] = {}  # sleap-nn's functions, by replace()


def _exported(name: str) -> Any:
    """sleap-nn's own function while its TorchScript exporter to ONNX, which knows no operators of ours, runs."""
    return _OWN.get(name) if torch.onnx.is_in_onnx_export() else None


def _refinement(refinement: str | None, size: int) -> dict[str, Any]:
    if refinement == "integral":
        return {"refine": "centroid", "kernel_size": size, "max_offset": None}
    return {"refine": None}


def find_global_peaks(
    cms: torch.Tensor, threshold: float = 0.2, refinement: str | None = None, integral_patch_size: int = 5
) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest pixel of every map ``(B, K, H, W)``: coordinates ``(B, K, 2)`` and values ``(B, K)``.

    Maps below ``threshold`` or without a finite pixel give NaN and 0. Among equal pixels the first wins, whereas
    sleap-nn combines the column of one with the row of another. Patches of even sizes are centred on the peak, those
    of sleap-nn are not: its peaks move by up to half a pixel to the right and below.
    """
    if own := _exported("find_global_peaks"):
        return own(cms, threshold, refinement, integral_patch_size)
    coords, scores = decode_heatmaps(cms, threshold=-math.inf, **_refinement(refinement, integral_patch_size))
    low = scores < threshold
    return coords.masked_fill(low[..., None], math.nan), scores.masked_fill(low, 0.0)


def find_global_peaks_rough(cms: torch.Tensor, threshold: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`find_global_peaks` without refinement."""
    if own := _exported("find_global_peaks_rough"):
        return own(cms, threshold)
    return find_global_peaks(cms, threshold)


def find_local_peaks(
    cms: torch.Tensor, threshold: float = 0.2, refinement: str | None = None, integral_patch_size: int = 5
) -> LocalPeakList:
    """All local maxima above ``threshold`` of maps ``(B, K, H, W)``, by sample, row, column and channel.

    A plateau of equal pixels is one peak, at its first pixel; sleap-nn 0.3.3 finds none there. Maps with more than
    1024 peaks are searched in tiles.

    Returns:
        Coordinates ``(n, 2)``, values ``(n,)``, samples ``(n,)`` and channels ``(n,)``, both int32.
    """
    if own := _exported("find_local_peaks"):
        return own(cms, threshold, refinement, integral_patch_size)
    window = integral_patch_size if refinement == "integral" else 0
    if (listed := list_peaks(cms, threshold, window)) is not None:
        return listed
    height, width = cms.shape[-2:]
    options = {"threshold": threshold, **_refinement(refinement, integral_patch_size)}
    found = _peaks_of(cms, options, FEW_PEAKS) or _peaks_of(cms, options, MAX_PEAKS)
    if found is None:
        margin = integral_patch_size // 2 + 1
        tiles = [
            _peaks_of(cms[..., top : top + TILE, left : left + TILE], options, MAX_PEAKS, (left, top), (columns, rows))
            for top, rows in _tiles(height, margin)
            for left, columns in _tiles(width, margin)
        ]
        found = tuple(torch.cat(part) for part in zip(*(t for t in tiles if t is not None), strict=True))
    coords, pixel, scores, sample, channel = found
    x, y = pixel.long().unbind(-1)
    order = (((sample * height + y) * width + x) * cms.shape[1] + channel).argsort()
    return coords[order], scores[order], sample[order].int(), channel[order].int()


def _tiles(size: int, margin: int) -> list[tuple[int, tuple[int, int]]]:
    """Tiles along one side: where they begin, and the pixels from ``low`` up to ``high`` that are theirs alone."""
    inner = TILE - 2 * margin
    bounds = list(range(0, size, inner)) if size > TILE else [0]
    return [
        (max(0, min(low - margin, size - TILE)), (low, high))
        for low, high in zip(bounds, [*bounds[1:], size], strict=True)
    ]


def _peaks_of(
    cms: torch.Tensor,
    options: dict[str, Any],
    places: int,
    corner: tuple[int, int] = (0, 0),
    keep: tuple[tuple[int, int], tuple[int, int]] | None = None,
) -> tuple[torch.Tensor, ...] | None:
    """Coordinates, pixels, scores, samples and channels of all peaks; None where a map has more than ``places``.

    Args:
        cms: ``(B, K, H, W)``.
        options: of :func:`pypose_ops.find_peaks`.
        places: peaks per map.
        corner: the pixel ``(x, y)`` of the whole map that is the first here.
        keep: ranges of x and y of the whole map, outside of which peaks are another tile's.
    """
    height, width = cms.shape[-2:]
    places = min(places, max(1, (height + 1) // 2 * ((width + 1) // 2)))  # no two peaks touch
    found = find_peaks(cms, max_peaks=places, return_pixels=True, **options)
    most = int(found.counts.amax()) if found.counts.numel() else 0
    if most > places:
        return None
    filled = torch.arange(most, device=cms.device) < found.counts[..., None]
    coords, pixels = found.coords[..., :most, :], found.pixels[..., :most, :]
    if keep is not None:
        shift = pixels.new_tensor(corner)
        coords, pixels = coords + shift, pixels + shift
        for axis, (low, high) in enumerate(keep):
            filled = filled & (pixels[..., axis] >= low) & (pixels[..., axis] < high)
    sample, channel, _ = place = filled.nonzero(as_tuple=True)
    return coords[place], pixels[place], found.scores[place], sample, channel


def find_local_peaks_rough(cms: torch.Tensor, threshold: float = 0.2) -> LocalPeakList:
    """:func:`find_local_peaks` without refinement."""
    if own := _exported("find_local_peaks_rough"):
        return own(cms, threshold)
    return find_local_peaks(cms, threshold)


def crop_bboxes(images: torch.Tensor, bboxes: torch.Tensor, sample_inds: torch.Tensor) -> torch.Tensor:
    """Whole pixels of boxes ``(n, 4, 2)``, all of the first one's size, of images ``(B, C, H, W)``; zeros outside."""
    if len(bboxes) == 0:
        return images.new_empty(0, images.shape[1], 0, 0)
    height = int(abs(bboxes[0, 3, 1] - bboxes[0, 0, 1]).item()) + 1
    width = int(abs(bboxes[0, 1, 0] - bboxes[0, 0, 0]).item()) + 1
    half = torch.tensor([width // 2, height // 2], dtype=bboxes.dtype, device=bboxes.device)
    transforms = torch.eye(2, 3, device=bboxes.device).repeat(len(bboxes), 1, 1)
    transforms[..., 2] = torch.trunc(bboxes[:, 0] + half) - half
    return crop_patches(
        images, transforms.to(images.device), (height, width), image_index=torch.as_tensor(sample_inds), mode="nearest",
        dtype=images.dtype,
    )  # fmt: skip


def _grid(xv: torch.Tensor, yv: torch.Tensor) -> tuple[torch.Tensor, float, tuple[int, int]]:
    """Origin, stride and size of maps.

    Raises:
        ValueError: a grid without pixels, or whose pixels are not as far apart along both axes.
    """
    vectors = {"xv": xv.tolist(), "yv": yv.tolist()}
    stride = next(((v[-1] - v[0]) / (len(v) - 1) for v in vectors.values() if len(v) > 1), 1.0)
    for name, v in vectors.items():
        if not v:
            raise ValueError(f"{name} must have at least 1 entry")
        for i in {min(1, len(v) - 1), len(v) - 1}:
            if not abs(v[i] - v[0] - i * stride) <= 0.01 * abs(stride):
                raise ValueError(
                    f"xv and yv must have one spacing, {stride:g}, got {name}[{i}] = {v[i]:g} after {v[0]:g}"
                )
    return torch.stack([xv[0], yv[0]]), stride, (len(yv), len(xv))


def make_confmaps(points_batch: torch.Tensor, xv: torch.Tensor, yv: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussians at points ``(B, K, 2)`` in image pixels, on the grid of ``xv`` and ``yv``: ``(B, K, H, W)``."""
    origin, stride, size = _grid(xv, yv)
    return gaussian_heatmaps((points_batch.float() - origin) / stride, sigma / stride, size)


def make_multi_confmaps(points_batch: torch.Tensor, xv: torch.Tensor, yv: torch.Tensor, sigma: float) -> torch.Tensor:
    """The highest of several instances' Gaussians, points ``(B, N, K, 2)``: ``(B, K, H, W)``."""
    return make_confmaps(points_batch, xv, yv, sigma)


def make_multi_pafs(
    xv: torch.Tensor, yv: torch.Tensor, edge_sources: torch.Tensor, edge_destinations: torch.Tensor, sigma: float
) -> torch.Tensor:
    """Fields of edges ``(N, E, 2)`` of several instances, added up: ``(E, 2, H, W)``."""
    origin, stride, size = _grid(xv, yv)
    edges = edge_sources.shape[1]
    points = (torch.cat([edge_sources, edge_destinations], 1).float() - origin) / stride
    fields = part_affinity_fields(
        points[None], [(e, edges + e) for e in range(edges)], sigma / stride**2, size, profile="sleap", combine="sum"
    )
    return fields[0].unflatten(0, (edges, 2))


def make_pafs(
    xv: torch.Tensor, yv: torch.Tensor, edge_source: torch.Tensor, edge_destination: torch.Tensor, sigma: float
) -> torch.Tensor:
    """:func:`make_multi_pafs` of one instance, edges ``(E, 2)``."""
    return make_multi_pafs(xv, yv, edge_source[None], edge_destination[None], sigma)


REPLACED = (
    "find_global_peaks", "find_global_peaks_rough", "find_local_peaks", "find_local_peaks_rough", "crop_bboxes",
    "make_confmaps", "make_multi_confmaps", "make_pafs", "make_multi_pafs", "score_paf_lines_batch",
)  # fmt: skip


def replace() -> Replacement:
    """Replaces sleap-nn's functions of ``REPLACED`` wherever its loaded modules refer to them, and its grouping."""
    sources = [
        require(f"sleap_nn.{name}", "sleap-nn", VERSIONS)
        for name in ("inference.ops.peaks", "inference.ops.crops", "inference.ops.paf", "data.confidence_maps",
                     "data.edge_maps")
    ]  # fmt: skip
    done = Replacement()
    for name in REPLACED:
        own = next(getattr(module, name) for module in sources if hasattr(module, name))
        _OWN[name] = own
        done.everywhere("sleap_nn", {own: globals()[name]})
    done.put(sources[2].PAFScorer, "predict", predict)
    return done

"""Peaks, crops, confidence maps, part affinity fields and grouping of sleap-nn 0.3, with its names and arguments.

    import pypose_ops.integrations.sleap_nn as fast

    fast.replace()  # replaces sleap-nn's functions; .undo() restores them

The functions work without sleap-nn. Everything but the grouping stays on the device of its tensors.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ..ops._results import LocalPeaks
from ..ops.crop_patches import crop_patches
from ..ops.decode_heatmaps import decode_heatmaps
from ..ops.find_peaks import find_peaks
from ..ops.gaussian_heatmaps import gaussian_heatmaps
from ..ops.group_people import group_people
from ..ops.part_affinity_fields import part_affinity_fields
from ..ops.score_limbs import score_limbs
from ._peer import Replacement, require

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

    Maps below ``threshold`` or without a positive pixel give NaN and 0. Among equal pixels the first wins, whereas
    sleap-nn combines the column of one with the row of another.
    """
    if own := _exported("find_global_peaks"):
        return own(cms, threshold, refinement, integral_patch_size)
    coords, scores = decode_heatmaps(cms, **_refinement(refinement, integral_patch_size))
    low = (scores < threshold) | (scores <= 0)
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
    stride = 1.0
    for vector in (yv, xv):
        stride = float(vector[1] - vector[0]) if len(vector) > 1 else stride
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


# Grouping -------------------------------------------------------------------------------------------------------------


class _Lists(NamedTuple):
    """Lists of peaks per image, padded.

    Attributes:
        peaks: ``(B, K, M)``.
        place: ``(B, K, M)``, which entry of its image's list each peak is.
    """

    peaks: LocalPeaks
    place: torch.Tensor


def _padded(
    peaks: Sequence[torch.Tensor], values: Sequence[torch.Tensor] | None, channels: Sequence[torch.Tensor], nodes: int
) -> _Lists:
    lengths = [len(channel) for channel in channels]
    batch = len(lengths)
    if sum(lengths) == 0:
        zeros = torch.zeros(batch, nodes, 1, device=peaks[0].device if batch else None)
        found = LocalPeaks(zeros.unsqueeze(-1).repeat(1, 1, 1, 2), zeros, zeros[..., 0].long())
        return _Lists(found, torch.full_like(zeros, -1).long())
    coords, channel = torch.cat(list(peaks)).float(), torch.cat(list(channels)).long()
    scores = coords.new_ones(len(coords)) if values is None else torch.cat(list(values)).float()
    starts = [sum(lengths[:b]) for b in range(batch)]
    sample = torch.tensor([b for b, n in enumerate(lengths) for _ in range(n)], device=coords.device)
    table = sample * nodes + channel  # (n,), of B * K
    order = table.argsort(stable=True)
    table = table[order]
    counts = torch.bincount(table, minlength=batch * nodes)
    most = int(counts.max())
    within = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[table]
    at = table * most + within
    padded = coords.new_zeros(batch * nodes * most, 3)
    padded[at] = torch.cat((coords, scores[:, None]), 1)[order]
    place = order.new_full((batch * nodes * most,), -1)
    place[at] = order - torch.tensor(starts, device=order.device)[sample[order]]
    shape = batch, nodes, most
    found = LocalPeaks(padded[:, :2].view(*shape, 2), padded[:, 2].view(shape), counts.view(batch, nodes))
    return _Lists(found, place.view(shape))


def _limb_scores(
    pafs: torch.Tensor, found: LocalPeaks, edges: Sequence[tuple[int, int]], n_points: int, stride: float,
    max_ratio: float, penalty: float,
) -> torch.Tensor:  # fmt: skip
    """Means along the fields ``(B, H, W, 2 E)``, less the penalty of limbs that are longer than the longest."""
    scaled = LocalPeaks(found.coords / stride, found.scores, found.counts)
    scores = score_limbs(pafs.permute(0, 3, 1, 2), scaled, edges, samples=n_points, rule="trt_pose")
    a, b = (found.coords[:, [edge[i] for edge in edges]] for i in (0, 1))
    length = torch.linalg.vector_norm(a[..., :, None, :] - b[..., None, :, :], dim=-1)
    longest = max_ratio * max(pafs.shape[-3:]) * stride
    return scores + ((longest / length) - 1).clamp(max=0) * penalty


def score_paf_lines_batch(
    pafs: torch.Tensor,
    peaks: Sequence[torch.Tensor],
    peak_channel_inds: Sequence[torch.Tensor],
    skeleton_edges: Any,
    n_line_points: int,
    pafs_stride: float,
    max_edge_length_ratio: float,
    dist_penalty_weight: float,
    n_nodes: int,
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """Every candidate limb of every image: its edge, its two peaks and its score, in three lists."""
    edges = [(int(a), int(b)) for a, b in skeleton_edges][: pafs.shape[-1] // 2]  # those with a field
    lists = _padded(peaks, None, peak_channel_inds, n_nodes)
    scores = _limb_scores(
        pafs, lists.peaks, edges, n_line_points, pafs_stride, max_edge_length_ratio, dist_penalty_weight
    )
    return _candidates(lists, scores, edges)


def _candidates(
    lists: _Lists, scores: torch.Tensor, edges: Sequence[tuple[int, int]]
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """The candidates of a table ``(B, E, M, M)``, by image, edge and peaks."""
    sources, destinations = ([edge[i] for edge in edges] for i in (0, 1))
    filled = lists.place >= 0
    pairs = filled[:, sources, :, None] & filled[:, destinations, None, :]
    image, edge, i, j = index = pairs.nonzero(as_tuple=True)
    first, second = lists.place[:, sources][image, edge, i], lists.place[:, destinations][image, edge, j]
    sizes = torch.bincount(image, minlength=len(pairs)).tolist()
    parts = edge.int(), torch.stack((first, second), 1), scores[index]
    numbers, ends, values = (list(part.split(sizes)) for part in parts)
    return numbers, ends, values


def group_instances(
    pafs: torch.Tensor,
    peaks: Sequence[torch.Tensor],
    peak_values: Sequence[torch.Tensor],
    peak_channel_inds: Sequence[torch.Tensor],
    skeleton_edges: Sequence[tuple[int, int]],
    *,
    n_nodes: int,
    n_points: int = 10,
    pafs_stride: float = 2,
    max_edge_length_ratio: float = 0.25,
    dist_penalty_weight: float = 1.0,
    min_line_score: float = 0.25,
    min_instance_peaks: float = 0,
    max_instances: int = 256,
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """Peaks and fields to instances: lists per image of ``(N, K, 2)``, NaN where missing, ``(N, K)`` and ``(N,)``.

    Scores of instances are the sums of those of their edges; instances come in the order in which they are started.

    ``skeleton_edges`` are in the order in which they are grouped; instances have two joints at least. The arguments are
    those of sleap-nn's ``PAFScorer``.
    """
    lists = _padded(peaks, peak_values, peak_channel_inds, n_nodes)
    scores = _limb_scores(
        pafs, lists.peaks, skeleton_edges, n_points, pafs_stride, max_edge_length_ratio, dist_penalty_weight
    )
    return _group(
        lists, scores, skeleton_edges, min_line_score=min_line_score, min_instance_peaks=min_instance_peaks,
        max_instances=max_instances,
    )  # fmt: skip


def _group(
    lists: _Lists,
    scores: torch.Tensor,
    edges: Sequence[tuple[int, int]],
    *,
    min_line_score: float,
    min_instance_peaks: float,
    max_instances: int = 256,
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """:func:`group_instances` of a table ``(B, E, M, M)``."""
    nodes = lists.place.shape[1]
    scores = _matched(lists.peaks.counts, scores, edges)
    least = int(min_instance_peaks * nodes) if isinstance(min_instance_peaks, float) else min_instance_peaks
    people = group_people(
        lists.peaks, scores, list(edges), min_limb_score=max(0.0, min_line_score), min_joints=max(2, least),
        min_score=-1e9, max_people=max_instances,
    )  # fmt: skip
    counts = people.counts.tolist()
    most = max(counts, default=0)
    unused = torch.arange(most, device=people.order.device) >= people.counts[:, None]
    started = _started(people.peak_indices[:, :most], edges, lists.place.shape[2]).masked_fill(unused, 2**62).argsort(1)
    rows = torch.arange(len(counts), device=started.device)[:, None]
    coords, joint_scores, totals = (
        part[rows, started] for part in (people.coords, people.joint_scores, people.limb_scores)
    )
    missing = joint_scores == 0
    parts = coords.masked_fill(missing[..., None], math.nan), joint_scores.masked_fill(missing, math.nan), totals
    first, second, third = ([image[:n] for image, n in zip(part, counts, strict=True)] for part in parts)
    return first, second, third


def _started(indices: torch.Tensor, edges: Sequence[tuple[int, int]], most: int) -> torch.Tensor:
    """Numbers ``(B, P)`` in the order in which sleap-nn starts instances: by their first edge and its source's peak.

    Args:
        indices: ``(B, P, K)``, the instances' peaks of ``most`` ones per joint.
        edges: in the order in which they are grouped.
        most: see ``indices``.
    """
    sources, destinations = torch.tensor(list(edges), device=indices.device).unbind(1)
    first = ((indices[..., sources] >= 0) & (indices[..., destinations] >= 0)).byte().argmax(-1)
    return first * most + indices.gather(2, sources[first].unsqueeze(-1)).squeeze(-1)


def _matched(counts: torch.Tensor, scores: torch.Tensor, edges: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Scores ``(B, E, M, M)`` of the pairs that sleap-nn matches, minus infinity for the others.

    It matches as many peaks as there are before it looks at the lowest score, so that a bad pair can take a peak from a
    good one; group_people() considers limbs above that score only. Here every edge of every image is two joints of
    people of their own, with scores high enough for all to be matched.
    """
    batch, limbs, most, _ = scores.shape
    if scores.numel() == 0:
        return scores
    finite = scores.isfinite()
    low = scores.where(finite, math.inf).amin().clamp(max=0)
    high = scores.where(finite, -math.inf).amax().clamp(min=0)
    high_enough = scores.double() - low + (high - low) * most + 1
    ends = counts[:, torch.tensor(list(edges), device=counts.device)].flatten(0, 1)  # (B E, 2)
    ones = high_enough.new_ones(batch * limbs, 2, most)
    pairs = group_people(
        LocalPeaks(ones.unsqueeze(-1).expand(-1, -1, -1, 2), ones, ends),
        high_enough.masked_fill(~finite, -math.inf).view(-1, 1, most, most), [(0, 1)], min_joints=2, min_score=0.0,
        max_people=most,
    )  # fmt: skip
    first, second = pairs.peak_indices.clamp(min=0).unbind(-1)
    table = torch.arange(batch * limbs, device=scores.device)[:, None].expand_as(first)
    taken = torch.arange(most, device=scores.device) < pairs.counts[:, None]
    index = table[taken], first[taken], second[taken]
    flat = scores.flatten(0, 1)
    return torch.full_like(flat, -math.inf).index_put(index, flat[index]).view_as(scores)


def _predict(self: Any, pafs: torch.Tensor, peaks: Any, peak_vals: Any, peak_channel_inds: Any) -> tuple[Any, ...]:
    """``PAFScorer.predict``."""
    edges = [(int(a), int(b)) for a, b in self.edge_inds]
    order = [int(e) for e in self.sorted_edge_inds]
    lists = _padded(peaks, peak_vals, peak_channel_inds, self.n_nodes)
    scores = _limb_scores(
        pafs, lists.peaks, edges, self.n_points, self.pafs_stride, self.max_edge_length_ratio, self.dist_penalty_weight
    )
    people = _group(
        lists, scores[:, order], [edges[e] for e in order], min_line_score=self.min_line_scores,
        min_instance_peaks=self.min_instance_peaks,
    )  # fmt: skip
    return (*people, *_candidates(lists, scores, edges))


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
    done.put(sources[2].PAFScorer, "predict", _predict)
    return done

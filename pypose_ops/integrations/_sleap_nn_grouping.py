"""Limb scores and grouping of sleap-nn's ``PAFScorer``, for :mod:`pypose_ops.integrations.sleap_nn`."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ..ops._results import LocalPeaks
from ..ops.group_people import group_people
from ..ops.score_limbs import score_limbs


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


def predict(self: Any, pafs: torch.Tensor, peaks: Any, peak_vals: Any, peak_channel_inds: Any) -> tuple[Any, ...]:
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

"""Associative embedding: maps of all people's joints, and tags that assign them to people."""

from typing import Any, NamedTuple

import torch

from ..ops.find_peaks import find_peaks
from ..ops.group_by_tags import group_by_tags
from . import _mmpose
from ._base import Pair, SizedCodec, check_instances, check_maps, two


class AssociativeTargets(NamedTuple):
    """Training targets of associative embedding.

    Attributes:
        heatmaps: ``(B, K, h, w)``.
        indices: ``(B, P, K, 2)``, int64: the pixel ``y * w + x`` of each joint, and 1 where it is visible and inside.
        weights: ``(B, P, K)``.
    """

    heatmaps: torch.Tensor
    indices: torch.Tensor
    weights: torch.Tensor


class GroupedPeople(NamedTuple):
    """The people of every image.

    Attributes:
        coords: list of ``(N, K, 2)``, in input pixels.
        joint_scores: list of ``(N, K)``.
        scores: list of ``(N,)``, the mean score of the joints that were detected, before missing ones were filled in.
    """

    coords: list[torch.Tensor]
    joint_scores: list[torch.Tensor]
    scores: list[torch.Tensor]


class AssociativeEmbedding(SizedCodec):
    """Gaussian maps of all people, and grouping by tags (Newell et al., NIPS 2017; HigherHRNet), as in MMPose.

    Maps and weights are those of :class:`MSRAHeatmap` or, with ``use_udp``, :class:`UDPHeatmap` with
    ``compat="mmpose"``, for several people. Decoding finds peaks, groups them by their tags, refines them, and fills in
    missing joints from the pixel whose tag is nearest to the person's mean tag (in whole numbers), the highest among
    ties.

    Args:
        input_size: ``(w, h)`` of the net's input.
        heatmap_size: ``(w, h)`` of the maps.
        sigma: in heatmap pixels; by default 1/64 of the map size.
        use_udp: UDP's grid, exact centres and refinement.
        decode_keypoint_order: the joints in the order in which they are grouped; by default their own order.
        decode_nms_kernel: odd; the side of the window in which a peak is the highest pixel.
        decode_gaussian_kernel: the blur of UDP's refinement.
        decode_keypoint_thr: peaks must score more.
        decode_tag_thr: maximum distance of a peak's tag from the person's.
        decode_topk: peaks per map.
        decode_center_shift: added to the coordinates of detected joints, in heatmap pixels.
        decode_max_instances: people per image; 64 by default.
    """

    radius: int
    topk: int
    min_score: float
    max_distance: float
    center_shift: float
    max_people: int

    def __init__(
        self,
        input_size: Pair,
        heatmap_size: Pair,
        sigma: float | None = None,
        use_udp: bool = False,
        decode_keypoint_order: list[int] | tuple[int, ...] = (),
        decode_nms_kernel: int = 5,
        decode_gaussian_kernel: int = 3,
        decode_keypoint_thr: float = 0.1,
        decode_tag_thr: float = 1.0,
        decode_topk: int = 30,
        decode_center_shift: float = 0.0,
        decode_max_instances: int | None = None,
    ) -> None:
        self.input_size: Pair = two("AssociativeEmbedding", "input_size", input_size)
        self.heatmap_size: Pair = two("AssociativeEmbedding", "heatmap_size", heatmap_size)
        self.sigma: float = (heatmap_size[0] * heatmap_size[1]) ** 0.5 / 64 if sigma is None else float(sigma)
        self.use_udp = use_udp
        self.order: list[int] = list(decode_keypoint_order)
        self.refinement: dict[str, Any] = {"refine": "quarter", "max_offset": None}
        if use_udp:
            self.refinement = {"refine": "dark_udp", "kernel_size": decode_gaussian_kernel, "max_offset": None}
        self.radius, self.topk = decode_nms_kernel // 2, decode_topk
        self.min_score, self.max_distance = decode_keypoint_thr, decode_tag_thr
        self.center_shift, self.max_people = decode_center_shift, decode_max_instances or 64
        less = 1 if use_udp else 0
        self._scale = tuple((n - less) / (m - less) for n, m in zip(self.input_size, self.heatmap_size, strict=True))

    def scale_factor(self, like: torch.Tensor) -> torch.Tensor:
        """``(2,)``, input pixels per heatmap pixel."""
        return torch.stack([torch.full_like(like[..., 0], s) for s in self._scale], -1)

    def encode(
        self, keypoints: torch.Tensor, visible: torch.Tensor | None = None, *, dtype: torch.dtype = torch.float32
    ) -> AssociativeTargets:
        """Keypoints ``(B, P, K, 2)`` in input pixels, and ``visible (B, P, K)``, to targets."""
        check_instances("AssociativeEmbedding", keypoints, visible)
        width, height = self.heatmap_size
        at = keypoints / self.scale_factor(keypoints)
        inside = _mmpose.windowed_within(at, self.sigma, self.heatmap_size)
        weights, known = _mmpose.weigh(at, visible, inside)
        maps = _mmpose.draw_windowed(at, self.sigma, (height, width), known, dtype, exact=self.use_udp)
        pixel = _mmpose.nearest_pixel(at)
        seen = at.isfinite().all(-1) if visible is None else (visible > 0.5) & at.isfinite().all(-1)
        x, y = pixel.nan_to_num(-1.0, -1.0, -1.0).clamp(-(2**20), 2**20).long().unbind(-1)
        inside = seen & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        return AssociativeTargets(maps, torch.stack((y * width + x, inside.long()), -1), weights)

    def decode(self, heatmaps: torch.Tensor, tags: torch.Tensor) -> GroupedPeople:
        """Decodes maps to people.

        Args:
            heatmaps: ``(B, K, H, W)``.
            tags: ``(B, L K, H, W)``, or ``(B, L, K, H, W)`` for tags of L numbers.
        """
        for argument, maps in (("heatmaps", heatmaps), ("tags", tags)):
            check_maps(self, argument, maps, self.heatmap_size[::-1])
        heatmaps, tags = heatmaps.detach(), tags.detach()
        batch, joints, height, width = heatmaps.shape
        tags = tags.reshape(batch, -1, joints, height, width).transpose(1, 2)  # (B, K, L, H, W)
        peaks = find_peaks(
            heatmaps, threshold=self.min_score, radius=self.radius, max_peaks=self.topk, **self.refinement
        )
        people = group_by_tags(
            peaks, tags, min_score=self.min_score, max_distance=self.max_distance,
            joint_order=self.order or None, max_people=self.max_people,
        )  # fmt: skip
        coords, scores = [], []
        for b, count in enumerate(people.counts.tolist()):
            found, score = people.coords[b, :count], people.joint_scores[b, :count]
            found = found + self.center_shift
            found, score = fill_missing(found, score, heatmaps[b], tags[b])
            coords.append(found * self.scale_factor(found))
            scores.append(score)
        means = [people.joint_scores[b, : len(c)].mean(-1) for b, c in enumerate(coords)]
        return GroupedPeople(coords, scores, means)


def fill_missing(
    coords: torch.Tensor, scores: torch.Tensor, heatmaps: torch.Tensor, tags: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fills in joints of score 0 from the pixel whose tag is nearest to the person's mean tag.

    ``coords (N, K, 2)``, ``scores (N, K)``, ``heatmaps (K, H, W)``, ``tags (K, L, H, W)``.
    """
    joints, height, width = heatmaps.shape
    found = scores > 0
    x, y = torch.where(found[..., None], coords, 0.0).trunc().unbind(-1)
    pixel = y.clamp(0, height - 1).long() * width + x.clamp(0, width - 1).long()  # (N, K)
    index = pixel.t()[:, None].expand(-1, tags.shape[1], -1)
    own = tags.flatten(2).gather(2, index).permute(2, 0, 1).to(scores.dtype)  # (N, K, L)
    weight = found.to(scores.dtype)[..., None]
    mean = (own * weight).sum(1) / weight.sum(1).clamp(min=1)
    person, joint = (~found).nonzero(as_tuple=True)
    if person.numel() == 0:
        return coords, scores
    coords, scores = coords.clone(), scores.clone()
    flat, tags = heatmaps.flatten(1), tags.flatten(2)
    for of_person, of_joint in zip(person.split(64), joint.split(64), strict=True):
        distance = torch.linalg.vector_norm(tags[of_joint] - mean[of_person][..., None], dim=1)
        best = (distance.round() * 100 - flat[of_joint]).argmin(-1)
        coords[of_person, of_joint] = torch.stack((best % width, best // width), -1).to(coords.dtype)
        scores[of_person, of_joint] = flat[of_joint].gather(1, best[:, None])[:, 0].to(scores.dtype)
    return coords, scores

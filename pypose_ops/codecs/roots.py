"""Codecs that locate people by a root point: DEKR's displacements and CID's decoupled maps."""

from typing import Any, NamedTuple

import torch

from ..ops._results import Peaks
from ..ops.decode_heatmaps import decode_heatmaps
from ..ops.find_peaks import find_peaks
from . import _mmpose
from ._base import Pair, SizedCodec, check_instances, check_maps, two
from .crowd import overlap_radius
from .label import check_compat


def instance_roots(
    keypoints: torch.Tensor, visible: torch.Tensor | None, root_type: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The roots and sizes of people.

    ``keypoints (B, P, K, 2)`` and ``visible (B, P, K)`` to roots ``(B, P, 2)``, whether they exist ``(B, P)``, and the
    diagonals ``(B, P)`` of the bounding boxes of the visible joints; 0 for people without any.
    """
    seen = keypoints.isfinite().all(-1)
    seen = (seen if visible is None else seen & (visible > 0))[..., None]
    exists = seen.any(-2)
    low = torch.where(seen, keypoints, float("inf")).amin(-2)
    high = torch.where(seen, keypoints, float("-inf")).amax(-2)
    low, high = torch.where(exists, low, 0.0), torch.where(exists, high, 0.0)
    if root_type == "kpt_center":
        roots = torch.where(seen, keypoints, 0.0).sum(-2) / seen.sum(-2).clamp(min=1)
    else:
        roots = (low + high) / 2
    return roots, exists[..., 0], torch.linalg.vector_norm(high - low, dim=-1)


def check_root_type(codec: str, root_type: str) -> str:
    if root_type not in ("kpt_center", "bbox_center"):
        raise ValueError(f"{codec}: root_type must be one of kpt_center, bbox_center, got {root_type!r}")
    return root_type


class DisplacementTargets(NamedTuple):
    """Training targets of :class:`SPR`.

    Attributes:
        heatmaps: ``(B, 1, h, w)`` of roots, or ``(B, K + 1, h, w)`` with the roots last.
        heatmap_weights: as ``heatmaps``.
        displacements: ``(B, 2 K, h, w)``, x and y from a pixel to each joint of its person.
        displacement_weights: as ``displacements``.
    """

    heatmaps: torch.Tensor
    heatmap_weights: torch.Tensor
    displacements: torch.Tensor
    displacement_weights: torch.Tensor


class RootedPeople(NamedTuple):
    """People in descending order of the root score.

    Attributes:
        coords: ``(B, M, K, 2)``, in input pixels.
        joint_scores: ``(B, M, K)``, or None without maps of joints.
        scores: ``(B, M)``, of the roots; 0 in empty places.
        counts: ``(B,)``, number of people.
    """

    coords: torch.Tensor
    joint_scores: torch.Tensor | None
    scores: torch.Tensor
    counts: torch.Tensor


class SPR(SizedCodec):
    """Structured pose representation (Nie et al., ICCV 2019) as used by DEKR: roots, and displacements to the joints.

    Pixels around a root hold the displacements to the person's joints; where people overlap, those of the smaller one.

    ``compat="mmpose"``: where people overlap and a joint is drawn for the larger person only, the later joints of the
    larger person overwrite those of the smaller one; joint scores at the borders are read half a pixel off.

    Args:
        input_size: ``(w, h)`` of the net's input.
        heatmap_size: ``(w, h)`` of the maps.
        sigma: of roots, or of roots and joints; by default 1/32 of the map size, and half of that.
        generate_keypoint_heatmaps: also draw the joints.
        root_type: ``"kpt_center"``, the mean of the visible joints, or ``"bbox_center"``.
        minimal_diagonal_length: people with a smaller diagonal, in heatmap pixels, have no root.
        background_weight: of pixels where nothing is drawn.
        decode_nms_kernel: odd; the side of the window in which a root is the highest pixel.
        decode_max_instances: people per image.
        decode_thr: roots must score more.
        compat: None or ``"mmpose"``.
    """

    min_diagonal: float
    background: float
    radius: int
    max_people: int
    threshold: float

    def __init__(
        self,
        input_size: Pair,
        heatmap_size: Pair,
        sigma: float | tuple[float, ...] | None = None,
        generate_keypoint_heatmaps: bool = False,
        root_type: str = "kpt_center",
        minimal_diagonal_length: float = 5,
        background_weight: float = 0.1,
        decode_nms_kernel: int = 5,
        decode_max_instances: int = 30,
        decode_thr: float = 0.01,
        compat: str | None = None,
    ) -> None:
        self.input_size: Pair = two("SPR", "input_size", input_size)
        self.heatmap_size: Pair = two("SPR", "heatmap_size", heatmap_size)
        self.with_joints = generate_keypoint_heatmaps
        self.root_type: str = check_root_type("SPR", root_type)
        if sigma is None:
            automatic = (heatmap_size[0] * heatmap_size[1]) ** 0.5 / 32
            sigma = (automatic, automatic // 2)
        self.sigma: tuple[float, ...] = tuple(sigma) if isinstance(sigma, (tuple, list)) else (sigma,)
        if generate_keypoint_heatmaps and len(self.sigma) != 2:
            raise ValueError(f"SPR: sigma must be two numbers, of roots and of joints, got {sigma!r}")
        used = self.sigma if generate_keypoint_heatmaps else self.sigma[:1]
        if not all(0 < s < float("inf") for s in used):
            raise ValueError(
                f"SPR: sigma must be positive and finite, got {used} (maps this small need one of their own)"
            )
        self.min_diagonal, self.background = minimal_diagonal_length, background_weight
        self.radius, self.max_people, self.threshold = decode_nms_kernel // 2, decode_max_instances, decode_thr
        self.compat: str | None = check_compat("SPR", compat)

    def _scaled(self, points: torch.Tensor, up: bool) -> torch.Tensor:
        scale = [n / m for n, m in zip(self.input_size, self.heatmap_size, strict=True)]
        x, y = points.unbind(-1)
        return torch.stack((x * scale[0], y * scale[1]) if up else (x / scale[0], y / scale[1]), -1)

    def encode(
        self, keypoints: torch.Tensor, visible: torch.Tensor | None = None, *, dtype: torch.dtype = torch.float32
    ) -> DisplacementTargets:
        """Keypoints ``(B, P, K, 2)`` in input pixels, and ``visible (B, P, K)``, to targets."""
        check_instances("SPR", keypoints, visible)
        size = self.heatmap_size[::-1]
        at = self._scaled(keypoints, up=False)
        roots, exists, diagonals = instance_roots(at, visible, self.root_type)
        exists = exists & (diagonals >= self.min_diagonal)
        maps = [_draw_windowed(roots[:, :, None], self.sigma[0], size, exists[..., None], dtype)]
        if self.with_joints:
            seen = at.isfinite().all(-1) if visible is None else (visible >= 0.5) & at.isfinite().all(-1)
            maps.insert(0, _draw_windowed(at, self.sigma[1], size, seen, dtype))
        heatmaps = torch.cat(maps, 1)
        weights = torch.where(heatmaps > 0, 1.0, self.background).to(dtype)
        shown = torch.ones_like(at[..., 0]) if visible is None else visible
        return DisplacementTargets(heatmaps, weights, *self._displacements(at, shown, roots, exists, diagonals, dtype))

    def _displacements(
        self, at: torch.Tensor, visible: torch.Tensor, roots: torch.Tensor, exists: torch.Tensor,
        diagonals: torch.Tensor, dtype: torch.dtype,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        width, height = self.heatmap_size
        batch, people, joints = at.shape[:3]
        x = torch.arange(width, device=at.device, dtype=at.dtype)
        y = torch.arange(height, device=at.device, dtype=at.dtype)
        bounds = torch.stack((at.new_full((), width), at.new_full((), height)))  # on the device, without a copy
        near = exists & (roots >= 0).all(-1) & (roots < bounds).all(-1)
        drawn = near[..., None] & (visible >= 1) & (at >= 0).all(-1) & (at < bounds).all(-1)
        first = torch.trunc(roots - self.sigma[0]).clamp(min=0)
        end = torch.minimum(torch.trunc(roots + self.sigma[0]), bounds)
        vectors = at.new_zeros((batch, joints, 2, height, width))
        weights = at.new_zeros((batch, joints, 1, height, width))
        sizes = at.new_full((batch, 1 if self.compat else joints, height, width), 0 if self.compat else float("inf"))
        for p in range(people):
            in_x = (x >= first[:, p, :1]) & (x < end[:, p, :1])
            in_y = (y >= first[:, p, 1:]) & (y < end[:, p, 1:])
            box = in_y[:, :, None] & in_x[:, None, :]  # (B, H, W)
            diagonal = diagonals[:, p, None, None]
            own = torch.stack(
                torch.broadcast_tensors(at[:, p, :, 0, None, None] - x, at[:, p, :, 1, None, None] - y[:, None]), 2
            )  # (B, K, 2, H, W)
            if self.compat is None:
                put = box[:, None] & drawn[:, p, :, None, None] & (diagonal[:, None] <= sizes)
                sizes = torch.where(put, diagonal[:, None], sizes)
            else:
                put, sizes = self._mmpose_order(box, drawn[:, p], diagonal, vectors, sizes)
            vectors = torch.where(put[:, :, None], own, vectors)
            weights = torch.where(put[:, :, None], 1 / diagonal[:, None, None], weights)
        return vectors.flatten(1, 2).to(dtype), weights.expand(-1, -1, 2, -1, -1).flatten(1, 2).to(dtype)

    @staticmethod
    def _mmpose_order(
        box: torch.Tensor, drawn: torch.Tensor, diagonal: torch.Tensor, vectors: torch.Tensor, sizes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Which pixels MMPose overwrites: it uses one map of sizes for all joints and updates it joint by joint."""
        put, size = [], sizes[:, 0]
        for k in range(drawn.shape[1]):
            occupied = (vectors[:, k] != 0).any(1)
            here = box & drawn[:, k, None, None] & ~(occupied & (diagonal > size))
            size = torch.where(here, diagonal, size)
            put.append(here)
        return torch.stack(put, 1), size[:, None]

    def decode(self, heatmaps: torch.Tensor, displacements: torch.Tensor) -> RootedPeople:
        """Decodes maps to people.

        Args:
            heatmaps: ``(B, 1, h, w)`` or ``(B, K + 1, h, w)``, the roots last.
            displacements: ``(B, 2 K, h, w)``.
        """
        check_maps(self, "heatmaps", heatmaps, self.heatmap_size[::-1])
        check_maps(self, "displacements", displacements, self.heatmap_size[::-1])
        heatmaps, displacements = heatmaps.detach(), displacements.detach()
        height, width = heatmaps.shape[-2:]
        joints = displacements.shape[1] // 2
        peaks = find_peaks(heatmaps[:, -1:], threshold=self.threshold, radius=self.radius, max_peaks=self.max_people)
        filled = torch.arange(self.max_people, device=heatmaps.device) < peaks.counts
        pixels = torch.where(filled[..., None], peaks.coords[:, 0], 0.0)
        index = (pixels[..., 1] * width + pixels[..., 0]).long()
        step = displacements.flatten(2).gather(2, index[:, None].expand(-1, 2 * joints, -1))
        coords = pixels[:, :, None] + step.unflatten(1, (joints, 2)).permute(0, 3, 1, 2)
        joint_scores = None
        if self.with_joints and heatmaps.shape[1] == joints + 1:
            x, y = coords.unbind(-1)
            grid = torch.stack((x / (width - 1) * 2 - 1, y / (height - 1) * 2 - 1), -1).transpose(1, 2)
            read = torch.nn.functional.grid_sample(
                heatmaps[:, :-1].flatten(0, 1)[:, None], grid.flatten(0, 1)[:, None].to(heatmaps.dtype),
                padding_mode="border", align_corners=self.compat is None,
            )  # fmt: skip
            joint_scores = read.reshape(*heatmaps.shape[:1], joints, -1).transpose(1, 2)
        coords = torch.where(filled[..., None, None], self._scaled(coords, up=True), float("nan"))
        return RootedPeople(coords, joint_scores, peaks.scores[:, 0], peaks.counts[:, 0].clamp(max=self.max_people))


def _draw_windowed(
    at: torch.Tensor, sigma: Any, size: tuple[int, int], known: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    window = _mmpose.window_of(at, sigma)
    known = known & window.meets(size[::-1]) & at.isfinite().all(-1)
    return _mmpose.draw(window.middle, sigma, size, known, dtype, window)


class DecoupledTargets(NamedTuple):
    """Training targets of :class:`DecoupledHeatmap`.

    Attributes:
        heatmaps: ``(B, K + 1, h, w)``, of all people, the roots last.
        instance_heatmaps: ``(B, P, K, h, w)``, of each person.
        weights: ``(B, P, K)``, of ``instance_heatmaps``.
        roots: ``(B, P, 2)``, in heatmap pixels.
        root_weights: ``(B, P)``, 0 for people without a root on the map.
        diagonals: ``(B, P)``, of the visible joints' bounding boxes in heatmap pixels.
    """

    heatmaps: torch.Tensor
    instance_heatmaps: torch.Tensor
    weights: torch.Tensor
    roots: torch.Tensor
    root_weights: torch.Tensor
    diagonals: torch.Tensor


class DecoupledHeatmap(SizedCodec):
    """The maps of CID (Wang and Zhang, CVPR 2022): of all people together, and of each person.

    Sigmas depend on the people's boxes, as in :class:`CenterNetHeatmap`: a third of the radius.

    ``compat="mmpose"``: the radius comes from the wrong roots of its equations.

    Args:
        input_size: ``(w, h)`` of the net's input.
        heatmap_size: ``(w, h)`` of the maps.
        root_type: ``"kpt_center"``, the mean of the visible joints, or ``"bbox_center"``.
        heatmap_min_overlap: between 0 and 1.
        encode_max_instances: maximum number of people per image.
        compat: None or ``"mmpose"``.
    """

    min_overlap: float
    max_instances: int

    def __init__(
        self,
        input_size: Pair,
        heatmap_size: Pair,
        root_type: str = "kpt_center",
        heatmap_min_overlap: float = 0.7,
        encode_max_instances: int = 30,
        compat: str | None = None,
    ) -> None:
        self.input_size: Pair = two("DecoupledHeatmap", "input_size", input_size)
        self.heatmap_size: Pair = two("DecoupledHeatmap", "heatmap_size", heatmap_size)
        self.root_type: str = check_root_type("DecoupledHeatmap", root_type)
        self.min_overlap, self.max_instances = heatmap_min_overlap, encode_max_instances
        self.compat: str | None = check_compat("DecoupledHeatmap", compat)

    def encode(
        self,
        keypoints: torch.Tensor,
        visible: torch.Tensor | None = None,
        *,
        boxes: torch.Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> DecoupledTargets:
        """Encodes keypoints as targets.

        Args:
            keypoints: ``(B, P, K, 2)``, in input pixels.
            visible: ``(B, P, K)``.
            boxes: ``(B, P, 2)``, width and height of each person's bounding box in input pixels. Default: the bounds of
                the visible joints.
            dtype: of the maps.
        """
        check_instances("DecoupledHeatmap", keypoints, visible)
        scale = [n / m for n, m in zip(self.input_size, self.heatmap_size, strict=True)]
        x, y = keypoints.unbind(-1)
        at = torch.stack((x / scale[0], y / scale[1]), -1)
        roots, exists, diagonals = instance_roots(at, visible, self.root_type)
        if boxes is None:
            shown = at.isfinite().all(-1) if visible is None else (visible > 0) & at.isfinite().all(-1)
            low = torch.where(shown[..., None], at, float("inf")).amin(-2)
            high = torch.where(shown[..., None], at, float("-inf")).amax(-2)
            extent = torch.where(exists[..., None], high - low, 0.0)
            width, height = extent.unbind(-1)
        else:
            width, height = boxes[..., 0] / scale[0], boxes[..., 1] / scale[1]
        sigma = overlap_radius(width, height, self.min_overlap, self.compat is not None) / 3
        sigma = sigma.clamp(min=1e-3)[..., None]
        size = self.heatmap_size[::-1]
        window = _mmpose.window_of(at, sigma[..., None])
        weights, known = _mmpose.weigh(at, visible, window.meets(self.heatmap_size))
        of_roots = _mmpose.window_of(roots, sigma)
        rooted = exists & of_roots.meets(self.heatmap_size)
        people = [
            _mmpose.draw(m, s, size, k, dtype, _mmpose.Window(f, e, m))
            for m, s, k, f, e in zip(
                window.middle.unbind(1), sigma[..., None].unbind(1), known.unbind(1), window.first.unbind(1),
                window.end.unbind(1), strict=True,
            )
        ]  # fmt: skip
        instances = torch.stack(people, 1) if people else at.new_zeros((len(at), 0, at.shape[2], *size), dtype=dtype)
        top = instances.amax(1) if people else at.new_zeros((len(at), at.shape[2], *size), dtype=dtype)
        center = _mmpose.Window(*(v[:, :, None] for v in of_roots))
        root = _mmpose.draw(center.middle, sigma[..., None], size, rooted[..., None], dtype, center)
        return DecoupledTargets(torch.cat((top, root), 1), instances, weights, roots, rooted.to(at.dtype), diagonals)

    def decode(self, instance_heatmaps: torch.Tensor, scores: torch.Tensor | None = None) -> Peaks:
        """Each person's maps ``(N, K, h, w)``, and the scores of the roots ``(N, 1)``, to ``(N, K, 2)`` and scores."""
        check_maps(self, "instance_heatmaps", instance_heatmaps, self.heatmap_size[::-1])
        (x, y), own = _split(decode_heatmaps(instance_heatmaps, refine="quarter", compat=self.compat))
        scale = [n / m for n, m in zip(self.input_size, self.heatmap_size, strict=True)]
        return Peaks(torch.stack((x * scale[0], y * scale[1]), -1), own if scores is None else own * scores)


def _split(peaks: Peaks) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    return peaks.coords.unbind(-1), peaks.scores

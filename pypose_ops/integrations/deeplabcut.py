"""Targets and predictions of DeepLabCut 3's heatmap heads, batched and on the device.

    import pypose_ops.integrations.deeplabcut as fast

    fast.replace()  # DeepLabCut's generators and HeatmapPredictor call these from now on; .undo() restores them

The functions work without DeepLabCut. It has pixel centres at halves: map pixel ``i`` is image coordinate
``stride * (i + 1/2)``.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch

from .._constants import computed, constant
from ..ops.gaussian_heatmaps import gaussian_heatmaps
from ..ops.offset_heatmaps import disc_targets
from ..ops.part_affinity_fields import part_affinity_fields
from ._peer import Replacement, require

VERSIONS = ("3",)
MOST_LIMBS = 256  # of one call of part_affinity_fields


class HeatmapTargets(NamedTuple):
    """Training targets of a heatmap head.

    Attributes:
        heatmaps: ``(B, K, H, W)``.
        weights: ``(B, K, 1, 1)``, of ``heatmaps``; the same in all pixels.
        locref: ``(B, 2 K, H, W)``, from a pixel to the keypoint, divided by ``locref_std``.
        locref_weights: ``(B, 2 K, H, W)``, 1 within ``dist_thresh`` of a keypoint.
    """

    heatmaps: torch.Tensor
    weights: torch.Tensor
    locref: torch.Tensor
    locref_weights: torch.Tensor


def heatmap_targets(
    keypoints: torch.Tensor,
    visible: torch.Tensor,
    size: tuple[int, int],
    stride: float,
    *,
    kind: Literal["gaussian", "plateau"] = "gaussian",
    dist_thresh: float = 17.0,
    locref_std: float = 7.2801,
    gradient_masking: bool = False,
    background_weight: float = 0.1,
    compat: Literal["deeplabcut"] | None = "deeplabcut",
    weights_dtype: torch.dtype | None = None,
) -> HeatmapTargets:
    """Keypoints to targets.

    Args:
        keypoints: ``(B, P, K, 2)``, in image pixels.
        visible: ``(B, P, K)``: above 0 visible; 0 missing; -1 not annotated, which masks the map.
        size: ``(height, width)`` of the maps.
        stride: image pixels per map pixel.
        kind: ``"gaussian"``, with a standard deviation of two thirds of ``dist_thresh``; or ``"plateau"``, discs.
        dist_thresh: radius of the discs, in image pixels.
        locref_std: see :class:`HeatmapTargets`. Where people overlap, the last one wins; the offsets of Gaussians
            cover the whole map.
        gradient_masking: weigh the maps of missing keypoints by ``background_weight``.
        background_weight: see ``gradient_masking``.
        compat: ``"deeplabcut"`` rounds the image coordinates of map pixels down to integers, as DeepLabCut's generators
            do, but not its predictors: with an odd ``stride`` all keypoints then come back half a pixel off. None
            keeps ``stride * (i + 1/2)``. Even strides are the same either way.
        weights_dtype: of ``locref_weights``; default: that of the keypoints.

    Raises:
        ValueError: an unknown ``kind`` or ``compat``, or ``compat`` with a ``stride`` that is not an integer; keypoints
            that are not ``(B, P, K, 2)``; ``visible`` of another shape; a ``stride`` or ``dist_thresh`` that is not
            positive.
    """
    op = "heatmap_targets"
    if kind not in ("gaussian", "plateau"):
        raise ValueError(f"{op}: kind must be one of gaussian, plateau, got {kind!r}")
    first = _first_pixel(op, stride, compat)
    _check_people(op, keypoints, visible)
    if not dist_thresh > 0:
        raise ValueError(f"{op}: dist_thresh must be positive, got {dist_thresh}")
    drawn = disc_targets(
        keypoints, visible, size, stride=stride, first=first, plateau=kind == "plateau", radius=dist_thresh,
        std=locref_std, background=background_weight if gradient_masking else None,
        mask_dtype=weights_dtype or keypoints.dtype,
    )  # fmt: skip
    if drawn is not None:
        return HeatmapTargets(*drawn)
    shown = (visible > 0) & keypoints.isfinite().all(-1)
    keypoints = torch.where(shown[..., None], keypoints, 0.0)
    weights = keypoints.new_ones(shown.shape[0], shown.shape[2])
    for seen in visible.unbind(1):
        weights = torch.where(seen == -1, 0.0, weights)
        if gradient_masking:
            weights = torch.where(seen == 0, background_weight, weights)
    discs = _discs(keypoints, shown, size, stride, first, dist_thresh)
    if kind == "plateau":
        heatmaps = discs.mask(1, keypoints.dtype)
        locref = discs.locref(locref_std)
    else:
        sigma = 2 * dist_thresh / 3 / stride
        heatmaps = gaussian_heatmaps((keypoints - first) / stride, sigma, size, visible=shown)
        locref = _offsets(keypoints, shown, size, stride, first, locref_std)
    mask = discs.mask(2, weights_dtype or keypoints.dtype)
    return HeatmapTargets(heatmaps, weights[..., None, None], locref, mask)


def _first_pixel(function: str, stride: float, compat: str | None) -> float:
    """The image coordinate of the first pixel of maps."""
    if compat not in ("deeplabcut", None):
        raise ValueError(f"{function}: compat must be 'deeplabcut' or None, got {compat!r}")
    if compat and stride % 1:
        raise ValueError(f"{function}: stride must be an integer with compat='deeplabcut', got {stride}")
    if not stride > 0:
        raise ValueError(f"{function}: stride must be positive, got {stride}")
    return stride // 2 if compat else stride / 2


def _check_people(function: str, keypoints: torch.Tensor, visible: torch.Tensor) -> None:
    if keypoints.dim() != 4 or keypoints.shape[-1] != 2:
        raise ValueError(f"{function}: keypoints must be (B, P, K, 2), got shape {tuple(keypoints.shape)}")
    if visible.shape != keypoints.shape[:-1]:
        raise ValueError(f"{function}: visible must be {tuple(keypoints.shape[:-1])}, got shape {tuple(visible.shape)}")


def _offsets(
    keypoints: torch.Tensor, shown: torch.Tensor, size: tuple[int, int], stride: float, first: float, std: float
) -> torch.Tensor:
    """Offsets from every pixel to the last keypoint that is shown, ``(B, 2 K, H, W)``."""
    batch, people, joints = shown.shape
    if people == 0:
        return keypoints.new_zeros((batch, 2 * joints, *size))
    order = torch.arange(people, device=shown.device)[:, None]
    last = torch.where(shown, order, -1).amax(1)  # (B, K)
    at = keypoints.gather(1, last.clamp(min=0)[:, None, :, None].expand(-1, 1, -1, 2))[:, 0]
    height, width = map(int, size)
    maps = keypoints.new_empty((batch, joints, 2, height, width))
    # Both axes in one vector: with the maps of a batch, each call costs as much as its arithmetic.
    axis, pixels = computed(_pixels_of_axes, (height, width), float(stride), at.dtype, device=at.device)
    own = torch.where(last[..., None] >= 0, (at.index_select(-1, axis) - pixels - first) / std, 0.0)
    maps[:, :, 0] = own[..., :width].unsqueeze(-2)
    maps[:, :, 1] = own[..., width:].unsqueeze(-1)
    return maps.flatten(1, 2)


def _pixels_of_axes(
    size: tuple[int, int], stride: float, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of all columns and then all rows: the axis, 0 or 1, and ``stride`` times the pixel."""
    height, width = size
    axis = torch.tensor([0] * width + [1] * height, device=device)
    pixels = torch.cat([torch.arange(n, dtype=dtype, device=device) for n in (width, height)])
    return axis, pixels * stride


class _Discs(NamedTuple):
    """The pixels within ``dist_thresh`` of keypoints: few, so they are written one by one.

    Attributes:
        near: ``(B, P, K, n, n)``, which of these pixels are in the disc and on the map.
        pixels: ``(B, P, K, n, n)``, their ``y * width + x``.
        offsets: ``(B, P, K, 2, n)``, along x and y, from them to the keypoint.
        size: ``(height, width)``.
    """

    near: torch.Tensor
    pixels: torch.Tensor
    offsets: torch.Tensor
    size: tuple[int, int]

    def _buffer(self, channels: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Maps ``(B, channels K, H, W)``; the memory they are in, and where in it the pixels of first channels are.

        The pixels that are not near are past the maps.
        """
        batch, _, joints = self.near.shape[:3]
        height, width = self.size
        planes = batch * joints
        total = planes * channels * height * width
        flat = self.offsets.new_zeros(total + height * width + 1, dtype=dtype)
        first = torch.arange(planes, device=flat.device).view(batch, 1, joints, 1, 1) * (channels * height * width)
        return (
            flat[:total].view(batch, joints * channels, height, width),
            flat,
            torch.where(self.near, self.pixels + first, total),
        )

    def mask(self, channels: int, dtype: torch.dtype) -> torch.Tensor:
        """1 in all discs, ``(B, channels K, H, W)``."""
        maps, flat, places = self._buffer(channels, dtype)
        for channel in range(channels):
            flat.index_fill_(0, (places + channel * self.size[0] * self.size[1]).flatten(), 1)
        return maps

    def locref(self, std: float) -> torch.Tensor:
        """From the pixels of the discs to their keypoint, that of the last person on top: ``(B, 2 K, H, W)``."""
        maps, flat, places = self._buffer(2, self.offsets.dtype)
        dx, dy = (self.offsets / std).unbind(-2)
        values = torch.broadcast_tensors(dx[..., None, :], dy[..., None])
        for channel, value in enumerate(values):
            at = places + channel * self.size[0] * self.size[1]
            for p in range(at.shape[1]):
                flat.scatter_(0, at[:, p].flatten(), value[:, p].flatten())
        return maps


def _discs(
    keypoints: torch.Tensor, shown: torch.Tensor, size: tuple[int, int], stride: float, first: float, radius: float
) -> _Discs:
    """The discs around all keypoints ``(B, P, K, 2)`` in image pixels, of map pixels at ``first + stride * i``."""
    height, width = size
    side = min(max(size), int(2 * radius / stride) + 2)
    lowest = ((keypoints - (radius + first)) / stride).floor().clamp(0, max(size))
    places = lowest[..., None] + torch.arange(side, device=keypoints.device)  # (B, P, K, 2, n)
    offsets = keypoints[..., None] - (places * stride + first)
    limits = constant((width, height), device=keypoints.device, dtype=keypoints.dtype)
    squared = offsets.square().masked_fill((places >= limits[:, None]) | ~shown[..., None, None], math.inf)
    near = squared[..., :1, :] + squared[..., 1, :, None] <= radius**2
    x, y = places.long().unbind(-2)
    return _Discs(near, (y * width)[..., None] + x[..., None, :], offsets, size)


def paf_targets(
    keypoints: torch.Tensor,
    visible: torch.Tensor,
    size: tuple[int, int],
    stride: float,
    graph: Sequence[tuple[int, int]],
    width: float,
    *,
    compat: Literal["deeplabcut"] | None = "deeplabcut",
) -> torch.Tensor:
    """Keypoints to part affinity fields that fall off linearly from the axis of a limb; the last animal is on top.

    Args:
        keypoints: ``(B, P, K, 2)``, in image pixels.
        visible: ``(B, P, K)``: above 0 visible.
        size: ``(height, width)`` of the maps.
        stride: image pixels per map pixel.
        graph: E limbs, pairs of joints; the field points from the first to the second.
        width: how far from its axis a limb reaches, in image pixels.
        compat: as in :func:`heatmap_targets`: rounds the image coordinates of map pixels down to integers.

    Returns:
        ``(B, 2 E, H, W)``, x and y of the first limb, then of the second, ...

    Raises:
        ValueError: an unknown ``compat``, or ``compat`` with a ``stride`` that is not an integer; keypoints that are
            not ``(B, P, K, 2)`` and floating; ``visible`` of another shape; a limb whose joints are not among the K; a
            ``width`` that is not positive.
    """
    op = "paf_targets"
    first = _first_pixel(op, stride, compat)
    _check_people(op, keypoints, visible)
    if not keypoints.is_floating_point():
        raise ValueError(f"{op}: keypoints must be floating, got {tuple(keypoints.shape)} and {keypoints.dtype}")
    if not width > 0:
        raise ValueError(f"{op}: width must be positive, got {width}")
    limbs = [(int(a), int(b)) for a, b in graph]
    joints = keypoints.shape[2]
    if not all(0 <= joint < joints for limb in limbs for joint in limb):
        raise ValueError(f"{op}: graph must name joints below {joints}, got {limbs}")
    shown = visible > 0
    at = (keypoints.to(torch.promote_types(keypoints.dtype, torch.float32)) - first) / stride
    parts = [  # the graph of all pairs of 24 joints is longer than a call's
        part_affinity_fields(
            at, limbs[i : i + MOST_LIMBS], width / stride, size, visible=shown, profile="linear", combine="last",
            dtype=keypoints.dtype,
        )
        for i in range(0, max(1, len(limbs)), MOST_LIMBS)
    ]  # fmt: skip
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def decode(
    heatmaps: torch.Tensor,
    locref: torch.Tensor | None,
    stride: float,
    *,
    locref_std: float = 7.2801,
    apply_sigmoid: bool = True,
    clip_scores: bool = False,
) -> torch.Tensor:
    """The highest pixel of every map and its offset: ``(B, 1, K, 3)``, x and y in image pixels and the score.

    float32, also of half maps (float64 of float64).

    The sigmoid is applied to the highest logits only. Where it saturates at 1 for several pixels in float32, the
    highest logit wins instead of the first pixel.

    Args:
        heatmaps: ``(B, K, H, W)``, logits.
        locref: ``(B, 2 K, H, W)``, or None.
        stride: image pixels per map pixel.
        locref_std: the scale of ``locref``.
        apply_sigmoid: False for maps that are probabilities.
        clip_scores: clips the scores to [0, 1].

    Raises:
        ValueError: maps or offsets of another shape.
    """
    if heatmaps.dim() != 4 or 0 in heatmaps.shape[2:]:
        raise ValueError(f"decode: heatmaps must be (B, K, H, W), not empty, got shape {tuple(heatmaps.shape)}")
    batch, joints, height, width = heatmaps.shape
    scores, index = heatmaps.flatten(2).max(-1)
    coords = torch.stack((index % width, index // width), -1) * stride + 0.5 * stride
    if locref is not None:
        if locref.shape != (batch, 2 * joints, height, width):
            expected = (batch, 2 * joints, height, width)
            raise ValueError(f"decode: locref must be {expected}, got shape {tuple(locref.shape)}")
        offsets = locref.flatten(2).unflatten(1, (-1, 2)).gather(3, index[..., None, None].expand(-1, -1, 2, 1))[..., 0]
        coords = coords + offsets.to(torch.promote_types(offsets.dtype, torch.float32)) * locref_std
    scores = torch.sigmoid(scores) if apply_sigmoid else scores
    scores = scores.clamp(0, 1) if clip_scores else scores
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))  # from 512 on, half has no half pixels
    return torch.cat((coords.to(scores.dtype), scores[..., None]), -1)[:, None]


def _forward(self: Any, stride: float, outputs: dict[str, torch.Tensor], labels: dict[str, Any]) -> dict[str, Any]:
    """``HeatmapGenerator.forward`` for targets per keypoint."""
    if self.heatmap_mode != self.Mode.KEYPOINT or stride % 1:
        return self._peer_forward(stride, outputs, labels)
    maps = outputs["heatmap"]
    annotated = labels[self.label_keypoint_key].to(maps.device, torch.float32)
    annotated = annotated[:, None] if annotated.dim() == 3 else annotated
    targets = heatmap_targets(
        annotated[..., :2], annotated[..., -1], (maps.shape[-2], maps.shape[-1]), stride,
        kind="plateau" if "Plateau" in type(self).__name__ else "gaussian", dist_thresh=self.dist_thresh,
        locref_std=1 / self.locref_scale, gradient_masking=self.gradient_masking,
        background_weight=self.background_weight, weights_dtype=torch.int64,
    )  # fmt: skip
    result = {"heatmap": {"target": targets.heatmaps, "weights": targets.weights.expand_as(targets.heatmaps)}}
    if self.generate_locref:
        result["locref"] = {"target": targets.locref, "weights": targets.locref_weights}
    return result


def _forward_fields(
    self: Any, stride: float, outputs: dict[str, torch.Tensor], labels: dict[str, Any]
) -> dict[str, dict[str, torch.Tensor]]:
    """``PartAffinityFieldGenerator.forward``."""
    if stride % 1:
        return self._peer_forward(stride, outputs, labels)
    maps = outputs["heatmap"]
    annotated = labels[self.label_keypoint_key].to(outputs["paf"].device, torch.float32)
    size = (maps.shape[-2], maps.shape[-1])
    fields = paf_targets(annotated[..., :2], annotated[..., -1], size, stride, self.graph, self.width)
    return {"paf": {"target": fields}}


def _predict(self: Any, stride: float, outputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``HeatmapPredictor.forward``."""
    locref = outputs["locref"] if self.location_refinement else None
    poses = decode(
        outputs["heatmap"], locref, float(stride), locref_std=self.locref_std, apply_sigmoid=self.apply_sigmoid,
        clip_scores=self.clip_scores,
    )  # fmt: skip
    return {"poses": poses}


def replace() -> Replacement:
    """Puts these functions into DeepLabCut's generators of heatmaps and fields and its ``HeatmapPredictor``."""
    models = "deeplabcut.pose_estimation_pytorch.models"
    generators = require(f"{models}.target_generators.heatmap_targets", "deeplabcut", VERSIONS)
    fields = require(f"{models}.target_generators.pafs_targets", "deeplabcut", VERSIONS)
    predictors = require(f"{models}.predictors.single_predictor", "deeplabcut", VERSIONS)
    done = Replacement()
    for own in (generators.HeatmapGenerator, fields.PartAffinityFieldGenerator):
        if own.forward not in (_forward, _forward_fields):  # else they are replaced already
            own._peer_forward = own.forward
    done.put(generators.HeatmapGenerator, "forward", _forward)
    done.put(fields.PartAffinityFieldGenerator, "forward", _forward_fields)
    done.put(predictors.HeatmapPredictor, "forward", _predict)
    return done

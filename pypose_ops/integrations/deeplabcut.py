"""Targets and predictions of DeepLabCut 3's heatmap heads, batched and on the device.

    import pypose_ops.integrations.deeplabcut as fast

    fast.replace()  # DeepLabCut's generators and HeatmapPredictor call these from now on; .undo() restores them

The functions work without DeepLabCut. It has pixel centres at halves: map pixel ``i`` is image coordinate
``stride * (i + 1/2)``.
"""

from typing import Any, NamedTuple

import torch

from ..ops.gaussian_heatmaps import gaussian_heatmaps
from ._peer import Replacement, require

VERSIONS = ("3",)


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
    kind: str = "gaussian",
    dist_thresh: float = 17.0,
    locref_std: float = 7.2801,
    gradient_masking: bool = False,
    background_weight: float = 0.1,
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
    """
    if kind not in ("gaussian", "plateau"):
        raise ValueError(f"heatmap_targets: kind must be one of gaussian, plateau, got {kind!r}")
    height, width = size
    shown = visible > 0
    at = (keypoints - stride / 2) / stride
    x = torch.arange(width, device=at.device, dtype=at.dtype) * stride + stride / 2
    y = torch.arange(height, device=at.device, dtype=at.dtype) * stride + stride / 2
    batch, people, joints = shown.shape
    near = at.new_zeros((batch, joints, height, width), dtype=torch.bool)
    offsets = at.new_zeros((batch, joints, 2, height, width))
    weights = at.new_ones((batch, joints))
    for p in range(people):
        dx = (keypoints[:, p, :, 0, None] - x)[:, :, None, :]
        dy = (keypoints[:, p, :, 1, None] - y)[:, :, :, None]
        drawn = shown[:, p, :, None, None]
        inside = (dx.square() + dy.square() <= dist_thresh**2) & drawn
        near = near | inside
        own = torch.stack(torch.broadcast_tensors(dx, dy), 2) / locref_std
        offsets = torch.where((inside if kind == "plateau" else drawn)[:, :, None], own, offsets)
        seen = visible[:, p]
        weights = torch.where(seen == -1, 0.0, weights)
        if gradient_masking:
            weights = torch.where(seen == 0, background_weight, weights)
    if kind == "plateau":
        heatmaps = near.to(at.dtype)
    else:
        heatmaps = gaussian_heatmaps(at, 2 * dist_thresh / 3 / stride, size, visible=shown)
    locref_weights = near.to(at.dtype)[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2)
    return HeatmapTargets(heatmaps, weights[..., None, None], offsets.flatten(1, 2), locref_weights)


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

    The sigmoid is applied to the highest logits only. Where it saturates at 1 for several pixels in float32, the
    highest logit wins instead of the first pixel.

    Args:
        heatmaps: ``(B, K, H, W)``, logits.
        locref: ``(B, 2 K, H, W)``, or None.
        stride: image pixels per map pixel.
        locref_std: the scale of ``locref``.
        apply_sigmoid: False for maps that are probabilities.
        clip_scores: clips the scores to [0, 1].
    """
    width = heatmaps.shape[-1]
    scores, index = heatmaps.flatten(2).max(-1)
    coords = torch.stack((index % width, index // width), -1) * stride + 0.5 * stride
    if locref is not None:
        offsets = locref.flatten(2).unflatten(1, (-1, 2))
        coords = coords + offsets.gather(3, index[..., None, None].expand(-1, -1, 2, 1))[..., 0] * locref_std
    scores = torch.sigmoid(scores) if apply_sigmoid else scores
    scores = scores.clamp(0, 1) if clip_scores else scores
    return torch.cat((coords.to(scores.dtype), scores[..., None]), -1)[:, None]


def _forward(self: Any, stride: float, outputs: dict[str, torch.Tensor], labels: dict[str, Any]) -> dict[str, Any]:
    """``HeatmapGenerator.forward`` for targets per keypoint."""
    if self.heatmap_mode != self.Mode.KEYPOINT:
        return self._peer_forward(stride, outputs, labels)
    maps = outputs["heatmap"]
    annotated = labels[self.label_keypoint_key].to(maps.device, torch.float32)
    annotated = annotated[:, None] if annotated.dim() == 3 else annotated
    kind = "plateau" if "Plateau" in type(self).__name__ else "gaussian"
    targets = heatmap_targets(
        annotated[..., :2], annotated[..., -1], (maps.shape[-2], maps.shape[-1]), float(stride), kind=kind,
        dist_thresh=self.dist_thresh, locref_std=1 / self.locref_scale, gradient_masking=self.gradient_masking,
        background_weight=self.background_weight,
    )  # fmt: skip
    result = {
        "heatmap": {"target": targets.heatmaps, "weights": targets.weights.expand_as(targets.heatmaps).contiguous()}
    }
    if self.generate_locref:
        result["locref"] = {"target": targets.locref, "weights": targets.locref_weights.long()}
    return result


def _predict(self: Any, stride: float, outputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``HeatmapPredictor.forward``."""
    locref = outputs["locref"] if self.location_refinement else None
    poses = decode(
        outputs["heatmap"], locref, float(stride), locref_std=self.locref_std, apply_sigmoid=self.apply_sigmoid,
        clip_scores=self.clip_scores,
    )  # fmt: skip
    return {"poses": poses}


def replace() -> Replacement:
    """Puts these functions into DeepLabCut's heatmap generators and its ``HeatmapPredictor``."""
    models = "deeplabcut.pose_estimation_pytorch.models"
    generators = require(f"{models}.target_generators.heatmap_targets", "deeplabcut", VERSIONS)
    predictors = require(f"{models}.predictors.single_predictor", "deeplabcut", VERSIONS)
    done = Replacement()
    generators.HeatmapGenerator._peer_forward = generators.HeatmapGenerator.forward
    done.put(generators.HeatmapGenerator, "forward", _forward)
    done.put(predictors.HeatmapPredictor, "forward", _predict)
    return done

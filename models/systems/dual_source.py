"""DS-CNN (Fan, Zheng, Lin and Wang, CVPR 2015): windows of parts, seen alone and marked in the whole body."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from pypose_ops import Peaks, box_vote, crop_patches, decode_heatmaps, geometry
from pypose_ops._constants import constant
from pypose_ops.skeletons import Skeleton

from ..modules.backbones import VGG, AlexNet, output_shape, pixels_of
from ..modules.backbones import backbone as make_backbone
from ..modules.torso import median_diameter, torso_diameters, torso_joints, torso_option
from .system import Batch, System, SystemConfig

SOURCES = ("part", "body")


@dataclass(frozen=True, kw_only=True)
class DualSourceConfig(SystemConfig):
    """Options of :class:`DualSource`.

    Attributes:
        input_size: ``(height, width)`` of the images of whole people.
        part_size, body_size: of the patches.
        backbone: of both nets, with ``width``.
        hidden: widths of the fully connected layers of each source and after both.
        dropout: after each of them.
        sources: ``("part", "body")``, or one of them alone.
        torso: indices of left shoulder and right hip; None: those of LSP, MPII or COCO, by the
            number of joints.
        scales: sides of the sliding windows, in units of d(I).
        grid: rows and columns of sliding windows; their centres go from border to border.
        train_scales: smallest and largest window in training, in units of d(I).
        windows: drawn per image and step.
        near: see :class:`DualSource`.
        context: size of the part patch relative to its window.
        weights: of the losses of detection and localisation.
        joint_coords: every window predicts a place per joint instead of a single one.
        keep: minimum likelihood of windows that locate a joint, relative to the highest.
        chunk: patches per forward pass at test time.
    """

    input_size: tuple[int, int] = (227, 227)
    part_size: tuple[int, int] = (227, 227)
    body_size: tuple[int, int] = (227, 227)
    backbone: str = "alexnet"
    width: float = 1.0
    hidden: tuple[int, int] = (4096, 4096)
    dropout: float = 0.5
    sources: tuple[str, ...] = SOURCES
    torso: tuple[int, int] | None = None
    scales: tuple[float, ...] = (1.0, 1.25, 1.5)
    grid: tuple[int, int] = (16, 16)
    train_scales: tuple[float, float] = (1.0, 1.5)
    windows: int = 16
    near: float = 0.5
    context: float = 1.0
    weights: tuple[float, float] = (4.0, 16.0)
    joint_coords: bool = False
    keep: float = 0.5
    chunk: int = 512


class DualSource(System):
    """Windows classify and locate a joint, from a part patch and a body patch, and vote.

    Fan, Zheng, Lin, Wang, "Combining Local Appearance and Holistic View: Dual-Source Deep Neural Networks for Human
    Pose Estimation", CVPR 2015 (arXiv 1504.07159), section 3. Faithful: two AlexNets, one for the part patch, one
    for the body patch, whose fourth channel marks the part; features joined before the last fully connected layers; a
    softmax over K + 1 labels ("joint detection") and the place of the labelled joint in coordinates of the window
    ("joint localisation"); a window's label is the joint next to its centre, if that is within ``near d(I)``, d(I) the
    distance of opposing torso joints; at test time sliding windows of several sizes, whose likelihoods are averaged
    over the windows that cover a pixel (:func:`pypose_ops.box_vote`), and joints at the weighted mean of the
    predictions of the windows over the best pixel.

    Our choices: all constants, as no code was published: ``near``, ``scales``, ``grid``, ``train_scales``, ``weights``,
    ``context``, ``keep``; one fully connected layer per source and one after both; training windows drawn around joints
    and anywhere, where the paper has object proposals; at test time d(I) is the median of the training set,
    measured by ``begin_phase``; places are relative to the window's centre instead of its corner, in its sides; both
    AlexNets are those of DeepPose (ungrouped).

    Args:
        num_joints (int): the number of joints, K.
        config (DualSourceConfig): everything else.

    ``forward(images (B, 3, H, W), windows=None)``, windows ``(B, P, 4)`` ``x1, y1, x2, y2`` or None for the sliding
    ones, returns one stage: ``[(logits (B, P, K + 1), places (B, P, 2))]``, label 0 no joint, places in sides from the
    windows' centres; ``(B, P, K, 2)`` with ``joint_coords``. Scores of poses are mean likelihoods.
    """

    grid: tuple[int, ...]
    scales: tuple[float, ...]
    train_scales: tuple[float, ...]
    context: float
    near: float
    weights: tuple[float, ...]
    windows: int
    chunk: int
    joint_coords: bool
    keep: float

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    presets: ClassVar[Mapping[str, SystemConfig]] = {
        "paper": DualSourceConfig(),
        "compact": DualSourceConfig(
            input_size=(128, 128),
            part_size=(32, 32),
            body_size=(48, 48),
            backbone="resnet18",
            width=0.25,
            hidden=(128, 128),
            dropout=0.0,
            scales=(1.0, 1.4),
            windows=32,
        ),
        "efficientnet_lite0": DualSourceConfig(
            input_size=(128, 128),
            part_size=(64, 64),
            body_size=(64, 64),
            backbone="efficientnet_lite0",
            hidden=(256, 256),
            dropout=0.0,
            scales=(1.0, 1.4),
            windows=8,
        ),
    }

    def __init__(self, num_joints: int, config: DualSourceConfig = DualSourceConfig()) -> None:
        super().__init__(num_joints, config.input_size)
        if not config.sources or any(source not in SOURCES for source in config.sources):
            raise ValueError(f"DualSource: sources must be some of part and body, got {config.sources!r}")
        self.torso: tuple[int, int] = torso_joints("DualSource", num_joints, config.torso)
        self.sizes: dict[str, tuple[int, ...]] = {"part": tuple(config.part_size), "body": tuple(config.body_size)}
        self.scales, self.grid, self.train_scales = tuple(config.scales), tuple(config.grid), tuple(config.train_scales)
        self.windows, self.near, self.context, self.weights = (
            config.windows,
            config.near,
            config.context,
            tuple(config.weights),
        )
        self.joint_coords, self.keep, self.chunk = config.joint_coords, config.keep, config.chunk
        self.mean, self.std = pixels_of(config.backbone)
        first, last = config.hidden
        # In a fixed order: the joined features must not depend on how the sources were listed.
        self.nets: nn.ModuleDict = nn.ModuleDict(
            {
                source: SourceNet(
                    make_backbone(config.backbone, width=config.width, in_channels=3 + (source == "body")),
                    self.sizes[source],
                    first,
                    config.dropout,
                )
                for source in SOURCES
                if source in config.sources
            }
        )
        self.joined: nn.Sequential = nn.Sequential(
            nn.Linear(first * len(self.nets), last), nn.ReLU(), nn.Dropout(config.dropout)
        )
        self.detection: nn.Linear = nn.Linear(last, num_joints + 1)
        self.localisation: nn.Linear = nn.Linear(last, 2 * num_joints if config.joint_coords else 2)
        nn.init.kaiming_normal_(self.joined[0].weight, nonlinearity="relu")
        for head in (self.detection, self.localisation):
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)
        self.register_buffer("diameter", torch.tensor(0.25 * self.input_size[0]))

    @classmethod
    def options_of(cls, skeleton: Skeleton) -> dict[str, Any]:
        return torso_option(skeleton)

    def forward(
        self, images: torch.Tensor, windows: torch.Tensor | None = None
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        windows = self.sliding_windows(images) if windows is None else windows
        count, per_image = windows.shape[:2]
        boxes = windows.flatten(0, 1)
        index = torch.arange(count, device=images.device).repeat_interleave(per_image)
        # A single pass in training, so that batch normalisation sees all windows.
        step = max(len(boxes), 1) if self.training else self.chunk
        features = [
            self._features(images, boxes[n : n + step], index[n : n + step]) for n in range(0, max(len(boxes), 1), step)
        ]
        joined = self.joined(torch.cat(features)).unflatten(0, (count, per_image))
        places = self.localisation(joined)
        return [(self.detection(joined), places.unflatten(-1, (-1, 2)) if self.joint_coords else places)]

    def _features(self, images: torch.Tensor, boxes: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """``(N, C)`` of windows ``(N, 4)`` of the images ``index``: of all sources, side by side."""
        height, width = images.shape[-2:]
        options = {"device": boxes.device, "dtype": boxes.dtype}
        out = []
        for source, net in self.nets.items():
            if source == "part":
                center, scale = geometry.box_to_center_and_scale(boxes, self.sizes[source], padding=self.context)
                mask = None
            else:
                center = constant(((width - 1) / 2, (height - 1) / 2), **options).expand(len(boxes), 2)
                scale, mask = constant((float(width), float(height)), **options).expand(len(boxes), 2), boxes
            transforms = geometry.box_to_transform(center, scale, 0.0, self.sizes[source], align="center")
            patches = crop_patches(
                images, transforms, self.sizes[source], image_index=index, antialias=True, mask=mask, dtype=images.dtype
            )
            out.append(net(patches))
        return torch.cat(out, 1)

    def sliding_windows(self, images: torch.Tensor) -> torch.Tensor:
        """``(B, P, 4)`` squares of all ``scales`` on the ``grid``."""
        height, width = images.shape[-2:]
        options = {"device": images.device}
        y = torch.linspace(0, height - 1, self.grid[0], **options)
        x = torch.linspace(0, width - 1, self.grid[1], **options)
        centers = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)
        sides = self.diameter * constant(tuple(self.scales), **options)
        return squares(centers.repeat(len(self.scales), 1), sides.repeat_interleave(len(centers)))[None].expand(
            len(images), -1, -1
        )

    def training_windows(
        self, keypoints: torch.Tensor, visible: torch.Tensor, diameters: torch.Tensor, size: tuple[int, int]
    ) -> torch.Tensor:
        """``(B, windows, 4)`` at random: half of them around labelled joints, the others anywhere in the image."""
        count, options = len(keypoints), {"device": keypoints.device, "dtype": keypoints.dtype}
        around = self.windows // 2
        joints = torch.multinomial(visible.float() + 1e-9, around, replacement=True)
        shift = (2 * torch.rand(count, around, 2, **options) - 1) * (self.near * diameters)[:, None, None]
        known = keypoints.gather(1, joints[..., None].expand(-1, -1, 2))
        anywhere = torch.rand(count, self.windows - around, 2, **options)
        anywhere = anywhere * constant((size[1] - 1.0, size[0] - 1.0), **options)
        low, high = self.train_scales
        sides = (low + (high - low) * torch.rand(count, self.windows, **options)) * diameters[:, None]
        return squares(torch.cat((known + shift, anywhere), 1), sides)

    def label(
        self, windows: torch.Tensor, keypoints: torch.Tensor, visible: torch.Tensor, diameters: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The targets of windows ``(B, P, 4)``: labels ``(B, P)``, 0 for no joint, and places ``(B, P, 2)``.

        The label is the labelled joint nearest to the centre of the window, if within ``near d(I)``.
        """
        center, scale = centers_and_scales(windows)
        distance = torch.linalg.vector_norm(center[:, :, None] - keypoints[:, None], dim=-1)
        distance = torch.where(visible[:, None], distance, float("inf"))
        least, nearest = distance.min(-1)
        found = least <= self.near * diameters[:, None]
        joints = keypoints.gather(1, nearest[..., None].expand(-1, -1, 2))
        places = geometry.normalize_to_box(joints, center, scale)
        return torch.where(found, nearest + 1, 0), torch.where(found[..., None], places, 0.0)

    def begin_phase(self, phase: str | None, batches: Iterable[Batch]) -> None:
        """Measures d(I) of the sliding windows."""
        if phase not in self.phases:
            raise ValueError(f"DualSource: phase must be one of {', '.join(self.phases)}, got {phase!r}")
        median = median_diameter(batches, self.torso)
        if median is not None:
            self.diameter.copy_(median)

    def losses(self, batch: Batch, phase: str | None = None) -> dict[str, torch.Tensor]:
        visible = batch.visible
        keypoints = torch.where(visible[..., None], batch.keypoints, 0.0)
        diameters = torso_diameters(keypoints, visible, self.torso, self.diameter)
        windows = self.training_windows(keypoints, visible, diameters, batch.images.shape[-2:])
        labels, places = self.label(windows, keypoints, visible, diameters)
        ((logits, predicted),) = self(batch.images, windows)
        if self.joint_coords:
            chosen = (labels - 1).clamp(min=0)[..., None, None].expand(*labels.shape, 1, 2)
            predicted = predicted.gather(2, chosen).squeeze(2)
        found = labels > 0
        off = torch.where(found, (predicted - places).square().sum(-1), 0.0).sum() / found.sum().clamp(min=1)
        detection = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return {"detection": self.weights[0] * detection, "localisation": self.weights[1] * off}

    @torch.no_grad()
    def poses(self, images: torch.Tensor, *, flip_pairs: Sequence[tuple[int, int]] | None = None) -> list[Peaks]:
        """As :meth:`System.poses`, with one stage. The windows of the mirrored crop vote too."""
        size = images.shape[-2:]
        windows = self.sliding_windows(images)
        likelihood, places = self._evidence(images, windows)
        if flip_pairs is not None:
            other, there = self._evidence(images.flip(-1), windows)
            there, other = geometry.flip_keypoints(there, size[1], flip_pairs, visible=other)
            mirrored = torch.stack(
                (size[1] - 1 - windows[..., 2], windows[..., 1], size[1] - 1 - windows[..., 0], windows[..., 3]), -1
            )
            windows = torch.cat((windows, mirrored), 1)
            likelihood, places = torch.cat((likelihood, other), 1), torch.cat((places, there), 1)
        return [fuse_windows(windows, likelihood, places, size, keep=self.keep)]

    def _evidence(self, images: torch.Tensor, windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Likelihoods ``(B, P, K)`` and places ``(B, P, K, 2)`` in image pixels."""
        ((logits, places),) = self(images, windows)
        places = places if self.joint_coords else places[:, :, None].expand(-1, -1, self.num_joints, -1)
        center, scale = centers_and_scales(windows)
        places = geometry.denormalize_from_box(places, center[:, :, None], scale[:, :, None])
        return logits.float().softmax(-1)[..., 1:], places


class SourceNet(nn.Module):
    """A backbone and a fully connected layer: patches -> ``(N, hidden)``.

    The maps of AlexNet and VGG are flattened, those of other backbones averaged.
    """

    def __init__(self, features: nn.Module, size: tuple[int, int], hidden: int, dropout: float) -> None:
        super().__init__()
        channels, height, width = output_shape(features, size, channels=_in_channels(features))
        pooled = not isinstance(features, AlexNet | VGG)
        linear = nn.Linear(channels if pooled else channels * height * width, hidden)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        self.features = features
        pool = [nn.AdaptiveAvgPool2d(1)] if pooled else []
        self.head: nn.Sequential = nn.Sequential(*pool, nn.Flatten(), linear, nn.ReLU(), nn.Dropout(dropout))

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(patches))


def _in_channels(features: nn.Module) -> int:
    return next(m for m in features.modules() if isinstance(m, nn.Conv2d)).in_channels


def fuse_windows(
    windows: torch.Tensor, likelihood: torch.Tensor, places: torch.Tensor, size: tuple[int, int], *, keep: float = 0.5
) -> Peaks:
    """Joints from the predictions of windows: section 4 of the paper.

    A joint's map is the mean likelihood over the windows that cover a pixel. The joint is at the mean of the places
    predicted by the windows over the peak of the map, weighted by their likelihoods.

    Args:
        windows (Tensor): ``(B, P, 4)``.
        likelihood (Tensor): ``(B, P, K)``.
        places (Tensor): ``(B, P, K, 2)``, in image pixels.
        size (tuple[int, int]): ``(height, width)`` of the image.
        keep (float): minimum likelihood of the windows that count, relative to the highest over the peak.

    Returns:
        Peaks: places and the maps' peaks; NaN and 0 for joints that no window covers.
    """
    votes = box_vote(windows, likelihood, size)
    covering = box_vote(windows, torch.ones_like(likelihood[..., :1]), size)
    at, scores = decode_heatmaps(votes / covering.clamp(min=1), refine=None)
    at = at[:, None]  # (B, 1, K, 2)
    low, high = windows[:, :, None, :2], windows[:, :, None, 2:]
    weights = torch.where(((at >= low) & (at <= high)).all(-1), likelihood, 0.0)
    weights = torch.where(weights >= keep * weights.amax(1, keepdim=True), weights, 0.0)
    total = weights.sum(1)
    mean = (weights[..., None] * places).sum(1) / total.clamp(min=1e-30)[..., None]
    return Peaks(torch.where((scores > 0)[..., None] & (total > 0)[..., None], mean, torch.nan), scores)


def squares(centers: torch.Tensor | None, sides: torch.Tensor) -> torch.Tensor:
    """Boxes ``(..., 4)`` around centres ``(..., 2)``."""
    return torch.cat((centers - sides[..., None] / 2, centers + sides[..., None] / 2), -1)


def centers_and_scales(windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``(..., 2)`` each."""
    return (windows[..., :2] + windows[..., 2:]) / 2, windows[..., 2:] - windows[..., :2]

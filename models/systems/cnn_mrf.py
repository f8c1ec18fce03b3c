"""A part detector and a Markov random field over its heatmaps (Tompson, Jain, LeCun and Bregler, NIPS 2014)."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import nn
from torch.nn import functional as F

from pypose_ops import Peaks, gaussian_heatmaps
from pypose_ops._constants import constant
from pypose_ops.codecs._base import GaussianCodec

from ..modules.backbones import pixels_of
from ..modules.cascade import Cascade
from ..modules.feature_pyramid import UNLIKELY, MapHead
from ..modules.image_pyramid import BackboneWithFPN, pyramid_of_option
from ..modules.joint_graphs import full_edges
from ..modules.layers import ConvBlock
from ..modules.spatial_model import SpatialModel
from .heatmap_system import HeatmapSystem, map_cross_entropy
from .system import Batch, SystemConfig


@dataclass(frozen=True, kw_only=True)
class CnnMrfConfig(SystemConfig):
    """Options of :class:`CnnMrf`.

    Attributes:
        input_size: ``(height, width)``, multiples of ``4 * 2 ** (banks - 1)``, of 32 with a backbone; the size of
            the priors follows from it, so images must have this size.
        detector: ``"banks"``, or a backbone of :func:`.image_pyramid` such as ``"efficientnet_lite0"``.
        pyramid, features, hidden: of a detector with a backbone, as in :class:`.HeatmapNetConfig`.
        banks: resolutions: the image, its half, ...; 2 in the paper, 3 in Tompson et al. (CVPR 2015). This and the next
            five options are of ``"banks"``.
        channels: of the three convolutions of a bank.
        wide: of the 9x9 and the first 1x1 convolution.
        norm: batch normalisation before each ReLU; the paper has none.
        contrast: window of the local contrast normalisation, odd.
        dropout: probability of dropping a map before the 1x1 convolutions (SpatialDropout, Tompson et al., CVPR 2015).
        sigma: of the targets, in heatmap pixels.
        torso: add the torso channel.
        torso_joints: see :class:`CnnMrf`.
        torso_sigma: of the torso map, in heatmap pixels.
        all_people: train the detector on all people of an image; the spatial model selects one.
        weights: of the losses of detector and spatial model, whose magnitudes differ widely
            with ``"cross_entropy"``.
        spatial_loss: ``"mse"`` as in the paper, of maps with a peak of 1; or ``"cross_entropy"`` over the pixels.
        spatial: arguments of :class:`SpatialModel`: ``bias``, ``floor``, ``beta``, ``weight``, ``method``.
    """

    input_size: tuple[int, int] = (240, 360)
    detector: str = "banks"
    pyramid: tuple[int, ...] = (32, 48, 64)
    features: int = 32
    hidden: int = 96
    banks: int = 2
    channels: tuple[int, int, int] = (128, 128, 128)
    wide: tuple[int, int] = (512, 256)
    norm: bool = False
    contrast: int | None = 9
    dropout: float = 0.0
    sigma: float = 1.5
    torso: bool = True
    torso_joints: tuple[int, ...] = ()
    torso_sigma: float = 1.5
    all_people: bool = False
    weights: tuple[float, float] = (1.0, 1.0)
    spatial_loss: str = "mse"
    spatial: Mapping[str, Any] | None = None


class CnnMrf(HeatmapSystem):
    """A multi-resolution part detector, then one round of messages between the joints' heatmaps.

    Tompson, Jain, LeCun, Bregler, "Joint Training of a Convolutional Network and a Graphical Model for Human Pose
    Estimation", NIPS 2014 (arXiv 1406.2984): figures 2 and 3 (detector), equation 2 and section 3.2 (spatial model).
    Faithful: banks of 5x5, 5x5, 5x5 and 9x9 convolutions with two pools, on the image and on its half, with receptive
    fields of 64 and 128 pixels, whose outputs are added; two 1x1 convolutions; maps of a quarter of the size, 90 x 60
    for 360 x 240; a fully connected graph, priors that hold every displacement in the map and start at the histograms
    of the training set, SoftPlus and floor; the torso as a source of messages that is not an output; training in three
    phases: detector, spatial model on the heatmaps of the fixed detector, both.

    Our choices: a 9x9 convolution in each bank, summed before the ReLU, which is one over the features of all banks
    side by side; zero padding where the paper's shrinks the map; the channels of the first two convolutions; the width
    of the targets; local contrast normalisation over a square window; the spatial model's evidence and trained weight
    (see :class:`SpatialModel`), which is normalised over the pixels to become heatmaps; in the second phase images
    are augmented instead of stored heatmaps. A detector with another backbone is ours: the layers and the loss of
    :class:`.HeatmapNet`.

    The torso is assumed in the middle of the crop unless ``torso_joints`` are given: then it is their mean in training,
    and ``torso`` at test time, as in the paper.

    Args:
        num_joints (int): the number of joints, K.
        config (CnnMrfConfig): everything else.

    ``forward(images (B, 3, H, W), torso=None)``, torso ``(B, 2)`` image pixels, returns the detector's heatmaps, as
    logits with a backbone, and the spatial model's log-energies, ``(B, K, H / 4, W / 4)`` each. Scores of poses are the
    heatmaps' peaks, then the posterior probabilities of the pixels.
    """

    all_people: bool
    sigma: float
    weights: tuple[float, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    torso: bool
    torso_joints: tuple[int, ...]
    torso_sigma: float

    phases: tuple[str, ...] = ("detector", "spatial", "joint")
    presets: ClassVar[Mapping[str, SystemConfig]] = {
        "paper": CnnMrfConfig(),
        "compact": CnnMrfConfig(
            input_size=(96, 96),
            channels=(16, 24, 32),
            wide=(48, 64),
            norm=True,
            contrast=None,
            sigma=1.0,
            spatial_loss="cross_entropy",
            weights=(100.0, 1.0),
        ),
        "efficientnet_lite0": CnnMrfConfig(
            input_size=(192, 192),
            detector="efficientnet_lite0",
            spatial_loss="cross_entropy",
            weights=(100.0, 1.0),
            spatial={"weight": 0.1},
        ),
    }

    def __init__(self, num_joints: int, config: CnnMrfConfig = CnnMrfConfig()) -> None:
        super().__init__(num_joints, config.input_size)
        self.logits: bool = config.detector != "banks"
        detector = self._detector(config)
        self._check_input_size(32 if self.logits else 4 * 2 ** (config.banks - 1))
        if config.spatial_loss not in ("mse", "cross_entropy"):
            raise ValueError(f"CnnMrf: spatial_loss must be one of mse, cross_entropy, got {config.spatial_loss!r}")
        self.sigma, self.all_people, self.spatial_loss, self.weights = (
            config.sigma,
            config.all_people,
            config.spatial_loss,
            tuple(config.weights),
        )
        self.torso, self.torso_joints, self.torso_sigma = config.torso, tuple(config.torso_joints), config.torso_sigma
        self.map_size: tuple[int, ...] = tuple(side // 4 for side in self.input_size)
        self.edges: list[tuple[int, int]] = full_edges(range(num_joints), [num_joints] if config.torso else [])
        self.spatial_options: Mapping[str, Any] | dict[str, Any] = config.spatial or {}
        priors = [2 * side - 1 for side in self.map_size]
        uniform = torch.full((len(self.edges), *priors), 1.0 / (priors[0] * priors[1]))
        spatial = SpatialModel(uniform, self.edges, num_joints, **self.spatial_options)
        self.cascade: Cascade = Cascade(*detector, SpatialStage(spatial, logits=self.logits))

    def _detector(self, config: CnnMrfConfig) -> tuple[nn.Module, nn.Module]:
        """Features of the images, and the maps of the joints from them."""
        if not self.logits:
            widths = (*config.channels, config.wide[0])
            features = MultiResolution(config.banks, widths, norm=config.norm, contrast=config.contrast)
            return features, DetectorHead(config.wide, self.num_joints, norm=config.norm, dropout=config.dropout)
        backbone = pyramid_of_option("CnnMrf: detector must be banks", config.detector)
        features = PyramidFeatures(backbone, config.pyramid, config.features)
        self.mean, self.std = pixels_of(config.detector)
        return features, PyramidHead(config.features, config.hidden, self.num_joints)

    @property
    def spatial(self) -> SpatialModel:
        """The :class:`SpatialModel`."""
        return self.cascade.refine[0].model

    def forward(self, images: torch.Tensor, torso: torch.Tensor | None = None) -> list[torch.Tensor]:
        if tuple(images.shape[-2:]) != self.input_size:
            raise ValueError(f"CnnMrf: images must be {self.input_size}, as the priors, got {tuple(images.shape[-2:])}")
        return self.cascade(images, self.torso_maps(images, torso))

    def heatmaps(self, images: torch.Tensor, torso: torch.Tensor | None = None) -> list[torch.Tensor]:
        found, energies = self(images, torso)
        return [found.sigmoid() if self.logits else found, energies.flatten(2).softmax(-1).view_as(energies)]

    def torso_maps(self, images: torch.Tensor, torso: torch.Tensor | None = None) -> torch.Tensor | None:
        """``(B, 1, h, w)`` of positions ``(B, 2)`` in image pixels, NaN or None for the middle; None without torso."""
        if not self.torso:
            return None
        height, width = images.shape[-2:]
        middle = constant(((width - 1) / 2, (height - 1) / 2), device=images.device).expand(len(images), 2)
        torso = middle if torso is None else torch.where(torso.isfinite().all(-1, keepdim=True), torso, middle)
        at = self.at(images).to_heatmap(torso[:, None])
        return gaussian_heatmaps(at, self.torso_sigma, self.map_size, dtype=images.dtype)

    def torso_of(self, keypoints: torch.Tensor, visible: torch.Tensor) -> torch.Tensor | None:
        """``(B, 2)`` means of the labelled ``torso_joints``, NaN if none is labelled; None without ``torso_joints``."""
        if not self.torso_joints:
            return None
        joints = list(self.torso_joints)
        known = visible[:, joints, None]
        return torch.where(known, keypoints[:, joints], 0.0).sum(1) / known.sum(1)

    def at(self, images: torch.Tensor) -> GaussianCodec:
        """The codec between images and maps."""
        return self.codec(images, images.new_empty(0, 0, *self.map_size))

    def begin_phase(self, phase: str | None, batches: Iterable[Batch]) -> None:
        """Selects the parameters to train; before ``"spatial"``, initialises the priors from ``batches``."""
        if phase not in self.phases:
            raise ValueError(f"CnnMrf: phase must be one of {', '.join(self.phases)}, got {phase!r}")
        self.requires_grad_(False)
        for part in self._trained(phase):
            part.requires_grad_(True)
        self.frozen: bool = phase == "spatial"
        if phase == "spatial":
            self.measure_priors(batches)

    def _trained(self, phase: str | None) -> list[nn.Module]:
        detector = [self.cascade.features, self.cascade.first]
        return {"detector": detector, "spatial": [self.spatial], "joint": [self]}[phase]

    frozen = False

    def train(self, mode: bool = True) -> Self:
        """As in ``nn.Module``; a frozen detector also keeps its running statistics."""
        super().train(mode)
        if self.frozen:
            self.cascade.features.eval()
            self.cascade.first.eval()
        return self

    @torch.no_grad()
    def measure_priors(self, batches: Iterable[Batch]) -> None:
        """Initialises the priors with smoothed histograms of the displacements between labelled joints."""
        poses, known = [], []
        for batch in batches:
            keypoints, visible = batch.keypoints, batch.visible
            if self.torso:
                height, width = self.input_size
                middle = keypoints.new_tensor([(width - 1) / 2, (height - 1) / 2]).expand(len(keypoints), 2)
                torso = self.torso_of(keypoints, visible)
                torso = middle if torso is None else torso.where(torso.isfinite(), middle)
                keypoints = torch.cat((keypoints, torso[:, None]), 1)
                visible = torch.cat((visible, visible.any(1, keepdim=True)), 1)
            poses.append(self.at(batch.images).to_heatmap(keypoints).float().cpu())
            known.append(visible.cpu())
        if not poses:
            return
        fresh = SpatialModel.from_displacements(
            torch.cat(poses), torch.cat(known), self.edges, self.map_size, self.num_joints, **self.spatial_options
        )
        self.spatial.load_state_dict(fresh.state_dict())

    def losses(self, batch: Batch, phase: str | None = None) -> dict[str, torch.Tensor]:
        phase = self.phases[-1] if phase is None else phase
        codec, found = self.at(batch.images), {}
        torso = self.torso_of(batch.keypoints, batch.visible)
        features = self.cascade.features
        with torch.set_grad_enabled(torch.is_grad_enabled() and phase != "spatial"):
            seen = features(batch.images, self.torso_maps(batch.images, torso))
            maps = self.cascade.first(seen)
        if phase != "spatial":
            found["detector"] = self.weights[0] * self._detector_loss(codec, maps, batch)
        if phase != "detector":
            energies = self.cascade.refine[0](maps, seen)
            found["spatial"] = self.weights[1] * self._spatial_loss(codec, energies, batch)
        return found

    def _detector_loss(self, codec: GaussianCodec, maps: torch.Tensor, batch: Batch) -> torch.Tensor:
        if self.all_people and batch.others is not None:
            return self._map_loss(codec, maps, *batch.everybody(), weight=batch.visible.to(maps.dtype))
        return self._map_loss(codec, maps, batch.keypoints, batch.visible)

    def _map_loss(self, codec: GaussianCodec, maps: torch.Tensor, *labels: Any, **options: Any) -> torch.Tensor:
        loss = functools.partial(map_cross_entropy, codec) if self.logits else codec.loss
        return loss(maps, *labels, **options)

    def _spatial_loss(self, codec: GaussianCodec, energies: torch.Tensor, batch: Batch) -> torch.Tensor:
        if self.spatial_loss == "mse":
            peaks = energies - energies.amax((-2, -1), keepdim=True)
            return codec.loss(peaks.exp(), batch.keypoints, batch.visible)
        target, weight = codec.encode(batch.keypoints, batch.visible)
        target = target.flatten(2) / target.sum((-2, -1)).clamp(min=1e-6)[..., None]
        each = -(target * energies.flatten(2).log_softmax(-1)).sum(-1)
        return (each * weight).sum() / weight.sum().clamp(min=1)

    @torch.no_grad()
    def poses(
        self,
        images: torch.Tensor,
        *,
        flip_pairs: Sequence[tuple[int, int]] | None = None,
        torso: torch.Tensor | None = None,
        **options: Any,
    ) -> list[Peaks]:
        """As :meth:`HeatmapSystem.poses`; ``torso``: ``(B, 2)``, the position of the torso if known."""
        if torso is None:
            return super().poses(images, flip_pairs=flip_pairs, **options)
        stages, mirrored = self.heatmaps(images, torso), [{}, {}]
        if flip_pairs is not None:
            there = torch.stack((images.shape[-1] - 1 - torso[:, 0], torso[:, 1]), -1)
            other = self.heatmaps(images.flip(-1), there)
            mirrored = [{"flipped": maps, "flip_pairs": flip_pairs} for maps in other]
        return [self.decode(images, maps, **flip) for maps, flip in zip(stages, mirrored, strict=True)]


class MultiResolution(nn.Module):
    """Banks of convolutions on the image, its half, ...; their outputs are upsampled to the finest and added.

    ``(B, 3, H, W)`` and further inputs of the stages (the torso map) -> ``(B, C, H / 4, W / 4)`` and these inputs.
    """

    def __init__(self, banks: int, channels: Sequence[int], *, norm: bool, contrast: int | None) -> None:
        super().__init__()
        first, second, third, last = channels
        self.contrast = contrast
        self.banks: nn.ModuleList = nn.ModuleList(
            nn.Sequential(
                ConvBlock(3, first, 5, norm=norm),
                nn.MaxPool2d(2),
                ConvBlock(first, second, 5, norm=norm),
                nn.MaxPool2d(2),
                ConvBlock(second, third, 5, norm=norm),
                nn.Conv2d(third, last, 9, padding=4, bias=not (norm or n)),  # one bias for the sum
            )
            for n in range(banks)
        )
        self.after: nn.Module = nn.Sequential(nn.BatchNorm2d(last), nn.ReLU()) if norm else nn.ReLU()

    def forward(
        self, images: torch.Tensor, torso: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        total = None
        for n, bank in enumerate(self.banks):
            images = F.avg_pool2d(images, 2) if n else images
            maps = bank(images if self.contrast is None else local_contrast(images, self.contrast))
            total = maps if total is None else total + F.interpolate(maps, scale_factor=float(2**n))
        return self.after(total), torso


class DetectorHead(nn.Sequential):
    """Two 1x1 convolutions: the maps of :class:`MultiResolution` -> heatmaps ``(B, K, h, w)``."""

    def __init__(self, wide: tuple[int, int], num_joints: int, *, norm: bool, dropout: float) -> None:
        first, second = wide
        super().__init__(
            nn.Dropout2d(dropout), ConvBlock(first, second, 1, norm=norm), nn.Conv2d(second, num_joints, 1)
        )

    def forward(self, seen: tuple[torch.Tensor, torch.Tensor | None]) -> torch.Tensor:
        return super().forward(seen[0])


class PyramidFeatures(BackboneWithFPN):
    """The maps of a backbone, merged to a quarter of the image; further inputs of the stages (the torso map)."""

    def forward(
        self, images: torch.Tensor, torso: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        return super().forward(images), torso


class PyramidHead(MapHead):
    """The maps of :class:`PyramidFeatures` -> logits of heatmaps ``(B, K, h, w)``."""

    def __init__(self, inputs: int, hidden: int, num_joints: int) -> None:
        super().__init__(inputs, hidden, num_joints)
        nn.init.constant_(self.out.bias, UNLIKELY)

    def forward(self, seen: tuple[torch.Tensor, torch.Tensor | None]) -> torch.Tensor:
        return super().forward(seen[0])


class SpatialStage(nn.Module):
    """Heatmaps or their ``logits``, with the torso map as a further source of messages -> log-energies."""

    def __init__(self, model: SpatialModel, *, logits: bool = False) -> None:
        super().__init__()
        self.model, self.logits = model, logits

    def forward(self, heatmaps: torch.Tensor, seen: tuple[torch.Tensor, torch.Tensor | None]) -> torch.Tensor:
        torso = seen[1]
        heatmaps = heatmaps.sigmoid() if self.logits else heatmaps
        return self.model(heatmaps if torso is None else torch.cat((heatmaps, torso.to(heatmaps.dtype)), 1))


def local_contrast(images: torch.Tensor, window: int) -> torch.Tensor:
    """Local contrast normalisation over a square window and all channels (deviations at least the image's mean)."""
    options = {"stride": 1, "padding": window // 2, "count_include_pad": False}
    centred = images - F.avg_pool2d(images.mean(1, keepdim=True), window, **options)
    deviation = F.avg_pool2d(centred.square().mean(1, keepdim=True), window, **options).sqrt()
    return centred / deviation.maximum(deviation.mean((-2, -1), keepdim=True)).clamp(min=1e-4)

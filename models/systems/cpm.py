"""Convolutional pose machines (Wei, Ramakrishna, Kanade and Sheikh, CVPR 2016)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from pypose_ops import gaussian_heatmaps
from pypose_ops._constants import constant
from pypose_ops.codecs import CPMHeatmap
from pypose_ops.codecs._base import GaussianCodec

from ..modules.backbones import VGG, pixels_of
from ..modules.cascade import Cascade
from ..modules.image_pyramid import BackboneWithFPN, pyramid_of_option
from ..modules.layers import ConvBlock, HeatmapHead
from .heatmap_system import HeatmapSystem
from .system import Batch, SystemConfig


@dataclass(frozen=True, kw_only=True)
class ConvolutionalPoseMachineConfig(SystemConfig):
    """Options of :class:`ConvolutionalPoseMachine`.

    Attributes:
        stages: at least 1.
        variant: of the image features: ``"original"``, ``"vgg"``, or a backbone of :func:`.image_pyramid` such as
            ``"efficientnet_lite0"``, whose maps at 1/8 to 1/32 are merged.
        pool: 2 or 3, of ``"original"``.
        widths: of the three convolutions before the pools, of ``"original"``.
        hidden: channels of the two layers before the first maps (``"original"``), of the only one (others).
        stage_width: channels of the later stages.
        kernel_size: of the first convolutions and of the last one above 1x1, of ``"original"``.
        stage_kernel_size: of the later stages; None: 11 of ``"original"``, 7 of the others.
        dropout: before the last two layers of stage 1, of ``"original"``.
        norm: batch normalisation after each hidden convolution; the paper has none.
        sigma: of the targets, in heatmap pixels.
        center_sigma: of the centre map, in input pixels.
        input_size: ``(height, width)``, multiples of 8.
    """

    stages: int = 6
    variant: str = "original"
    pool: int = 3
    widths: tuple[int, int, int] = (128, 128, 128)
    hidden: int = 512
    stage_width: int = 128
    kernel_size: int = 9
    stage_kernel_size: int | None = None
    dropout: float = 0.5
    norm: bool = False
    sigma: float = 0.875
    center_sigma: float = 21.0
    input_size: tuple[int, int] = (368, 368)


class ConvolutionalPoseMachine(HeatmapSystem):
    """Convolutional pose machines.

    Wei, Ramakrishna, Kanade, Sheikh, "Convolutional Pose Machines", CVPR 2016 (arXiv 1602.00134), figure 2 and the
    released prototxt. As there: each stage reads the maps of the previous one and image features shared by the
    later stages; a centre map marks the person in question (a Gaussian of 21 pixels in the middle of the crop, 9x9
    means); a background map, Gaussians of 7 input pixels on the grid ``x = 8 g + 3.5``, people summed and clipped,
    stage 1 trained on all people, the later ones on the person in the middle; a loss per stage. ``variant="vgg"``
    starts with VGG-19 up to conv4_2. 14 joints: 31,219,866 parameters; VGG 29,852,058. Other backbones are ours.

    Receptive fields of the first stages: 160, 400 and 640 pixels with ``pool=2`` as in the figure, 167, 407 and 647
    with the released 3x3 pools. Our choices: errors are means, where the paper sums (a constant factor for one size);
    maps of unlabelled joints count 0; peaks are refined by UDP's DARK; ImageNet normalisation.

    Args:
        num_joints (int): K; there are K + 1 maps, the last for the background.
        config (ConvolutionalPoseMachineConfig): everything else.

    ``forward(images (B, 3, H, W), centers=None)`` gives ``(B, K + 1, H / 8, W / 8)`` per stage; ``centers`` ``(B, 2)``
    are the positions of people who are not in the middle.
    """

    center_sigma: float
    sigma: float

    refine: str | None = "dark_udp"  # DARK does not refine peaks within two cells (16 pixels) of the border
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    presets: ClassVar[Mapping[str, SystemConfig]] = {
        "paper": ConvolutionalPoseMachineConfig(),
        "vgg": ConvolutionalPoseMachineConfig(variant="vgg"),
        "compact": ConvolutionalPoseMachineConfig(
            stages=3,
            widths=(16, 32, 48),
            hidden=64,
            stage_width=64,
            kernel_size=5,
            stage_kernel_size=7,
            dropout=0.0,
            norm=True,
            center_sigma=7.5,
            input_size=(128, 128),
        ),
        "efficientnet_lite0": ConvolutionalPoseMachineConfig(
            stages=3,
            variant="efficientnet_lite0",
            hidden=128,
            stage_width=64,
            norm=True,
            center_sigma=11.0,
            input_size=(192, 192),
        ),
    }

    def __init__(
        self, num_joints: int, config: ConvolutionalPoseMachineConfig = ConvolutionalPoseMachineConfig()
    ) -> None:
        super().__init__(num_joints, config.input_size)
        self._check_input_size(8)
        self.sigma, self.center_sigma = config.sigma, config.center_sigma
        maps = num_joints + 1
        if config.variant == "original":
            features = ImageFeatures(config.widths, config.kernel_size, config.pool, config.norm)
            first = FirstStage(config.widths[-1], config.hidden, maps, config.kernel_size, config.dropout, config.norm)
            shape = {
                "inputs": config.widths[-1],
                "reduced": 32,
                "convs": 3,
                "kernel_size": config.stage_kernel_size or 11,
            }
        elif config.variant == "vgg":
            features = VggFeatures(config.norm)
            first = VggFirstStage(128, config.hidden, maps, config.norm)
            shape = {"inputs": 128, "reduced": None, "convs": 5, "kernel_size": config.stage_kernel_size or 7}
        else:
            features = PyramidFeatures(config.variant)
            self.mean, self.std = pixels_of(config.variant)
            first = VggFirstStage(128, config.hidden, maps, config.norm)
            shape = {"inputs": 128, "reduced": 32, "convs": 3, "kernel_size": config.stage_kernel_size or 7}
        later = [LaterStage(maps, config.stage_width, norm=config.norm, **shape) for _ in range(config.stages - 1)]
        self.cascade: Cascade = Cascade(features, first, *later)
        self._initialise(config.norm, keep=None if config.variant == "original" else features.backbone)

    def _initialise(self, norm: bool, keep: nn.Module | None) -> None:
        """Initialises from N(0, 0.01) as in the paper; He with batch normalisation. Backbones keep their own."""
        kept = set() if keep is None else set(keep.modules())
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module not in kept:
                if norm and module.bias is None:
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                else:
                    nn.init.normal_(module.weight, std=0.01)
                    nn.init.zeros_(module.bias)

    def codec(self, images: torch.Tensor, maps: torch.Tensor) -> GaussianCodec:
        return CPMHeatmap(images.shape[:-3:-1], maps.shape[:-3:-1], self.sigma, self.center_sigma)

    def forward(self, images: torch.Tensor, centers: torch.Tensor | None = None) -> list[torch.Tensor]:
        return self.cascade(images, self.center_map(images, centers))

    def center_map(self, images: torch.Tensor, centers: torch.Tensor | None = None) -> torch.Tensor:
        """The centre map ``(B, 1, H / 8, W / 8)``."""
        batch, _, height, width = images.shape
        if centers is None:
            centers = constant((((width - 1) / 2, (height - 1) / 2),), device=images.device)
        drawn = gaussian_heatmaps(centers[:, None], self.center_sigma, (height, width))
        # As in the prototxt: 9x9 every 8 pixels, the last window cut at the border.
        return F.avg_pool2d(drawn, 9, 8, ceil_mode=True).to(images.dtype).expand(batch, -1, -1, -1)

    def heatmaps(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [maps[:, :-1] for maps in self(images)]

    def losses(self, batch: Batch, phase: str | None = None) -> dict[str, torch.Tensor]:
        stages = self(batch.images)
        codec = self.codec(batch.images, stages[0])
        everybody, labelled = batch.everybody()
        losses = {"stage1": map_loss(codec, stages[0], everybody, labelled, batch.visible)}
        if len(stages) > 1:
            later = map_loss(codec, torch.stack(stages[1:]), batch.keypoints, batch.visible, batch.visible)
            losses |= {f"stage{s}": loss for s, loss in enumerate(later.unbind(), 2)}
        return losses


def map_loss(
    codec: GaussianCodec, pred: torch.Tensor, keypoints: torch.Tensor, labelled: torch.Tensor, counts: torch.Tensor
) -> torch.Tensor:
    """Mean squared error per stage of maps ``(..., B, K + 1, h, w)``, the last of which is the background.

    Maps of joints outside ``counts`` ``(B, K)`` count 0; the background always counts.
    """
    joints = pred.shape[-3] - 1
    weight = counts.to(torch.float32)
    errors = codec.loss(pred[..., :-1, :, :], keypoints, labelled, weight=weight, reduction="none")
    background = codec.encode(keypoints, labelled)[0][:, -1]
    last = (pred[..., -1, :, :].to(background.dtype) - background).square().mean((-2, -1))  # (..., B)
    return ((errors.sum(-1) + last) / (joints + 1)).mean(-1)


def pooled_convs(widths: Sequence[int], kernel_size: int, pool: int, norm: bool) -> nn.Sequential:
    """Convolutions, each followed by a pooling that halves the size."""
    layers, inputs = [], 3
    for width in widths:
        # Caffe's rule: the last window may cross the border.
        layers += [ConvBlock(inputs, width, kernel_size, norm=norm), nn.MaxPool2d(pool, 2, ceil_mode=True)]
        inputs = width
    return nn.Sequential(*layers)


class ImageFeatures(nn.Module):
    """The image features of stage 1, those of the later stages, and the centre map."""

    def __init__(self, widths: Sequence[int], kernel_size: int, pool: int, norm: bool) -> None:
        super().__init__()
        self.stem: nn.Sequential = pooled_convs(widths, kernel_size, pool, norm)
        self.trunk: nn.Sequential = pooled_convs(widths, kernel_size, pool, norm)

    def forward(self, images: torch.Tensor, center: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.stem(images), self.trunk(images), center


class VggFeatures(nn.Module):
    """VGG-19 up to conv4_2 and five more convolutions, for all stages, and the centre map."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.vgg: VGG = VGG(19, last="conv4_2")
        widths = (self.vgg.out_channels, 256, 256, 256, 256, 128)
        blocks = [ConvBlock(a, b, norm=norm) for a, b in zip(widths[:-1], widths[1:], strict=True)]
        self.convs: nn.Sequential = nn.Sequential(*blocks)

    @property
    def backbone(self) -> nn.Module:
        """The part that keeps its initialisation."""
        return self.vgg

    def forward(self, images: torch.Tensor, center: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        features = self.convs(self.vgg(images))
        return features, features, center


class PyramidFeatures(BackboneWithFPN):
    """The maps of a backbone at 1/8, 1/16 and 1/32, merged to 128 channels at 1/8, for all stages; the centre map."""

    def __init__(self, name: str) -> None:
        backbone = pyramid_of_option("ConvolutionalPoseMachine: variant must be original, vgg", name)
        super().__init__(backbone, (64, 96), 128, finest=1)

    def forward(self, images: torch.Tensor, center: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        features = super().forward(images)
        return features, features, center


class FirstStage(nn.Module):
    """5x5, 32; 9x9, ``hidden``; 1x1, ``hidden``; 1x1, maps."""

    def __init__(self, inputs: int, hidden: int, maps: int, kernel_size: int, dropout: float, norm: bool) -> None:
        super().__init__()
        self.convs: nn.Sequential = nn.Sequential(
            ConvBlock(inputs, 32, 5, norm=norm),
            ConvBlock(32, hidden, kernel_size, norm=norm),
            nn.Dropout(dropout),
            ConvBlock(hidden, hidden, 1, norm=norm),
            nn.Dropout(dropout),
        )
        self.head: HeatmapHead = HeatmapHead(hidden, maps)

    def forward(self, features: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return self.head(self.convs(features[0]))


class VggFirstStage(nn.Module):
    """1x1, ``hidden``; 1x1, maps."""

    def __init__(self, inputs: int, hidden: int, maps: int, norm: bool) -> None:
        super().__init__()
        self.head: HeatmapHead = HeatmapHead(inputs, maps, (hidden,), norm=norm)

    def forward(self, features: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return self.head(features[0])


class LaterStage(nn.Module):
    """Image features (``reduced`` by a 5x5 convolution), the previous maps and the centre map -> refined maps."""

    def __init__(
        self,
        maps: int,
        width: int,
        *,
        inputs: int,
        reduced: int | None,
        convs: int,
        kernel_size: int,
        norm: bool,
    ) -> None:
        super().__init__()
        self.reduce: nn.Module = nn.Identity() if reduced is None else ConvBlock(inputs, reduced, 5, norm=norm)
        widths = ((inputs if reduced is None else reduced) + maps + 1, *(width,) * convs)
        blocks = [ConvBlock(a, b, kernel_size, norm=norm) for a, b in zip(widths[:-1], widths[1:], strict=True)]
        self.convs: nn.Sequential = nn.Sequential(*blocks)
        self.head: HeatmapHead = HeatmapHead(width, maps, (width,), norm=norm)

    def forward(self, maps: torch.Tensor, features: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
        _, shared, center = features
        return self.head(self.convs(torch.cat((self.reduce(shared), maps, center), 1)))

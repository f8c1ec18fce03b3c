"""Part detection, then regression of the heatmaps (Bulat and Tzimiropoulos, ECCV 2016)."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import nn
from torch.nn import functional as F

from pypose_ops import Peaks, gaussian_heatmaps

from ..modules.backbones import VGG, ResNet, initialise, pixels_of, scaled
from ..modules.cascade import Cascade
from ..modules.image_pyramid import pyramid_of_option
from ..modules.layers import ConvBlock, HeatmapHead, Hourglass, Residual
from .heatmap_system import HeatmapSystem
from .system import Batch, SystemConfig


@dataclass(frozen=True, kw_only=True)
class PartHeatmapRegressionConfig(SystemConfig):
    """Options of :class:`PartHeatmapRegression`.

    Attributes:
        detector: ``"resnet"`` or ``"vgg"`` as in the paper, or a backbone of :func:`.image_pyramid` such as
            ``"efficientnet_lite0"``, as an FCN-8s.
        regressor: ``"hourglass"`` or ``"large_kernel"``.
        depth: of the ResNet.
        width: channel multiplier of the detector, where it has one.
        regressor_width: channel multiplier of the regressor.
        levels: of the hourglass.
        blocks: consecutive residuals in the hourglass.
        norm: batch normalisation in the FCN and the large-kernel net; the paper has none there.
        radius: of the discs, in pixels.
        sigma: of the Gaussians, in pixels.
        input_size: ``(height, width)``; multiples of 32, of 4 with ``"resnet"``; with the hourglass also of
            ``2 ** (levels + 2)``.
    """

    detector: str = "resnet"
    regressor: str = "hourglass"
    depth: int = 152
    width: float = 1.0
    regressor_width: float = 1.0
    levels: int = 4
    blocks: int = 3
    norm: bool = False
    radius: float = 10.0
    sigma: float = 5.0
    input_size: tuple[int, int] = (256, 256)


class PartHeatmapRegression(HeatmapSystem):
    """Part detection heatmaps (discs), then regressed heatmaps (Gaussians), from those maps and the image.

    Bulat, Tzimiropoulos, "Human pose estimation via Convolutional Part Heatmap Regression", ECCV 2016 (arXiv
    1609.01743), figures 2 to 4. As there: a detector of discs of 10 pixels trained by sigmoid cross-entropy, VGG-FCN-8s
    or a ResNet whose last stage has stride 1, with maps of the image's size; a regressor that reads them and the
    image, with large kernels or as an hourglass (one of 4 levels, three residuals in a row, 512 channels on the way
    up, learned upsampling), trained to Gaussians of 5 pixels by the mean squared error; the detector first, then the
    regressor, then both.

    Our choices: the regressor reads the sigmoids of the detector's maps; the large-kernel net's strides (pools after
    its first two layers); a residual after each sum of the hourglass, the outermost too; dropout of 0.5 in the FCN as
    in Long et al. (CVPR 2015); a disc decodes to the centroid of its map around the peak.

    Args:
        num_joints (int): the number of joints, K.
        config (PartHeatmapRegressionConfig): everything else.

    ``forward(images (B, 3, H, W))`` returns ``[logits of the discs, Gaussians]``, ``(B, K, H, W)`` each.
    """

    radius: float
    sigma: float

    phases: tuple[str, ...] = ("detection", "regression", "joint")
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    presets: ClassVar[Mapping[str, SystemConfig]] = {
        "paper": PartHeatmapRegressionConfig(depth=152),
        "vgg": PartHeatmapRegressionConfig(detector="vgg", regressor="large_kernel"),
        "compact": PartHeatmapRegressionConfig(
            depth=18, width=0.25, regressor_width=0.25, levels=3, blocks=1, radius=6.0, sigma=4.0, input_size=(96, 96)
        ),
        "efficientnet_lite0": PartHeatmapRegressionConfig(
            detector="efficientnet_lite0",
            regressor_width=0.25,
            levels=3,
            blocks=1,
            radius=6.0,
            sigma=4.0,
            input_size=(160, 160),
        ),
    }

    def __init__(self, num_joints: int, config: PartHeatmapRegressionConfig = PartHeatmapRegressionConfig()) -> None:
        super().__init__(num_joints, config.input_size)
        coarsest = 4 * 2**config.levels if config.regressor == "hourglass" else 1
        self._check_input_size(max(coarsest, 4 if config.detector == "resnet" else 32))
        self.radius, self.sigma = float(config.radius), float(config.sigma)
        if config.detector == "resnet":
            first = ResNetDetector(num_joints, config.depth, config.width)
        elif config.detector == "vgg":
            first = VggDetector(num_joints, config.width, config.norm)
        else:
            first = PyramidDetector(num_joints, config.detector, config.width)
            self.mean, self.std = pixels_of(config.detector)
        if config.regressor == "hourglass":
            second = HourglassRegressor(num_joints, config.regressor_width, config.levels, config.blocks)
        elif config.regressor == "large_kernel":
            second = LargeKernelRegressor(num_joints, config.regressor_width, config.norm)
        else:
            raise ValueError(
                f"PartHeatmapRegression: regressor must be hourglass or large_kernel, got {config.regressor!r}"
            )
        self.cascade: Cascade = Cascade(nn.Identity(), first, second)
        self.phase = self.phases[-1]

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return self.cascade(images)

    def heatmaps(self, images: torch.Tensor) -> list[torch.Tensor]:
        discs, gaussians = self(images)
        return [discs.sigmoid(), gaussians]

    def begin_phase(self, phase: str | None, batches: Iterable[Batch]) -> None:
        """``"detection"`` and ``"regression"`` train one of the two networks, ``"joint"`` trains both."""
        if phase not in self.phases:
            raise ValueError(f"PartHeatmapRegression: phase must be one of {', '.join(self.phases)}, got {phase!r}")
        self.phase: str = phase
        detector, (regressor,) = self.cascade.first, self.cascade.refine
        detector.requires_grad_(phase != "regression")
        regressor.requires_grad_(phase != "detection")
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.phase == "regression":
            self.cascade.first.eval()  # its batch normalisation is frozen too
        return self

    def losses(self, batch: Batch, phase: str | None = None) -> dict[str, torch.Tensor]:
        phase = self.phases[-1] if phase is None else phase
        if phase == "detection":
            return {"detection": self.detection_loss(self.cascade.first(batch.images), batch)}
        discs, gaussians = self(batch.images)
        codec = self.codec(batch.images, gaussians)
        losses = {} if phase == "regression" else {"detection": self.detection_loss(discs, batch)}
        return losses | {"regression": codec.loss(gaussians, batch.keypoints, batch.visible)}

    def detection_loss(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Mean sigmoid cross-entropy against the discs; maps of unlabelled joints count 0."""
        size = logits.shape[-2:]
        discs = gaussian_heatmaps(
            batch.keypoints, self.radius, size, visible=batch.visible, profile="disc", dtype=logits.dtype
        )
        errors = F.binary_cross_entropy_with_logits(logits, discs, reduction="none").mean((-2, -1))
        return (errors * batch.visible).mean()

    def decode(self, images: torch.Tensor, maps: torch.Tensor, *, stage: int = -1, **options: Any) -> Peaks:
        if stage == 0:
            # The top of a disc is flat and its maximum may be at the edge: the centroid uses the whole disc.
            window = min(63, 4 * math.ceil(self.radius) + 1)
            options = {"refine": "centroid", "kernel_size": window, "max_offset": self.radius + 1} | options
        return super().decode(images, maps, stage=stage, **options)


class ResNetDetector(nn.Module):
    """ResNet with an output stride of 16, 1x1 to K maps, learned upsampling by 4, bilinear to the image size."""

    def __init__(self, num_joints: int, depth: int, width: float) -> None:
        super().__init__()
        self.backbone: ResNet = ResNet(depth, width=width, output_stride=16, dilate=False)
        self.score: nn.Conv2d = nn.Conv2d(self.backbone.out_channels, num_joints, 1)
        self.up: nn.ConvTranspose2d = nn.ConvTranspose2d(num_joints, num_joints, 4, 4)
        bilinear_weights(self.up)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.up(self.score(self.backbone(images)))
        return F.interpolate(maps, size=images.shape[-2:], mode="bilinear", align_corners=False)


class VggDetector(nn.Module):
    """FCN-8s on VGG-16: the scores of conv7, pool4 and pool3 are upsampled and added; bilinear initially."""

    score_pool3: nn.Conv2d
    score_pool4: nn.Conv2d

    def __init__(self, num_joints: int, width: float, norm: bool) -> None:
        super().__init__()
        self.backbone: VGG = VGG(16, last="pool5", width=width, norm=norm)
        channels, hidden = self.backbone.channels, scaled(4096, width)
        self.fc: nn.Sequential = nn.Sequential(
            ConvBlock(channels["pool5"], hidden, 7, norm=norm),
            nn.Dropout2d(0.5),
            ConvBlock(hidden, hidden, 1, norm=norm),
            nn.Dropout2d(0.5),
        )
        initialise(self.fc)
        self.score: nn.Conv2d = nn.Conv2d(hidden, num_joints, 1)
        self.score_pool4, self.score_pool3 = (nn.Conv2d(channels[name], num_joints, 1) for name in ("pool4", "pool3"))
        self.up2: nn.ConvTranspose2d = nn.ConvTranspose2d(num_joints, num_joints, 4, 2, 1)
        self.up4: nn.ConvTranspose2d = nn.ConvTranspose2d(num_joints, num_joints, 4, 2, 1)
        self.up8: nn.ConvTranspose2d = nn.ConvTranspose2d(num_joints, num_joints, 16, 8, 4)
        for layer in (self.up2, self.up4, self.up8):
            bilinear_weights(layer)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pool3, pool4, pool5 = self.backbone.stages(images, ("pool3", "pool4", "pool5"))
        maps = self.up2(self.score(self.fc(pool5))) + self.score_pool4(pool4)
        return self.up8(self.up4(maps) + self.score_pool3(pool3))


class PyramidDetector(nn.Module):
    """FCN-8s on any backbone: the scores of its maps at 1/32, 1/16 and 1/8 are upsampled and added."""

    def __init__(self, num_joints: int, name: str, width: float) -> None:
        super().__init__()
        must_be = "PartHeatmapRegression: detector must be resnet, vgg"
        self.backbone: nn.Module = pyramid_of_option(must_be, name, width)
        self.scores: nn.ModuleList = nn.ModuleList(
            nn.Conv2d(wide, num_joints, 1) for wide in self.backbone.channels[1:]
        )
        sizes = ((4, 2, 1), (4, 2, 1), (16, 8, 4))  # kernel, stride, padding; from coarse to fine
        self.ups: nn.ModuleList = nn.ModuleList(nn.ConvTranspose2d(num_joints, num_joints, *size) for size in sizes)
        for layer in self.ups:
            bilinear_weights(layer)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.backbone.stages(images)[1:]
        fine, middle, coarse = (score(m) for score, m in zip(self.scores, maps, strict=True))
        return self.ups[2](self.ups[1](self.ups[0](coarse) + middle) + fine)


class LargeKernelRegressor(nn.Module):
    """9x9, 13x13, 13x13, 15x15 and 1x1 convolutions at 1/4 of the size, then learned upsampling by 4."""

    def __init__(self, num_joints: int, width: float, norm: bool) -> None:
        super().__init__()
        c = [num_joints + 3, *(scaled(n, width) for n in (64, 64, 128, 256, 512, 512))]
        blocks = [ConvBlock(a, b, k, norm=norm) for a, b, k in zip(c[:-1], c[1:], (9, 13, 13, 15, 1, 1), strict=True)]
        blocks[1:1], blocks[3:3] = [nn.MaxPool2d(2)], [nn.MaxPool2d(2)]
        self.convs: nn.Module = initialise(nn.Sequential(*blocks))
        self.score: nn.Conv2d = nn.Conv2d(c[-1], num_joints, 1)
        self.up: nn.ConvTranspose2d = nn.ConvTranspose2d(num_joints, num_joints, 8, 4, 2)
        bilinear_weights(self.up)
        small(self.score)

    def forward(self, discs: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return self.up(self.score(self.convs(torch.cat((discs.sigmoid(), images), 1))))


class HourglassRegressor(nn.Module):
    """An hourglass at 1/4 of the size, then learned upsampling by 4."""

    def __init__(self, num_joints: int, width: float, levels: int, blocks: int) -> None:
        super().__init__()
        quarter, half, full, double = (scaled(n, width) for n in (64, 128, 256, 512))
        self.stem: nn.Sequential = nn.Sequential(
            ConvBlock(num_joints + 3, quarter, 7, stride=2, bias=True),
            Residual(quarter, half),
            nn.MaxPool2d(2),
            Residual(half, half),
            Residual(half, half),
            Residual(half, full),
        )
        self.hourglass: Hourglass = Hourglass(levels, full, double, blocks=blocks, learned=True)
        self.after: Residual = Residual(double, double)
        self.head: HeatmapHead = HeatmapHead(double, num_joints, (double, full), bias=True)
        self.up: nn.ConvTranspose2d = nn.ConvTranspose2d(num_joints, num_joints, 4, 4)
        bilinear_weights(self.up)
        small(self.head[-1])

    def forward(self, discs: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        x = self.stem(torch.cat((discs.sigmoid(), images), 1))
        return self.up(self.head(self.after(self.hourglass(x))))


def small(layer: nn.Conv2d) -> None:
    """Initialises layers so that their maps are near 0, in place."""
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)


@torch.no_grad()
def bilinear_weights(layer: nn.ConvTranspose2d) -> None:
    """Initialises a transposed convolution as bilinear upsampling (Long et al., CVPR 2015), in place."""
    size, step = layer.kernel_size[0], layer.stride[0]
    # A kernel as large as its stride repeats pixels.
    at = torch.arange(size, dtype=torch.float32, device=layer.weight.device) - (size - 1) / 2
    taps = torch.ones_like(at) if size == step else (1 - at.abs() / step).clamp(min=0)
    layer.weight.zero_()
    for joint in range(layer.weight.shape[0]):
        layer.weight[joint, joint] = taps[:, None] * taps
    layer.bias.zero_()

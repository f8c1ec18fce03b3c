"""Stacked hourglasses (Newell, Yang and Deng, ECCV 2016)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from pypose_ops.codecs import HourglassHeatmap
from pypose_ops.codecs._base import GaussianCodec

from ..modules.backbones import pixels_of
from ..modules.cascade import Cascade
from ..modules.image_pyramid import BackboneWithFPN, pyramid_of_option
from ..modules.layers import ConvBlock, HeatmapHead, Hourglass, Residual
from .heatmap_system import HeatmapSystem
from .system import SystemConfig


@dataclass(frozen=True, kw_only=True)
class StackedHourglassConfig(SystemConfig):
    """Options of :class:`StackedHourglass`.

    Attributes:
        stacks: number of hourglasses.
        width: channels; the stem has 1/4 and 1/2 of them.
        depth: levels of an hourglass.
        backbone: None, or a backbone of :func:`.image_pyramid` such as ``"efficientnet_lite0"`` in place of the stem.
        pyramid: channels of its merged maps at a quarter, an eighth and a sixteenth of the input.
        sigma: of the targets, in heatmap pixels.
        input_size: ``(height, width)``, multiples of ``4 * 2 ** depth``, with a backbone also of 32.
    """

    stacks: int = 8
    width: int = 256
    depth: int = 4
    backbone: str | None = None
    pyramid: tuple[int, ...] = (32, 48, 64)
    sigma: float = 1.75
    input_size: tuple[int, int] = (256, 256)


class StackedHourglass(HeatmapSystem):
    """Stacked hourglasses.

    Newell, Yang, Deng, "Stacked Hourglass Networks for Human Pose Estimation", ECCV 2016 (arXiv 1603.06937), figures 3
    and 4 and section 3. As in the authors' code: the stem (7x7 to a half, a pool to a quarter), pre-activated residuals
    with biased convolutions, one residual between two steps, heads after every stack whose maps and features are added
    to what the next one reads, mean squared error at every stack. 8 stacks with 16 joints: 25,434,112 parameters.

    The targets are Gaussians on the nearest pixel; ``sigma`` is 1.75 heatmap pixels as in the code (the paper says 1).
    Decoding is the paper's quarter pixel towards the higher neighbour. Our choices: the pixel grids are aligned by
    index, so a flip test shifts mirrored maps by a pixel (the code adds half a pixel instead), and pixels are
    normalised by ImageNet's mean and standard deviation (the code has pixels from 0 to 1). With ``backbone`` the
    hourglasses read its maps, merged at a quarter of the image, in place of the stem's; no such weights of the stem
    were published.

    Args:
        num_joints (int): the number of joints, K.
        config (StackedHourglassConfig): everything else.

    ``forward(images (B, 3, H, W))`` gives ``(B, K, H / 4, W / 4)`` per stack.
    """

    flip_shift = True
    presets: ClassVar[Mapping[str, SystemConfig]] = {
        "paper": StackedHourglassConfig(),
        "compact": StackedHourglassConfig(stacks=2, width=64, depth=3, sigma=2.0, input_size=(128, 128)),
        "efficientnet_lite0": StackedHourglassConfig(
            stacks=2, width=64, depth=4, backbone="efficientnet_lite0", sigma=2.0, input_size=(192, 192)
        ),
    }

    def __init__(self, num_joints: int, config: StackedHourglassConfig = StackedHourglassConfig()) -> None:
        super().__init__(num_joints, config.input_size)
        coarsest = 4 * 2**config.depth
        self._check_input_size(coarsest if config.backbone is None else max(coarsest, 32))
        self.sigma: float = config.sigma
        stages = [HourglassStage(num_joints, config.width, config.depth, merge=s > 0) for s in range(config.stacks)]
        self.cascade: Cascade = Cascade(self._features(config), *stages)

    def _features(self, config: StackedHourglassConfig) -> nn.Module:
        if config.backbone is None:
            return stem(config.width)
        self.mean, self.std = pixels_of(config.backbone)
        backbone = pyramid_of_option("StackedHourglass: backbone must be None", config.backbone)
        return BackboneWithFPN(backbone, config.pyramid, config.width)

    def codec(self, images: torch.Tensor, maps: torch.Tensor) -> GaussianCodec:
        return HourglassHeatmap(images.shape[:-3:-1], maps.shape[:-3:-1], self.sigma)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [maps for maps, *_ in self.cascade(images)]


def stem(width: int) -> nn.Sequential:
    """``(B, 3, H, W)`` -> ``(B, width, H / 4, W / 4)``."""
    return nn.Sequential(
        ConvBlock(3, width // 4, 7, stride=2, bias=True),
        Residual(width // 4, width // 2),
        nn.MaxPool2d(2),
        Residual(width // 2, width // 2),
        Residual(width // 2, width),
    )


class HourglassStage(nn.Module):
    """One hourglass and its head; with ``merge`` it reads the input, features and maps of the previous stage.

    A state is ``(maps, features of the head, input of the stage)``.
    """

    def __init__(self, num_joints: int, width: int, depth: int, merge: bool) -> None:
        super().__init__()
        if merge:
            self.merge_features: nn.Conv2d = nn.Conv2d(width, width, 1)
            self.merge_maps: nn.Conv2d = nn.Conv2d(num_joints, width, 1)
        self.hourglass: Hourglass = Hourglass(depth, width)
        self.features: nn.Sequential = nn.Sequential(Residual(width, width), ConvBlock(width, width, 1, bias=True))
        self.head: HeatmapHead = HeatmapHead(width, num_joints)
        nn.init.normal_(self.head[-1].weight, std=0.01)
        nn.init.zeros_(self.head[-1].bias)

    def forward(self, state: Any, features: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        if features is not None:
            maps, hidden, read = state
            state = read + self.merge_features(hidden) + self.merge_maps(maps)
        hidden = self.features(self.hourglass(state))
        return self.head(hidden), hidden, state

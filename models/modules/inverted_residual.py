"""The building blocks of MobileNetV2 and EfficientNet-Lite."""

from typing import Any

import torch
from torch import nn

from .depthwise import SameConv2d


class ConvNormAct(nn.Module):
    """A convolution with TensorFlow's padding, batch normalisation and an activation.

    Args:
        inputs, outputs (int): channels.
        kernel_size (int): of the square kernel.
        stride (int): in both directions.
        depthwise (bool): one kernel per channel.
        norm (bool): use batch normalisation; otherwise the convolution has a bias, for folded weights.
        act (str or None): ``"relu6"``, ``"relu"`` or None.
    """

    conv: SameConv2d

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        depthwise: bool = False,
        norm: bool = True,
        act: str | None = "relu6",
    ) -> None:
        super().__init__()
        self.conv = SameConv2d(inputs, outputs, kernel_size, stride=stride, depthwise=depthwise, bias=not norm)
        self.norm: nn.Module = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01) if norm else nn.Identity()
        self.act: nn.Module = {"relu6": nn.ReLU6(inplace=True), "relu": nn.ReLU(inplace=True), None: nn.Identity()}[act]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.norm(self.conv(x)))


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and projection, with a skip connection where the shapes match.

    Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, figure 4.

    Args:
        inputs, outputs (int): channels.
        kernel_size (int): of the depthwise convolution.
        stride (int): of the depthwise convolution.
        expand (int): expansion factor; with 1 there is no expansion.
        norm (bool): use batch normalisation.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        expand: int = 6,
        norm: bool = True,
    ) -> None:
        super().__init__()
        wide = inputs * expand
        self.expand: nn.Module = ConvNormAct(inputs, wide, norm=norm) if expand != 1 else nn.Identity()
        self.depthwise: ConvNormAct = ConvNormAct(wide, wide, kernel_size, stride=stride, depthwise=True, norm=norm)
        self.project: ConvNormAct = ConvNormAct(wide, outputs, norm=norm, act=None)
        self.skip: bool = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.skip else y


def residuals(inputs: int, outputs: int, count: int, *, stride: int, **options: Any) -> list[nn.Module]:
    """``count`` inverted residuals, the first of them with the stride; ``options`` of :class:`InvertedResidual`."""
    widths, strides = [inputs, *[outputs] * (count - 1)], [stride, *[1] * (count - 1)]
    return [InvertedResidual(n, outputs, stride=s, **options) for n, s in zip(widths, strides, strict=True)]


class StagedBackbone(nn.Module):
    """A stem and blocks, some of which end a resolution.

    Attributes:
        channels (tuple[int, ...]): of the maps of :meth:`stages`.
        strides (tuple[int, ...]): input pixels per map pixel: 4, 8, 16, 32.
        ends (tuple[int, ...]): the numbers of blocks after which a map is returned.
    """

    strides: tuple[int, ...] = (4, 8, 16, 32)
    stem: ConvNormAct
    blocks: nn.ModuleList
    ends: tuple[int, ...]
    channels: tuple[int, ...]

    def blocks_of(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The last map, and those after ``ends``."""
        x, out = self.stem(x), []
        for n, block in enumerate(self.blocks, 1):
            x = block(x)
            if n in self.ends:
                out.append(x)
        return x, out

    def stages(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Returns maps at 1/4, 1/8, 1/16 and 1/32 of the input size."""
        return self.blocks_of(x)[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.stages(x)[-1]


def divisible(channels: float, by: int = 8) -> int:
    """The multiple of ``by`` nearest to ``channels``, at least 90 % of it: the rule of both families."""
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * channels else rounded

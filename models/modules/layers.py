"""Building blocks of several systems: convolutions, residuals, hourglasses, heads."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class ConvBlock(nn.Sequential):
    """Convolution, batch normalisation, ReLU; the output has the input's size divided by ``stride``.

    Args:
        inputs, outputs (int): channels.
        kernel_size (int): odd.
        stride (int): of the convolution.
        norm (bool): use batch normalisation.
        relu (bool): end with a ReLU.
        bias (bool or None): of the convolution; None: only without batch normalisation.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        norm: bool = True,
        relu: bool = True,
        bias: bool | None = None,
    ) -> None:
        bias = not norm if bias is None else bias
        layers = [nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2, bias=bias)]
        if norm:
            layers.append(nn.BatchNorm2d(outputs))
        if relu:
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class Residual(nn.Module):
    """The pre-activated bottleneck of hourglasses: BN-ReLU-1x1, BN-ReLU-3x3, BN-ReLU-1x1, and the skip.

    The inner width is half of ``outputs``; the skip is a 1x1 convolution where the widths differ.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        inner = outputs // 2
        self.body: nn.Sequential = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(inplace=False),  # the skip reads the same tensor
            nn.Conv2d(inputs, inner, 1),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, inner, 3, padding=1),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, outputs, 1),
        )
        self.skip: nn.Module = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.skip(x) + self.body(x)


class Hourglass(nn.Module):
    """Downsamples by 2 ``depth`` times and upsamples again, with a skip connection at every level.

    Newell et al. (ECCV 2016) use one residual between two steps and nearest upsampling; Bulat and
    Tzimiropoulos (ECCV 2016) use ``blocks=3``, ``outputs=512`` and ``learned=True``.

    Args:
        depth (int): number of levels; sizes must be multiples of ``2 ** depth``.
        width (int): channels of the input and on the way down.
        outputs (int or None): channels on the way up; None: ``width``.
        blocks (int): residuals of each skip and between two steps down.
        learned (bool): upsample by transposed convolutions.
    """

    def __init__(
        self, depth: int, width: int, outputs: int | None = None, *, blocks: int = 1, learned: bool = False
    ) -> None:
        super().__init__()
        outputs = width if outputs is None else outputs
        same = [Residual(width, width) for _ in range(blocks - 1)]
        self.skip: nn.Sequential = nn.Sequential(*same, Residual(width, outputs))
        self.down: nn.Sequential = nn.Sequential(nn.MaxPool2d(2), *(Residual(width, width) for _ in range(blocks)))
        options = {"blocks": blocks, "learned": learned}
        self.inner: Hourglass | Residual = (
            Hourglass(depth - 1, width, outputs, **options) if depth > 1 else Residual(width, outputs)
        )
        self.after: Residual = Residual(outputs, outputs)
        self.up: nn.Module = nn.ConvTranspose2d(outputs, outputs, 2, 2) if learned else nn.Upsample(scale_factor=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.skip(x) + self.up(self.after(self.inner(self.down(x))))


class HeatmapHead(nn.Sequential):
    """1x1 convolutions to one map per joint, the last without activation.

    Args:
        inputs (int): channels.
        num_joints (int): maps.
        hidden (tuple[int, ...]): channels of the hidden layers.
        options: of :class:`ConvBlock`.
    """

    def __init__(self, inputs: int, num_joints: int, hidden: Sequence[int] = (), **options: Any) -> None:
        widths = (inputs, *hidden)
        blocks = [ConvBlock(a, b, 1, **options) for a, b in zip(widths[:-1], widths[1:], strict=True)]
        super().__init__(*blocks, nn.Conv2d(widths[-1], num_joints, 1))

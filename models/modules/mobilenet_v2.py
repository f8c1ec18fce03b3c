"""MobileNetV2 (Sandler et al., CVPR 2018)."""

from itertools import accumulate

import torch
from torch import nn

from .inverted_residual import ConvNormAct, StagedBackbone, divisible, residuals

# Expansion, channels, blocks and the stride of the first of them: table 2.
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class MobileNetV2(StagedBackbone):
    """MobileNetV2 without its classifier, with TensorFlow's padding.

    Args:
        width (float): channel multiplier of all layers, 1 in the paper.
        norm (bool): use batch normalisation; False for weights with folded normalisation.
        in_channels (int): channels of the image.

    ``forward``: ``(B, in_channels, H, W)`` -> the last map, ``(B, 1280, H / 32, W / 32)``; :meth:`stages` returns four.

    Attributes:
        channels (tuple[int, ...]): of the maps of :meth:`stages`.
        strides (tuple[int, ...]): input pixels per map pixel: 4, 8, 16, 32.
    """

    def __init__(self, width: float = 1.0, *, norm: bool = True, in_channels: int = 3) -> None:
        super().__init__()
        inputs = divisible(32 * width)
        self.stem: ConvNormAct = ConvNormAct(in_channels, inputs, 3, stride=2, norm=norm)
        blocks: list[nn.Module] = []
        for expand, channels, count, first in BLOCKS:
            outputs = divisible(channels * width)
            blocks += residuals(inputs, outputs, count, stride=first, expand=expand, norm=norm)
            inputs = outputs
        self.blocks: nn.ModuleList = nn.ModuleList(blocks)
        last = 1280
        self.head: ConvNormAct = ConvNormAct(inputs, last, norm=norm)
        # The last blocks of 24, 32 and 64 channels; later ones at 1/16 have lost detail.
        self.ends: tuple[int, ...] = tuple(list(accumulate(count for _, _, count, _ in BLOCKS))[i] for i in (1, 2, 3))
        self.channels: tuple[int, ...] = (*(divisible(BLOCKS[i][1] * width) for i in (1, 2, 3)), last)

    def stages(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Returns maps at 1/4, 1/8, 1/16 and 1/32 of the input size."""
        x, out = self.blocks_of(x)
        return [*out, self.head(x)]

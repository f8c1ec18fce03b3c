"""A light feature pyramid and its heads, as in MoveNet."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from .depthwise import SameConv2d
from .inverted_residual import ConvNormAct

UNLIKELY = -5.0  # the logit of 1 in some hundred pixels: an initial bias of heads


class SeparableConv(nn.Module):
    """A depthwise 3 x 3 convolution and a 1 x 1 convolution with ReLU.

    Args:
        inputs, outputs (int): channels.
        norm (bool): use batch normalisation before the ReLU.
    """

    def __init__(self, inputs: int, outputs: int, *, norm: bool = True) -> None:
        super().__init__()
        self.depthwise: SameConv2d = SameConv2d(inputs, inputs, 3, depthwise=True, bias=False)
        self.pointwise: ConvNormAct = ConvNormAct(inputs, outputs, norm=norm, act="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pointwise(self.depthwise(x))


class FeaturePyramid(nn.Module):
    """Merges coarse maps into finer ones, top down.

    Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, with separable convolutions.

    Args:
        inputs (Sequence[int]): channels of the maps, from the finest to the coarsest, each half as large.
        widths (Sequence[int]): channels of the sums, from the finest to the coarsest but one.
        outputs (int): channels of the result.
        norm (bool): use batch normalisation.

    ``forward``: a list of maps -> ``(B, outputs, h, w)`` of the size of the first.
    """

    merge: nn.ModuleList

    def __init__(self, inputs: Sequence[int], widths: Sequence[int], outputs: int, *, norm: bool = True) -> None:
        super().__init__()
        if len(widths) != len(inputs) - 1:
            raise ValueError(f"FeaturePyramid: widths must be {len(inputs) - 1} numbers, got {tuple(widths)}")
        lateral = [*widths, widths[-1]]
        self.lateral: nn.ModuleList = nn.ModuleList(
            ConvNormAct(a, b, norm=norm, act=None) for a, b in zip(inputs, lateral, strict=True)
        )
        after = [outputs, *widths[:-1]]
        self.merge = nn.ModuleList(SeparableConv(a, b, norm=norm) for a, b in zip(widths, after, strict=True))

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        x = self.lateral[-1](maps[-1])
        for n in reversed(range(len(maps) - 1)):
            fine = self.lateral[n](maps[n])
            x = F.interpolate(x, size=fine.shape[-2:], mode="bilinear", align_corners=False)
            x = self.merge[n](x + fine)
        return x


class MapHead(nn.Module):
    """A separable convolution and a 1 x 1 convolution to maps, without activation.

    Args:
        inputs, hidden, maps (int): channels.
        norm (bool): use batch normalisation.
    """

    def __init__(self, inputs: int, hidden: int, maps: int, *, norm: bool = True) -> None:
        super().__init__()
        self.hidden: SeparableConv = SeparableConv(inputs, hidden, norm=norm)
        self.out: nn.Conv2d = nn.Conv2d(hidden, maps, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.hidden(x))

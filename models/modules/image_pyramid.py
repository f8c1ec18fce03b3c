"""Backbones by name, each with four maps: at 1/4, 1/8, 1/16 and 1/32 of the image size."""

from collections.abc import Sequence

import torch
from torch import nn

from .backbones import VGG, VGG_CONVS, Pixel, backbone, family_of, pixels_of
from .feature_pyramid import FeaturePyramid


class VGGPyramid(nn.Module):
    """VGG's last maps before the third, fourth and fifth pooling, and its last map."""

    def __init__(self, depth: int = 16, *, width: float = 1.0, norm: bool = False) -> None:
        super().__init__()
        self.vgg: VGG = VGG(depth, last="pool5", width=width, norm=norm)
        self.names: list[str] = [*(f"conv{block}_{VGG_CONVS[depth][block - 1]}" for block in (3, 4, 5)), "pool5"]
        self.channels: list[int] = [self.vgg.channels[name] for name in self.names]

    def stages(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Returns maps at 1/4, 1/8, 1/16 and 1/32 of the input size."""
        return self.vgg.stages(x, self.names)


def image_pyramid(name: str, width: float = 1.0, norm: bool = True) -> tuple[nn.Module, Pixel, Pixel]:
    """Builds a backbone; also returns the pixel mean and standard deviation that its published weights expect.

    Args:
        name (str): ``"mobilenet_v2"``, ``"efficientnet_lite0"`` to ``4``, ``"resnet18"`` to ``152``, ``"vgg16"`` or
            ``"vgg19"``.
        width (float): channel multiplier of all layers; 1 for EfficientNets.
        norm (bool): use batch normalisation; ResNets always do.

    Returns:
        tuple: the module, with ``channels`` and ``stages(x)``; mean and standard deviation of RGB from 0 to 255.

    Raises:
        ValueError: an unknown backbone, or an option that it does not have.
    """
    family, number = family_of(name)
    if family == "vgg" and number in VGG_CONVS:
        return VGGPyramid(number, width=width, norm=norm), *pixels_of(name)
    if family == "resnet" and norm:
        return backbone(name, width=width), *pixels_of(name)
    if family == "mobilenet_v2" or (family == "efficientnet_lite" and width == 1.0):
        return backbone(name, width=width, norm=norm), *pixels_of(name)
    raise ValueError(
        f"models: backbone must be mobilenet_v2, efficientnet_lite0 to 4 (of width 1), resnet18 to 152 (with "
        f"normalisation), vgg16 or vgg19, got {name!r}, width {width}, norm {norm}"
    )


def pyramid_of_option(must_be: str, name: str, width: float = 1.0) -> nn.Module:
    """The backbone that an option of a system names; ``must_be``: what else it may be, as its error begins."""
    try:
        return image_pyramid(name, width)[0]
    except ValueError:
        at = "" if width == 1.0 else f", width {width}"
        raise ValueError(f"{must_be} or a backbone, got {name!r}{at}") from None


class BackboneWithFPN(nn.Module):
    """A backbone whose maps are merged by a :class:`.FeaturePyramid`.

    Args:
        backbone (Module): with ``channels`` and ``stages(x)``, of :func:`image_pyramid`.
        widths (Sequence[int]): channels of the sums.
        outputs (int): channels of the result.
        finest (int): the first map that counts: 0 at 1/4 of the image size, 1 at 1/8.

    ``(B, 3, H, W)`` -> ``(B, outputs, H / 4, W / 4)``, with ``finest`` 1 ``(B, outputs, H / 8, W / 8)``.
    """

    def __init__(self, backbone: nn.Module, widths: Sequence[int], outputs: int, *, finest: int = 0) -> None:
        super().__init__()
        self.finest = finest
        self.backbone = backbone
        self.pyramid: FeaturePyramid = FeaturePyramid(backbone.channels[finest:], widths, outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.pyramid(self.backbone.stages(images)[self.finest :])

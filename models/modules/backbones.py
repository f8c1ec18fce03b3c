"""Backbones by name, and the classic ones: DeepPose's AlexNet, VGG, and ResNet with torchvision's parameter names."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .efficientnet_lite import EfficientNetLite
from .mobilenet_v2 import MobileNetV2

VGG_CONVS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
RESNET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

Pixel = tuple[float, float, float]

# Mean and standard deviation of RGB pixels from 0 to 255 that the published weights of each family expect.
PIXELS: dict[str, tuple[Pixel, Pixel]] = {
    "mobilenet_v2": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "efficientnet_lite": ((127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
}
IMAGENET_PIXELS: tuple[Pixel, Pixel] = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def scaled(channels: int, width: float) -> int:
    """Scales the channels of a published network by ``width``, to at least 1."""
    return max(1, round(channels * width))


def output_shape(module: nn.Module, input_size: tuple[int, int], channels: int = 3) -> tuple[int, int, int]:
    """The output shape ``(C, H, W)`` of a module for one image, without computing it or changing the module."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    training = module.training
    module.eval()
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        weight = next(module.parameters())
        image = torch.empty(1, channels, *input_size, device=weight.device, dtype=weight.dtype)
        shape = tuple(module(image).shape[1:])
    module.train(training)
    return shape


def initialise(module: nn.Module) -> nn.Module:
    """Applies He initialisation to convolutions and linear layers, in place; returns the module."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    return module


class AlexNet(nn.Module):
    """The convolutions of AlexNet (Krizhevsky et al., NIPS 2012) as in figure 2 of DeepPose (CVPR 2014).

    Ungrouped; local response normalisation after the first two. The fully connected layers belong to the heads.

    Faithful: kernels, strides, channels, the order ReLU, normalisation, pooling; maps of 55, 27, 13 and 6 pixels.
    Our choice: 4 pixels of padding in the first layer, which an image of 220 pixels needs for the paper's maps of 55;
    Krizhevsky's normalisation constants (n 5, alpha 1e-4, beta 0.75, k 2).

    Args:
        width (float): channel multiplier of all layers, 1 in the paper.
        in_channels (int): channels of the image.
        padding (int): of the first layer; with 0 an image of 227 pixels gives 55.

    ``(B, in_channels, H, W)`` -> ``(B, 256 width, h, w)``; 6 x 6 for 220 x 220 and 227 x 227.
    """

    def __init__(self, *, width: float = 1.0, in_channels: int = 3, padding: int = 4) -> None:
        super().__init__()
        c = [scaled(n, width) for n in (96, 256, 384, 384, 256)]
        # torch divides alpha by n, Krizhevsky does not.
        normalise = lambda: nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)  # noqa: E731
        self.features: nn.Sequential = nn.Sequential(
            nn.Conv2d(in_channels, c[0], 11, stride=4, padding=padding),
            nn.ReLU(),
            normalise(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(c[0], c[1], 5, padding=2),
            nn.ReLU(),
            normalise(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(c[1], c[2], 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(c[2], c[3], 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(c[3], c[4], 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        self.out_channels: int = c[4]
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x)


class VGG(nn.Module):
    """VGG-16 or VGG-19 (Simonyan & Zisserman, ICLR 2015) up to one of its layers; torchvision's ``features.N`` names.

    Args:
        depth (int): 16 or 19.
        last (str): the last layer, for example ``"conv4_2"`` (including its ReLU) or ``"pool5"``.
        width (float): channel multiplier of all layers, 1 in the paper.
        norm (bool): batch normalisation before each ReLU (torchvision's ``vgg16_bn``).
        in_channels (int): channels of the image.
        ceil (bool): pooling keeps the last row and column of an odd map (Caffe's rule).

    ``forward``: ``(B, in_channels, H, W)`` -> the last layer's map; :meth:`stages` returns intermediate maps.

    Attributes:
        out_channels (int): of the last layer.
        stride (int): input pixels per pixel of the last map.
        channels (dict[str, int]): by layer.
    """

    def __init__(
        self,
        depth: int = 16,
        *,
        last: str = "pool5",
        width: float = 1.0,
        norm: bool = False,
        in_channels: int = 3,
        ceil: bool = False,
    ) -> None:
        super().__init__()
        if depth not in VGG_CONVS:
            raise ValueError(f"VGG: depth must be one of {', '.join(map(str, VGG_CONVS))}, got {depth!r}")
        layers: list[nn.Module] = []
        self.ends: dict[str, int] = {}
        self.channels: dict[str, int] = {}
        self.stride: int = 1
        c = in_channels
        for block, (convs, wide) in enumerate(zip(VGG_CONVS[depth], (64, 128, 256, 512, 512), strict=True), 1):
            names = [f"conv{block}_{n}" for n in range(1, convs + 1)] + [f"pool{block}"]
            for name in names:
                if name.startswith("conv"):
                    layers.append(nn.Conv2d(c, scaled(wide, width), 3, padding=1))
                    c = scaled(wide, width)
                    layers += [nn.BatchNorm2d(c)] * norm + [nn.ReLU()]
                else:
                    layers.append(nn.MaxPool2d(2, 2, ceil_mode=ceil))
                    self.stride *= 2
                self.ends[name], self.channels[name] = len(layers), c
                if name == last:
                    break
            if last in self.ends:
                break
        else:
            raise ValueError(f"VGG: last must be a layer like 'conv4_2' or 'pool5' of VGG-{depth}, got {last!r}")
        self.features: nn.Module = initialise(nn.Sequential(*layers))
        self.out_channels = c

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x)

    def stages(self, x: torch.Tensor, names: Sequence[str]) -> list[torch.Tensor]:
        """Returns the maps after the layers ``names``, in network order."""
        out = []
        for n, layer in enumerate(self.features, 1):
            x = layer(x)
            out += [x for name in names if self.ends[name] == n]
        return out


class _BasicBlock(nn.Module):
    expansion = 1

    def __init__(
        self, inplanes: int, planes: int, stride: int, dilations: Sequence[int], downsample: nn.Module | None
    ) -> None:
        super().__init__()
        first, second = dilations
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, padding=first, dilation=first, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=second, dilation=second, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class _Bottleneck(nn.Module):
    expansion = 4

    def __init__(
        self, inplanes: int, planes: int, stride: int, dilations: Sequence[int], downsample: nn.Module | None
    ) -> None:
        super().__init__()
        dilation, _ = dilations
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """ResNet (He et al., CVPR 2016) without its classifier; parameters named as in torchvision and MMPose.

    The stride of a bottleneck is in its 3 x 3 convolution, as in both.

    Args:
        depth (int): 18, 34, 50, 101 or 152.
        width (float): channel multiplier of all layers, 1 in the paper.
        output_stride (int): 32; with 16 or 8 the last one or two layers keep the resolution.
        dilate (bool): those layers dilate their kernels (torchvision's ``replace_stride_with_dilation``), which keeps
            their receptive field; otherwise only the stride is removed.
        in_channels (int): channels of the image.

    ``forward``: ``(B, in_channels, H, W)`` -> the map of layer4, ``(B, out_channels, h, w)``; :meth:`stages` all four.
    """

    out_channels: int | Any
    stride: int

    def __init__(
        self, depth: int = 50, *, width: float = 1.0, output_stride: int = 32, dilate: bool = True, in_channels: int = 3
    ) -> None:
        super().__init__()
        if depth not in RESNET_BLOCKS:
            raise ValueError(f"ResNet: depth must be one of {', '.join(map(str, RESNET_BLOCKS))}, got {depth!r}")
        if output_stride not in (8, 16, 32):
            raise ValueError(f"ResNet: output_stride must be 8, 16 or 32, got {output_stride!r}")
        block = _BasicBlock if depth < 50 else _Bottleneck
        planes = scaled(64, width)
        self.conv1: nn.Conv2d = nn.Conv2d(in_channels, planes, 7, stride=2, padding=3, bias=False)
        self.bn1: nn.BatchNorm2d = nn.BatchNorm2d(planes)
        self.maxpool: nn.MaxPool2d = nn.MaxPool2d(3, 2, 1)
        self.channels: list[int] = []
        inplanes, reached, dilation = planes, 4, 1
        for n, blocks in enumerate(RESNET_BLOCKS[depth]):
            stride, first = (1 if n == 0 else 2), dilation
            if reached * stride > output_stride:
                dilation, stride = (dilation * stride if dilate else 1), 1
            reached *= stride
            wide = planes * 2**n
            # Convolutions after a removed stride are dilated; the strided one itself still sees the undilated map.
            layer = [self._block(block, inplanes, wide, stride, (first, dilation))]
            inplanes = wide * block.expansion
            layer += [block(inplanes, wide, 1, (dilation, dilation), None) for _ in range(blocks - 1)]
            setattr(self, f"layer{n + 1}", nn.Sequential(*layer))
            self.channels.append(inplanes)
        self.out_channels, self.stride = inplanes, reached
        initialise(self)

    @staticmethod
    def _block(block: type[nn.Module], inplanes: int, planes: int, stride: int, dilations: Sequence[int]) -> nn.Module:
        out, downsample = planes * block.expansion, None
        if stride != 1 or inplanes != out:
            conv = nn.Conv2d(inplanes, out, 1, stride, bias=False)
            downsample = nn.Sequential(conv, nn.BatchNorm2d(out))
        return block(inplanes, planes, stride, dilations, downsample)

    def stages(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The maps of layer1 to layer4, as a list."""
        x, out = self.maxpool(F.relu(self.bn1(self.conv1(x)))), []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            out.append(x)
        return out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.stages(x)[-1]


def family_of(name: str) -> tuple[str, int]:
    """Splits the name of a backbone: ``("resnet", 50)``; 0 without a number."""
    family = name if name in PIXELS else name.rstrip("0123456789")
    return family, int(name.removeprefix(family) or 0)


def pixels_of(name: str) -> tuple[Pixel, Pixel]:
    """Mean and standard deviation of RGB pixels from 0 to 255 that the published weights of a backbone expect."""
    return PIXELS.get(family_of(name)[0], IMAGENET_PIXELS)


def backbone(name: str, **options: Any) -> nn.Module:
    """Builds a backbone by name.

    Args:
        name (str): ``"alexnet"``, ``"vgg16"``, ``"vgg19"``, ``"resnet18"`` to ``"resnet152"``, ``"mobilenet_v2"``, or
            ``"efficientnet_lite0"`` to ``4``.
        options: arguments of the class. All have ``in_channels``, and ``width``, which is 1 for EfficientNets.

    Raises:
        ValueError: an unknown name or depth, or an EfficientNet of another width.
    """
    family, number = family_of(name)
    if family == "efficientnet_lite" and name != family:
        if (width := options.pop("width", 1.0)) != 1.0:
            raise ValueError(f"models: width of {name} must be 1, got {width}")
        return EfficientNetLite(number, **options)
    if name in ("alexnet", "mobilenet_v2"):
        return {"alexnet": AlexNet, "mobilenet_v2": MobileNetV2}[name](**options)
    if family in ("vgg", "resnet") and name != family:
        return {"vgg": VGG, "resnet": ResNet}[family](number, **options)
    raise ValueError(
        f"models: unknown backbone {name!r}; there are alexnet, vgg16, vgg19, resnet18 to resnet152, mobilenet_v2 and "
        "efficientnet_lite0 to efficientnet_lite4"
    )

"""MMPose's versions of three systems, with its layouts and parameter names, for its checkpoints.

They differ from the published designs: see :class:`.cpm.ConvolutionalPoseMachine`, :class:`.StackedHourglass` and
``DeepPose`` for those. Layouts and names are those of MMPose 1.x; :func:`.load_checkpoint` renames 0.x.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from pypose_ops import Peaks
from pypose_ops.codecs import MSRAHeatmap, RegressionLabel
from pypose_ops.codecs._base import GaussianCodec
from pypose_ops.geometry import flip_keypoints

from ..modules.backbones import ResNet, _BasicBlock
from ..systems.heatmap_system import HeatmapSystem
from ..systems.system import Batch, System, SystemConfig

STAGE_CHANNELS = (256, 256, 384, 384, 384, 512)
STAGE_BLOCKS = (2, 2, 2, 2, 2, 4)


class ConvModule(nn.Module):
    """MMCV's convolution, batch normalisation (``norm``) and ReLU (``relu``); biased only without normalisation."""

    def __init__(
        self, inputs: int, outputs: int, kernel_size: int, *, stride: int = 1, norm: bool = True, relu: bool = True
    ) -> None:
        super().__init__()
        self.conv: nn.Conv2d = nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2, bias=not norm)
        self.bn: nn.Module = nn.BatchNorm2d(outputs) if norm else None
        self.relu = relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        x = x if self.bn is None else self.bn(x)
        return F.relu(x) if self.relu else x


class MMPoseHeatmapSystem(HeatmapSystem):
    """MMPose's targets and decoding: MSRA with a sigma of 2; mirrored maps are shifted by a pixel."""

    sigma: float = 2.0
    flip_shift = True
    presets: dict[str, SystemConfig] = {"paper": SystemConfig()}

    def codec(self, images: torch.Tensor, maps: torch.Tensor) -> GaussianCodec:
        return MSRAHeatmap(images.shape[:-3:-1], maps.shape[:-3:-1], sigma=self.sigma)


class MMPoseCPM(MMPoseHeatmapSystem):
    """MMPose's convolutional pose machine: batch normalisation, no background, no centre map, pools with padding.

    Args:
        num_joints (int): the number of joints, K.
        stages (int): at least 1.
        input_size (tuple[int, int] or None): ``(height, width)``; None: that of MMPose's config for COCO for 17 joints,
            else for MPII.

    ``forward(images (B, 3, H, W))`` returns ``(B, K, H / 8, W / 8)`` per stage. 16 joints: 31,225,568 parameters.
    """

    def __init__(self, num_joints: int, *, stages: int = 6, input_size: tuple[int, int] | None = None) -> None:
        super().__init__(num_joints, input_size or ((256, 192) if num_joints == 17 else (368, 368)))
        self._check_input_size(8)
        self.backbone: CPMBackbone = CPMBackbone(num_joints, stages)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return self.backbone(images)


class CPMBackbone(nn.Module):
    def __init__(self, num_joints: int, stages: int) -> None:
        super().__init__()
        pooled = lambda: [  # noqa: E731
            part for inputs in (3, 128, 128) for part in (ConvModule(inputs, 128, 9), nn.MaxPool2d(3, 2, padding=1))
        ]
        self.stem: nn.Sequential = nn.Sequential(
            *pooled(),
            ConvModule(128, 32, 5),
            ConvModule(32, 512, 9),
            ConvModule(512, 512, 1),
            ConvModule(512, num_joints, 1, norm=False, relu=False),
        )
        self.middle: nn.Sequential = nn.Sequential(*pooled())
        later = range(stages - 1)
        self.cpm_stages: nn.ModuleList = nn.ModuleList(CPMStage(32 + num_joints) for _ in later)
        self.middle_conv: nn.ModuleList = nn.ModuleList(nn.Sequential(ConvModule(128, 32, 5)) for _ in later)
        self.out_convs: nn.ModuleList = nn.ModuleList(
            nn.Sequential(ConvModule(128, 128, 1), ConvModule(128, num_joints, 1, norm=False, relu=False))
            for _ in later
        )

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        maps, shared = [self.stem(images)], self.middle(images)
        for reduce, stage, out in zip(self.middle_conv, self.cpm_stages, self.out_convs, strict=True):
            maps.append(out(stage(torch.cat((maps[-1], reduce(shared)), 1))))
        return maps


class CPMStage(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.model: nn.Sequential = nn.Sequential(
            ConvModule(inputs, 128, 11), ConvModule(128, 128, 11), ConvModule(128, 128, 11)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class MMPoseHourglass(MMPoseHeatmapSystem):
    """MMPose's hourglass, which is CornerNet's: basic blocks, strides instead of pools, five steps down, one stack.

    Args:
        num_joints (int): the number of joints, K.
        stacks (int): hourglasses.
        input_size (tuple[int, int]): ``(height, width)``, multiples of 128.

    ``forward(images (B, 3, H, W))`` returns ``(B, K, H / 4, W / 4)`` per stack. One stack: 94.8 M parameters.
    """

    def __init__(self, num_joints: int, *, stacks: int = 1, input_size: tuple[int, int] = (256, 256)) -> None:
        super().__init__(num_joints, input_size)
        self._check_input_size(128)
        self.backbone: HourglassBackbone = HourglassBackbone(stacks)
        self.head: nn.Module = nn.Module()
        self.head.multi_final_layers = nn.ModuleList(nn.Conv2d(STAGE_CHANNELS[0], num_joints, 1) for _ in range(stacks))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        layers = self.head.multi_final_layers
        return [layer(x) for layer, x in zip(layers, self.backbone(images), strict=True)]


class HourglassBackbone(nn.Module):
    def __init__(self, stacks: int) -> None:
        super().__init__()
        width = STAGE_CHANNELS[0]
        self.stem: nn.Sequential = nn.Sequential(ConvModule(3, 128, 7, stride=2), blocks(1, 128, width, stride=2))
        self.hourglass_modules: nn.ModuleList = nn.ModuleList(
            HourglassModule(STAGE_CHANNELS, STAGE_BLOCKS) for _ in range(stacks)
        )
        # With one stack the block exists too, unused.
        self.inters: nn.Sequential = blocks(stacks - 1, width, width)
        joined = lambda: nn.ModuleList(ConvModule(width, width, 1, relu=False) for _ in range(stacks - 1))  # noqa: E731
        self.conv1x1s: nn.ModuleList = joined()
        self.out_convs: nn.ModuleList = nn.ModuleList(ConvModule(width, width, 3) for _ in range(stacks))
        self.remap_convs: nn.ModuleList = joined()

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        x, out = self.stem(images), []
        for s, hourglass in enumerate(self.hourglass_modules):
            out.append(self.out_convs[s](hourglass(x)))
            if s + 1 < len(self.hourglass_modules):
                x = self.inters[s](F.relu(self.conv1x1s[s](x) + self.remap_convs[s](out[-1])))
        return out


class HourglassModule(nn.Module):
    def __init__(self, channels: Sequence[int], counts: Sequence[int]) -> None:
        super().__init__()
        (width, inner, *_), (count, below, *_) = channels, counts
        self.up1: nn.Sequential = blocks(count, width, width)
        self.low1: nn.Sequential = blocks(count, width, inner, stride=2)
        self.low2: nn.Module = (
            HourglassModule(channels[1:], counts[1:]) if len(channels) > 2 else blocks(below, inner, inner)
        )
        self.low3: nn.Sequential = blocks(count, inner, width, change="last")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = self.low3(self.low2(self.low1(x)))
        return self.up1(x) + F.interpolate(low, scale_factor=2)


def blocks(count: int, inputs: int, outputs: int, stride: int = 1, change: str = "first") -> nn.Sequential:
    """Basic blocks, at least one; the first or the last changes channels and size."""
    count = max(count, 1)
    turn = 0 if change == "first" else count - 1
    layers = []
    for n in range(count):
        a, b, step = (inputs if n <= turn else outputs), (outputs if n >= turn else inputs), stride if n == turn else 1
        downsample = None
        if a != b or step != 1:
            downsample = nn.Sequential(nn.Conv2d(a, b, 1, step, bias=False), nn.BatchNorm2d(b))
        layers.append(_BasicBlock(a, b, step, (1, 1), downsample))
    return nn.Sequential(*layers)


class MMPoseDeepPose(System):
    """MMPose's DeepPose: a ResNet, global average pooling and a linear layer; coordinates from 0 to 1.

    Args:
        num_joints (int): the number of joints, K.
        depth (int): of the ResNet.
        input_size (tuple[int, int] or None): ``(height, width)``; None: that of MMPose's config for COCO for 17 joints,
            else for MPII.

    ``forward(images (B, 3, H, W))`` returns ``[(B, K, 2)]``, relative to the width and height of the image.
    """

    presets: dict[str, SystemConfig] = {"paper": SystemConfig()}

    def __init__(self, num_joints: int, *, depth: int = 50, input_size: tuple[int, int] | None = None) -> None:
        super().__init__(num_joints, input_size or ((256, 192) if num_joints == 17 else (256, 256)))
        self.backbone: ResNet = ResNet(depth)
        self.head: nn.Module = nn.Module()
        self.head.fc = nn.Linear(self.backbone.out_channels, 2 * num_joints)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [self.head.fc(self.backbone(images).mean((-2, -1))).unflatten(1, (-1, 2))]

    def losses(self, batch: Batch, phase: str | None = None) -> dict[str, torch.Tensor]:
        labels, weights = RegressionLabel(batch.images.shape[:-3:-1]).encode(batch.keypoints, batch.visible)
        labels = torch.where(weights[..., None] > 0, labels, 0.0)
        errors = F.smooth_l1_loss(self(batch.images)[0].to(labels.dtype), labels, reduction="none")
        return {"stage1": (errors * weights[..., None]).mean()}

    @torch.no_grad()
    def poses(self, images: torch.Tensor, *, flip_pairs: Sequence[tuple[int, int]] | None = None) -> list[Peaks]:
        codec = RegressionLabel(images.shape[:-3:-1])
        coords, scores = codec.decode(self(images)[0])
        if flip_pairs is not None:
            mirrored, _ = codec.decode(self(images.flip(-1))[0])
            coords = 0.5 * (coords + flip_keypoints(mirrored, images.shape[-1], flip_pairs))
        return [Peaks(coords, scores)]

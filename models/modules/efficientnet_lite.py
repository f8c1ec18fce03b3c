"""EfficientNet-Lite (Tan and Le, ICML 2019, as Google made it for phones: no squeeze and excitation, ReLU6)."""

import math

from torch import nn

from .inverted_residual import ConvNormAct, StagedBackbone, divisible, residuals

# Kernel, channels, blocks, stride of the first of them, expansion; of the smallest.
BLOCKS = (
    (3, 16, 1, 1, 1),
    (3, 24, 2, 2, 6),
    (5, 40, 2, 2, 6),
    (3, 80, 3, 2, 6),
    (5, 112, 3, 1, 6),
    (5, 192, 4, 2, 6),
    (3, 320, 1, 1, 6),
)
SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2), 3: (1.2, 1.4), 4: (1.4, 1.8)}  # width, depth


class EfficientNetLite(StagedBackbone):
    """EfficientNet-Lite 0 to 4 without its classifier, with TensorFlow's padding.

    Args:
        size (int): the model, 0 to 4.
        norm (bool): use batch normalisation.
        in_channels (int): channels of the image.

    ``forward``: ``(B, in_channels, H, W)`` -> the last map, ``(B, 320, H / 32, W / 32)`` of the smallest.

    Attributes:
        channels (tuple[int, ...]): of the maps of :meth:`stages`.
        strides (tuple[int, ...]): input pixels per map pixel: 4, 8, 16, 32.
    """

    def __init__(self, size: int = 0, *, norm: bool = True, in_channels: int = 3) -> None:
        super().__init__()
        if size not in SCALES:
            raise ValueError(f"EfficientNetLite: size must be one of {', '.join(map(str, SCALES))}, got {size!r}")
        width, depth = SCALES[size]
        self.stem: ConvNormAct = ConvNormAct(in_channels, 32, 3, stride=2, norm=norm)
        blocks: list[nn.Module] = []
        inputs, ends, channels = 32, [], []
        for stage, (kernel, wide, count, first, expand) in enumerate(BLOCKS):
            outputs = divisible(wide * width)
            # The first and the last stage are equally deep in all models.
            count = count if stage in (0, len(BLOCKS) - 1) else math.ceil(count * depth)
            blocks += residuals(inputs, outputs, count, stride=first, kernel_size=kernel, expand=expand, norm=norm)
            inputs = outputs
            if stage in (1, 2, 4, 6):  # the last block of each resolution
                ends.append(len(blocks))
                channels.append(outputs)
        self.blocks: nn.ModuleList = nn.ModuleList(blocks)
        self.ends: tuple[int, ...] = tuple(ends)
        self.channels: tuple[int, ...] = tuple(channels)

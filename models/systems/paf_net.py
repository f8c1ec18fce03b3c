"""Part affinity fields (Cao, Simon, Wei and Sheikh, CVPR 2017)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from pypose_ops import People, find_peaks, group_people, part_affinity_fields, score_limbs, skeletons
from pypose_ops._constants import constant
from pypose_ops.codecs import CPMHeatmap
from pypose_ops.codecs._base import GaussianCodec
from pypose_ops.skeletons import Skeleton

from ..modules.backbones import VGG
from ..modules.cascade import Cascade
from ..modules.layers import ConvBlock, HeatmapHead
from .cpm import map_loss
from .heatmap_system import HeatmapSystem
from .system import Batch, SystemConfig

# Skeletons by their number of joints.
_LIMBS = {len(s): s.edges for s in (skeletons.LSP, skeletons.MPII, skeletons.COCO)}


@dataclass(frozen=True, kw_only=True)
class PafNetConfig(SystemConfig):
    """Options of :class:`PafNet`.

    Attributes:
        limbs: L pairs of joints; None: those of LSP for 14 joints, of MPII for 16, of
            COCO for 17.
        stages: at least 1.
        width: channels of the stages.
        hidden: channels before the first maps.
        backbone_width: channel multiplier of VGG.
        kernel_size: of the later stages.
        convs: of each branch of the later stages, besides the last two 1x1 convolutions.
        norm: batch normalisation after each hidden convolution, VGG's included; the paper has none.
        sigma, limb_radius: of the targets, in heatmap pixels.
        input_size: ``(height, width)``, multiples of 8.
    """

    limbs: tuple[tuple[int, int], ...] | None = None
    stages: int = 6
    width: int = 128
    hidden: int = 512
    backbone_width: float = 1.0
    kernel_size: int = 7
    convs: int = 5
    norm: bool = False
    sigma: float = 0.875
    limb_radius: float = 1.0
    input_size: tuple[int, int] = (368, 368)


class PafNet(HeatmapSystem):
    """Part affinity fields and heatmaps, for any number of people.

    Cao, Simon, Wei, Sheikh, "Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields", CVPR 2017 (arXiv
    1611.08050), figure 3. As there and in the released prototxt: VGG-19 up to conv4_2 and two more convolutions;
    stage 1 of three 3x3, later ones of five 7x7 convolutions, each in two branches, fields and heatmaps; later stages
    read both and the features; a loss for each branch of each stage, all people drawn: heatmaps by the highest value,
    with a background, fields of unit vectors averaged over people. 18 joints, 19 limbs: 52,311,446 parameters.

    Our choices: errors are means instead of sums; maps of joints without a label of the person in question, and fields
    of limbs that end at one, count 0; :meth:`poses` is for crops around one person and takes the highest pixel of each
    map, :meth:`people` finds all people.

    Args:
        num_joints (int): K; there are K + 1 maps, the last for the background.
        config (PafNetConfig): everything else.

    ``forward(images (B, 3, H, W))`` returns ``(fields (B, 2 L, H / 8, W / 8), maps (B, K + 1, H / 8, W / 8))`` per
    stage: x and y of the first limb, of the second, ...
    """

    limb_radius: float
    sigma: float

    refine: str | None = "dark_udp"
    presets: ClassVar[Mapping[str, SystemConfig]] = {
        "paper": PafNetConfig(),
        "compact": PafNetConfig(
            stages=3, width=48, hidden=48, backbone_width=0.25, convs=3, kernel_size=5, norm=True, input_size=(128, 128)
        ),
    }

    def __init__(self, num_joints: int, config: PafNetConfig = PafNetConfig()) -> None:
        super().__init__(num_joints, config.input_size)
        self._check_input_size(8)
        limbs = config.limbs
        if limbs is None:
            if num_joints not in _LIMBS:
                raise ValueError(f"PafNet: limbs must be given for {num_joints} joints; there are 14, 16 and 17")
            limbs = _LIMBS[num_joints]
        self.limbs: list[tuple[int, int]] = [(int(a), int(b)) for a, b in limbs]
        self.sigma, self.limb_radius = config.sigma, config.limb_radius
        outputs = (2 * len(self.limbs), num_joints + 1)
        features = PafFeatures(config.width, config.backbone_width, config.norm)
        first = TwoBranches(
            config.width, outputs, config.width, config.hidden, convs=3, kernel_size=3, norm=config.norm
        )
        shape = {"convs": config.convs, "kernel_size": config.kernel_size, "norm": config.norm}
        later = [
            TwoBranches(config.width + sum(outputs), outputs, config.width, config.width, **shape)
            for _ in range(config.stages - 1)
        ]
        self.cascade: Cascade = Cascade(features, first, *later)
        for head in (m for m in self.modules() if isinstance(m, HeatmapHead)):
            nn.init.normal_(head[-1].weight, std=0.01)
            nn.init.zeros_(head[-1].bias)

    def codec(self, images: torch.Tensor, maps: torch.Tensor) -> GaussianCodec:
        return JointsCodec(images.shape[:-3:-1], maps.shape[:-3:-1], self.sigma)

    @classmethod
    def options_of(cls, skeleton: Skeleton) -> dict[str, Any]:
        return {"limbs": [list(edge) for edge in skeleton.edges]}

    def forward(self, images: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return self.cascade(images)

    def heatmaps(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [maps[:, :-1] for _, maps in self(images)]

    def losses(self, batch: Batch, phase: str | None = None) -> dict[str, torch.Tensor]:
        fields, maps = (torch.stack(parts) for parts in zip(*self(batch.images), strict=True))
        codec = self.codec(batch.images, maps[0])
        everybody, labelled = batch.everybody()
        joints = map_loss(codec, maps, everybody, labelled, batch.visible)
        target = part_affinity_fields(
            codec.to_heatmap(everybody), self.limbs, self.limb_radius, codec.size, visible=labelled
        )
        ends = constant(tuple(self.limbs), device=target.device)
        counts = batch.visible.bool()[:, ends].all(-1).repeat_interleave(2, 1)  # (B, 2 L)
        errors = (fields.to(target.dtype) - target).square().mean((-2, -1)) * counts
        losses = {}
        for s, (joint, limb) in enumerate(zip(joints, errors.mean((1, 2)), strict=True), 1):
            losses |= {f"stage{s}_maps": joint, f"stage{s}_fields": limb}
        return losses

    @torch.no_grad()
    def people(
        self, images: torch.Tensor, *, threshold: float = 0.1, samples: int = 10, max_people: int = 32
    ) -> People:
        """Finds all people from the maps of the last stage: :class:`pypose_ops.People` in pixels of the images.

        Args:
            images (Tensor): ``(B, 3, H, W)``.
            threshold (float): of the peaks of the maps.
            samples (int): points along a limb.
            max_people (int): per image.
        """
        fields, maps = self(images)[-1]
        codec = self.codec(images, maps)
        # Scores are read from the fields, so peaks stay in map pixels until people are assembled.
        peaks = find_peaks(maps[:, :-1], threshold=threshold, refine="quarter")
        people = group_people(
            peaks, score_limbs(fields, peaks, self.limbs, samples=samples), self.limbs, max_people=max_people
        )
        return people._replace(coords=codec.from_heatmap(people.coords))


class JointsCodec(CPMHeatmap):
    """CPM's maps, combined over people by the maximum, as in section 2.2 of the paper."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.drawing["combine"] = "max"


class PafFeatures(nn.Module):
    """VGG-19 up to conv4_2 and two more convolutions, the last with ``width`` channels."""

    def __init__(self, width: int, backbone_width: float, norm: bool) -> None:
        super().__init__()
        self.vgg: VGG = VGG(19, last="conv4_2", width=backbone_width, norm=norm)
        middle = 2 * width
        self.convs: nn.Sequential = nn.Sequential(
            ConvBlock(self.vgg.out_channels, middle, norm=norm), ConvBlock(middle, width, norm=norm)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.convs(self.vgg(images))


class TwoBranches(nn.Module):
    """One stage: a branch of convolutions for the fields and one for the maps."""

    fields: nn.Sequential
    maps: nn.Sequential

    def __init__(
        self, inputs: int, outputs: Sequence[int], width: int, hidden: int, *, convs: int, kernel_size: int, norm: bool
    ) -> None:
        super().__init__()
        self.fields, self.maps = (
            nn.Sequential(
                *(ConvBlock(width if n else inputs, width, kernel_size, norm=norm) for n in range(convs)),
                HeatmapHead(width, maps, (hidden,), norm=norm),
            )
            for maps in outputs
        )

    def forward(self, state: torch.Tensor, features: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        x = state if features is None else torch.cat((*state, features), 1)
        return self.fields(x), self.maps(x)

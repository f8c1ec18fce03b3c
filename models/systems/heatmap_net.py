"""One network from an image to a map per joint: a backbone, a light pyramid and a head (FCN in surveys)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from pypose_ops import Peaks, decode_heatmaps
from pypose_ops.errors import InputError

from ..modules.feature_pyramid import FeaturePyramid, MapHead
from ..modules.image_pyramid import image_pyramid
from ..modules.person_centres import PeopleFound, joint_pixels, near_person, people_at_centres
from .heatmap_system import HeatmapSystem
from .system import Batch, SystemConfig

UNLIKELY = -5.0  # logit of a joint that may be at any of some hundred pixels: where training from scratch begins


@dataclass(frozen=True, kw_only=True)
class HeatmapNetConfig(SystemConfig):
    """Options of :class:`HeatmapNet`.

    Attributes:
        backbone: a name of :func:`.image_pyramid`: ``"mobilenet_v2"``, ``"efficientnet_lite0"``, ``"resnet50"``,
            ``"vgg16"``, ...
        width: of all layers of the backbone, where it can be chosen.
        pyramid: channels of the sums at a quarter, an eighth and a sixteenth of the input.
        features: channels that the heads read.
        hidden: channels in a head.
        norm: with batch normalisation; without it where that was folded into the convolutions, as in MoveNet.
        people: with MoveNet's heads for people: their centres, how far the joints are from there, and where in
            its pixel each joint is. They are not trained here.
        sigma: of the targets, in heatmap pixels.
        input_size: ``(height, width)``.
    """

    backbone: str = "mobilenet_v2"
    width: float = 1.0
    pyramid: tuple[int, ...] = (24, 32, 64)
    features: int = 24
    hidden: int = 96
    norm: bool = True
    people: bool = False
    sigma: float = 1.5
    input_size: tuple[int, int] = (192, 192)


class HeatmapNet(HeatmapSystem):
    """A fully convolutional network whose only stage is a map of probabilities per joint, at a quarter of the input.

    The architecture is MoveNet's (Google, 2021; TensorFlow Hub, movenet/singlepose): MobileNetV2 (Sandler et al., CVPR
    2018), a feature pyramid (Lin et al., CVPR 2017) and heads as in CenterNet (Zhou et al., "Objects as Points", 2019);
    any other backbone may take MobileNetV2's place. Trained by the cross entropy of the probabilities against
    Gaussians, whose gradient does not vanish where a joint is missed surely; decoded by DARK.

    With ``people`` the poses are decoded as MoveNet does: of the person nearest to the middle, each map weighted by
    how near a pixel is to where the person's centre says that the joint is. Then :meth:`people` finds everybody.

    Args:
        num_joints (int): K.
        config (HeatmapNetConfig): everything else.

    ``forward(images (B, 3, H, W))`` gives ``[(B, K, H / 4, W / 4)]``, logits.
    """

    config: HeatmapNetConfig
    sigma: float
    backbone: nn.Module
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pyramid: FeaturePyramid
    center: MapHead
    regress: MapHead
    offset: MapHead

    joint_layers: tuple[str, ...] = ("head.out",)
    presets: ClassVar[Mapping[str, SystemConfig]] = {
        "paper": HeatmapNetConfig(width=1.75, input_size=(256, 256)),
        "compact": HeatmapNetConfig(),
        "movenet_lightning": HeatmapNetConfig(norm=False),
        "movenet_thunder": HeatmapNetConfig(norm=False, width=1.75, input_size=(256, 256)),
        "efficientnet_lite0": HeatmapNetConfig(backbone="efficientnet_lite0", pyramid=(32, 48, 64), features=32),
        "resnet50": HeatmapNetConfig(backbone="resnet50", pyramid=(64, 96, 128), features=64, input_size=(256, 256)),
        "vgg16": HeatmapNetConfig(backbone="vgg16", pyramid=(64, 96, 128), features=64, input_size=(256, 256)),
    }

    def __init__(self, num_joints: int, config: HeatmapNetConfig = HeatmapNetConfig()) -> None:
        super().__init__(num_joints, config.input_size)
        self.config, self.sigma = config, config.sigma
        self.backbone, self.mean, self.std = image_pyramid(config.backbone, config.width, config.norm)
        self.pyramid = FeaturePyramid(self.backbone.channels, config.pyramid, config.features, norm=config.norm)
        self.head: MapHead = self._head(num_joints)
        nn.init.constant_(self.head.out.bias, UNLIKELY)
        if config.people:
            self.center, self.regress, self.offset = (
                self._head(maps).requires_grad_(False) for maps in (1, 2 * num_joints, 2 * num_joints)
            )

    def _head(self, maps: int) -> MapHead:
        return MapHead(self.config.features, self.config.hidden, maps, norm=self.config.norm)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """``(B, C, H / 4, W / 4)``: what the heads read."""
        return self.pyramid(self.backbone.stages(images))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [self.head(self.features(images))]

    def heatmaps(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [maps.sigmoid() for maps in self(images)]

    def losses(self, batch: Batch, phase: str | None = None) -> dict[str, torch.Tensor]:
        logits = self(batch.images)[0].float()
        target, weight = self.codec(batch.images, logits).encode(batch.keypoints, batch.visible)
        each = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((2, 3))
        return {"stage1": (each * weight).mean()}

    @torch.no_grad()
    def poses(
        self,
        images: torch.Tensor,
        *,
        flip_pairs: Sequence[tuple[int, int]] | None = None,
        scales: Sequence[float] = (1.0,),
    ) -> list[Peaks]:
        """As :meth:`.HeatmapSystem.poses`; with the heads for people there is no test at several scales.

        Raises:
            InputError: several scales with these heads.
        """
        if not self.config.people:
            return super().poses(images, flip_pairs=flip_pairs, scales=scales)
        if tuple(scales) != (1.0,):
            raise InputError(f"HeatmapNet: scales must be (1.0,) with people=True, got {scales!r}")
        maps, near, offset = self._near_middle(images)
        if flip_pairs is not None:
            order = list(range(self.num_joints))
            for a, b in flip_pairs:
                order[a], order[b] = b, a
            other, other_near, other_offset = (m.flip(-1)[:, order] for m in self._near_middle(images.flip(-1)))
            other_offset = other_offset.clone()
            other_offset[:, :, 0] = 1 - other_offset[:, :, 0]
            maps, near, offset = (maps + other) / 2, (near + other_near) / 2, (offset + other_offset) / 2
        pixels = decode_heatmaps(near, refine=None, return_pixels=True).pixels
        return [joint_pixels(maps, offset, pixels)]

    def _near_middle(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Maps of the joints, the same near the person in the middle, and ``(B, K, 2, h, w)`` where in its pixel."""
        features = self.features(images)
        maps = self.head(features).sigmoid()
        near = near_person(maps, self.center(features).sigmoid(), self.regress(features))
        return maps, near, self.offset(features).unflatten(1, (-1, 2)).flip(2)

    @torch.no_grad()
    def people(self, images: torch.Tensor, *, threshold: float = 0.3, most: int = 32) -> PeopleFound:
        """Everybody in images of any size, by the peaks of the map of people's centres.

        Args:
            images (Tensor): ``(B, 3, H, W)``, height and width multiples of 32.
            threshold (float): least probability of a centre.
            most (int): people of an image.

        Raises:
            InputError: the system has not the heads for it.
        """
        if not self.config.people:
            raise InputError("HeatmapNet: people needs the heads that find people, expected people=True")
        features = self.features(images)
        return people_at_centres(self.center(features).sigmoid(), self.regress(features), threshold, most)

"""A fully convolutional network with a heatmap per joint: a backbone, a light pyramid and a head."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from pypose_ops import Peaks, decode_heatmaps
from pypose_ops.codecs._base import GaussianCodec
from pypose_ops.errors import InputError

from ..modules.feature_pyramid import UNLIKELY, FeaturePyramid, MapHead
from ..modules.image_pyramid import image_pyramid
from ..modules.person_centres import (
    NEARNESS,
    STRIDE,
    PeopleFound,
    joint_pixels,
    near_person,
    offset_loss,
    people_at_centres,
    person_centers,
    regress_loss,
)
from .heatmap_system import HeatmapSystem, map_cross_entropy
from .system import Batch, SystemConfig

# Of displacements in heatmap pixels, next to a cross-entropy that is a mean over all pixels of the maps.
REGRESS, OFFSET = 1e-3, 4e-3
FARTHEST = 8192  # of ``nearness``: no map has a joint farther away


@dataclass(frozen=True, kw_only=True)
class HeatmapNetConfig(SystemConfig):
    """Options of :class:`HeatmapNet`.

    Attributes:
        backbone: a name of :func:`.image_pyramid`: ``"mobilenet_v2"``, ``"efficientnet_lite0"``, ``"resnet50"``,
            ``"vgg16"``, ...
        width: channel multiplier of the backbone, where it has one.
        pyramid: channels of the sums at a quarter, an eighth and a sixteenth of the input.
        features: input channels of the heads.
        hidden: channels in a head.
        norm: use batch normalisation; False for weights with folded normalisation, as MoveNet's.
        people: add MoveNet's heads for people: their centres, the displacements of the joints from them, and the
            offsets within a pixel.
        nearness: with them, heatmap pixels: the larger, the farther from where it is regressed a joint may be.
        sigma: of the targets, in heatmap pixels.
        input_size: ``(height, width)``; with ``people`` multiples of 4.
    """

    backbone: str = "mobilenet_v2"
    width: float = 1.0
    pyramid: tuple[int, ...] = (24, 32, 64)
    features: int = 24
    hidden: int = 96
    norm: bool = True
    people: bool = False
    nearness: float = NEARNESS
    sigma: float = 1.5
    input_size: tuple[int, int] = (192, 192)


class HeatmapNet(HeatmapSystem):
    """A fully convolutional network whose only stage is a map of probabilities per joint, at a quarter of the input.

    The architecture is MoveNet's (Google, 2021; TensorFlow Hub, movenet/singlepose): MobileNetV2 (Sandler et al., CVPR
    2018), a feature pyramid (Lin et al., CVPR 2017) and heads as in CenterNet (Zhou et al., "Objects as Points", 2019);
    MobileNetV2 can be replaced by other backbones. The loss is the cross-entropy of the probabilities against
    Gaussians, whose gradient does not vanish at confident misses; decoded by DARK.

    With ``people`` poses are decoded as in MoveNet: for the person nearest to the middle, each map is weighted by the
    distance from the joint regressed at the person's centre; :meth:`people` finds all people. Its heads are trained
    with ``Batch.others`` too: a centre is the mean of the labelled joints.

    Args:
        num_joints (int): the number of joints, K.
        config (HeatmapNetConfig): everything else.

    ``forward(images (B, 3, H, W))`` returns ``[(B, K, H / 4, W / 4)]``, logits.
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

    joint_layers: tuple[str, ...] = ("head.out", "regress.out", "offset.out")
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
        if config.people:
            self._check_input_size(STRIDE)
        if not isinstance(config.nearness, int | float) or not 0 < config.nearness <= FARTHEST:
            raise ValueError(f"HeatmapNet: nearness must be above 0, at most {FARTHEST}, got {config.nearness!r}")
        self.config, self.sigma = config, config.sigma
        self.backbone, self.mean, self.std = image_pyramid(config.backbone, config.width, config.norm)
        self.pyramid = FeaturePyramid(self.backbone.channels, config.pyramid, config.features, norm=config.norm)
        self.head: MapHead = self._head(num_joints)
        nn.init.constant_(self.head.out.bias, UNLIKELY)
        if config.people:
            self.center, self.regress, self.offset = map(self._head, (1, 2 * num_joints, 2 * num_joints))
            nn.init.constant_(self.center.out.bias, UNLIKELY)

    def _head(self, maps: int) -> MapHead:
        return MapHead(self.config.features, self.config.hidden, maps, norm=self.config.norm)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """The input ``(B, C, H / 4, W / 4)`` of the heads."""
        return self.pyramid(self.backbone.stages(images))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [self.head(self.features(images))]

    def heatmaps(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [maps.sigmoid() for maps in self(images)]

    def losses(self, batch: Batch, phase: str | None = None) -> dict[str, torch.Tensor]:
        features = self.features(batch.images)
        logits = self.head(features)
        codec = self.codec(batch.images, logits)
        losses = {"stage1": map_cross_entropy(codec, logits, batch.keypoints, batch.visible)}
        return losses | self._people_losses(codec, features, batch) if self.config.people else losses

    def _people_losses(self, codec: GaussianCodec, features: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        keypoints, visible = batch.everybody()
        centers, known = person_centers(keypoints, visible)
        maps = self.center(features)
        some = known.any(1, keepdim=True).to(maps.dtype)
        return {
            "center": map_cross_entropy(codec, maps, centers[:, :, None], known[:, :, None], weight=some),
            "regress": REGRESS * regress_loss(self.regress(features), centers, keypoints, visible),
            "offset": OFFSET * offset_loss(self._offsets(features), keypoints, visible),
        }

    @torch.no_grad()
    def poses(
        self,
        images: torch.Tensor,
        *,
        flip_pairs: Sequence[tuple[int, int]] | None = None,
        scales: Sequence[float] = (1.0,),
    ) -> list[Peaks]:
        """As :meth:`.HeatmapSystem.poses`; with the heads for people, several scales are not supported.

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
        """Maps of the joints, the same weighted for the person in the middle, and :meth:`_offsets`."""
        features = self.features(images)
        maps = self.head(features).sigmoid()
        near = near_person(maps, self.center(features).sigmoid(), self.regress(features), self.config.nearness)
        return maps, near, self._offsets(features)

    def _offsets(self, features: torch.Tensor) -> torch.Tensor:
        """``(B, K, 2, h, w)``: x and y, of which the network gives y first."""
        return self.offset(features).unflatten(1, (-1, 2)).flip(2)

    @torch.no_grad()
    def people(self, images: torch.Tensor, *, threshold: float = 0.3, most: int = 32) -> PeopleFound:
        """Finds all people in images of any size, at the peaks of the centre map.

        Args:
            images (Tensor): ``(B, 3, H, W)``, height and width multiples of 32.
            threshold (float): minimum probability of a centre.
            most (int): maximum number of people per image.

        Raises:
            InputError: the system has no heads for people.
        """
        if not self.config.people:
            raise InputError("HeatmapNet: people() needs the heads for people, expected people=True")
        features = self.features(images)
        return people_at_centres(self.center(features).sigmoid(), self.regress(features), threshold, most)

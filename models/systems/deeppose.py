"""DeepPose (Toshev and Szegedy, CVPR 2014): joint regression, refined in crops around each joint."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import length_hint
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from pypose_ops import Peaks, geometry
from pypose_ops.skeletons import Skeleton

from ..modules.backbones import backbone as make_backbone
from ..modules.backbones import pixels_of
from ..modules.cascade import Cascade
from ..modules.joint_regression import PoseFromImage, PoseRefine, RegressionHead, gather_joints, gaussian
from ..modules.torso import torso_diameters, torso_joints, torso_option
from .system import Batch, System, SystemConfig

# People to whose predictions Gaussians are fitted: a later stage's takes a crop per joint of each.
FITTED = 1000


@dataclass(frozen=True, kw_only=True)
class DeepPoseConfig(SystemConfig):
    """Options of :class:`DeepPose`.

    Attributes:
        input_size: ``(height, width)`` of the images. They may be larger than ``patch_size``: the
            later stages then see more detail.
        patch_size: input size of the networks; None: ``input_size``.
        backbone: of :func:`models.backbones.backbone`, with ``width``.
        hidden: widths of the fully connected layers on the flattened map; empty: the map is
            averaged (ResNet, EfficientNet).
        dropout: after each hidden layer.
        stages: number of stages S.
        sigma: of the boxes, in diams; the paper has 2.0 for LSP, 1.0 for FLIC.
        torso: indices of left shoulder and right hip; None: those of LSP, MPII or COCO, by the
            number of joints.
        loss: ``"l2"``, or ``"smooth_l1"`` as in MMPose.
        crops: random joints per person and step in the later stages; None: every joint once.
        simulate_diameter: vary the size of the boxes in training like the diam of the previous stage; the paper
            uses the true one.
        warm_start: in training the backbone of each later stage begins as that of the stage before; the paper's begin
            from scratch.
        least: minimum diam, relative to the side of the image.
    """

    input_size: tuple[int, int] = (220, 220)
    patch_size: tuple[int, int] | None = None
    backbone: str = "alexnet"
    width: float = 1.0
    hidden: tuple[int, ...] = (4096, 4096)
    dropout: float = 0.6
    stages: int = 3
    sigma: float = 2.0
    torso: tuple[int, int] | None = None
    loss: str = "l2"
    crops: int | None = None
    simulate_diameter: bool = False
    warm_start: bool = False
    least: float = 0.05


class DeepPose(System):
    """A cascade of regressors: a pose from the whole image, then a displacement per joint from a crop around it.

    Toshev, Szegedy, "DeepPose: Human Pose Estimation via Deep Neural Networks", CVPR 2014 (arXiv 1312.4659), figure 2
    and section 3. Faithful: the layers of figure 2 with weights of their own in each stage, 58,396,060 parameters a
    stage for 14 joints (biases and the output layer included; the text's "about 40 M" does not fit the table);
    normalised poses and the squared error; boxes of ``sigma diam(y)`` around each joint of the last estimate, diam the
    distance of opposing torso joints; stages trained one after the other; predictions of the last stage simulated by
    one Gaussian per joint, fitted to its displacements over the training set.

    Our choices: one network per stage for all joints, of whose 2 K outputs each crop uses the pair of its joint (the
    paper does not specify); b0 is the whole crop; the mean over the labelled joints instead of their sum; displacements
    are fitted in units of the person's diam, without outliers and to a thousand people; people without a labelled
    torso use the median diam; a minimum diam, ``least``; new random crops in every step where the paper has 40 fixed
    draws.

    Preset ``"resnet"`` uses a ResNet-50, as MMPose's DeepPose does in a single stage (its checkpoints:
    ``models.load_checkpoint``); ``"compact"`` uses narrow ResNet-18s on crops of half the image's resolution.

    Args:
        num_joints (int): the number of joints, K.
        config (DeepPoseConfig): everything else.

    ``forward(images (B, 3, H, W))`` returns a pose ``(B, K, 2)`` in image pixels per stage. Gradients do not pass
    between stages. Scores are always 1: a regression has no confidence.
    """

    crops: int | None
    simulate_diameter: bool
    warm_start: bool

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    presets: ClassVar[Mapping[str, SystemConfig]] = {
        "paper": DeepPoseConfig(),
        "resnet": DeepPoseConfig(input_size=(256, 256), backbone="resnet50", hidden=(), loss="smooth_l1"),
        "compact": DeepPoseConfig(
            input_size=(128, 128),
            patch_size=(64, 64),
            backbone="resnet18",
            width=0.25,
            hidden=(),
            simulate_diameter=True,
        ),
        "efficientnet_lite0": DeepPoseConfig(
            input_size=(192, 192),
            patch_size=(96, 96),
            backbone="efficientnet_lite0",
            hidden=(),
            crops=4,
            simulate_diameter=True,
            warm_start=True,
        ),
    }

    def __init__(self, num_joints: int, config: DeepPoseConfig = DeepPoseConfig()) -> None:
        super().__init__(num_joints, config.input_size)
        if config.stages < 1:
            raise ValueError(f"DeepPose: stages must be at least 1, got {config.stages}")
        if config.loss not in ("l2", "smooth_l1"):
            raise ValueError(f"DeepPose: loss must be one of l2, smooth_l1, got {config.loss!r}")
        self.patch_size: tuple[int, ...] = tuple(config.patch_size or config.input_size)
        self.mean, self.std = pixels_of(config.backbone)
        self.torso: tuple[int, int] = torso_joints("DeepPose", num_joints, config.torso)
        self.loss, self.crops, self.simulate_diameter = config.loss, config.crops, config.simulate_diameter
        self.warm_start = config.warm_start
        self.phases: tuple[str, ...] = tuple(f"stage{s + 1}" for s in range(config.stages))

        def net() -> nn.Module:
            features = make_backbone(config.backbone, width=config.width)
            return RegressionHead(
                features, self.patch_size, 2 * num_joints, hidden=config.hidden, dropout=config.dropout
            )

        self.cascade: Cascade = Cascade(
            nn.Identity(),
            PoseFromImage(net(), self.patch_size),
            *(
                PoseRefine(net(), self.patch_size, self.torso, config.sigma, config.least)
                for _ in range(config.stages - 1)
            ),
        )
        # Statistics of the predictions before stages 2, 3, ...: see begin_phase.
        later = max(config.stages - 1, 0)
        self.register_buffer("diameter", torch.tensor(0.25 * self.input_size[0]))
        self.register_buffer("displacement_mean", torch.zeros(later, num_joints, 2))
        self.register_buffer("displacement_factor", 0.1 * torch.eye(2).repeat(later, num_joints, 1, 1))
        self.register_buffer("log_diameter", torch.zeros(later, 2))

    @classmethod
    def options_of(cls, skeleton: Skeleton) -> dict[str, Any]:
        return torso_option(skeleton)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return self.cascade(images)

    def net(self, phase: str | None) -> nn.Module:
        """The stage trained in a phase."""
        stage = self._stage(phase)
        return self.cascade.first if stage == 0 else self.cascade.refine[stage - 1]

    def _first(self, stages: int) -> Cascade:
        """The first stages alone."""
        return Cascade(self.cascade.features, self.cascade.first, *self.cascade.refine[: stages - 1])

    def _stage(self, phase: str | None) -> int:
        if phase is not None and phase not in self.phases:
            raise ValueError(f"DeepPose: phase must be one of {', '.join(self.phases)}, got {phase!r}")
        return len(self.phases) - 1 if phase is None else self.phases.index(phase)

    @torch.no_grad()
    def begin_phase(self, phase: str | None, batches: Iterable[Batch]) -> None:
        """Trains only the network of the phase. From stage 2 on, fits the Gaussians of the previous predictions.

        They are fitted to some thousand people, evenly spread over ``batches`` if these have a length.

        With ``warm_start`` the backbone of a later stage begins as that of the stage before.
        """
        stage = self._stage(phase)
        self.requires_grad_(False)
        self.net(phase).requires_grad_(True)
        if stage == 0:
            return
        if self.warm_start:
            before = self.net(self.phases[stage - 1])
            self.net(phase).net.features.load_state_dict(before.net.features.state_dict())
        training = self.training
        self.eval()
        cascade = self._first(stage)
        offs, guesses, trues, every = [], [], [], 1
        for number, batch in enumerate(batches):  # a single pass: there may be many images
            if number == 0:
                every = max(length_hint(batches, 1) * len(batch.images) // FITTED, 1)
            if number % every:
                continue
            pose = cascade(batch.images)[-1]
            offs.append(torch.where(batch.visible[..., None], pose - batch.keypoints, float("nan")))
            guesses.append(self.cascade.refine[stage - 1].diameters(pose, batch.images))
            trues.append(torso_diameters(batch.keypoints, batch.visible, self.torso, float("nan")))
        self.train(training)
        if not offs:
            return
        true = torch.cat(trues)
        if true.isfinite().any():
            self.diameter.copy_(true[true.isfinite()].median())
        # People without a labelled torso get the median diam.
        true = torch.where(true.isfinite(), true, self.diameter)
        self.fit(stage, torch.cat(offs) / true[:, None, None], (torch.cat(guesses) / true).log())

    def fit(self, stage: int, displacements: torch.Tensor, log_ratios: torch.Tensor) -> None:
        """Sets the Gaussians that simulate the predictions before a stage.

        Args:
            stage (int): 1 for stage 2.
            displacements (Tensor): ``(N, K, 2)``, estimate minus truth in diams; NaN where not labelled.
            log_ratios (Tensor): ``(N,)``, logarithm of the estimate's diam over the true one.
        """
        known = displacements.isfinite().all(-1)
        everywhere = displacements[known]
        for k in range(self.num_joints):
            mine = displacements[known[:, k], k]
            # Too few points for a joint's own covariance: it uses that of all joints.
            mean, factor = gaussian(mine if len(mine) > 2 else everywhere)
            self.displacement_mean[stage - 1, k] = mean
            self.displacement_factor[stage - 1, k] = factor
        if len(log_ratios) > 1:
            self.log_diameter[stage - 1] = torch.stack((log_ratios.mean(), log_ratios.std()))

    def simulate(
        self, stage: int, keypoints: torch.Tensor, diameters: torch.Tensor, joints: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Simulates the boxes of the previous stage: centres ``(B, M, 2)`` and diams ``(B, M)``.

        Args:
            stage (int): 1 for stage 2.
            keypoints (Tensor): ``(B, K, 2)`` ground truth.
            diameters (Tensor): ``(B,)`` of the people.
            joints (Tensor): ``(B, M)`` indices of joints.
        """
        mean, factor = self.displacement_mean[stage - 1][joints], self.displacement_factor[stage - 1][joints]
        noise = torch.randn(*joints.shape, 2, 1, device=keypoints.device, dtype=keypoints.dtype)
        displacement = mean + (factor @ noise).squeeze(-1)
        diameters = diameters[:, None].expand(joints.shape)
        center = gather_joints(keypoints, joints) + displacement * diameters[..., None]
        if self.simulate_diameter:
            mean, deviation = self.log_diameter[stage - 1]
            diameters = diameters * (mean + deviation * torch.randn_like(diameters)).exp()
        return center, diameters

    def losses(self, batch: Batch, phase: str | None = None) -> dict[str, torch.Tensor]:
        stage = self._stage(phase)
        images, keypoints, visible = batch.images, batch.keypoints, batch.visible
        keypoints = torch.where(visible[..., None], keypoints, 0.0)
        if stage == 0:
            first = self.cascade.first
            predicted, target = first.normalised(images), geometry.normalize_to_box(keypoints, *first.box(images))
            return {"stage1": self._loss(predicted, target, visible)}
        batch_size, joints_count = visible.shape
        if self.crops is None:
            joints = torch.arange(joints_count, device=images.device).expand(batch_size, -1)
        else:  # labelled joints, with replacement; people without any have weight 0
            chance = visible.float() + 1e-9
            joints = torch.multinomial(chance, self.crops, replacement=True)
        refine = self.cascade.refine[stage - 1]
        diameters = torso_diameters(keypoints, visible, self.torso, self.diameter)
        center, diameters = self.simulate(stage, keypoints, diameters, joints)
        center, scale = refine.boxes(center, diameters, images)
        predicted = refine.displacements(images, center, scale, joints)
        target = geometry.normalize_to_box(gather_joints(keypoints, joints), center, scale)
        return {f"stage{stage + 1}": self._loss(predicted, target, visible.gather(1, joints))}

    def _loss(self, predicted: torch.Tensor, target: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """The mean over labelled joints, 0 without any."""
        if self.loss == "l2":
            each = (predicted - target).square().sum(-1)
        else:
            each = F.smooth_l1_loss(predicted, target, reduction="none").sum(-1)
        return torch.where(visible, each, 0.0).sum() / visible.sum().clamp(min=1)

    @torch.no_grad()
    def poses(self, images: torch.Tensor, *, flip_pairs: Sequence[tuple[int, int]] | None = None) -> list[Peaks]:
        """As :meth:`System.poses`; with ``flip_pairs`` the mean of the poses of the image and its mirror image."""
        poses = self(images)
        if flip_pairs is not None:
            width = images.shape[-1]
            mirrored = self(images.flip(-1))
            poses = [
                (p + geometry.flip_keypoints(m, width, flip_pairs)) / 2 for p, m in zip(poses, mirrored, strict=True)
            ]
        return as_peaks(poses)

    @torch.no_grad()
    def poses_so_far(self, images: torch.Tensor, phase: str) -> list[Peaks]:
        return as_peaks(self._first(self._stage(phase) + 1)(images))


def as_peaks(poses: Sequence[torch.Tensor]) -> list[Peaks]:
    """Poses ``(B, K, 2)`` as peaks with a score of 1."""
    return [Peaks(pose, pose.new_ones(pose.shape[:2])) for pose in poses]

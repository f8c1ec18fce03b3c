"""The interface of pose systems for training, evaluation and prediction."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import nn

from pypose_ops import Peaks
from pypose_ops.skeletons import Skeleton


@dataclass(frozen=True)
class Batch:
    """People in crops of one size; coordinates in pixels of the crop.

    Attributes:
        images (Tensor): ``(B, 3, H, W)`` float RGB, ``(pixel - mean) / std`` with the system's ``mean`` and ``std``.
        keypoints (Tensor): ``(B, K, 2)`` ``(x, y)``; arbitrary for unlabelled joints.
        visible (Tensor): ``(B, K)`` bool: labelled, occluded or not.
        occluded (Tensor or None): ``(B, K)`` bool: labelled but not visible.
        others (Tensor or None): ``(B, P, K, 2)`` the other people in each crop; NaN: no person or no label.
    """

    images: torch.Tensor
    keypoints: torch.Tensor
    visible: torch.Tensor
    occluded: torch.Tensor | None = None
    others: torch.Tensor | None = None

    def everybody(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keypoints ``(B, 1 + P, K, 2)`` of the person in question and the others, and whether they are labelled."""
        keypoints, labelled = self.keypoints[:, None], self.visible[:, None].bool()
        if self.others is None:
            return keypoints, labelled
        known = self.others.isfinite().all(-1)
        return torch.cat((keypoints, self.others.to(keypoints.dtype)), 1), torch.cat((labelled, known), 1)

    def to(self, *args: Any, **kwargs: Any) -> "Batch":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Batch(**{n: v if v is None else v.to(*args, **kwargs) for n, v in values.items()})


@dataclass(frozen=True, kw_only=True)
class SystemConfig:
    """The options of a system, which subclasses extend; presets are instances of them.

    Lists, as read from JSON, become tuples.

    Attributes:
        input_size: ``(height, width)`` of the crops.
    """

    input_size: tuple[int, int] = (256, 256)

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _hashable(getattr(self, field.name)))


def _hashable(value: object) -> object:
    return tuple(_hashable(v) for v in value) if isinstance(value, (list, tuple)) else value


class System(nn.Module):
    """A pose system.

    ``forward(images)`` returns the outputs of the network, stage by stage; ``losses`` compares them with the labels and
    ``poses`` decodes them.

    Attributes:
        num_joints (int): the number of joints, K.
        input_size (tuple[int, int]): ``(height, width)`` of the crops it is designed for.
        mean, std (tuple[float, float, float]): of RGB pixels from 0 to 255.
        phases (tuple[str, ...]): the phases of training, in order; usually one.
        joint_layers (tuple[str, ...]): names of layers with one output, or as many each, per joint, in joint order.
    """

    input_size: tuple[int, ...]
    num_joints: int

    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    phases: tuple[str, ...] = ("joint",)
    joint_layers: tuple[str, ...] = ()
    presets: ClassVar[Mapping[str, SystemConfig]] = {"paper": SystemConfig(), "compact": SystemConfig()}

    def __init__(self, num_joints: int, input_size: tuple[int, int]) -> None:
        super().__init__()
        self.num_joints, self.input_size = int(num_joints), tuple(input_size)
        if any(side < 1 for side in self.input_size):
            raise ValueError(f"{type(self).__name__}: input_size must be positive, got {self.input_size}")

    def _check_input_size(self, unit: int) -> None:
        """Raises ValueError unless height and width of ``input_size`` are multiples of ``unit``."""
        if any(side % unit for side in self.input_size):
            raise ValueError(f"{type(self).__name__}: input_size must be multiples of {unit}, got {self.input_size}")

    @classmethod
    def options_of(cls, skeleton: Skeleton) -> dict[str, Any]:
        """The options that depend on the joints of a :class:`pypose_ops.skeletons.Skeleton`."""
        return {}

    def begin_phase(self, phase: str | None, batches: Iterable[Batch]) -> None:
        """Prepares one of ``phases``: selects the parameters to train and measures statistics of the training data.

        Args:
            phase (str): one of ``phases``.
            batches: an iterable of :class:`Batch` over the training data, without augmentation.
        """

    def losses(self, batch: Batch, phase: str | None = None) -> dict[str, torch.Tensor]:
        """The terms of the loss by name, scalars; training minimises their sum.

        Args:
            batch (Batch): the crops.
            phase (str or None): one of ``phases``; None: the last.
        """
        raise NotImplementedError

    def poses(self, images: torch.Tensor, *, flip_pairs: Sequence[tuple[int, int]] | None = None) -> list[Peaks]:
        """Predicts the joints in pixels of the crop: one :class:`pypose_ops.Peaks` per stage, the last one is final.

        Args:
            images (Tensor): as :class:`Batch`.
            flip_pairs (list[tuple[int, int]] or None): average with the prediction of the mirrored crop.
        """
        raise NotImplementedError

    def poses_so_far(self, images: torch.Tensor, phase: str) -> list[Peaks]:
        """The :meth:`poses` of the stages that have been trained by the end of a phase, for its validation.

        By default of all stages; systems whose later stages are expensive leave them out.

        Args:
            images (Tensor): as :class:`Batch`.
            phase (str): one of ``phases``.
        """
        return self.poses(images)

"""What training, evaluation and prediction need of a pose system, whichever it is."""

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
        keypoints (Tensor): ``(B, K, 2)`` ``(x, y)``; anything where a joint is not labelled.
        visible (Tensor): ``(B, K)`` bool: the joint is labelled (occluded or not) and counts.
        occluded (Tensor or None): ``(B, K)`` bool: labelled, but not to be seen.
        others (Tensor or None): ``(B, P, K, 2)`` the other people in each crop, NaN where there is nobody or no label.
    """

    images: torch.Tensor
    keypoints: torch.Tensor
    visible: torch.Tensor
    occluded: torch.Tensor | None = None
    others: torch.Tensor | None = None

    def to(self, *args: Any, **kwargs: Any) -> "Batch":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Batch(**{n: v if v is None else v.to(*args, **kwargs) for n, v in values.items()})


@dataclass(frozen=True, kw_only=True)
class SystemConfig:
    """Options of a system: each has a subclass with its own. Presets are instances of it.

    Lists, as json holds them, become tuples.

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

    ``forward(images)`` gives what the network gives, stage by stage; ``losses`` and ``poses`` say what that is compared
    with and where it puts the joints.

    Attributes:
        num_joints (int): K.
        input_size (tuple[int, int]): ``(height, width)`` of the crops that it was designed for.
        mean, std (tuple[float, float, float]): of RGB pixels from 0 to 255.
        phases (tuple[str, ...]): the parts of training, in order; one part unless the paper has more.
        joint_layers (tuple[str, ...]): names of layers with one output per joint, on whose order nothing else depends.
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

    @classmethod
    def options_of(cls, skeleton: Skeleton) -> dict[str, Any]:
        """The arguments that follow from a :class:`pypose_ops.skeletons.Skeleton`'s joints, where there are any."""
        return {}

    def begin_phase(self, phase: str | None, batches: Iterable[Batch]) -> None:
        """Prepares one of ``phases``: which parameters are trained, and what is measured on the training data first.

        Args:
            phase (str): one of ``phases``.
            batches: an iterable of :class:`Batch` over the training data, without augmentation.
        """

    def losses(self, batch: Batch, phase: str | None = None) -> dict[str, torch.Tensor]:
        """The terms of the loss by name, scalars; their sum is what is minimised.

        Args:
            batch (Batch): the crops.
            phase (str or None): one of ``phases``; None is the last.
        """
        raise NotImplementedError

    def poses(self, images: torch.Tensor, *, flip_pairs: Sequence[tuple[int, int]] | None = None) -> list[Peaks]:
        """The joints in pixels of the crop: one :class:`pypose_ops.Peaks` per stage, the last one is the answer.

        Args:
            images (Tensor): as :class:`Batch`.
            flip_pairs (list[tuple[int, int]] or None): with them the mirrored crop is looked at too.
        """
        raise NotImplementedError

"""A system that trains in a moment, for tests of training; as a program it is the command line that knows it."""

import sys
from dataclasses import dataclass

import torch
from torch import nn

from pypose_ops import Peaks, gaussian_heatmaps, soft_argmax
from pypose_ops.models import SYSTEMS, System, SystemConfig


@dataclass(frozen=True, kw_only=True)
class TinyConfig(SystemConfig):
    width: int = 4
    dropout: float = 0.1
    input_size: tuple[int, int] = (32, 32)


class Tiny(System):
    """Two convolutional stages, trained one after the other; no normalisation, so that half batches can be added up.

    The second phase measures something on the training data first, which is not part of its state.
    """

    phases = ("coarse", "fine")
    presets = {"paper": TinyConfig(width=8), "compact": TinyConfig()}

    def __init__(self, num_joints, config):
        super().__init__(num_joints, config.input_size)
        width, dropout = config.width, config.dropout
        self.coarse = nn.Sequential(nn.Conv2d(3, width, 7, 4, 3), nn.ReLU(), nn.Conv2d(width, num_joints, 5, 1, 2))
        self.fine = nn.Sequential(nn.Dropout(dropout), nn.Conv2d(num_joints, num_joints, 3, 1, 1))
        self.measured = 1.0

    def begin_phase(self, phase, batches):
        self.coarse.requires_grad_(phase == "coarse")
        self.fine.requires_grad_(phase == "fine")
        if phase == "fine":
            with torch.no_grad():
                maps = torch.stack([self.coarse(batch.images).abs().mean() for batch in batches])
            self.measured = float(maps.mean())

    def forward(self, images):
        first = self.coarse(images)
        return [first, first + self.measured * self.fine(first)]

    def losses(self, batch, phase=None):
        maps = self(batch.images)[0 if phase == "coarse" else 1]
        target = gaussian_heatmaps(batch.keypoints / 4, 1.0, maps.shape[2:], visible=batch.visible)
        each = (maps - target).square().mean((2, 3)) * batch.visible
        return {"maps": each.sum() / each.numel()}  # of all joints, so that every half batch weighs the same

    def poses(self, images, *, flip_pairs=None):
        return [Peaks(4 * soft_argmax(maps, temperature=0.1), maps.amax((2, 3))) for maps in self(images)]


def register():
    """Makes ``tiny`` a name of a system."""
    SYSTEMS["tiny"] = "tiny:Tiny"
    sys.modules["pypose_ops.models.tiny"] = sys.modules[__name__]


if __name__ == "__main__":
    from pypose_ops.cli.main import main

    register()
    torch.set_num_threads(1)
    sys.exit(main())

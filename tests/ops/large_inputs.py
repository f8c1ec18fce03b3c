"""Batches past 2^31 elements: what tests/ops/test_<operator>.py describe theirs with, and test_large.py runs."""

from dataclasses import dataclass

import torch

H, W, K = 64, 48, 17
HALF = torch.float16
LIMBS = [(0, 1), (1, 2), (2, 3)]
SPRINGS = torch.tensor([[2.0, 3.0, 0.05, 0.05], [-1.0, 2.0, 0.1, 0.1]])


@dataclass(frozen=True)
class Case:
    """An operator on a batch.

    Attributes:
        call: function of the batch's tensors.
        inputs: functions of the number of items and the device, one for each tensor.
        elements: of the largest tensor, for each item.
        grad: the gradient of the first tensor too.
        inside: the largest tensor is one that the operator keeps for its backward.
    """

    call: object
    inputs: tuple
    elements: int
    grad: bool = False
    inside: bool = False


def rows(*shape, scale=1.0, dtype=torch.float32):
    """Random numbers from 0 to ``scale``; every 61st item is the same, so that they are made of a few."""

    def make(items, device):
        few = scale * torch.rand(61, *shape, generator=torch.Generator().manual_seed(2))
        return few.to(device, dtype)[torch.arange(items, device=device) % 61]

    return make


keypoints, maps = rows(K, 2, scale=45.0), rows(K, H, W, dtype=HALF)
draw = {"size": (H, W), "dtype": HALF}


def tree(op, maps):
    """An operator on trees of three joints, which keeps that many maps of an item for its backward."""
    return Case(
        lambda u: op(u, LIMBS[:2], SPRINGS.to(u.device)), (rows(3, H, W, dtype=HALF),), maps * H * W, True, True
    )

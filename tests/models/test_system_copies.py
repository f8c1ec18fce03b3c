"""Losses and poses of every system, and the crops of training, copy no constants from the host after the first call."""

import pytest
import torch
from device_copies import assert_no_copies
from system_contract import some_people

from pypose_ops import skeletons
from pypose_ops.models import SYSTEMS, build, system_class
from pypose_ops.models.training.crops import DRAWS, Augmentation, Crops
from pypose_ops.models.training.loading import Loaded

PAIRS = skeletons.LSP.flip_pairs


@pytest.mark.parametrize("name", SYSTEMS)
def test_systems(where, name):
    options = system_class(name).options_of(skeletons.LSP)
    system = build(name, len(skeletons.LSP), preset="compact", **options).to(where)
    batch = some_people(system).to(where)

    def call():
        for phase in system.phases:
            system.train()
            sum(system.losses(batch, phase).values()).backward()
        system.eval()
        for pairs in (None, PAIRS):
            system.poses(batch.images, flip_pairs=pairs)

    assert_no_copies(where, call)


@pytest.mark.parametrize("augmentation", (None, Augmentation()))
def test_a_training_step(where, augmentation):
    """Crops, loss and optimiser; the images of a batch are on the device already."""
    system = build("stacked_hourglass", len(skeletons.LSP), preset="compact").to(where)
    optimizer = torch.optim.AdamW(system.parameters(), foreach=True, capturable=where.type == "cuda")
    crops = Crops(system, skeletons.LSP, augmentation)
    sizes = [(40, 30), (20, 50), (40, 30)]
    loaded = Loaded(
        pixels=torch.zeros(sum(h * w * 3 for h, w in sizes), dtype=torch.uint8), sizes=sizes, index=torch.arange(3),
        keypoints=30 * torch.rand(3, 14, 2), visible=torch.ones(3, 14, dtype=torch.uint8),
        boxes=torch.tensor([[1.0, 2.0, 20.0, 30.0]]).repeat(3, 1), padding=torch.full((3,), 1.25),
        others=torch.rand(3, 2, 14, 2), bad=[],
    ).to(where)  # fmt: skip
    draws = None if augmentation is None else torch.rand(3, DRAWS).to(where)

    def step():
        batch, _ = crops(loaded, draws)
        sum(system.losses(batch).values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    assert_no_copies(where, step)

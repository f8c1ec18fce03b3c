"""What every pose system of ``pypose_ops.models`` must do, checked the same way."""

import torch

from pypose_ops import skeletons
from pypose_ops.models import Batch


def some_people(system, count=3, joints=14):
    """Noise with joints in it: one is not labelled (NaN), one person has none, others are around."""
    height, width = system.input_size
    keypoints = torch.rand(count, joints, 2) * torch.tensor([width - 1.0, height - 1.0])
    visible = torch.ones(count, joints, dtype=torch.bool)
    keypoints[0, 1], visible[0, 1] = float("nan"), False
    visible[-1] = False
    others = torch.rand(count, 2, joints, 2) * width
    others[0] = float("nan")
    return Batch(torch.randn(count, 3, height, width), keypoints, visible, others=others)


def check_phases(system, batch):
    """Losses are finite scalars; their gradients reach what the phase trains, and nothing else."""
    for phase in system.phases:
        system.begin_phase(phase, [batch])
        system.train()
        system.zero_grad()
        losses = system.losses(batch, phase)
        assert losses and all(loss.dim() == 0 and loss.isfinite() for loss in losses.values())
        sum(losses.values()).backward()
        for name, parameter in system.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None and parameter.grad.isfinite().all(), f"{phase}: {name}"
                assert parameter.grad.any(), f"{phase}: no gradient reaches {name}"
            else:
                assert parameter.grad is None, f"{phase}: a gradient reaches {name}"
        assert any(p.requires_grad for p in system.parameters())


def check_poses(system, batch, stages):
    """One set of finite peaks per stage; a mirrored image gives the mirrored pose of both views."""
    system.eval()
    pairs = skeletons.LSP.flip_pairs
    images = batch.images
    for flip_pairs in (None, pairs):
        peaks = system.poses(images, flip_pairs=flip_pairs)
        assert len(peaks) == stages
        for coords, scores in peaks:
            assert coords.shape == (*batch.visible.shape, 2) and scores.shape == batch.visible.shape
            # A map without a positive pixel has no joint: NaN with a score of 0.
            known = coords.isfinite().all(-1) | (coords.isnan().all(-1) & (scores == 0))
            assert known.all() and scores.isfinite().all() and not coords.requires_grad


def check_compile(system, batch):
    """The forward pass is one graph, and the compiled one agrees."""
    system.eval()
    flat = lambda states: torch.utils._pytree.tree_leaves(states)  # noqa: E731
    with torch.no_grad():
        expected = system(batch.images)
        torch._dynamo.reset()
        found = torch.compile(system, backend="aot_eager", fullgraph=True)(batch.images)
    for a, b in zip(flat(expected), flat(found), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def count(module):
    return sum(p.numel() for p in module.parameters())

"""limb_masks under the contract of op_contract.py, and by hand."""

import large_inputs as large
import torch
from op_contract import check_op
from target_inputs import LIMB_BAD, PAF_BATCH, bad, limb_samples

import pypose_ops
from pypose_ops import limb_masks, reference

TestLimbMasks = check_op(
    limb_masks,
    reference.limb_masks,
    limb_samples(),
    bad=[bad("limb_masks", *row) for row in LIMB_BAD],
    batched=PAF_BATCH,
    dtype_argument="dtype",
)


def test_masks_by_hand(device):
    keypoints = torch.tensor([[[1.0, 2.0], [3.0, 2.0], [1.0, 2.0]]], device=device)
    capsule, disc = limb_masks(keypoints, [(0, 1), (0, 2)], 1.0, (5, 6))[0].cpu()
    expected = torch.zeros(5, 6)
    expected[1, 1:4] = expected[3, 1:4] = 1
    expected[2, 0:5] = 1
    torch.testing.assert_close(capsule, expected)
    expected[:, 2:] = 0
    expected[2, 2] = 1
    torch.testing.assert_close(disc, expected)


LARGE = large.Case(
    lambda k: pypose_ops.limb_masks(k, large.LIMBS, 2.0, **large.draw), (large.keypoints,), 3 * large.H * large.W
)

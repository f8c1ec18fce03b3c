"""Tensors past 2^31 elements: the first item, those around element 2^31 and the last are what they are alone.

Every case is a batch so long that its largest tensor passes 2^31 elements, 4 to 17 GB a tensor: on a GPU only. On the
CPU the same cases run with a few items, as a rehearsal.
"""

from dataclasses import dataclass

import pytest
import torch
from contract_tools import is_floating, only_on, same_bits
from torch.utils._pytree import tree_leaves

import pypose_ops as ops

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


def loss(pred, keypoints):
    return ops.heatmap_mse_loss(pred, keypoints, 2.0, reduction="none")


def messages(unary):
    prior, bias = torch.ones(2, 3, 3, device=unary.device) / 9, torch.full((2,), 1e-3, device=unary.device)
    return ops.mrf_message_passing(unary, prior, bias, [(0, 1), (1, 0)], floor=0.9)


def crops(images, shift):
    """One patch of each image."""
    transforms = torch.eye(2, 3, device=images.device) + shift[..., None] * images.new_tensor([0.0, 0.0, 1.0])
    return ops.crop_patches(images, transforms.float(), (H, W))


def limb_scores(pafs, coords):
    counts = torch.full(coords.shape[:2], coords.shape[2], device=coords.device)
    return ops.score_limbs(pafs, ops.LocalPeaks(coords, coords[..., 0], counts), LIMBS)


keypoints, maps = rows(K, 2, scale=45.0), rows(K, H, W, dtype=HALF)
draw = {"size": (H, W), "dtype": HALF}
CASES = {
    "gaussian_heatmaps": Case(lambda k: ops.gaussian_heatmaps(k, 2.0, **draw), (keypoints,), K * H * W, True),
    "heatmap_mse_loss": Case(loss, (maps, keypoints), K * H * W, True),
    "part_affinity_fields": Case(
        lambda k: ops.part_affinity_fields(k, LIMBS, 2.0, profile="trt_pose", **draw), (keypoints,), 6 * H * W, True
    ),
    "limb_masks": Case(lambda k: ops.limb_masks(k, LIMBS, 2.0, **draw), (keypoints,), 3 * H * W),
    "offset_heatmaps": Case(lambda k: ops.offset_heatmaps(k, 3.5, **draw), (keypoints,), 3 * K * H * W, True),
    "simcc_labels": Case(
        lambda k: ops.simcc_labels(k, 6.0, (H, W), center="exact", dtype=HALF), (keypoints,), K * 2 * H, True
    ),
    "decode_heatmaps": Case(ops.decode_heatmaps, (maps,), K * H * W),
    "find_peaks": Case(ops.find_peaks, (maps,), K * H * W),
    "soft_argmax": Case(ops.soft_argmax, (maps,), K * H * W, True),
    "decode_simcc": Case(ops.decode_simcc, (rows(K, 1024, dtype=HALF), rows(K, 1024, dtype=HALF)), K * 1024),
    "crop_patches": Case(crops, (rows(3, H, W, dtype=HALF), rows(2)), 3 * H * W, True),
    "box_vote": Case(
        lambda b, w: ops.box_vote(b, w, (H, W)), (rows(5, 4, scale=40.0), rows(5, K)), K * H * W
    ),
    "mrf_message_passing": Case(messages, (rows(2, H, W, dtype=HALF),), 2 * H * W, True),
    "max_product": Case(
        lambda u: ops.max_product(u, LIMBS[:2], SPRINGS.to(u.device)), (rows(3, H, W, dtype=HALF),),
        8 * H * W, True, True,
    ),
    "sum_product": Case(
        lambda u: ops.sum_product(u, LIMBS[:2], SPRINGS.to(u.device)), (rows(3, H, W, dtype=HALF),),
        4 * H * W, True, True,
    ),
    "oks": Case(
        lambda p, t, a: ops.oks(p, t, a), (rows(100, K, 2), rows(100, K, 2), rows(100)), 100 * 100, True
    ),
    "oks_nms": Case(
        lambda k, s, a: ops.oks_nms(k, s, a, max_people=3), (rows(30, K, 2), rows(30), rows(30)), 30 * K * 2
    ),
    "score_limbs": Case(limb_scores, (rows(6, 8, 8, dtype=HALF), rows(4, 100, 2, scale=7.0)), 3 * 100 * 100),
}  # fmt: skip


def run(case, inputs):
    """Outputs, and the gradient of the first input for ones at all outputs."""
    if not case.grad:
        return tree_leaves(case.call(*inputs))
    first = inputs[0].detach().requires_grad_()
    outputs = tree_leaves(case.call(first, *inputs[1:]))
    smooth = [o for o in outputs if is_floating(o) and o.requires_grad]
    gradient = torch.autograd.grad(smooth, first, [o.new_ones(()).expand_as(o) for o in smooth])
    return [o.detach() for o in outputs] + list(gradient)


@only_on("cpu", "cuda")
@pytest.mark.parametrize("name", CASES)
def test_items_of_a_large_batch(device, name):
    case = CASES[name]
    border = (2**31 if device.type == "cuda" else 2**16) // case.elements
    items = border + 3
    inputs = [make(items, device) for make in case.inputs]
    whole = run(case, inputs)
    largest = max(t.numel() for t in (*whole, *inputs))
    assert case.inside or largest == case.elements * items, f"the largest tensor has {largest} elements"
    for i in {0, border - 1, border, border + 1, items - 1}:
        alone = run(case, [tensor[i : i + 1] for tensor in inputs])
        same_bits([w[i : i + 1] for w in whole], alone)
    del whole, inputs
    if device.type == "cuda":
        torch.cuda.empty_cache()


def test_every_operator_of_the_device_has_a_case():
    host = {"group_people", "group_by_tags"}
    assert CASES.keys() == set(ops.reference.__all__) - host

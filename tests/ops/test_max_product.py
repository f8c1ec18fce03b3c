"""max_product under the contract of op_contract.py, and by hand."""

import large_inputs as large
import pytest
import torch
from contract_tools import only_on
from op_contract import Sample, check_op
from tree_inputs import HOLED, NOTHING, OPTIONS, SAMPLES, D, E, U, bads

import pypose_ops
from pypose_ops import max_product, reference, sum_product

# Whole numbers, so that ties are ties on every device.
FLAT = torch.zeros(2, 3, 4, 5)


FLAT[:, 1, 2:, 1:3] = 2.0


TIED = (FLAT, [(0, 1), (1, 2)], torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 2.0, 1.0, 2.0]]))


MAX_SAMPLES = [
    *SAMPLES,
    Sample("equal scores", TIED, exact=True),
    Sample("equal scores from another root", TIED, {"root": 2}, exact=True),
]


TestMaxProduct = check_op(
    max_product,
    reference.max_product,
    MAX_SAMPLES,
    bad=bads("max_product"),
    second_order="max_product: double backward is not supported",
    **OPTIONS,
)


@only_on("cuda")
@pytest.mark.parametrize("op", (max_product, sum_product))
def test_tensors_on_two_devices_are_refused(device, op):
    with pytest.raises(ValueError, match=f"{op.__name__}: deformation must be on the same device as unary"):
        op(U.to(device), E, D)


@pytest.mark.parametrize("op", (max_product, sum_product), ids=lambda op: op.__name__)
@pytest.mark.parametrize("unary", (HOLED, NOTHING), ids=("holed", "nothing"))
def test_gradients_beside_what_is_impossible(device, op, unary):
    """Outputs of -inf rule out gradcheck; whatever gradient arrives there stays there."""
    results = []
    for call, to in ((op, device), (getattr(reference, op.__name__), "cpu")):
        leaves = [t.to(to).requires_grad_() for t in (unary, D)]
        outputs = [t for t in torch.utils._pytree.tree_leaves(call(leaves[0], E, leaves[1])) if t.requires_grad]
        torch.manual_seed(0)
        weights = [torch.randn(t.shape, dtype=t.dtype).to(to) for t in outputs]
        results.append([g.cpu() for g in torch.autograd.grad(outputs, leaves, weights)])
    torch.testing.assert_close(*results)
    assert not results[0][0][~unary.isfinite()].any()


@pytest.mark.parametrize("op", (max_product, sum_product), ids=lambda op: op.__name__)
def test_what_backward_needs_is_kept_only_for_a_gradient(device, op):
    """Steps or messages, the last output. Not kept, a gradient through torch.ops computes them again."""
    call = getattr(torch.ops.pypose_ops, op.__name__).default
    unary, springs, edges = U.to(device), D.to(device), [k for edge in E for k in edge]
    kept, not_kept = ([*call(unary, edges, springs, 0, keep)] for keep in (True, False))
    assert kept[-1].shape[1] == len(edges) and not_kept[-1].shape[1] == 0
    torch.testing.assert_close(kept[:-1], not_kept[:-1], rtol=0, atol=0, equal_nan=True)
    gradients = []
    for keep in (True, False):
        leaves = [t.clone().requires_grad_() for t in (unary, springs)]
        found = [t for t in call(leaves[0], edges, leaves[1], 0, keep)[:-1] if t.requires_grad]
        gradients.append(torch.autograd.grad([t[t.isfinite()].sum() for t in found], leaves))
    torch.testing.assert_close(*gradients, rtol=0, atol=0)

    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(tuple(t.shape)) or t, lambda t: t):
        op(unary.requires_grad_(), E, springs)
    assert tuple(kept[-1].shape) in sizes


LARGE = large.tree(pypose_ops.max_product, maps=8)

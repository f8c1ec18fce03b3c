"""Tensors past 2^31 elements: the first item, those around element 2^31 and the last equal those computed alone.

Every case is a batch so long that its largest tensor passes 2^31 elements, 4 to 17 GB a tensor: on a GPU only. On the
CPU the same cases run with a few items, as a rehearsal.
"""

import importlib

import pytest
import torch
from contract_tools import is_floating, only_on, same_bits
from torch.utils._pytree import tree_leaves

import pypose_ops as ops

HOST = {"group_people", "group_by_tags"}
# An operator's test file describes its case, see large_inputs.Case; one without fails here.
CASES = {name: importlib.import_module(f"test_{name}").LARGE for name in ops.reference.__all__ if name not in HOST}


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

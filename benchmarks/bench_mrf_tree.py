"""max_product and sum_product against their definitions and a copy of the maps.  pytest benchmarks/bench_mrf_tree.py"""

import bench_tools
import pytest
import torch
from bench_tools import Rotating, named

from pypose_ops import gaussian_heatmaps, max_product, reference, sum_product

pytestmark = pytest.mark.benchmark(max_time=0.6, min_rounds=3, warmup=False)
# A body of 17 joints in COCO's order, from the nose on.
EDGES = [(0, 1), (0, 2), (1, 3), (2, 4), (0, 5), (0, 6), (5, 7), (7, 9), (6, 8), (8, 10)]
EDGES += [(5, 11), (6, 12), (11, 13), (13, 15), (12, 14), (14, 16)]
SMALL, HEADLINE = (8, 17, 64, 48), (64, 17, 64, 48)
SHAPES = [(1, 17, 64, 48), SMALL, HEADLINE, (1, 17, 512, 512)]
OPS = {"max_product": (max_product, reference.max_product), "sum_product": (sum_product, reference.sum_product)}


def inputs(shape, device):
    batch, joints, height, width = shape
    places = torch.rand(batch, joints, 2) * torch.tensor([width - 1.0, height - 1.0])
    unary = gaussian_heatmaps(places, 2.0, (height, width)).clamp(min=1e-3).log()
    mean = 0.1 * height * torch.randn(joints - 1, 2)
    spread = 0.05 * height * (0.5 + torch.rand(joints - 1, 2))
    return unary.to(device), torch.cat([mean, 0.5 / spread**2], 1).to(device)


def leaves(result):
    return torch.utils._pytree.tree_leaves(result)


def step(call, unary, deformation):
    """Forward and backward from every differentiable output."""
    outputs = [t for t in leaves(call(unary, EDGES, deformation)) if t.requires_grad]
    return torch.autograd.grad(outputs, (unary, deformation), [torch.ones_like(t) for t in outputs])


def close(expected):
    def same(actual):
        for a, e in zip(actual, expected, strict=True):
            torch.testing.assert_close(a, e, rtol=1e-3, atol=1e-3 * max(1.0, e.abs().max().item()))

    return same


CASES = [(op, row, shape) for op in OPS for shape in SHAPES for row in ("op", "floor")]
CASES = [c for c in CASES if not (c[0] == "sum_product" and c[2] == SHAPES[-1])]
CASES += [(op, row, SMALL) for op in OPS for row in ("reference", "compile(reference)")]
TRAINED = [(op, row, SMALL) for op in OPS for row in ("op", "reference")]


def ids(cases):
    return [f"{op}-{named(shape)}-{row}" for op, row, shape in cases]


@pytest.mark.parametrize(("op", "row", "shape"), CASES, ids=ids(CASES))
def test_forward(benchmark, measure, device, op, row, shape):
    call, definition = OPS[op]
    if row == "compile(reference)":
        if benchmark.disabled:
            pytest.skip("torch.compile(reference) is only compiled to be timed: it holds none of our code")
        torch._dynamo.reset()
        definition = torch.compile(definition, dynamic=False)
    torch.manual_seed(0)
    nbytes = 4 * bench_tools.pixels(shape)
    same = None
    if row == "floor":
        run = Rotating(lambda unary, deformation: unary.clone(), lambda: inputs(shape, device), device, nbytes)
    else:
        chosen = call if row == "op" else definition
        run = Rotating(lambda u, d: chosen(u, EDGES, d), lambda: inputs(shape, device), device, nbytes)
        if row == "op" and shape == SMALL:
            expected = leaves(OPS[op][1](run.inputs[0][0], EDGES, run.inputs[0][1]))
            check = close(expected)

            def same(actual):
                check(leaves(actual))

    measure(run, op, shape, "forward", row, device, 2 * nbytes, same)


@pytest.mark.parametrize(("op", "row", "shape"), TRAINED, ids=ids(TRAINED))
def test_forward_backward(measure, device, op, row, shape):
    call, definition = OPS[op]
    torch.manual_seed(0)
    data = [t.requires_grad_() for t in inputs(shape, device)]
    chosen = call if row == "op" else definition
    run = Rotating(lambda *d: step(chosen, *d), lambda: data, device, data[0].nbytes)
    same = close(step(definition, *data)) if row == "op" else None
    measure(run, op, shape, "forward+backward", row, device, 4 * data[0].nbytes, same)

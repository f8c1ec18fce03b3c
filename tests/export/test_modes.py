"""Operator by mode: the table of docs/deployment.md, every cell of it run.

Derivatives under ``torch.func`` are in tests/ops/test_transforms.py, ONNX in test_onnx.py, AOTInductor in
test_programs.py.
"""

import re
from pathlib import Path

import pytest
import torch
from cases import CASES

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
from runtimes import DYNAMIC, Function, leaves  # noqa: E402

import pypose_ops.onnx  # noqa: E402
from pypose_ops.ops._autograd import _functions  # noqa: E402

DOCS = Path(__file__).parents[2] / "docs" / "deployment.md"
DIFFERENTIABLE = {name for name in pypose_ops.onnx.OPERATORS if f"pypose_ops::{name}" in _functions}
NAMES = [name for name in CASES if name not in ("decode_heatmaps-quarter", "decode_heatmaps-parabola")]


def same(found, wanted):
    for a, b in zip(leaves(found), leaves(wanted), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_torch_export(name):
    case = CASES[name]()
    sizes = tuple({axis: DYNAMIC for axis in axes} or None for axes in case.dynamic)
    program = torch.export.export(Function(case.function), case.inputs, dynamic_shapes=(sizes,)).module()
    for inputs in (case.inputs, *case.others):
        same(program(*inputs), case.function(*inputs))


def test_saved_programs_return_named_results(tmp_path):
    class Decode(torch.nn.Module):
        def forward(self, maps):
            return pypose_ops.find_peaks(maps), pypose_ops.decode_heatmaps(maps, return_covariance=True)

    maps = torch.rand(2, 3, 16, 12)
    torch.export.save(torch.export.export(Decode(), (maps,)), tmp_path / "decode.pt2")
    peaks, best = torch.export.load(tmp_path / "decode.pt2").module()(maps)
    assert torch.equal(peaks.counts, pypose_ops.find_peaks(maps).counts)
    torch.testing.assert_close(
        best.covariance, pypose_ops.decode_heatmaps(maps, return_covariance=True).covariance, equal_nan=True
    )


@pytest.mark.parametrize("name", NAMES)
def test_torch_compile(name):
    case = CASES[name]()
    torch._dynamo.reset()
    compiled = torch.compile(Function(case.function), fullgraph=True, dynamic=True, backend="aot_eager")
    for inputs in (case.inputs, *case.others):
        same(compiled(*inputs), case.function(*inputs))


@pytest.mark.parametrize("name", NAMES)
def test_vmap(name):
    """Over every input at once, as a loop does it."""
    case = CASES[name]()
    other = [torch.stack([t, t]) for t in case.inputs]
    found = torch.func.vmap(lambda *tensors: tuple(leaves(case.function(*tensors))))(*other)
    wanted = leaves(case.function(*case.inputs))
    same(found, [torch.stack([t, t]) for t in wanted])


def test_the_table_in_the_docs_is_this_one():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", DOCS.read_text(), re.MULTILINE))
    assert set(rows) == {name.split("-")[0] for name in CASES}
    for name, row in rows.items():
        cells = [cell.strip() for cell in row.split("|")]
        assert cells == ["yes"] * 3 + ["yes" if name in DIFFERENTIABLE else "no derivative"], name

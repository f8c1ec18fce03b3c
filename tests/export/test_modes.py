"""Operator by mode: the table of docs/deployment.md, every cell of it run.

Derivatives under ``torch.func`` are in tests/ops/test_transforms.py, ONNX in test_onnx.py.
"""

import math
import re
from pathlib import Path

import pytest
import torch
from cases import CASES

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
from runtimes import DYNAMIC, Function, leaves  # noqa: E402

import pypose_ops.onnx  # noqa: E402
from pypose_ops.ops._autograd import _derivatives  # noqa: E402

DOCS = Path(__file__).parents[2] / "docs" / "deployment.md"
DIFFERENTIABLE = {name for name in pypose_ops.onnx.OPERATORS if f"pypose_ops::{name}" in _derivatives}
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


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """All cases in one package, as compiling takes half a minute, with what it returns for two sets of inputs."""
    torch.manual_seed(0)
    cases = {name: CASES[name]() for name in NAMES}
    counts = [len(case.inputs) for case in cases.values()]

    def everything(*tensors):
        given, outputs = iter(tensors), []
        for case, count in zip(cases.values(), counts, strict=True):
            outputs += leaves(case.function(*(next(given) for _ in range(count))))
        return outputs

    inputs = [t for case in cases.values() for t in case.inputs]
    sizes = [{axis: DYNAMIC for axis in axes} or None for case in cases.values() for axes in case.dynamic]
    program = torch.export.export(Function(everything), tuple(inputs), dynamic_shapes=(tuple(sizes),))
    path = str(tmp_path_factory.mktemp("aoti") / "everything.pt2")
    loaded = torch._inductor.aoti_load_package(torch._inductor.aoti_compile_and_package(program, package_path=path))
    found = {name: [] for name in cases}
    for turn in range(2):
        given = {name: [case.inputs, *case.others][min(turn, len(case.others))] for name, case in cases.items()}
        outputs = iter(loaded(*(t for each in given.values() for t in each)))
        for name, case in cases.items():
            wanted = leaves(case.function(*given[name]))
            found[name].append(([next(outputs) for _ in wanted], wanted))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_aotinductor(package, name):
    for outputs, wanted in package[name]:
        same(outputs, wanted)


def test_aotinductor_takes_infinite_thresholds(tmp_path):
    """A package holds no infinite numbers: the operators take None."""

    class Decode(torch.nn.Module):
        def forward(self, maps, rows):
            free = {"threshold": -math.inf, "max_offset": math.inf}
            return tuple(
                leaves(
                    [
                        pypose_ops.decode_heatmaps(maps, **free),
                        pypose_ops.decode_heatmaps(maps, refine="offset", radius=2.0, **free),
                        pypose_ops.find_peaks(maps, **free),
                        pypose_ops.find_peaks(maps, threshold=math.inf),
                        pypose_ops.decode_simcc(rows, rows, refine="dark", **free),
                    ]
                )
            )

    inputs = torch.rand(2, 3, 8, 8) - 2, torch.rand(2, 3, 16) - 2
    path = str(tmp_path / "decode.pt2")
    program = torch.export.export(Decode(), inputs)
    loaded = torch._inductor.aoti_load_package(torch._inductor.aoti_compile_and_package(program, package_path=path))
    found, wanted = loaded(*inputs), Decode()(*inputs)
    assert wanted[0].isfinite().all() and wanted[1].lt(0).all()  # without a threshold, there are peaks below 0
    same(found, wanted)


def test_the_table_in_the_docs_is_this_one():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", DOCS.read_text(), re.MULTILINE))
    assert set(rows) == {name.split("-")[0] for name in CASES}
    for name, row in rows.items():
        cells = [cell.strip() for cell in row.split("|")]
        assert cells == ["yes"] * 4 + ["yes" if name in DIFFERENTIABLE else "no derivative"], name

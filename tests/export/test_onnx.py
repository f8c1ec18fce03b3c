"""Every operator that infers as an ONNX file of standard operators, in two runtimes, against the operator itself."""

import tempfile
from pathlib import Path

import onnx
import pytest
import torch
from cases import CASES

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
from runtimes import RUNTIMES, Function, compare, exported, leaves  # noqa: E402

import pypose_ops  # noqa: E402
import pypose_ops.onnx  # noqa: E402


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Exports each case once."""
    made = {}

    def get(name):
        if name not in made:
            torch.manual_seed(0)
            case = CASES[name]()
            path = tmp_path_factory.mktemp("onnx") / f"{name}.onnx"
            made[name] = case, exported(case.function, case.inputs, path, *case.dynamic)
        return made[name]

    return get


@pytest.mark.parametrize("name", CASES)
def test_standard_operators_and_dynamic_sizes(files, name):
    case, path = files(name)
    model = onnx.load(path)
    assert {i.domain for i in model.opset_import} == {""} and not model.functions
    for value, axes in zip(model.graph.input, case.dynamic, strict=True):
        sizes = value.type.tensor_type.shape.dim
        assert all(bool(size.dim_param) == (axis in axes) for axis, size in enumerate(sizes)), value


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", CASES)
def test_the_same_numbers(files, name, runtime):
    case, path = files(name)
    run = RUNTIMES[runtime](path)
    for inputs in (case.inputs, *case.others):
        found, wanted = run(*inputs), leaves(case.function(*inputs))
        if case.ties and runtime == "openvino" and inputs is not case.inputs:
            found, wanted = ([out for i, out in enumerate(outs) if i % 3] for outs in (found, wanted))  # not the places
        compare(found, wanted, case.tolerance)


def test_every_operator_that_infers_is_there():
    """An operator is exported and has a case, unless it draws labels, measures a loss, or runs on the host."""
    training = {path.stem for path in (Path(__file__).parents[2] / "csrc" / "heatmaps").glob("*.cpp")}
    host = {"group_by_tags", "group_people"}
    names = {
        name.removeprefix("pypose_ops::").split(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("pypose_ops::")
    }
    public = {name for name in names if not name.startswith("_")}
    assert public - training - host <= set(pypose_ops.onnx.OPERATORS) <= public
    assert {name.split("-")[0] for name in CASES} == set(pypose_ops.onnx.OPERATORS)


def refused(function, *tensors, dynamic=(), **options):
    sizes = None if not dynamic else (tuple({a: torch.export.Dim.DYNAMIC for a in axes} or None for axes in dynamic),)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "refused.onnx"
        with pytest.raises(pypose_ops.onnx.ExportError) as error:
            pypose_ops.onnx.export(Function(function), tensors, path, dynamic_shapes=sizes, **options)
        assert not path.exists()
    return str(error.value)


def test_float64_is_refused():
    message = refused(pypose_ops.decode_heatmaps, torch.rand(2, 3, 8, 8).double())
    assert "decode_heatmaps: heatmaps" in message and "float64" in message
    message = refused(lambda k: pypose_ops.gaussian_heatmaps(k, 2.0, (8, 8), dtype=torch.float64), torch.rand(2, 3, 2))
    assert "gaussian_heatmaps: dtype" in message


def test_an_opset_below_the_minimum_is_refused():
    assert "opset_version must be at least 18, got 17" in refused(
        pypose_ops.decode_heatmaps, torch.rand(2, 3, 8, 8), opset_version=17
    )


def test_sizes_that_must_be_fixed_are_refused():
    def tree(unary, deformation):
        return pypose_ops.max_product(unary, [(0, 1)], deformation)

    def as_many_as_rows(maps):
        return torch.ops.pypose_ops.find_peaks.default(maps, None, 0.1, 1, maps.shape[2], 0, 11, 1.0, None, None, False)

    assert "max_product: K" in refused(tree, torch.rand(3, 2, 8, 8), torch.rand(1, 4), dynamic=((0, 1), ()))
    assert "find_peaks: max_peaks" in refused(as_many_as_rows, torch.rand(2, 3, 9, 8), dynamic=((2,),))


def test_antialiased_bicubic_crops_are_refused():
    def crop(image, transforms):
        return pypose_ops.crop_patches(image, transforms, (4, 4), mode="bicubic", antialias=True)

    message = refused(crop, torch.rand(1, 3, 8, 8), torch.eye(2, 3)[None])
    assert "crop_patches: mode='bicubic' with antialias=True has no ONNX translation" in message


def test_torch_takes_the_table():
    module = Function(pypose_ops.decode_heatmaps)
    table = pypose_ops.onnx.translations()
    program = torch.onnx.export(
        module, (torch.rand(2, 3, 8, 8),), dynamo=True, custom_translation_table=table, verbose=False
    )
    assert {node.domain for node in program.model.graph.all_nodes()} == {""}
    with pytest.raises(torch.onnx.OnnxExporterError):  # why there is a table
        torch.onnx.export(module, (torch.rand(2, 3, 8, 8),), dynamo=True, verbose=False)

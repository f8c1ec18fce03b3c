"""Every operator that infers as an ONNX file of standard operators, in two runtimes, against the operator itself."""

import tempfile
from pathlib import Path

import onnx
import pytest
import torch
from cases import CASES, POINTS_ONLY, with_dtype

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
from runtimes import RUNTIMES, Function, compare, exported, leaves  # noqa: E402
from tensorrt import OPSETS, outside  # noqa: E402

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


# docs/deployment.md names them: bytes are for inputs only.
BYTES = {f"{operator} of u" for operator in ("Gather", "Reshape", "Shape", "Transpose")}


@pytest.mark.parametrize("name", CASES)
def test_tensorrts_operator_table(files, name):
    model = onnx.load(files(name)[1])
    assert model.opset_import[0].version in OPSETS
    assert outside(model) <= (BYTES if name.startswith("crop_patches") else set())


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


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_openvinos_precision(files, precision):
    """With the hint the numbers are float32's on every CPU; the other way only where OpenVINO says it computed so."""
    case, path = files("decode_heatmaps-flipped")
    run = RUNTIMES["openvino"](path, precision)
    found, wanted = run(*case.inputs), leaves(case.function(*case.inputs))
    used = run.model.get_property("INFERENCE_PRECISION_HINT").to_string()
    assert used == "f32" or precision == "bf16"
    if used == "f32":
        compare(found, wanted, case.tolerance)


FIRST = {name.split("-")[0]: name for name in reversed(CASES) if not name.endswith(("-half", "-image", "-offset"))}
FIRST["crop_patches"] = "crop_patches-index"  # of feature maps
NARROW = [
    (name, torch.float16)
    for operator, name in FIRST.items()
    if operator not in POINTS_ONLY and f"{operator}-half" not in CASES
]
NARROW += [("decode_heatmaps-dark", torch.bfloat16), ("soft_argmax", torch.bfloat16)]


@pytest.mark.parametrize("name, dtype", NARROW)
def test_narrow_inputs(tmp_path, name, dtype):
    """NumPy has no bfloat16: the file rounds its inputs to it."""
    case = with_dtype(name, dtype)
    dtypes = [tensor.dtype for tensor in case.inputs]

    def function(*tensors):
        return case.function(*(t.to(dtype) for t, dtype in zip(tensors, dtypes, strict=True)))

    inputs = [t.float() if t.dtype == torch.bfloat16 else t for t in case.inputs]
    path = exported(function, inputs, tmp_path / "narrow.onnx", *case.dynamic)
    for runtime in RUNTIMES.values():
        compare(runtime(path)(*inputs), case.function(*case.inputs), case.tolerance)


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


@pytest.mark.parametrize("operator", pypose_ops.onnx.OPERATORS)
def test_float64_is_refused(operator):
    case = with_dtype(FIRST[operator], torch.float64)
    assert any(t.dtype == torch.float64 for t in case.inputs)
    message = refused(case.function, *case.inputs)
    assert message.startswith(f"{operator}: ") and "float64" in message and "ONNX" in message, message


def test_float64_outputs_are_refused():
    message = refused(lambda k: pypose_ops.gaussian_heatmaps(k, 2.0, (8, 8), dtype=torch.float64), torch.rand(2, 3, 2))
    assert "gaussian_heatmaps: dtype" in message


LIMBS = [(0, 1), (1, 2)]
POINTS = torch.rand(1, 2, 3, 2) * 8
WITHOUT_FORM = {
    "part_affinity_fields": lambda k: pypose_ops.part_affinity_fields(k, LIMBS, 1.0, (8, 8)),
    "limb_masks": lambda k: pypose_ops.limb_masks(k, LIMBS, 1.0, (8, 8)),
    "offset_heatmaps": lambda k: pypose_ops.offset_heatmaps(k, 2.0, (8, 8)),
    "simcc_labels": lambda k: pypose_ops.simcc_labels(k[0], 2.0, (8, 8)),
    "heatmap_mse_loss": lambda k: pypose_ops.heatmap_mse_loss(k.new_zeros(2, 3, 8, 8), k[0], 2.0),
}


@pytest.mark.parametrize("name", WITHOUT_FORM)
def test_operators_without_a_form_in_onnx_are_refused(name):
    assert refused(WITHOUT_FORM[name], POINTS).startswith(f"{name}: labels, losses and operators on the host")


def test_every_other_operator_is_refused_by_name():
    table = pypose_ops.onnx.translations()
    others = set(pypose_ops.ops.__all__) - set(pypose_ops.onnx.OPERATORS)
    others = {name for name in others if hasattr(torch.ops.pypose_ops, name)}
    assert others == {*WITHOUT_FORM, "group_people", "group_by_tags"}
    for name in others:
        with pytest.raises(pypose_ops.onnx.ExportError, match=f"^{name}: "):
            table[getattr(torch.ops.pypose_ops, name).default](POINTS)


def test_an_opset_below_the_minimum_is_refused():
    assert "opset_version must be at least 18, got 17" in refused(
        pypose_ops.decode_heatmaps, torch.rand(2, 3, 8, 8), opset_version=17
    )


def test_sizes_that_must_be_fixed_are_refused():
    def tree(unary, deformation):
        return pypose_ops.max_product(unary, [(0, 1)], deformation)

    def as_many_as_rows(maps):
        return torch.ops.pypose_ops.find_peaks.default(maps, None, 0.1, 1, maps.shape[2], 0, 11, 1.0, None, None, False)

    def marginals(unary, deformation):
        return pypose_ops.sum_product(unary, [(0, 1)], deformation)

    two = torch.rand(3, 2, 9, 8)
    assert "sum_product: K" in refused(marginals, two, torch.rand(1, 4), dynamic=((0, 1), ()))
    assert "mrf_message_passing: the size of prior" in refused(
        lambda u, p, b: pypose_ops.mrf_message_passing(u, p, b, [(0, 1)]),
        two, torch.rand(1, 5, 5), torch.rand(1), dynamic=((), (1,), ()),
    )  # fmt: skip
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

"""One convention each (docs/conventions.md), read from the signatures and sources of the package."""

import ast
import inspect
import math
import re
import types
import typing
from pathlib import Path

import pytest
import torch

import pypose_ops
from pypose_ops import codecs, geometry, metrics, models, reference, skeletons, viz
from pypose_ops.models.modules import joint_graphs, layers
from pypose_ops.models.systems.system import SystemConfig

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = (pypose_ops, codecs, geometry, metrics, models, skeletons, viz, layers, joint_graphs)


def functions():
    """(name, function) of everything public: functions, and the methods of classes."""
    for module in PUBLIC:
        for name in getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")]):
            value = getattr(module, name)
            if not getattr(value, "__module__", "").startswith("pypose_ops"):
                continue
            if inspect.isfunction(value):
                yield f"{module.__name__}.{name}", value
            elif inspect.isclass(value):
                for method, found in vars(value).items():
                    if inspect.isfunction(found) and (method == "__init__" or not method.startswith("_")):
                        yield f"{module.__name__}.{name}.{method}", found


def parameters():
    """(name of the function, parameter) of all of them."""
    for name, function in functions():
        for parameter in inspect.signature(function).parameters.values():
            yield name, parameter


def test_there_is_something_to_look_at():
    names = {name for name, _ in functions()}
    assert len(names) > 150 and {"pypose_ops.find_peaks", "pypose_ops.codecs.MegviiHeatmap.encode"} <= names


def test_what_is_missing_is_nan():
    defaults = {name: p.default for name, p in parameters() if p.name == "missing"}
    assert len(defaults) >= 4 and all(math.isnan(value) for value in defaults.values()), defaults
    maps = torch.zeros(1, 2, 8, 6)
    for coords, scores in (pypose_ops.decode_heatmaps(maps), pypose_ops.decode_simcc(maps[:, :, 0], maps[:, :, 1])):
        assert coords.isnan().all() and not scores.any()
    assert pypose_ops.find_peaks(maps).coords.isnan().all()


def test_none_is_none_and_auto_is_auto():
    wrong = [(name, p) for name, p in parameters() if p.default in ("none", "None", "default", "off", "automatic")]
    assert not wrong
    defaults = {(name, p.name): p.default for name, p in parameters()}
    for option in ("max_offset", "kernel_size"):
        of_operators = {value for (name, p), value in defaults.items() if p == option and name.count(".") == 1}
        assert of_operators == {"auto"}, (option, of_operators)
    assert {value for (_, p), value in defaults.items() if p in ("compat", "window", "transform")} <= {
        None, inspect.Parameter.empty
    }  # fmt: skip


def test_the_same_name_means_the_same():
    """``num_joints`` is a number and ``joints`` are joints; a limb has a radius; libraries are named by ``compat``."""
    banned = {"parity", "peer", "njoints", "n_joints", "limb_width", "picture", "pictures"}
    for name, parameter in parameters():
        annotation = str(parameter.annotation)
        assert parameter.name not in banned, f"{name}({parameter.name})"
        if parameter.name == "joints":
            assert annotation not in ("int", "<class 'int'>") and "int |" not in annotation, (
                f"{name}: joints is a count"
            )
        if parameter.name == "num_joints":
            assert annotation in ("int", "<class 'int'>", "int | None"), f"{name}: num_joints is no count"
        if parameter.name == "limb_radius":
            assert "float" in annotation, f"{name}: {annotation}"


def test_options_are_keywords():
    """``visible`` too, but for codecs, whose ``encode`` has MMPose's order."""
    optional = [(name, p) for name, p in parameters() if p.name == "visible" and p.default is None]
    kinds = {name: p.kind for name, p in optional if ".codecs." not in name}
    assert len(kinds) > 10
    assert all(kind == inspect.Parameter.KEYWORD_ONLY for kind in kinds.values()), kinds


def results_of(function):
    """The named tuples and typed dicts that a function may return."""
    found = typing.get_type_hints(function, vars(inspect.getmodule(function))).get("return")
    return typing.get_args(found) if isinstance(found, types.UnionType) else (found,)


def test_results_are_named_in_one_order():
    order = ("peaks", "coords", "joint_scores", "scores", "joint_counts", "counts")
    seen = set()
    for name in reference.__all__:
        for kind in results_of(getattr(pypose_ops, name)):
            assert kind is torch.Tensor or hasattr(kind, "_fields") or typing.get_origin(kind) is tuple, (name, kind)
            fields = [field for field in getattr(kind, "_fields", ()) if field in order]
            assert fields == sorted(fields, key=order.index), f"{name}: {kind.__name__} has {kind._fields}"
            seen.add(getattr(kind, "__name__", ""))
    assert {"Peaks", "PeaksWithCovariance", "LocalPeaks", "People", "NmsResult", "BestPose"} <= seen


def test_metrics_return_typed_dicts():
    for name in metrics.__all__:
        value = getattr(metrics, name)
        call = getattr(value, "compute", None) if inspect.isclass(value) else value
        for kind in results_of(call) if call else ():
            assert kind is torch.Tensor or hasattr(kind, "_fields") or typing.is_typeddict(kind), (name, kind)
    scores = metrics.pck(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2))
    assert scores.keys() == metrics.JointScores.__annotations__.keys()


@pytest.mark.parametrize("name", reference.__all__)
def test_errors_are_documented(name):
    """One class per kind of fault, in the section of every operator."""
    text = inspect.getdoc(getattr(pypose_ops, name)).partition("Raises:")[2].partition("Example")[0]
    assert ("TypeError" in text and "ValueError" in text) or re.search(r"As (in )?:func:", text), text or "no Raises"


# Not the fault of an argument: (file, class) of those that are neither TypeError, ValueError nor InputError.
OTHER_ERRORS = {
    ("pypose_ops/metrics/accumulators.py", "RuntimeError"),  # compute() before any update()
    ("pypose_ops/ops/_autograd.py", "RuntimeError"),  # a CUDA kernel cannot start
    ("pypose_ops/reference/crop_patches.py", "RuntimeError"),  # cannot be exported
    ("models/systems/system.py", "NotImplementedError"),
    ("models/deployment.py", "NotImplementedError"),
    ("pypose_ops/integrations/_mmpose_people.py", "NotImplementedError"),
    ("cli/train_run.py", "KeyError"),  # caught beside it
}


def raised(path):
    """The names of the classes that a module raises."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and node.exc is not None:
            call = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            yield call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "")


def test_one_class_per_kind_of_fault():
    kinds = ("RuntimeError", "KeyError", "IndexError", "AssertionError", "Exception", "NotImplementedError", "OSError")
    found = {
        (str(path.relative_to(ROOT)), kind)
        for folder in ("pypose_ops", "models", "cli")
        for path in (ROOT / folder).rglob("*.py")
        for kind in raised(path)
        if kind in kinds
    }
    assert found <= OTHER_ERRORS, found - OTHER_ERRORS


@pytest.mark.parametrize("name", [name for name in models.SYSTEMS if name != "tiny"])
def test_systems_take_a_config(name):
    kind = models.system_class(name)
    positional = list(inspect.signature(kind.__init__).parameters)
    assert positional == ["self", "num_joints", "config"]
    assert all(isinstance(config, SystemConfig) for config in kind.presets.values())


def test_the_page_names_what_is_tested_here():
    page = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
    words = ("missing=", '"auto"', "`None` means none", "TypeError", "InputError", "TypedDict", "num_joints", "compat=")
    assert all(word in page for word in words), [word for word in words if word not in page]

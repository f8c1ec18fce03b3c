"""The layout: an operator is one stem in every room, what CONTRIBUTING asks of the rest, and imports run downwards."""

import ast
import re
from pathlib import Path

import pytest
import torch
from fuzzing.registry import OPERATORS as FUZZED

import pypose_ops
from pypose_ops import codecs, datasets, models

ROOT = Path(__file__).resolve().parents[1]
OPERATORS = sorted(
    name.removeprefix("pypose_ops::").split(".")[0]
    for name in torch._C._dispatch_get_all_op_names()
    if name.startswith("pypose_ops::") and not name.startswith("pypose_ops::_")
)
# They run on the host whatever the device of their tensors: one copy of small tables (docs/grouping.md).
ON_HOST = {"group_people", "group_by_tags"}

# From the top down. A package may import from its own floor and from those below it.
FLOORS = [
    {"cli"},
    {"models", "integrations", "onnx"},
    {"datasets", "codecs", "metrics", "viz"},
    {"ops", "reference", "geometry", "skeletons"},
    {"errors", "_build", "_constants", "_strokes", "_C"},
]


def text_of(pattern):
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(ROOT.glob(pattern)))


BENCHMARKS = text_of("benchmarks/bench_*.py") + text_of("benchmarks/roofline.py")
ROOFLINE, DOCS = text_of("docs/roofline.md"), text_of("docs/*.md")


def test_there_are_operators():
    assert len(OPERATORS) >= 20 and {"find_peaks", "gaussian_heatmaps"} <= set(OPERATORS)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_is_one_stem(name):
    sources = {path.suffix: path for path in ROOT.glob(f"csrc/*/{name}.*")}
    missing = [
        what
        for what, there in {
            "schema in csrc/<family>/<op>.cpp": ".cpp" in sources and f'"{name}(' in sources[".cpp"].read_text(),
            "CUDA kernels in csrc/<family>/<op>.cu": ".cu" in sources or name in ON_HOST,
            "wrapper in pypose_ops/ops/<op>.py": defines(ROOT / f"pypose_ops/ops/{name}.py", name),
            "definition in pypose_ops/reference/<op>.py": defines(ROOT / f"pypose_ops/reference/{name}.py", name),
            "public name": hasattr(pypose_ops, name) and hasattr(pypose_ops.reference, name),
            "contract in tests/ops/test_<op>.py": (ROOT / f"tests/ops/test_{name}.py").is_file(),
            "typed example in its docstring": f"{name}("
            in getattr(pypose_ops, name, torch).__doc__.partition(">>>")[2],
            "benchmark": re.search(rf"\b{name}\b", BENCHMARKS),
            "draw for the fuzzer": name in FUZZED,
            "row of docs/roofline.md": re.search(rf"\b{name}\b", ROOFLINE),
            "page in docs": re.search(rf"\b{name}\b", DOCS),
        }.items()
        if not there
    ]
    assert not missing, f"{name} has no {', no '.join(missing)}"


def test_operators_are_drawn():
    """Those of the first release each begin their page with a real image; a new one may come without."""
    drawn = [name for name in OPERATORS if defines(ROOT / "docs/draw_operators.py", name)]
    assert len(drawn) >= 20


def defines(path, name):
    return path.is_file() and any(
        isinstance(node, ast.FunctionDef) and node.name == name for node in ast.parse(path.read_text()).body
    )


CODECS = [name for name in codecs.__all__ if hasattr(getattr(codecs, name), "encode")]


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_is_tested_and_documented(name):
    kind = getattr(codecs, name)
    assert kind.__module__.startswith("pypose_ops.codecs.") and hasattr(kind, "decode") and kind.__doc__
    assert re.search(rf"\b{name}\b", text_of("tests/codecs/*.py") + text_of("tests/integrations/*.py")), "no test"
    assert re.search(rf"^\| .*`{name}\b.*\|$", text_of("docs/conventions.md"), re.MULTILINE), "no row in conventions.md"


@pytest.mark.parametrize("name", [name for name in models.SYSTEMS if name != "tiny"])
def test_a_system_is_tested_and_documented(name):
    kind = models.system_class(name)
    assert kind.__module__.startswith("pypose_ops.models.systems.") and kind.__doc__
    assert all(type(config) is not models.SystemConfig for config in kind.presets.values()), "no config of its own"
    assert {"paper", "compact"} <= kind.presets.keys()
    assert (ROOT / f"models/training/recipes/{name}.toml").is_file(), "no recipe"
    assert re.search(rf'"{name}"', text_of("tests/models/test_*.py")), "no test"
    assert f"`{name}`" in text_of("docs/systems.md"), "not in docs/systems.md"


@pytest.mark.parametrize("name", datasets.FORMATS)
def test_a_format_is_tested_and_documented(name):
    reader = datasets.FORMATS[name]
    assert reader.__module__.startswith("pypose_ops.datasets.") and reader.__name__ == f"read_{name}" and reader.__doc__
    assert re.search(rf'"{name}[:"]', text_of("tests/datasets/test_*.py")), "no test"
    assert re.search(rf"\b{name}\b", datasets.open_dataset.__doc__), "not in the docstring of open_dataset"


def modules():
    """(dotted name, path) of every module of the installed package, as the sources hold them."""
    for folder, name in ((ROOT / "pypose_ops", "pypose_ops"), (ROOT / "models", "pypose_ops.models")):
        for path in sorted(folder.rglob("*.py")):
            yield ".".join([name, *path.relative_to(folder).with_suffix("").parts]), path
    for path in sorted((ROOT / "cli").rglob("*.py")):
        yield ".".join(["pypose_ops.cli", *path.relative_to(ROOT / "cli").with_suffix("").parts]), path


def imported(module, path):
    """The modules of pypose_ops that a module imports anywhere, by dotted name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            start = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            yield from (f"{start}.{alias.name}" for alias in node.names)


def room(dotted):
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "pypose_ops" else None


def floor(dotted):
    return next((number for number, rooms in enumerate(FLOORS) if room(dotted) in rooms), None)


def test_imports_run_downwards():
    upwards = []
    for module, path in modules():
        own = floor(module)
        for name in imported(module, path):
            other = floor(name)
            if own is not None and other is not None and other < own:
                upwards.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not upwards, "\n".join(upwards)


def test_the_walk_over_imports_sees_them():
    """A check that finds nothing must be able to find something."""
    seen = {name for module, path in modules() for name in imported(module, path)}
    assert "pypose_ops.ops.decode_heatmaps.decode_heatmaps" in seen or "pypose_ops.decode_heatmaps" in seen
    assert any(room(name) == "models" for name in seen) and floor("pypose_ops.cli.train") == 0


def test_only_the_commands_know_their_flags():
    """A caller of the library never reads ``--out``: strings of its modules name arguments, docstrings apart."""
    found = []
    for module, path in modules():
        if room(module) == "cli":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
                if re.search(r"(?<!\S)--[a-z]", node.value) and "pip install" not in node.value:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}")
    assert not found, "\n".join(found)


def test_every_room_has_a_floor():
    rooms = {room(module) for module, _ in modules()} - {"__init__", None}
    assert rooms <= set().union(*FLOORS), rooms - set().union(*FLOORS)


@pytest.mark.parametrize("name", [*OPERATORS, "_arguments"])
def test_a_definition_shares_nothing_with_what_it_defines(name):
    """It is plain torch: the types of results come from the operators, no kernel and no helper does."""
    path = ROOT / f"pypose_ops/reference/{name}.py"
    assert "torch.ops" not in path.read_text() and "_C" not in re.findall(r"\w+", path.read_text())
    own, results = "pypose_ops.reference.", "pypose_ops.ops._results."
    allowed = (own, results, "pypose_ops.skeletons.")
    used = {name for name in imported(f"pypose_ops.reference.{name}", path) if name.startswith("pypose_ops")}
    assert all(name.startswith(allowed) for name in used), used

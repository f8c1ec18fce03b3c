"""When integrations import their library, and what they say about another version of it."""

import importlib
import importlib.metadata
import subprocess
import sys

import pytest
import torch

from pypose_ops.integrations._peer import Replacement, require

PEERS = ("transformers", "sleap_nn", "deeplabcut", "rtmlib", "torchvision", "mmcv", "mmpose")
USES = {
    "mmpose": ("mmpose", "register"),
    "transformers": ("transformers", "fast_processor", None),
    "sleap_nn": ("sleap-nn", "replace"),
    "deeplabcut": ("deeplabcut", "replace"),
    "rtmlib": ("rtmlib", "replace"),
    "torchvision": ("torchvision", "to_tv_tensor", torch.zeros(1, 2), (4, 4)),
}


def test_importing_an_integration_imports_no_library(tmp_path):
    names = [name for name in USES if name != "mmpose"]
    code = (
        "import importlib, sys\n"
        f"for name in {names}: importlib.import_module('pypose_ops.integrations.' + name)\n"
        f"print([name for name in {PEERS} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"


def test_importing_that_of_mmpose_imports_its_registry_alone(tmp_path):
    pytest.importorskip("mmpose.registry", exc_type=ImportError)
    code = (
        "import sys, pypose_ops.integrations.mmpose\n"
        "print(sorted(name for name in sys.modules if name.startswith('mmpose.') and name.count('.') == 1))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip().endswith("['mmpose.registry', 'mmpose.version']")


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize("version", ("98.0", "99.1"))
def test_another_version_is_one_line(name, version, monkeypatch):
    package, use, *arguments = USES[name]
    module = importlib.import_module(f"pypose_ops.integrations.{name}")
    monkeypatch.setattr(importlib.metadata, "version", lambda asked: version)
    wanted = " or ".join(module.VERSIONS)
    with pytest.raises(ImportError) as error:
        getattr(module, use)(*arguments)
    assert str(error.value) == (
        f"pypose_ops.integrations needs {package} {wanted}, and {package} {version} is installed"
    )


@pytest.mark.parametrize(
    ("module", "names", "missing"),
    [("older_version.poses", (), "older_version.poses"), ("older_version", ("Pose",), "older_version.Pose")],
)
def test_a_version_without_what_is_needed_is_one_line(module, names, missing, tmp_path, monkeypatch):
    (tmp_path / "older_version").mkdir()
    (tmp_path / "older_version" / "__init__.py").write_text('__version__ = "2.1"')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError) as error:
        require(module, "older-version", ("2",), *names)
    assert str(error.value) == f"pypose_ops.integrations needs {missing}, and older-version 2.1 has none"


def test_a_missing_library_is_one_line():
    with pytest.raises(
        ImportError, match=r"^pypose_ops\.integrations needs no-such-thing 2 or 3, which is not installed$"
    ):
        require("no_such_thing.part", "no-such-thing", ("2", "3"))


def test_a_library_on_the_path_needs_no_installation(tmp_path, monkeypatch):
    (tmp_path / "on_the_path").mkdir()
    (tmp_path / "on_the_path" / "__init__.py").write_text('__version__ = "2.1"')
    (tmp_path / "on_the_path" / "part.py").write_text("import no_such_thing")
    monkeypatch.syspath_prepend(tmp_path)
    assert require("on_the_path", "on-the-path", ("2",)).__version__ == "2.1"
    with pytest.raises(ImportError, match=r"^pypose_ops\.integrations needs on-the-path 3, and on-the-path 2.1"):
        require("on_the_path", "on-the-path", ("3",))
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_thing'"):
        require("on_the_path.part", "on-the-path", ("2",))


def test_replacing_is_undone_after_an_error():
    class Owner:
        value = 1

    with pytest.raises(KeyError), Replacement() as done:
        done.put(Owner, "value", 2)
        assert Owner.value == 2
        raise KeyError
    assert Owner.value == 1

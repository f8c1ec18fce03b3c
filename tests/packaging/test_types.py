"""A user's script with every operator passes mypy --strict against the installed package."""

import doctest
import re
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import pytest

import pypose_ops

SCRIPT = Path(__file__).with_name("typed_user.py")
OPERATORS = pypose_ops.reference.__all__


def example_of(name):
    """The code of a docstring's example, as a function with the names that examples leave out."""
    found = doctest.DocTestParser().get_examples(getattr(pypose_ops, name).__doc__)
    code = "".join(example.source for example in found)
    given = ["heatmaps: torch.Tensor", "pafs: torch.Tensor", "tags: torch.Tensor", "limbs: list[tuple[int, int]]"]
    given += ["peaks: LocalPeaks"] * ("peaks, _ =" not in code)
    body = textwrap.indent(code, "    ")
    return f"def example_of_{name}({', '.join(given)}) -> None:\n{body}"


def examples():
    """All of them as one script."""
    head = ["import torch", f"from pypose_ops import LocalPeaks, {', '.join(OPERATORS)}"]
    return "\n".join([*head, *map(example_of, OPERATORS)])


def test_a_users_script_is_typed(tmp_path):
    pytest.importorskip("mypy")
    if not Path(str(metadata.distribution("pypose_ops").locate_file("pypose_ops/__init__.py"))).is_file():
        pytest.skip("an editable install, which type checkers do not see")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", SCRIPT]
    done = subprocess.run([*map(str, command)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_examples_of_operators_are_typed(tmp_path):
    """So that a new operator needs no line in the user's script."""
    pytest.importorskip("mypy")
    if not Path(str(metadata.distribution("pypose_ops").locate_file("pypose_ops/__init__.py"))).is_file():
        pytest.skip("an editable install, which type checkers do not see")
    script = tmp_path / "examples.py"
    script.write_text(examples())
    torchs = ["--allow-untyped-calls", "--disable-error-code", "union-attr"]  # Tensor.backward, and .grad may be None
    command = [sys.executable, "-m", "mypy", "--strict", *torchs, "--cache-dir", tmp_path / "cache", script]
    done = subprocess.run([*map(str, command)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_operator_is_called():
    called = set(re.findall(r"pypose_ops\.(\w+)\(", SCRIPT.read_text(encoding="utf-8")))
    called |= {name for name in OPERATORS if f"{name}(" in example_of(name)}
    assert set(OPERATORS) <= called

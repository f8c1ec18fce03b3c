"""A user's script with every operator passes mypy --strict against the installed package."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import pypose_ops

SCRIPT = Path(__file__).with_name("typed_user.py")


def test_a_users_script_is_typed(tmp_path):
    pytest.importorskip("mypy")
    if not Path(str(metadata.distribution("pypose_ops").locate_file("pypose_ops/__init__.py"))).is_file():
        pytest.skip("an editable install, which type checkers do not see")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", SCRIPT]
    done = subprocess.run([*map(str, command)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_script_calls_every_operator():
    called = set(re.findall(r"pypose_ops\.(\w+)\(", SCRIPT.read_text(encoding="utf-8")))
    assert set(pypose_ops.reference.__all__) <= called

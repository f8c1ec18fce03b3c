"""The bytes that the kernels move by sectors, on the traced build, which also reports races on shared memory."""

import re
import subprocess
import sys

import pytest
import sectors


@pytest.fixture(scope="module", params=("float32", "bfloat16"))
def table(request):
    """{operator: ratio}, of two people."""
    command = [sys.executable, sectors.__file__, "--batch", "2", "--dtype", request.param]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    rows = re.findall(r"^\| (\w+) \|.*\| ([\d.]+) \|$", done.stdout, re.MULTILINE)
    return {op: float(ratio) for op, ratio in rows}


def test_every_operator_is_measured(table):
    assert set(table) == {row.op for row in sectors.roofline.rows()} and not sectors.roofline.missing()


@pytest.mark.parametrize("op", sectors.MAP_MOVING)
def test_maps_are_moved_once(table, op):
    # Below 1: background that is neither read nor written.
    assert 0.9 <= table[op] <= sectors.TARGET, f"{op}: {table[op]} times the bytes of docs/roofline.md"

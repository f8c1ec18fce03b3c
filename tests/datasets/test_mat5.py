"""Damaged .mat files: refused before scipy reads them, some of which end its process."""

import io
import re

import numpy as np
import pytest
import scipy.io

from pypose_ops.datasets.files import fits, load_mat
from pypose_ops.datasets.mat5 import check_mat5
from pypose_ops.errors import InputError

CELL = np.empty((1, 2), object)
CELL[0, 0], CELL[0, 1] = np.zeros(3), "text"
STRUCT = np.zeros(2, [("x", object), ("point", object)])
STRUCT[0], STRUCT[1] = (1.0, np.zeros((2, 3))), ("a", np.zeros((0, 0)))
VALUES = {
    "numbers": np.arange(6.0).reshape(2, 3), "one": np.array(3, np.int16), "complex": np.ones(3) * 1j, "text": "words",
    "empty": np.zeros((0, 0)), "cell": CELL, "struct": STRUCT, "nested": {"a": {"b": STRUCT}},
    "logical": np.array([True]), "sparse": scipy.sparse.csc_matrix(np.eye(3)),
}  # fmt: skip


def saved(name, **options):
    out = io.BytesIO()
    scipy.io.savemat(out, {name: VALUES[name]}, **options)
    return out.getvalue()


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("compressed", [False, True])
def test_valid_arrays(name, compressed):
    check_mat5(saved(name, do_compression=compressed), fits)


def swapped(data, at, value, size=4):
    return data[:at] + value.to_bytes(size, "little") + data[at + size :]


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (128, 3, "type 3 in the place of an array"),
        (132, 1 << 20, "longer than what it lies in"),
        (136, 7, "an element of type 7"),
        (140, 4, "flags that are none"),
        (144, 30, "class 30: functions and objects"),
        (160, 1 << 30, "bytes of type 9 for"),
        (160, 0xFFFFFFFF, "dimensions"),
        (156, 4, "dimensions|of type"),
        (184, 0xFF0C, "48 bytes of type 65292 for 6 numbers"),
        (188, 40, "40 bytes of type 9 for 6 numbers"),
    ],
)
def test_damaged_arrays(at, value, message):
    with pytest.raises(ValueError, match=message):
        check_mat5(swapped(saved("numbers"), at, value), fits)


def test_no_damaged_byte_ends_the_process(tmp_path):
    """Every byte of a nested file changed, two ways: read, or one line."""
    data = saved("nested") + saved("empty")[128:]
    for at in range(128, len(data)):
        for change in (255, 1):
            path = tmp_path / "a.mat"
            path.write_bytes(data[:at] + bytes([data[at] ^ change]) + data[at + 1 :])
            try:
                load_mat(path)
            except InputError as error:
                assert re.search("a.mat: ", str(error)) and len(str(error)) < 300


def test_nested_too_deep():
    value = 1.0
    for _ in range(80):
        value = {"a": value}
    out = io.BytesIO()
    scipy.io.savemat(out, {"deep": value})
    with pytest.raises(ValueError, match="nested too deep"):
        check_mat5(out.getvalue(), fits)

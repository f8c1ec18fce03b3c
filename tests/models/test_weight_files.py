"""Weight files that are damaged or hostile: one line, before memory is taken."""

import json

import pytest
import torch

from pypose_ops.errors import InputError
from pypose_ops.models import build
from pypose_ops.models.weights.files import load_weights, save_weights

OPTIONS = {"stacks": 1, "width": 8, "depth": 1, "input_size": [64, 64]}


@pytest.fixture
def path(tmp_path):
    torch.manual_seed(0)
    info = {"system": "stacked_hourglass", "preset": "compact", "skeleton": "coco", "options": OPTIONS}
    save_weights(tmp_path / "w.safetensors", build("stacked_hourglass", 17, "compact", **OPTIONS), info)
    return tmp_path / "w.safetensors"


def changed(path, metadata=None, values=None):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, numbers = json.loads(data[8 : 8 + length]), data[8 + length :]
    header["__metadata__"] |= {name: json.dumps(value) for name, value in (metadata or {}).items()}
    if values is not None:
        numbers = values + numbers[len(values) :]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + numbers)


def refused(path):
    with pytest.raises(InputError) as caught:
        load_weights(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and len(text) < 500
    return text


def test_valid(path):
    system, info = load_weights(path)
    assert info["options"] == OPTIONS and not system.training


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"options": OPTIONS | {"width": 1 << 20}}, "options of up to 1.04858e.06"),
        ({"options": OPTIONS | {"width": 8192}}, "parameters, the file has"),
        ({"options": OPTIONS | {"stacks": 4000}}, "stacks of 4000, expected at most 64"),
        ({"options": OPTIONS | {"width": float("nan")}}, "options of up to"),
        ({"options": OPTIONS | {"width": 0}}, "does not describe a system"),
        ({"options": OPTIONS | {"input_size": [64, 1]}}, "does not describe a system|do not describe a system"),
        ({"options": [1]}, "options must be an object"),
        ({"skeleton": {"name": "own", "joints": [f"k{k}" for k in range(5000)]}}, "5000 joints, expected at most"),
        ({"system": "nonsense"}, "weights of nonsense, expected one of"),
        ({"preset": 3}, "preset a name"),
    ],
)
def test_metadata_that_describe_no_system_or_a_huge_one(path, metadata, message):
    changed(path, metadata)
    text = refused(path)
    assert any(part in text.replace("+", ".") for part in message.split("|")), text


def test_metadata_nested_deep(path):
    data = path.read_bytes()
    deep = b"[" * 20_000
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["options"] = deep.decode()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    refused(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none(path, value):
    changed(path, values=torch.full((1_500,), value).numpy().tobytes())
    assert "is not finite" in refused(path)


def test_cut_off(path):
    path.write_bytes(path.read_bytes()[:-100])
    assert "safetensors" in refused(path)

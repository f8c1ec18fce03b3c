"""Trained systems as programs: network, flip test, decoding and affine in one file, and the commands for them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pypose_ops
from pypose_ops.cli.main import main
from pypose_ops.errors import InputError
from pypose_ops.models.deployment import CompiledProgram, OnnxProgram, export_poses, program_people
from pypose_ops.models.inference import find_joints
from pypose_ops.models.systems.heatmap_system import HeatmapSystem
from pypose_ops.models.weights.files import load_weights
from pypose_ops.skeletons import LSP

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
WEIGHTS = Path(pypose_ops.__file__).parent / "data" / "pose_lsp14.safetensors"
INFO = {"system": "net", "skeleton": "lsp"}
BOXES = torch.tensor([[20.0, 10.0, 120.0, 180.0], [-30.5, 40.0, 90.0, 130.0], [60.0, 60.0, 70.0, 90.0]])


class Net(HeatmapSystem):
    def __init__(self):
        super().__init__(len(LSP), (64, 48))
        self.body = nn.Conv2d(3, len(LSP), 5, 4, 2)

    def forward(self, images):
        return [self.body(images)]


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def image():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (200, 150, 3), dtype=np.uint8))


def same(found, wanted):
    torch.testing.assert_close(found[0], wanted[0], atol=2e-3, rtol=0, equal_nan=True)
    torch.testing.assert_close(found[1], wanted[1], atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def onnx_file(net, tmp_path_factory):
    return export_poses(net, INFO, tmp_path_factory.mktemp("net") / "net.onnx", format="onnx", flip=True)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_onnx(onnx_file, net, image, runtime):
    program = OnnxProgram(onnx_file, runtime=runtime)
    if runtime == "openvino":  # which may round to bfloat16 otherwise
        assert program.compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert program.metadata["skeleton"] == "lsp" and program.metadata["input_size"] == [64, 48]
    assert program.metadata["mean"] == list(net.mean) and program.metadata["std"] == list(net.std)
    for frame, boxes in ((image, BOXES), (image[:120, 20:], BOXES[:1])):
        same(program(frame, boxes), find_joints(net, LSP, frame.numpy(), boxes, flip=True))


def test_people_of_a_program(onnx_file, image):
    program, ones = OnnxProgram(onnx_file), torch.ones(3)
    joints, *_ = program_people(program, image.numpy(), BOXES, ones)
    assert joints.shape == (3, len(LSP), 2)
    assert program_people(program, image.numpy(), BOXES[:0], ones[:0])[0].shape == (0, len(LSP), 2)
    with pytest.raises(InputError, match="rotated boxes need weights"):
        program_people(program, image.numpy(), BOXES, ones, torch.tensor([0.0, 5.0, 0.0]))


def test_pt2(net, image, tmp_path):
    path = export_poses(net, INFO, tmp_path / "net.pt2", format="pt2", boxes=3)
    extra = {"pypose_ops": ""}
    program = torch.export.load(path, extra_files=extra).module()
    assert json.loads(extra["pypose_ops"])["boxes"] == 3
    same(program(image, BOXES), find_joints(net, LSP, image.numpy(), BOXES))


def test_aoti_checks_what_the_package_does_not(net, image, tmp_path):
    program = CompiledProgram(export_poses(net, INFO, tmp_path / "net.pt2", format="aoti"))
    wanted = find_joints(net, LSP, image.numpy(), BOXES)
    planes = image.permute(2, 0, 1).contiguous()
    for frame in (image, planes.permute(1, 2, 0)):  # of a decoder, and of one that gives planes
        same(program(frame, BOXES), wanted)
    view = image[30:170, 10:140]
    same(program(view, BOXES[:1]), find_joints(net, LSP, view.numpy(), BOXES[:1]))
    columns = torch.stack([BOXES.T.contiguous(), torch.zeros(4, 3)])[0].T
    same(program(image, columns), wanted)
    for frame, boxes, message in (
        (image.float(), BOXES, "image must be a uint8 tensor, got torch.float32"),
        (planes, BOXES, r"image must be \(H, W, 3\), got shape"),
        (image, BOXES.double(), "boxes must be a float32 tensor, got torch.float64"),
        (image, BOXES[0], r"boxes must be \(N, 4\), got shape \(4,\)"),
        (image, BOXES[:0], "boxes must be 1 to 1024 boxes, got 0"),
        (image, BOXES[:1].expand(1025, 4), "boxes must be 1 to 1024 boxes, got 1025"),
        (image[:0], BOXES, "image must have 1 to 16384 pixels a side"),
    ):
        with pytest.raises(ValueError, match=message):
            program(frame, boxes)


def test_files_that_are_none(tmp_path):
    (tmp_path / "wrong").write_bytes(b"nothing of the kind")
    for path, message in ((tmp_path / "none", "no such file"), (tmp_path / "wrong", "cannot")):
        for kind in (OnnxProgram, CompiledProgram, lambda path: OnnxProgram(path, runtime="openvino")):
            with pytest.raises(InputError, match=message):
                kind(path)


def test_export_and_predict(tmp_path, capsys):
    """What the program finds is what the weights find."""
    image = tmp_path / "astronaut.png"
    Image.fromarray(pytest.importorskip("skimage.data").astronaut()).save(image)
    program = tmp_path / "lsp.onnx"
    assert main(["export", "lsp14", "--format", "onnx", "--flip", "--out", str(program)]) == 0
    assert f"wrote {program}" in capsys.readouterr().out
    found = []
    for name, options in (("a", ["--weights", "lsp14", "--flip"]), ("b", ["--model", str(program)])):
        assert main(["predict", str(image), "--whole", *options, "--out", str(tmp_path / name)]) == 0
        (person,) = json.loads((tmp_path / name / "astronaut.json").read_text())["people"]
        found.append((person["keypoints"], person["scores"]))
    heatmap_pixel = 512 / 48  # of the whole photograph, in its own pixels
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=0, atol=1e-3 * heatmap_pixel)
    np.testing.assert_allclose(found[1][1], found[0][1], atol=1e-4)


def test_a_file_with_the_name_of_packaged_weights(tmp_path, monkeypatch):
    """It is meant with its folder alone, and may be written over by the packaged weights."""
    monkeypatch.chdir(tmp_path)
    for weights, out, skeleton in (("lsp14", "coco17", "lsp"), ("./coco17", "b", "lsp"), ("coco17", "coco17", "coco")):
        assert main(["export", weights, "--out", out]) == 0
        assert load_weights(out)[1]["skeleton"] == skeleton


def test_half_of_the_network(tmp_path):
    """Weights in float16, everything else in float32: joints move by a fraction of a heatmap pixel."""
    joints = []
    for name, options in (("whole", []), ("half", ["--half"])):
        path = tmp_path / f"{name}.onnx"
        assert main(["export", str(WEIGHTS), "--format", "onnx", "--batch", "1", *options, "--out", str(path)]) == 0
        program = OnnxProgram(path)
        image = torch.from_numpy(pytest.importorskip("skimage.data").astronaut())
        joints.append(program(image, torch.tensor([[0.0, 0.0, 511.0, 511.0]])))
        assert program.metadata["dtype"] == {"whole": "float32", "half": "float16"}[name]
    assert (tmp_path / "half.onnx").stat().st_size < 0.6 * (tmp_path / "whole.onnx").stat().st_size
    heatmap_pixel = 1.25 * 512 / 48
    assert all(tensor.dtype == torch.float32 for found in joints for tensor in found)
    torch.testing.assert_close(joints[1][0], joints[0][0], atol=0.25 * heatmap_pixel, rtol=0)
    torch.testing.assert_close(joints[1][1], joints[0][1], atol=5e-3, rtol=0)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--flip"], "--flip needs --format onnx, pt2 or aoti"),
        (["--format", "onnx", "--dtype", "float16"], "--dtype is for weights, got --format onnx"),
        (["--format", "pt2", "--batch", "0"], "--batch must be dynamic or a number from 1 to 1024, got 0"),
        (["--batch", "3"], "--batch needs --format"),
    ],
)
def test_export_wrong(tmp_path, capsys, options, message):
    assert main(["export", str(WEIGHTS), "--out", str(tmp_path / "o"), *options]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "o").exists()


def test_predict_wrong(tmp_path, capsys):
    image = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(image)
    assert main(["predict", str(image), "--model", "m.onnx", "--flip", "--out", str(tmp_path / "out")]) == 2
    assert "--flip is for weights" in capsys.readouterr().err

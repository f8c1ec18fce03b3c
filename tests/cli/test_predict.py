"""The weights that come with the package, ``pypose-ops predict``, and photographs in ``pypose-ops demo``."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import lsp_folder
from PIL import Image
from safetensors import safe_open

import pypose_ops
from pypose_ops.cli import demo_poses
from pypose_ops.cli.main import main
from pypose_ops.errors import InputError
from pypose_ops.models import pretrained
from pypose_ops.models.weights import files
from pypose_ops.models.weights.files import PACKAGED
from pypose_ops.skeletons import COCO, LSP

DATA = Path(pypose_ops.__file__).parent / "data"  # of the installed package: also tests that the wheel contains them
SKELETON_OF = {"coco17": COCO, "lsp14": LSP}
PEOPLE_FLOOR = {"coco17": 84.5, "lsp14": 86.0}  # PCK@0.2 of the photographs of people; the weights reach 85.5 and 86.8
JOINTS = {"coco17": 310, "lsp14": 288}


@pytest.fixture
def astronaut(tmp_path):
    path = tmp_path / "astronaut.png"
    Image.fromarray(pytest.importorskip("skimage.data").astronaut()).save(path)
    return path


def test_weights_are_small_together():
    assert sum(path.stat().st_size for path in DATA.glob("*.safetensors")) <= 12 * 2**20
    assert {path.name for path in DATA.glob("*.safetensors")} == set(PACKAGED.values())


@pytest.mark.parametrize(("name", "skeleton"), SKELETON_OF.items())
def test_weights_are_small_and_say_what_they_are(name, skeleton):
    path = DATA / PACKAGED[name]
    assert path.stat().st_size <= 6 * 2**20
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), [file.get_tensor(name) for name in file.keys()]
    assert metadata["format"] == "pypose_ops.models 1" and json.loads(metadata["skeleton"]) == skeleton.name
    floats = [t for t in tensors if t.is_floating_point()]
    assert floats and all(t.dtype == torch.float16 and t.isfinite().all() for t in floats)


def test_weights_that_are_not_installed(monkeypatch, tmp_path):
    """The wheel of `make wheels` has none."""
    monkeypatch.setattr(files.resources, "files", lambda package: tmp_path)
    with pytest.raises(InputError, match=r"^lsp14: .* not installed: pip install pypose_ops_weights==\d"):
        pretrained("lsp14")


@pytest.mark.parametrize(("name", "terms"), [("coco17", "Apache License"), ("lsp14", "research")])
def test_card_lies_beside_the_weights(name, terms):
    card = (DATA / PACKAGED[name]).with_suffix(".md").read_text()
    _, info = pretrained(name)
    assert info["system"] in card and info["preset"] in card and terms in card
    assert ", ".join(SKELETON_OF[name].joints) in " ".join(card.split())


def test_the_licence_of_other_peoples_weights_is_there():
    assert "Google" in (DATA / "NOTICE").read_text() and "Version 2.0" in (DATA / "LICENSE-APACHE-2.0").read_text()


@pytest.mark.parametrize("name", SKELETON_OF)
def test_pretrained(name):
    system, info = pretrained(name)
    assert not system.training and system.num_joints == info["joints"] == len(SKELETON_OF[name])
    assert all(p.dtype == torch.float32 and p.device.type == "cpu" for p in system.parameters())


def test_pretrained_is_coco17_unless_named():
    assert pretrained()[1] == pretrained("coco17")[1]
    with pytest.raises(ValueError, match="name must be one of coco17, lsp14, got 'other'"):
        pretrained("other")


def test_boxes_outside_of_their_image(tmp_path, capsys):
    """The image of such a box is skipped and named; a box that shares a corner with its image is used."""
    for name in ("a.png", "b.png"):
        Image.new("RGB", (60, 40)).save(tmp_path / name)
    boxes = {"a.png": [[0, 0, 60, 40], [70, 0, 90, 30]], "b.png": [[50, 30, 90, 90]]}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    command = ["predict", "--boxes", str(tmp_path / "boxes.json"), "--no-images", "--out", str(tmp_path / "out")]
    assert main([*command, str(tmp_path / "a.png")]) == 2
    alone = capsys.readouterr().err
    assert alone.endswith("a.png: box 1 (70, 0, 90, 30) is outside of the image of 60x40\n") and alone.count("\n") == 1
    assert main([*command, str(tmp_path / "a.png"), str(tmp_path / "b.png")]) == 1
    assert "1 of 2 images skipped" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.json"]


def test_thin_images_and_every_reason(tmp_path, capsys):
    """Of any shape; everything that is skipped is named."""
    for size in ((3000, 2), (1, 2000), (1, 1)):
        Image.new("RGB", size).save(tmp_path / f"{size[0]}x{size[1]}.png")
    (tmp_path / "first.png").write_bytes(b"no image")
    (tmp_path / "second.jpg").write_bytes(b"")
    assert main(["predict", str(tmp_path), "--no-images", "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert said.out.count("0 people, wrote") == 3
    assert "2 of 5 images skipped" in said.err and "first.png" in said.err and "second.jpg" in said.err


def test_scales_that_are_not_supported(tmp_path, astronaut, capsys):
    assert main(["predict", str(astronaut), "--scales", "1,1.2", "--out", str(tmp_path / "out")]) == 2
    assert "--scales: not supported by HeatmapNet" in capsys.readouterr().err


@pytest.mark.parametrize("name", SKELETON_OF)
def test_predict_the_astronaut(tmp_path, astronaut, capsys, name):
    """From a photograph to a drawn pose; the answer is the same with the file named."""
    skeleton = SKELETON_OF[name]
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps([list(demo_poses.ASTRONAUT)]))
    command = ["predict", str(astronaut), "--boxes", str(boxes), "--flip", "--out"]
    assert main([*command, str(tmp_path / "a"), "--weights", name]) == 0
    assert "1 person" in capsys.readouterr().out
    result = json.loads((tmp_path / "a" / "astronaut.json").read_text())
    (person,) = result["people"]
    assert tuple(result["joints"]) == skeleton.joints and np.shape(person["keypoints"]) == (len(skeleton), 2)
    drawn = np.asarray(Image.open(tmp_path / "a" / "astronaut.png")).astype(int)
    changed = np.abs(drawn - np.asarray(Image.open(astronaut))).max(-1) > 50
    assert np.shape(person["probabilities"]) == (len(skeleton),)
    assert drawn.shape == (512, 512, 3) and 0.002 < changed.mean() < 0.2
    assert main([*command, str(tmp_path / "b"), "--weights", str(DATA / PACKAGED[name])]) == 0
    assert (tmp_path / "b" / "astronaut.json").read_text() == (tmp_path / "a" / "astronaut.json").read_text()


def test_predict_several_images(tmp_path, astronaut, capsys):
    """Grey and transparent images, and one taken with the camera on its side: EXIF says how."""
    with Image.open(astronaut) as image:
        image.convert("LA").save(tmp_path / "grey.png")
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees
        image.crop((0, 0, 500, 400)).rotate(90, expand=True).save(tmp_path / "side.jpg", exif=exif)
    images = [str(tmp_path / name) for name in ("astronaut.png", "grey.png", "side.jpg")]
    assert main(["predict", *images, "--whole", "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.count("1 person") == 3
    assert sorted(p.name for p in (tmp_path / "out").glob("*.json")) == ["astronaut.json", "grey.json", "side.json"]
    assert Image.open(tmp_path / "out" / "side.png").size == (500, 400)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.png", None, "no such file"),
        ("folder.png", "folder", "not a readable image"),
        ("text.png", b"hello", "not a readable image"),
        ("empty.jpg", b"", "not a readable image"),
    ],
)
def test_predict_what_is_no_image(tmp_path, capsys, name, content, message):
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    assert main(["predict", str(path), "--out", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and f"{name}: {message}" in lines[0]
    assert not list(tmp_path.glob("out/*"))


def test_predict_writes_over_no_image(tmp_path, astronaut, capsys):
    before = astronaut.read_bytes()
    assert main(["predict", str(astronaut), "--out", str(tmp_path)]) == 2
    assert "would be overwritten" in capsys.readouterr().err and astronaut.read_bytes() == before
    (tmp_path / "out" / "astronaut.json").mkdir(parents=True)
    assert main(["predict", str(astronaut), "--out", str(tmp_path / "out")]) == 2
    assert "astronaut.json: cannot be written" in capsys.readouterr().err


def test_test_takes_the_same_weights(tmp_path, capsys):
    folder = lsp_folder(tmp_path / "lsp", 3, (80, 120))
    assert main(["test", "--data", f"lsp:{folder}", "--split", "all"]) == 0
    assert f"{pretrained()[1]['system']} {pretrained()[1]['preset']}, 3 people" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "absent"),
    [
        (["info"], {"pypose_ops.models", "pypose_ops.viz", "matplotlib", "safetensors", "scipy", "rich", "PIL"}),
        (["predict", "none.png"], {"lightning", "tensorboard", "pypose_ops.models.training.training"}),
    ],
)
def test_commands_import_what_they_need(tmp_path, command, absent):
    code = f"import sys; from pypose_ops.cli.main import main; main({command}); print(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not absent & set(done.stdout.splitlines()[-1].split())


def persons(folder, **changed):
    """Two people of COCO's joints in one image, the second without a labelled hip; a folder for demo_poses."""
    from pypose_ops.skeletons import COCO

    Image.new("RGB", (120, 90), "grey").save(folder / "a.jpg")
    labels = [[float(10 + 3 * k), float(20 + k), 2 - k % 2] for k in range(17)]
    person = {"dataset": "coco", "image": "a.jpg", "bbox_xywh": [5, 10, 60, 70], "joint_names": COCO.joints}
    second = [[0.0, 0.0, 0] if name == "right_hip" else v for name, v in zip(COCO.joints, labels, strict=True)]
    people = [person | {"keypoints_xyv": v} | changed for v in (labels, second)]
    (folder / "persons.json").write_text(json.dumps(people))
    return folder


def test_people_of_other_data_sets(tmp_path):
    """Joints are matched by name; LSP's neck and head top are none of COCO's, and do not count."""
    ((dataset, boxes, keypoints, visible),) = demo_poses.load_people(persons(tmp_path), LSP).values()
    assert dataset == "coco" and boxes.tolist() == [[5, 10, 65, 80]] * 2
    assert keypoints[0, LSP.joints.index("right_ankle")].tolist() == [10 + 3 * 16, 20 + 16]
    assert visible[0, LSP.joints.index("left_shoulder")] == 1 and visible[0, LSP.joints.index("right_shoulder")] == 2
    assert visible[:, -2:].eq(0).all() and demo_poses.counted(visible, LSP) == (1, 12)


def test_people_of_a_wrong_file(tmp_path, capsys):
    from pypose_ops.errors import InputError

    for changed in ({"bbox_xywh": [1, 2, 3]}, {"keypoints_xyv": []}, {"joint_names": None}):
        with pytest.raises(InputError, match="persons.json: expected a list of people"):
            demo_poses.load_people(persons(tmp_path, **changed), LSP)
    (tmp_path / "persons.json").unlink()
    with pytest.raises(InputError, match="persons.json: cannot be read"):
        demo_poses.load_people(tmp_path, LSP)


@pytest.mark.parametrize("name", SKELETON_OF)
def test_demo_of_people(tmp_path, shared_data, capsys, name):
    """The poses of 26 people in photographs."""
    pck = demo_poses.people(shared_data / "people", tmp_path / "people", name)
    out = " ".join(capsys.readouterr().out.split())
    assert f"PCK@0.2 {pck:.1f} of 24 people with a labelled torso (of 26), {JOINTS[name]} joints" in out
    assert len(list((tmp_path / "people").glob("*.png"))) == 12
    assert pck >= PEOPLE_FLOOR[name]


def test_drawings_may_be_jpeg(astronaut, tmp_path):
    assert main(["predict", str(astronaut), "--out", str(tmp_path / "a")]) == 0
    assert main(["predict", str(astronaut), "--out", str(tmp_path / "b"), "--format", "jpg"]) == 0
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["astronaut.jpg", "astronaut.json"]
    exact, close = (
        np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int)
        for name in ("a/astronaut.png", "b/astronaut.jpg")
    )
    assert exact.shape == close.shape and np.abs(exact - close).mean() < 2

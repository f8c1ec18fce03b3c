"""pypose-ops crop on a real image and on bad input."""

import json

import numpy as np
import pytest
from PIL import Image

from pypose_ops.cli.main import main


@pytest.fixture
def astronaut(tmp_path):
    path = tmp_path / "astronaut.png"
    Image.fromarray(pytest.importorskip("skimage.data").astronaut()).save(path)
    return path


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / "plain.png"
    Image.new("RGB", (20, 10), "red").save(path)
    return path


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def crop(image, boxes, out, *options):
    return main(["crop", str(image), "--boxes", str(boxes), "--out", str(out), *options])


def test_crops_of_the_astronaut(tmp_path, astronaut, capsys):
    entries = [
        [180, 30, 270, 150],
        {"bbox": [180, 30, 90, 120]},
        {"box": [180, 30, 270, 150], "rotation": 90},
        [-50, 400, 60, 600],
    ]
    out = tmp_path / "new" / "out"
    assert crop(astronaut, write(tmp_path / "boxes.json", {"boxes": entries}), out, "--size", "128x96") == 0
    assert "wrote 4 crops" in capsys.readouterr().out
    crops = [np.asarray(Image.open(out / f"crop-000{i}.png")) for i in range(4)]
    assert all(c.shape == (128, 96, 3) for c in crops)
    assert np.array_equal(crops[0], crops[1]) and not np.array_equal(crops[0], crops[2])
    assert (crops[3][-10:, :10] == 0).all() and crops[3].any()
    index = json.loads((out / "crops.json").read_text())
    assert [entry["file"] for entry in index] == [f"crop-000{i}.png" for i in range(4)]
    assert index[1]["box"] == [180, 30, 270, 150]
    # The middle of the crop is the middle of the box.
    x, y = np.array(index[0]["crop_to_image"]) @ [47.5, 63.5, 1]
    assert (round(x, 6), round(y, 6)) == (225, 90)
    sheet = Image.open(out / "contact.png")
    assert sheet.width > 2 * 96 and len(set(np.asarray(sheet).reshape(-1, 3)[:, 0])) > 50


def test_whole_image_unchanged(tmp_path, astronaut):
    boxes = write(tmp_path / "boxes.json", [[-0.5, -0.5, 511.5, 511.5]])
    assert crop(astronaut, boxes, tmp_path / "out", "--size", "512x512", "--scale", "1") == 0
    before, after = (np.asarray(Image.open(p)) for p in (astronaut, tmp_path / "out" / "crop-0000.png"))
    assert np.array_equal(before, after)
    assert crop(astronaut, boxes, tmp_path / "out", "--size", "512x512", "--scale", "1", "--flip") == 0
    assert np.array_equal(before[:, ::-1], np.asarray(Image.open(tmp_path / "out" / "crop-0000.png")))


@pytest.mark.parametrize(
    ("boxes", "options", "message"),
    [
        ("not json", (), "boxes.json: not json"),
        ([], (), "must be a list of boxes that is not empty"),
        ({"people": []}, (), "must be a list of boxes"),
        ([[1, 2, 3]], (), "box 0 must be four numbers, got [1, 2, 3]"),
        ([[0, 0, 5, 5], "x"], (), 'box 1 must be four numbers, got "x"'),
        ([[5, 0, 0, 5]], (), "box 0 must be finite and not empty"),
        ([[0, 0, 1e999, 5]], (), "box 0 must be finite"),
        ([{"bbox": [1, 2, 0, 4]}], (), "box 0 must be finite and not empty"),
        ([[0, 0, 5, 5]], ("--size", "256"), "--size must be HEIGHTxWIDTH"),
        ([[0, 0, 5, 5]], ("--size", "0x4"), "--size must be HEIGHTxWIDTH"),
        ([[0, 0, 5, 5]], ("--size", "1x4", "--align", "corners"), "--align corners needs"),
        ([[0, 0, 5, 5]], ("--scale", "-1"), "--scale must be positive"),
    ],
)
def test_bad_input(tmp_path, plain, capsys, boxes, options, message):
    path = write(tmp_path / "boxes.json", boxes)
    assert crop(plain, path, tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_missing_files(tmp_path, plain, capsys):
    boxes = write(tmp_path / "boxes.json", [[0, 0, 5, 5]])
    assert crop(tmp_path / "none.png", boxes, tmp_path / "out") == 2
    assert crop(plain, tmp_path / "none.json", tmp_path / "out") == 2
    assert crop(boxes, boxes, tmp_path / "out") == 2
    (tmp_path / "file").write_text("")
    assert crop(plain, boxes, tmp_path / "file") == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4 and all(e.startswith("pypose-ops: error: ") for e in errors)


def test_box_outside_of_the_image(tmp_path, plain, capsys):
    boxes = write(tmp_path / "boxes.json", [[0, 0, 5, 5], [30, 0, 40, 5]])
    assert crop(plain, boxes, tmp_path / "out") == 2
    assert "plain.png: box 1 (30, 0, 40, 5) is outside of the image of 20x10" in capsys.readouterr().err

"""Which images a command looks at, and whose boxes are whose."""

import json
from pathlib import Path

import pytest
from data_files import image_file

from pypose_ops.cli.inputs import boxes_by_image, expand, image_id_of, output_names
from pypose_ops.cli.main import COMMANDS, main
from pypose_ops.cli.predict import as_coco
from pypose_ops.errors import InputError


def test_folders_and_patterns(tmp_path):
    a, b = image_file(tmp_path / "one" / "a.png"), image_file(tmp_path / "two" / "a.png")
    (tmp_path / "one" / "notes.txt").write_text("x")
    assert expand([tmp_path / "one", b, b]) == [a, b]
    assert expand([tmp_path / "*" / "*.png"]) == [a, b]
    with pytest.raises(InputError, match="no file matches"):
        expand([tmp_path / "*.gif"])


def test_two_images_of_one_name():
    paths = [Path("x/one/a.png"), Path("x/two/a.png")]
    assert list(output_names(paths).values()) == ["one/a", "two/a"]
    assert list(output_names([Path("a.png"), Path("a.jpg")]).values()) == ["a.png", "a.jpg"]
    assert list(output_names([Path("x/a.png"), Path("x/b.png")]).values()) == ["a", "b"]


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def test_detections_of_coco_are_filtered(tmp_path):
    entries = [
        {"image_id": 139, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9},
        {"image_id": 139, "category_id": 62, "bbox": [9, 9, 9, 9], "score": 0.9},
        {"image_id": "000000000285", "category_id": 1, "bbox": [5, 6, 7, 8], "score": 0.9},
    ]
    one, two, none = Path("000000000139.jpg"), Path("000000000285.jpg"), Path("000000000632.jpg")
    found = boxes_by_image(write(tmp_path / "d.json", entries), [one, two, none])
    assert found == {one: entries[:1], two: entries[2:], none: None}
    with pytest.raises(InputError, match="no boxes for b.jpg, the entries are of image_id 139"):
        boxes_by_image(tmp_path / "d.json", [Path("b.jpg")])


def test_annotations_of_coco_are_boxes(tmp_path):
    people = [{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]}, {"image_id": 7, "category_id": 1, "iscrowd": 1}]
    content = {"images": [{"id": 7, "file_name": "x/a.png"}, {"id": 8, "file_name": "b.png"}], "annotations": people}
    a, b = Path("a.png"), Path("b.png")
    assert boxes_by_image(write(tmp_path / "c.json", content), [a, b]) == {a: people[:1], b: None}


def test_results_of_coco():
    person = {"keypoints": [[1.0, 2.0], None], "scores": [0.5, 0.0], "score": 0.25}
    (result,) = as_coco([person], 139)
    assert result == {"image_id": 139, "category_id": 1, "keypoints": [1.0, 2.0, 0.5, 0.0, 0.0, 0.0], "score": 0.25}
    assert image_id_of(Path("x/000139.jpg")) == 139 and image_id_of(Path("a.jpg")) == "a.jpg"


def test_the_help_of_the_whole_is_that_of_the_commands(capsys):
    import importlib

    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for command, summary in COMMANDS.items():
        assert summary in text and importlib.import_module(f"pypose_ops.cli.{command}").__doc__


def test_one_bad_image_is_left_out(tmp_path, capsys):
    good, bad = image_file(tmp_path / "a.png", (80, 60)), tmp_path / "b.png"
    bad.write_bytes(b"no image")
    out = tmp_path / "out"
    options = [
        "--whole",
        "--weights",
        "lsp14",
        "--no-images",
        "--coco-results",
        str(out / "all.json"),
        "--out",
        str(out),
    ]
    assert main(["predict", str(good), str(bad), *options]) == 1
    assert "1 of 2 images skipped" in capsys.readouterr().err
    assert sorted(p.name for p in out.iterdir()) == ["a.json", "all.json"]
    assert {r["image_id"] for r in json.loads((out / "all.json").read_text())} <= {"a.png"}

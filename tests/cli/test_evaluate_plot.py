"""pypose-ops evaluate --plot: the numbers, the figures, and the errors for missing inputs."""

import json

import matplotlib.image
import numpy as np
import pytest
import scipy.io
from PIL import Image

from pypose_ops.cli.error_plots import TILE
from pypose_ops.cli.main import main
from pypose_ops.skeletons import COCO

FIGURES = {"pck.png", "oks.png", "errors.png", "confusion.png", "worst.png"}
STANDING = np.array([[10.0 * (k % 4), 12.0 * k] for k in range(17)]) + 100


def annotation(number, image, joints):
    record = {"id": number, "image_id": image, "category_id": 1, "area": 10000.0, "iscrowd": 0, "bbox": [0, 0, 9, 9]}
    return record | {"keypoints": np.column_stack((joints, np.full(17, 2.0))).ravel().tolist()}


def result(image, joints, score=0.9):
    keypoints = np.column_stack((joints, np.ones(17))).ravel().tolist()
    return {"image_id": image, "category_id": 1, "score": score, "keypoints": keypoints}


def evaluate(folder, predictions, annotations, *options):
    images = [{"id": i, "file_name": f"{i}.png", "width": 640, "height": 480} for i in (1, 2)]
    category = {"id": 1, "name": "person", "keypoints": list(COCO.joints), "skeleton": []}
    truth = {"images": images, "annotations": annotations, "categories": [category]}
    for name, content in (("pred.json", predictions), ("truth.json", truth)):
        (folder / name).write_text(json.dumps(content))
    files = ["--predictions", str(folder / "pred.json"), "--ground-truth", str(folder / "truth.json")]
    return main(["evaluate", *files, "--metric", "coco", *options])


def two_people():
    """Both wrists exchanged, one ankle nowhere, one on the neighbour's; the neighbour is not predicted."""
    neighbour = STANDING + (300, 0)
    wrong = STANDING.copy()
    wrong[[9, 10]] = STANDING[[10, 9]]
    wrong[15], wrong[16] = (0, 400), neighbour[16]
    return [result(1, wrong)], [annotation(1, 1, STANDING), annotation(2, 1, neighbour)]


def test_numbers_and_figures(tmp_path, capsys):
    out = tmp_path / "out"
    assert evaluate(tmp_path, *two_people(), "--plot", str(out)) == 0
    assert {path.name for path in out.iterdir()} == FIGURES | {"errors.json"}
    said = capsys.readouterr().out
    assert "1 of 2 people who were found: 76.5 % good, 0.0 % jitter, 11.8 % inversion, 5.9 % swap, 5.9 % miss" in said
    assert "worst.png: 1 without an image" in said and "--images FOLDER" in said

    numbers = json.loads((out / "errors.json").read_text())
    assert numbers["people"] == 2 and numbers["found"] == 1
    assert numbers["joints"]["left_wrist"] == {"good": 0, "jitter": 0, "inversion": 1, "swap": 0, "miss": 0}
    assert numbers["joints"]["left_ankle"]["miss"] == 1 and numbers["joints"]["right_ankle"]["swap"] == 1
    columns = numbers["columns"]
    on = {joint: columns[np.argmax(row)] for joint, row in numbers["confusion"].items()}
    assert on["left_wrist"] == "right_wrist" and on["right_wrist"] == "left_wrist" and on["nose"] == "nose"
    assert on["left_ankle"] == "nothing" and on["right_ankle"] == "another person"
    for name in FIGURES:
        pixels = matplotlib.image.imread(out / name)
        assert pixels.std() > 0.02, f"{name} is empty"


def test_the_worst_come_first_on_their_images(tmp_path, capsys):
    predictions, annotations = two_people()
    predictions.append(result(2, STANDING))
    annotations.append(annotation(3, 2, STANDING))
    (tmp_path / "photos").mkdir()
    for number, color in ((1, (200, 30, 30)), (2, (30, 30, 200))):
        Image.new("RGB", (640, 480), color).save(tmp_path / "photos" / f"{number}.png")
    options = ("--plot", str(tmp_path / "out"), "--images", str(tmp_path / "photos"))
    assert evaluate(tmp_path, predictions, annotations, *options) == 0
    assert "without an image" not in capsys.readouterr().out
    sheet = np.asarray(Image.open(tmp_path / "out" / "worst.png").convert("RGB")).astype(int)
    left, right = np.split(sheet, [sheet.shape[1] // 2], axis=1)
    red, blue = ((half[..., 0] - half[..., 2]) for half in (left, right))
    assert (red > 150).sum() > TILE**2 / 2 and (blue < -150).sum() > TILE**2 / 2


def test_images_beside_the_ground_truth(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (640, 480)).save(tmp_path / "images" / "1.png")
    assert evaluate(tmp_path, *two_people(), "--plot", str(tmp_path / "out")) == 0
    assert "without an image" not in capsys.readouterr().out
    (tmp_path / "images" / "1.png").write_bytes(b"no image")
    assert evaluate(tmp_path, *two_people(), "--plot", str(tmp_path / "out")) == 0
    assert "worst.png: 1 without an image" in capsys.readouterr().out


def test_nobody_predicted(tmp_path, capsys):
    assert evaluate(tmp_path, [], two_people()[1], "--plot", str(tmp_path / "out")) == 0
    assert "none of 2 people was found: no plots of errors" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["pck.png"]


def test_nobody_annotated(tmp_path, capsys):
    assert evaluate(tmp_path, two_people()[0], [], "--plot", str(tmp_path / "out")) == 0
    assert "no people are annotated: nothing to plot" in capsys.readouterr().out and not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert evaluate(tmp_path, *two_people(), "--plot", str(tmp_path / "file")) == 2
    error = capsys.readouterr().err
    assert "cannot be written" in error and error.count("\n") == 1


def test_images_without_plot(tmp_path, capsys):
    assert evaluate(tmp_path, *two_people(), "--images", str(tmp_path)) == 2
    assert "--images is for --plot" in capsys.readouterr().err


def lsp_files(folder, people=3):
    random = np.random.default_rng(0)
    joints = 50 + 100 * random.random((2, 14, people))
    scipy.io.savemat(folder / "joints.mat", {"joints": np.concatenate((joints, np.zeros((1, 14, people))))})
    scipy.io.savemat(folder / "pred.mat", {"pred": joints + 1})
    return ["--predictions", str(folder / "pred.mat"), "--ground-truth", str(folder / "joints.mat")]


@pytest.mark.parametrize("metric", ["pck", "pdj", "pcp"])
def test_one_person_per_image_without_oks(tmp_path, capsys, metric):
    assert main(["evaluate", *lsp_files(tmp_path), "--metric", metric, "--plot", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "3 of 3 people who were found: 100.0 % good" in said and "no oks.png: the OKS is for" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == (FIGURES - {"oks.png"}) | {"errors.json"}


def test_one_person_of_lsp_on_its_image(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (200, 200)).save(tmp_path / "images" / "im0002.jpg")
    files = lsp_files(tmp_path, people=1)
    scipy.io.savemat(tmp_path / "joints.mat", {"joints": 90 * np.random.default_rng(1).random((3, 14, 4))})
    options = ["--people", "2:2", "--plot", str(tmp_path / "out")]
    assert main(["evaluate", *files, "--metric", "pck", *options]) == 0
    assert "without an image" not in capsys.readouterr().out


def test_published_predictions(tmp_path, shared_data):
    """Of MPII: what PCKh counts as right is near its own joint, or nearer to its mirror image within the threshold."""
    file = str(shared_data / "predictions" / "mpii_valid_tompson2015.mat")
    files = ["--predictions", file, "--ground-truth", file]
    assert main(["evaluate", *files, "--metric", "pckh", "--plot", str(tmp_path)]) == 0
    joints = json.loads((tmp_path / "errors.json").read_text())["joints"]
    right = {name: 100 * (kinds["good"] + kinds["jitter"]) for name, kinds in joints.items()}
    assert abs(right["head_top"] - 95.6) < 0.01  # it has no mirror image
    wrist = (right["left_wrist"] + right["right_wrist"]) / 2
    assert 74 < wrist <= 76.74 and 0.05 < joints["left_ankle"]["inversion"] < 0.2

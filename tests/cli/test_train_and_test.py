"""evaluate, predict, export and plot: on a system that knows the answer."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import coco_file, coco_person, image_file, lsp_folder, write_json
from PIL import Image
from rich.console import Console

from pypose_ops import Peaks, skeletons
from pypose_ops.cli.main import main
from pypose_ops.cli.test import print_scores
from pypose_ops.datasets.results import read_coco_pair
from pypose_ops.metrics import coco_ap_by_category
from pypose_ops.models import SYSTEMS, System, SystemConfig
from pypose_ops.models.calibration import calibration_of
from pypose_ops.models.inference import find_people_in
from pypose_ops.models.weights.files import load_weights, save_weights


class Bright(System):
    """Finds dots: joint k is where red is k + 1 fourteenths of green; the first stage is 10 px off."""

    presets = {"paper": SystemConfig(input_size=(96, 128)), "compact": SystemConfig(input_size=(96, 128))}
    mean, std = (0.0, 0.0, 0.0), (18.0, 18.0, 18.0)

    def __init__(self, num_joints, config):
        super().__init__(num_joints, config.input_size)
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def poses(self, images, *, flip_pairs=None, scales=(1.0,)):
        number = torch.arange(1, self.num_joints + 1, device=images.device).view(1, -1, 1, 1)
        red, green = images[:, :1], images[:, 1:2]
        like = green * (((14 * red / green.clamp(min=0.1)) - number).abs() < 0.3)
        rows = torch.arange(images.shape[2]).view(1, 1, -1, 1) * like
        columns = torch.arange(images.shape[3]).view(1, 1, 1, -1) * like
        count = like.sum((2, 3))
        coords = torch.stack((columns.sum((2, 3)), rows.sum((2, 3))), -1) / count[..., None]
        coords, scores = coords.nan_to_num(-1.0), (count > 0).float() * max(scales)
        return [Peaks(coords + 10, scores), Peaks(coords + self.bias, scores)]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    import sys

    monkeypatch.setitem(SYSTEMS, "bright", "bright:Bright")
    monkeypatch.setitem(sys.modules, "pypose_ops.models.bright", sys.modules[__name__])


@pytest.fixture
def weights(tmp_path):
    info = {"system": "bright", "preset": "compact", "skeleton": "lsp", "options": {}}
    save_weights(tmp_path / "w.safetensors", Bright(14, Bright.presets["compact"]), info)
    return tmp_path / "w.safetensors"


def dots(size=(80, 120), at=(0, 0), scale=1.0):
    """An image with a dot of each joint, and where they are: (14, 2)."""
    pixels, points = np.zeros((*size, 3), np.uint8), np.zeros((14, 2))
    for k in range(14):
        x, y = at[0] + int(scale * (8 + 24 * (k % 5))), at[1] + int(scale * (10 + 26 * (k // 5)))
        pixels[y - 2 : y + 3, x - 2 : x + 3], points[k] = (18 * (k + 1), 252, 0), (x, y)
    return pixels, points


@pytest.fixture
def data(tmp_path):
    """Three LSP people; all joints are where the dots are but for one ankle, which is labelled far off and occluded."""
    import scipy.io

    folder = lsp_folder(tmp_path / "lsp", 3, (80, 120))
    joints = np.zeros((3, 14, 3))
    for i in range(3):
        pixels, points = dots()
        Image.fromarray(pixels).save(folder / "images" / f"im{i + 1:04d}.jpg", "PNG")  # exact colours
        joints[:2, :, i] = points.T
    joints[:, 0, 1] = 110, 70, 1
    scipy.io.savemat(folder / "joints.mat", {"joints": joints})
    return f"lsp:{folder}"


def test_evaluate(tmp_path, weights, data, capsys):
    out = tmp_path / "e.json"
    arguments = ["test", "--weights", weights, "--data", data, "--split", "train", "--per-stage", "--json", out]
    assert main([str(a) for a in arguments]) == 0
    text = capsys.readouterr().out
    assert "PCK@0.2" in text and "PCP@0.5 strict" in text and "PCP@0.5 relaxed" in text and "3 people" in text
    result = json.loads(out.read_text())
    assert result["system"] == "bright" and result["people"] == 3 and result["left_out"] == []
    first, last = result["stages"]
    # One ankle of 42 joints is wrong.
    assert last["pck"]["mean"] == pytest.approx(100 * 41 / 42, abs=1e-3)
    assert last["pck"]["ankle"] == pytest.approx(100 * 5 / 6, abs=1e-3) and last["pck"]["head"] == 100
    assert last["pck_seen"] == 100 and last["pck_occluded"] == 0
    assert last["pcp_strict"]["lower leg"] == pytest.approx(100 * 5 / 6, abs=1e-3)
    assert last["pcp_strict"]["mean"] == pytest.approx(100 * 29 / 30, abs=1e-3)
    # 10 px of the crop are 9.4 of the image to the right and down, 13.3 px; the torso is 51 px or more: 0.26.
    assert first["pck"]["mean"] < 10 and last["curve"]["pck"][50] > 97


def test_evaluate_leaves_out_bad_images(tmp_path, weights, data, capsys):
    (tmp_path / "lsp" / "images" / "im0001.jpg").write_bytes(b"no image")
    assert main(["test", "--weights", str(weights), "--data", data, "--split", "all"]) == 0
    assert "2 people; 1 images could not be read" in " ".join(capsys.readouterr().out.split())
    for i in (2, 3):
        (tmp_path / "lsp" / "images" / f"im000{i}.jpg").write_bytes(b"no image")
    assert main(["test", "--weights", str(weights), "--data", data, "--split", "all"]) == 2
    assert "none of its images could be read" in capsys.readouterr().err


def predicted(tmp_path, weights, *arguments):
    assert main(["predict", "--weights", str(weights), "--out", str(tmp_path / "out"), *map(str, arguments)]) == 0
    return {p.stem: json.loads(p.read_text()) for p in sorted((tmp_path / "out").glob("*.json"))}


def test_predict_whole_images(tmp_path, weights):
    pixels, points = dots()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image_file(tmp_path / "b.jpg")
    results = predicted(tmp_path, weights, tmp_path / "a.png", tmp_path / "b.jpg", "--whole", "--flip")
    (person,) = results["a"]["people"]
    np.testing.assert_allclose(person["keypoints"], points, atol=0.6)
    assert results["a"]["joints"][0] == "right_ankle" and person["score"] == 1.0
    with Image.open(tmp_path / "out" / "a.png") as drawn:
        assert drawn.size == (120, 80) and np.abs(np.asarray(drawn).astype(int) - pixels).max() > 50


def test_predict_boxes(tmp_path, weights):
    """Two people, one of them found twice; the box that fits the second less well goes."""
    pixels = np.zeros((80, 260, 3), np.uint8)
    pixels[:, :120], points = dots()
    pixels[:, 130:250], _ = dots()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    boxes = [
        {"bbox": [0, 0, 120, 80], "score": 0.5},
        {"bbox": [130, 0, 120, 80], "score": 0.9},
        {"bbox": [130, 0, 120, 80], "score": 0.8},
    ]
    for content in (boxes, {"a.png": boxes}, {"boxes": boxes}):
        path = write_json(tmp_path / "boxes.json", content)
        people = predicted(tmp_path, weights, tmp_path / "a.png", "--boxes", path)["a"]["people"]
        assert [p["box"] for p in people] == [1, 0]
        assert [p["score"] for p in people] == pytest.approx([0.9, 0.5])
        np.testing.assert_allclose(people[0]["keypoints"], points + (130, 0), atol=0.8)
        np.testing.assert_allclose(people[1]["keypoints"], points, atol=0.8)
    everybody = predicted(tmp_path, weights, tmp_path / "a.png", "--boxes", path, "--nms", "1")["a"]["people"]
    assert [p["box"] for p in everybody] == [1, 2, 0]


def test_predict_scales(tmp_path, weights):
    Image.fromarray(dots()[0]).save(tmp_path / "a.png")
    (person,) = predicted(tmp_path, weights, tmp_path / "a.png", "--whole", "--scales", "1,0.5,2")["a"]["people"]
    assert person["score"] == 2.0


@pytest.mark.parametrize(
    ("boxes", "more", "message"),
    [
        ("[[1, 2, 3]]", [], "box 0 must be four numbers"),
        ('[{"bbox": [1, 2, 3, 4], "score": "high"}]', [], "a score must be a number"),
        ("{", [], "not json"),
        ('{"b.png": []}', [], "no boxes for a.png, it has b.png"),
        ("[]", [], "must be a list of boxes that is not empty"),
        ("[[1, 2, 3, 4]]", ["--nms", "0"], "--nms must be from 0 to 1"),
        ("[[1, 2, 3, 4]]", ["--scales", "0"], "--scales must be positive numbers"),
        ("[[1, 2, 3, 4]]", ["--people", "2"], "--people must be from 0 to 1"),
        ("[[1, 2, 3, 4]]", ["--device", "abacus"], "--device must be cpu or a GPU"),
        ("[[1, 2, 3, 4]]", ["none.png"], "expected an object with a list for each of the 2 images"),
    ],
)
def test_predict_wrong(tmp_path, weights, capsys, boxes, more, message):
    Image.fromarray(dots()[0]).save(tmp_path / "a.png")
    (tmp_path / "boxes.json").write_text(boxes)
    arguments = [tmp_path / "a.png", *more, "--weights", weights, "--boxes", tmp_path / "boxes.json", "--out", tmp_path]
    assert main(["predict", *map(str, arguments)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]


def test_predict_missing_image(tmp_path, weights, capsys):
    assert main(["predict", str(tmp_path / "a.png"), "--weights", str(weights), "--out", str(tmp_path)]) == 2
    assert "a.png: no such file" in capsys.readouterr().err


def test_export(tmp_path, weights, data, capsys):
    """In float16 the bias of 8.003 is 8: every joint moves by 0.003 of a crop's pixel, both ways, and none is lost."""
    system, info = load_weights(weights)
    torch.nn.init.constant_(system.bias, 8.003)
    save_weights(weights, system, info | {"note": "kept"})
    out = tmp_path / "new" / "half.safetensors"
    assert main(["export", str(weights), "--out", str(out), "--data", data, "--people", "2"]) == 0
    text = capsys.readouterr().out
    assert "bright compact, 1 parameters, float16, 0.00 MiB" in text
    # 120 px of the image are 128 of the crop.
    moved = 0.003 * 120 / 128 * 2**0.5
    assert f"2 people: PCK@0.2 96.43 before, 96.43 after; joints moved by {moved:.4f} px" in text
    half, kept = load_weights(out)
    assert half.bias.item() == 8 and kept == info | {"note": "kept"} and out.stat().st_mode & 0o777 == 0o644
    assert main(["export", str(weights), "--out", str(out), "--dtype", "float32"]) == 0
    assert torch.equal(load_weights(out)[0].bias, system.bias)


def test_export_calibrates(tmp_path, weights, data, capsys, monkeypatch):
    options = ["export", str(weights), "--out", str(tmp_path / "out.safetensors"), "--calibrate", data]
    assert main(options) == 2
    assert "too few images, at most a fifth of them is held out" in capsys.readouterr().err
    monkeypatch.setattr("pypose_ops.cli.export.hold_out", lambda people, count, seed: (people, people))
    assert main(options) == 0
    assert " people of lsp:" in capsys.readouterr().out
    fitted = calibration_of(load_weights(tmp_path / "out.safetensors")[1])
    assert len(fitted.temperature) == 14 and calibration_of(load_weights(weights)[1]) is None


def test_export_wrong(tmp_path, weights, capsys):
    system, info = load_weights(weights)
    torch.nn.init.constant_(system.bias, 70000.0)
    save_weights(tmp_path / "large.safetensors", system, info)
    for path, out, more, message in (
        ("large.safetensors", "o", [], "bias goes up to 7e+04, beyond the range of torch.float16"),
        ("none.safetensors", "o", [], "none.safetensors: no such file"),
        ("w.safetensors", "w.safetensors", [], "is the input file, expected another file"),
        ("w.safetensors", "large.safetensors/o", [], "cannot be written"),
        ("w.safetensors", "o", ["--people", "0"], "--people must be positive"),
        ("w.safetensors", "o", ["--calibrate", "lsp:none"], "none"),
        ("w.safetensors", "o", ["--calibrate", "lsp:none", "--format", "onnx"], "--calibrate is for weights"),
    ):
        assert main(["export", str(tmp_path / path), "--out", str(tmp_path / out), *more]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and message in lines[0]
        assert not (tmp_path / "o").exists()


def run_folder(folder):
    """Logs of two phases; the second was cut off after its second epoch, which was trained again, and once more."""
    logs = {
        "0-coarse/version_0": [(0, 0.9, 10), (1, 0.5, 20)],
        "1-fine/version_0": [(0, 0.4, 30), (1, 0.3, 35)],
        "1-fine/version_1": [(1, 0.25, 40), (2, 0.2, 50)],
    }
    for name, rows in logs.items():
        (folder / "logs" / name).mkdir(parents=True)
        lines = ["epoch,loss,lr-AdamW,step,val_loss,val_pck,val_pck_1,val_pck_2", ",,0.1,0,,,,"]
        for epoch, loss, pck in rows:
            lines += [f"{epoch},,,3,{loss + 0.1},{pck},{pck - 5},{pck}", f"{epoch},{loss},,3,,,,"]
        (folder / "logs" / name / "metrics.csv").write_text("\n".join(lines) + "\n")
    # And once it was cut off in its first epoch.
    (folder / "logs" / "1-fine" / "version_2").mkdir()
    (folder / "logs" / "1-fine" / "version_2" / "metrics.csv").write_text("lr-AdamW,step\n0.1,0\n")
    curve = {"thresholds": [0.0, 0.1, 0.2], "pck": [0.0, 20.0, None]}
    write_json(folder / "held_out.json", {"stages": [{"curve": curve}]})
    write_json(folder / "run.json", {"system": "tiny"})
    return folder


def test_plot(tmp_path, capsys):
    from pypose_ops.cli.plot import read_logs, series

    epochs = read_logs(run_folder(tmp_path))
    x, y = series(epochs, "loss")
    assert x == (1, 2, 3, 4, 5) and y == (0.9, 0.5, 0.4, 0.25, 0.2)
    assert main(["plot", str(tmp_path)]) == 0
    for name in ("loss.png", "pck.png", "curve.png"):
        with Image.open(tmp_path / name) as drawn:
            assert drawn.width > 400 and np.asarray(drawn.convert("L")).std() > 5


def test_plot_wrong(tmp_path, capsys):
    assert main(["plot", str(tmp_path)]) == 2
    assert "expected the folder of a run of train" in capsys.readouterr().err
    (run_folder(tmp_path) / "logs" / "0-coarse" / "version_0" / "metrics.csv").write_text("a,b\n1,2\n")
    assert main(["plot", str(tmp_path)]) == 2
    assert "metrics.csv: expected a log written by train" in capsys.readouterr().err


def test_predict_batches_across_images(tmp_path, weights, monkeypatch):
    """The same people as image by image, in fewer calls of the network; one image has more boxes than a batch."""
    system, info = load_weights(weights)
    boxes = {f"{i}.png": [[0, 0, 119, 79]] * n for i, n in enumerate((1, 0, 5, 2, 1))}
    boxes = {name: some for name, some in boxes.items() if some}
    for i, name in enumerate(boxes):
        Image.fromarray(dots(at=(i, 2 * i))[0][:80, :120]).save(tmp_path / name)
    write_json(tmp_path / "b.json", boxes)
    sizes, poses = [], Bright.poses
    monkeypatch.setattr(
        Bright, "poses", lambda self, images, **o: sizes.append(len(images)) or poses(self, images, **o)
    )
    paths = [str(tmp_path / name) for name in boxes]
    base = ["--weights", str(weights), "--boxes", str(tmp_path / "b.json"), "--no-images", "--nms", "1", "--batch"]
    assert main(["predict", *paths, *base, "4", "--out", str(tmp_path / "four")]) == 0
    assert sizes == [4, 4, 1]
    assert main(["predict", *paths, *base, "1", "--out", str(tmp_path / "one")]) == 0
    assert sizes[3:] == [1] * 9
    for name in boxes:
        both = [json.loads((tmp_path / out / name).with_suffix(".json").read_text()) for out in ("four", "one")]
        assert both[0] == both[1] and len(both[0]["people"]) >= 1


def test_many_images_do_not_wait_for_a_full_batch(weights):
    system, info = load_weights(weights)
    opened = []

    def images():
        for n in range(40):
            opened.append(n)
            yield dots()[0], torch.zeros(0, 4), torch.zeros(0), torch.zeros(0)

    ahead = [opened[-1] - n for n, _ in enumerate(find_people_in(images(), system, skeletons.LSP, batch=64))]
    assert len(ahead) == 40 and max(ahead) < 16


def test_test_gives_cocos_ap(tmp_path, capsys, monkeypatch):
    """For a file with a crowd and a person without joints: the numbers that evaluate computes for predict's results."""
    monkeypatch.setenv("COLUMNS", "80")
    annotations = []
    for i in range(3):
        pixels, points = dots()
        Image.fromarray(pixels).save(tmp_path / f"{i + 1}.png")
        wrong = points + [[0.0, 0.0], [30.0, 0.0], [60.0, 20.0]][i]
        keypoints = np.column_stack([wrong, np.full(14, 2)]).ravel().tolist()
        record = {"id": i, "image_id": i + 1, "category_id": 1, "iscrowd": 0, "area": 5000.0, "bbox": [0, 0, 119, 79]}
        annotations.append(record | {"keypoints": keypoints})
        annotations.append(record | {"id": 10 + i, "keypoints": [0] * 42})
        annotations.append(record | {"id": 20 + i, "iscrowd": 1, "keypoints": [0] * 42})
    images = [{"id": i + 1, "file_name": f"{i + 1}.png", "width": 120, "height": 80} for i in range(3)]
    names = list(skeletons.LSP.joints)
    sigmas = [0.079] * 14
    monkeypatch.setattr("pypose_ops.datasets.skeleton_files.known_sigmas", lambda names: tuple(sigmas))
    monkeypatch.setattr("pypose_ops.datasets.skeleton_files.known_skeleton", lambda names: None)
    truth = write_json(
        tmp_path / "truth.json",
        {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person", "keypoints": names}]},
    )
    info = {"system": "bright", "preset": "compact", "skeleton": "lsp", "options": {}}
    save_weights(tmp_path / "w.safetensors", Bright(14, Bright.presets["compact"]), info)
    more = ["--split", "all", "--json", str(tmp_path / "e.json"), "--weights", str(tmp_path / "w.safetensors")]
    assert main(["test", "--data", f"coco:{truth}", *more]) == 0
    table = capsys.readouterr().out
    assert max(map(len, table.splitlines())) <= 80 and "COCO keypoints" in table
    found = json.loads((tmp_path / "e.json").read_text())["stages"][-1]["ap"][f"coco:{truth}"]
    boxes = write_json(tmp_path / "b.json", {f"{i + 1}.png": [[0, 0, 119, 79]] for i in range(3)})
    paths = [str(tmp_path / f"{i + 1}.png") for i in range(3)]
    arguments = ["--boxes", str(boxes), "--no-images", "--out", str(tmp_path / "out"), *more[-2:]]
    assert main(["predict", *paths, *arguments, "--coco-results", str(tmp_path / "r.json")]) == 0
    pair = read_coco_pair(tmp_path / "r.json", truth)
    wanted = coco_ap_by_category(pair.people, pair.pred_category, pair.category, sigmas)
    assert 0.3 < wanted["AP"] < 0.7
    assert found == {name: pytest.approx(value.item(), abs=1e-5) for name, value in wanted.items()}


@pytest.mark.parametrize("count", [3, 21, 133])
def test_tables_of_many_joints_are_readable(capsys, monkeypatch, count):
    monkeypatch.setenv("COLUMNS", "80")
    stages = [(str(s + 1), {f"left_joint_number_{k}": 100.0 / (k + 1) for k in range(count)}) for s in range(4)]
    print_scores(Console(), "PCK", stages)
    out = capsys.readouterr().out
    assert all(name in out and f"{value:.1f}" in out for name, value in stages[0][1].items())
    assert max(map(len, out.splitlines())) <= 80


def test_commands_do_not_write_over_what_they_read(tmp_path, weights, data, capsys):
    (tmp_path / "link.safetensors").symlink_to(weights)
    boxes, folder = tmp_path / "b.json", data.partition(":")[2]
    Image.fromarray(dots()[0]).save(tmp_path / "a-heatmaps-1.png")
    np.savez(tmp_path / "h.npz", heatmaps=np.random.rand(2, 14, 8, 6).astype(np.float32))
    write_json(boxes, [[0, 0, 9, 9]])
    image = tmp_path / "a-heatmaps-1.png"
    joints = [v for k in range(17) for v in (9 + k, 9 + 2 * (k % 5), 2)]
    truth = coco_file(tmp_path / "coco" / "truth.json", [coco_person(3, joints, area=300)])
    answer = [{"image_id": 3, "category_id": 1, "keypoints": joints, "score": 0.9}]
    answers = write_json(tmp_path / "coco" / "errors.json", answer)
    coco_words = ["--metric", "coco", "--ground-truth", truth, "--predictions", answers]
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for words in (
        ["export", weights, "--out", tmp_path / "link.safetensors"],
        ["export", weights, "--out", f"{folder}/joints.mat", "--data", f"{data}/joints.mat"],
        ["test", "--weights", weights, "--data", data, "--json", weights],
        ["decode", tmp_path / "h.npz", "--skeleton", "lsp", "--image", image, "--out", tmp_path / "a.png"],
        ["decode", tmp_path / "h.npz", "--skeleton", "lsp", "--json", tmp_path / "h.npz"],
        ["predict", image, "--weights", weights, "--boxes", boxes, "--coco-results", boxes],
        ["test", "--weights", weights, "--data", data, "--split", "all", "--json", f"{folder}/images/im0001.jpg"],
        ["export", weights, "--data", data, "--split", "all", "--out", f"{folder}/images/im0001.jpg"],
        ["export", weights, "--calibrate", data, "--out", f"{folder}/images/im0001.jpg"],
        ["evaluate", *coco_words, "--plot", tmp_path / "coco"],
    ):
        assert main([*map(str, words)]) == 2, words
        assert "expected another file" in capsys.readouterr().err, words
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    run = tmp_path / "run"
    run.mkdir()
    (run / "weights.safetensors").write_bytes(Path(weights).read_bytes())
    words = ["train", "deeppose", "--data", data, "--weights", run / "weights.safetensors", "--out", run]
    assert main([*map(str, words)]) == 2
    assert "weights.safetensors would be overwritten" in capsys.readouterr().err


def test_images_of_several_frames(tmp_path, weights, capsys):
    first = Image.fromarray(dots()[0])
    first.save(tmp_path / "a.gif", save_all=True, append_images=[first.rotate(180), first])
    arguments = ["--whole", "--weights", str(weights), "--out", str(tmp_path / "out")]
    assert main(["predict", str(tmp_path / "a.gif"), *arguments]) == 0
    assert "a.gif: 3 frames, the first is used; 1 person" in capsys.readouterr().out
    write_json(tmp_path / "b.json", [[0, 0, 40, 40]])
    out = ["--boxes", str(tmp_path / "b.json"), "--out", str(tmp_path / "crops")]
    assert main(["crop", str(tmp_path / "a.gif"), *out]) == 0
    assert "a.gif: 3 frames; the first is used" in capsys.readouterr().out

"""pypose-ops evaluate: the published tables from files, and files that are wrong."""

import copy
import json

import numpy as np
import pytest
import scipy.io

from pypose_ops.cli.main import main


def evaluate(predictions, truth, metric, *options):
    return main(
        ["evaluate", "--predictions", str(predictions), "--ground-truth", str(truth), "--metric", metric, *options]
    )


def cells(capsys):
    """The printed table as a dict, and the line below it."""
    *rows, note = capsys.readouterr().out.strip().splitlines()
    rows = [row.split("│") for row in rows if "│" in row]
    return {name.strip(): float(value) for _, name, value, _ in rows}, note


def test_lsp(shared_data, capsys):
    folder = shared_data / "predictions"
    files = (folder / "lsp_wei2016.mat", folder / "lsp_joints.mat")
    assert evaluate(*files, "pck", "--people", "1001:2000") == 0
    table, note = cells(capsys)
    assert table["mean"] == 90.5 and table["wrist"] == 83.9 and note == "1000 people"
    assert evaluate(*files, "pcp", "--people", "1001:2000", "--relaxed") == 0
    assert cells(capsys)[0]["mean"] == 91.4
    assert evaluate(*files, "pck") == 2
    assert "1000 people are predicted" in (error := capsys.readouterr().err) and "by people, FIRST:LAST" in error
    assert evaluate(*files, "pck", "--people", "1500:2400") == 2
    assert "people ends at 2400, the file has 2000 people" in capsys.readouterr().err


def test_mpii(shared_data, capsys):
    file = shared_data / "predictions" / "mpii_valid_tompson2015.mat"
    assert evaluate(file, file, "pckh") == 0
    table, _ = cells(capsys)
    assert list(table.values()) == [95.6, 92.71, 83.36, 76.74, 81.93, 73.36, 65.45, 82.34]


def test_coco(shared_data, capsys):
    folder = shared_data / "predictions"
    assert evaluate(folder / "coco_example_preds.json", folder / "coco_example_val.json", "coco") == 0
    table, note = cells(capsys)
    assert table["AP"] == 0.86089 and table["ARl"] == 0.94286 and note == "14 people annotated, 73 predicted"


def test_ai_challenger(shared_data, capsys):
    folder = shared_data / "predictions"
    assert evaluate(folder / "aic_example_pred.json", folder / "aic_example_gt.json", "aic") == 0
    table, note = cells(capsys)
    assert table["score"] == 0.99674
    assert "3 images without predictions" in note and "3 images of" in note and "not counted: f2ef2b3c41" in note


def coco_files():
    keypoints = [value for k in range(17) for value in (10.0 * k, 5.0 * k, 2)]
    person = {"id": 1, "image_id": 7, "keypoints": keypoints, "area": 9000.0, "bbox": [0, 0, 160, 80], "iscrowd": 0}
    person["category_id"] = 1
    truth = {"images": [{"id": 7}, {"id": 8}], "annotations": [person, person | {"id": 2, "image_id": 8}]}
    return [{"image_id": 7, "keypoints": keypoints, "score": 0.9, "category_id": 1}], truth


def aic_files():
    people = {"human1": [1.0, 2.0, 1] * 14}
    truth = [{"image_id": "a", "keypoint_annotations": people, "human_annotations": {"human1": [0, 0, 9, 9]}}]
    return copy.deepcopy([{"image_id": "a", "keypoint_annotations": people}]), truth


def test_images_without_predictions_are_missed(tmp_path, capsys):
    assert run_json(tmp_path, "coco", *coco_files()) == 0
    table, note = cells(capsys)
    assert table["AR"] == 0.5 and note.endswith("1 images without predictions: their people count as missed")


def test_nobody_predicted_and_nobody_annotated(tmp_path, capsys):
    predictions, truth = coco_files()
    assert run_json(tmp_path, "coco", [], truth) == 0
    table, note = cells(capsys)
    assert table["AP"] == table["AR"] == 0 and "2 images without predictions" in note
    assert run_json(tmp_path, "coco", predictions, truth | {"annotations": []}) == 0
    assert set(cells(capsys)[0].values()) == {-1}  # as pycocotools
    predictions, truth = aic_files()
    assert run_json(tmp_path, "aic", [], truth) == 0
    assert cells(capsys)[0]["score"] == 0


def run_json(tmp_path, metric, predictions, truth):
    for name, content in (("pred.json", predictions), ("truth.json", truth)):
        (tmp_path / name).write_text(json.dumps(content))
    return evaluate(tmp_path / "pred.json", tmp_path / "truth.json", metric)


def change(files, which, path, value):
    """The files with one value replaced, or removed where it is None."""
    files = copy.deepcopy(files)
    *path, last = path
    at = files[which]
    for step in path:
        at = at[step]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return files


BAD_JSON = {
    "unknown id": ("coco", change(coco_files(), 0, (0, "image_id"), 9), "pred.json: result 0 has image_id 9"),
    "no score": ("coco", change(coco_files(), 0, (0, "score"), None), "pred.json: result 0 has no 'score'"),
    "nan score": ("coco", change(coco_files(), 0, (0, "score"), float("nan")), "result 0: score must be 1 finite"),
    "joints": ("coco", change(coco_files(), 0, (0, "keypoints"), [1.0] * 42), "keypoints must be 51 finite numbers"),
    "not a list": ("coco", ({}, coco_files()[1]), "pred.json: must be COCO results, a list, got a dict"),
    "record": ("coco", ([3], coco_files()[1]), "pred.json: result 0 must be an object, got 3"),
    "no area": ("coco", change(coco_files(), 1, ("annotations", 1, "area"), None), "annotation 1 has no 'area'"),
    "image": ("coco", change(coco_files(), 1, ("annotations", 1, "image_id"), 6), "has an unknown image_id 6"),
    "box": ("coco", change(coco_files(), 1, ("annotations", 0, "bbox"), [1, 2]), "annotation 0: bbox must be 4 finite"),
    "list for an id": ("coco", change(coco_files(), 0, (0, "image_id"), [7]), "result 0: image_id must be a number or"),
    "category": ("coco", change(coco_files(), 0, (0, "category_id"), 5), "category_id 5, which does not occur"),
    "image twice": ("coco", change(coco_files(), 1, ("images", 1, "id"), 7), "truth.json: image 1: id 7 comes twice"),
    "id twice": ("coco", change(coco_files(), 1, ("annotations", 1, "id"), 1), "annotation 1: id 1 comes twice"),
    "not lists": ("coco", change(coco_files(), 1, ("annotations",), {}), "truth.json: annotations must be a list"),
    "aic twice": ("aic", (aic_files()[0] * 2, aic_files()[1]), "pred.json: image 1: image_id a comes twice"),
    "aic joints": (
        "aic", change(aic_files(), 0, (0, "keypoint_annotations", "human1"), [1.0]),
        "pred.json: image a, human1: keypoint_annotations must be 42 finite numbers",
    ),
    "aic box": (
        "aic", change(aic_files(), 1, (0, "human_annotations"), {}),
        "truth.json: image a, human1: human_annotations must be 4 finite numbers",
    ),
    "aic boxes": ("aic", change(aic_files(), 1, (0, "human_annotations"), [1]), "human1: human_annotations must be 4"),
    "aic box reversed": (
        "aic", change(aic_files(), 1, (0, "human_annotations", "human1"), [9, 9, 0, 0]), "must be x1, y1, x2, y2",
    ),
    "aic people": (
        "aic", change(aic_files(), 0, (0, "keypoint_annotations"), [1]),
        "pred.json: image 0: keypoint_annotations must be an object",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_JSON)
def test_bad_json_names_the_file_and_the_record(tmp_path, capsys, name):
    metric, files, message = BAD_JSON[name]
    assert run_json(tmp_path, metric, *files) == 2
    error = capsys.readouterr().err
    assert error.startswith("pypose-ops: error: ") and error.count("\n") == 1 and message in error


def test_bad_mat_files(tmp_path, capsys):
    joints, pred = np.ones((3, 14, 5)), np.ones((2, 14, 5))

    def attempt(message, pred=pred, truth=joints, *options, metric="pck", name="pred"):
        scipy.io.savemat(tmp_path / "pred.mat", {name: pred})
        scipy.io.savemat(tmp_path / "truth.mat", {"joints": truth})
        assert evaluate(tmp_path / "pred.mat", tmp_path / "truth.mat", metric, *options) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error

    broken = pred.copy()
    broken[0, 3, 2] = np.nan
    attempt("pred.mat: pred of person 3 is not finite (1 are not)", broken)
    attempt("pred.mat: pred has the wrong shape (2, 16, 5)", np.ones((2, 16, 5)))
    attempt("pred.mat: pred must be 3 axes of numbers", np.ones((2, 14)))
    attempt("pred.mat: no array 'pred', it has poses", name="poses")
    attempt("truth.mat: no array 'pos_gt_src', it has joints", metric="pckh")
    attempt("--people must be FIRST:LAST", pred, joints, "--people", "5")
    (tmp_path / "text.mat").write_text("not a mat file")
    assert evaluate(tmp_path / "text.mat", tmp_path / "truth.mat", "pck") == 2
    assert "text.mat: not a .mat file" in capsys.readouterr().err
    assert evaluate(tmp_path / "none.mat", tmp_path / "none.mat", "pck") == 2
    assert "none.mat: no such file" in capsys.readouterr().err
    (tmp_path / "text.json").write_text("{")
    assert evaluate(tmp_path / "text.json", tmp_path / "text.json", "coco") == 2
    assert "text.json: not json" in capsys.readouterr().err


def test_decode_people_from_a_file(shared_data, tmp_path, capsys):
    """The image with four annotated people."""
    file = np.load(shared_data / "heatmaps" / "openpose_thin_coco_images.npz", allow_pickle=False)
    maps = {name: file[f"{name}_2"] for name in ("heat", "paf", "hm2img")}
    np.savez(tmp_path / "maps.npz", **maps, **{k: file[k] for k in ("limbs", "paf_channels", "joint_names")})
    result, out = tmp_path / "people.json", tmp_path / "people.png"
    image = shared_data / "people" / str(file["image_2"])
    options = ["--key", "heat", "--paf", "paf", "--json", str(result), "--image", str(image), "--out", str(out)]
    assert main(["decode", str(tmp_path / "maps.npz"), *options]) == 0
    people = json.loads(result.read_text())["people"]
    assert len(people) in (4, 5) and people[0]["score"] >= people[-1]["score"]
    assert out.is_file() and "people" in capsys.readouterr().out


def test_bad_files_of_fields(tmp_path, capsys):
    heat, paf, limbs = np.zeros((3, 8, 9), np.float32), np.zeros((4, 8, 9), np.float32), np.array([[0, 1], [1, 2]])
    for message, arrays in {
        "no array 'paf'": {"limbs": limbs},
        "paf must be (C, H, W) floating-point maps of 8x9": {"paf": paf[:, 1:], "limbs": limbs},
        "no array 'limbs'": {"paf": paf},
        "limbs must be (L, 2) integers": {"paf": paf, "limbs": limbs[:, :1]},
        "limbs must be from 0 to 2, the heatmaps": {"paf": paf, "limbs": limbs + 1},
        "limbs must join two different joints": {"paf": paf, "limbs": limbs * 0},
        "paf must have 4 channels": {"paf": paf[:3], "limbs": limbs},
        "paf_channels must be from 0 to 3": {"paf": paf, "limbs": limbs, "paf_channels": limbs + 2},
        "paf_channels must be 2 pairs": {"paf": paf, "limbs": limbs, "paf_channels": limbs[:1]},
    }.items():
        np.savez(tmp_path / "maps.npz", heatmaps=heat, **arrays)
        assert main(["decode", str(tmp_path / "maps.npz"), "--paf", "paf"]) == 2
        assert message in capsys.readouterr().err
    np.savez(tmp_path / "maps.npz", heatmaps=np.zeros((2, 3, 8, 9), np.float32), paf=paf, limbs=limbs)
    assert main(["decode", str(tmp_path / "maps.npz"), "--paf", "paf"]) == 2
    assert "--paf decodes one image, the heatmaps are of 2" in capsys.readouterr().err

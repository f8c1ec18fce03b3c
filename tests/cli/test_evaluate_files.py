"""pypose-ops evaluate on FLIC, MPII's json forms and AI Challenger in COCO's form, and on files that are wrong."""

import gzip
import json

import numpy as np
import pytest
import scipy.io
from data_files import coco_file, coco_person, write_json
from test_evaluate import cells, evaluate

from pypose_ops.datasets.flic import FLIC_COLUMNS
from pypose_ops.skeletons import AIC, FLIC


def curves(capsys):
    """The rows of a table of several columns, and the line below it."""
    *rows, note = capsys.readouterr().out.strip().splitlines()
    rows = [[cell.strip() for cell in row.split("│")[1:-1]] for row in rows if "│" in row]
    return {name: [float(v) for v in values] for name, *values in rows}, note


def error_of(capsys, code):
    error = capsys.readouterr().err
    assert code == 2 and error.startswith("pypose-ops: error: ") and error.count("\n") == 1, error
    return error


# FLIC -----------------------------------------------------------------------------------------------------------------


def flic_people():
    """Two test people with a torso of length 5 (3, 4), the second seen from behind, the first without a nose."""
    joints = np.zeros((2, len(FLIC), 2))
    joints[0, 0], joints[0, 7] = (13, 10), (10, 14)  # left shoulder, right hip
    joints[0, 3], joints[0, 6] = (5, 10), (13, 20)
    joints[1] = joints[0]
    joints[1, 3] = (25, 10)  # the right shoulder on the right
    joints[0, 10] = np.nan  # no nose
    return joints


def examples_mat(path, joints, tested):
    kinds = [("coords", object), ("istest", object), ("filepath", object)]
    examples = np.empty((1, len(joints)), kinds)
    for i, (pose, test) in enumerate(zip(joints, tested, strict=True)):
        coords = np.full((2, 29), 7.0)
        coords[:, FLIC_COLUMNS] = pose.T
        examples[0, i] = coords, np.uint8(test), "a.jpg"
    scipy.io.savemat(path, {"examples": examples})
    return path


def test_flic_by_hand(tmp_path, capsys):
    joints = flic_people()
    truth = examples_mat(tmp_path / "examples.mat", np.stack([joints[0] + 3, *joints]), [0, 1, 1])
    pred = np.nan_to_num(joints)
    pred[:, 2] += (0.9, 0)  # left wrist: 0.18 of the torso
    pred[0, 1] += (0, 1.1)  # one left elbow: 0.22
    scipy.io.savemat(tmp_path / "pred.mat", {"pred": pred.transpose(2, 1, 0)})
    assert evaluate(tmp_path / "pred.mat", truth, "pck") == 0
    table, note = cells(capsys)
    assert note == "2 people" and table == {
        "shoulder": 100, "elbow": 75, "wrist": 100, "hip": 100, "eye": 100, "nose": 100, "mean": 95.24,
    }  # fmt: skip
    assert evaluate(tmp_path / "pred.mat", truth, "pdj") == 0
    table, _ = curves(capsys)
    assert table["at"] == [0.05, 0.1, 0.15, 0.2, 0.25, 0.3]
    assert table["wrist"] == [50, 50, 50, 100, 100, 100] and table["elbow"] == [75, 75, 75, 75, 100, 100]
    assert evaluate(tmp_path / "pred.mat", truth, "pdj", "--threshold", "0.18", "--strict") == 0
    assert curves(capsys)[0]["at"] == [0.18]
    assert evaluate(tmp_path / "pred.mat", truth, "pck", "--observer-centric") == 0
    table, note = cells(capsys)
    assert note == "2 people; left and right of 1 swapped" and table["shoulder"] == 50


def test_flic(shared_data, tmp_path, capsys):
    """Real people: the test set is 1,016, and the curve of a predictor that is off by a tenth of each torso."""
    truth = shared_data / "flic_joints.npz"
    file = np.load(truth, allow_pickle=False)
    target = file["joints"][~file["is_train"]].astype(np.float64)
    torso = np.linalg.norm(target[:, 0] - target[:, 7], axis=1)
    np.savez(tmp_path / "pred.npz", pred=np.nan_to_num(target) + 0.1001 * torso[:, None, None] * [0.6, 0.8])
    assert evaluate(tmp_path / "pred.npz", truth, "pdj") == 0
    table, note = curves(capsys)
    assert note == "1016 people" and table["mean"] == [0, 0, 100, 100, 100, 100]
    assert evaluate(tmp_path / "pred.npz", truth, "pck", "--threshold", "0.1", "--observer-centric") == 0
    assert cells(capsys)[1] == "1016 people; left and right of 48 swapped"
    np.savez(tmp_path / "pred.npz", pred=target[:1000])
    error = error_of(capsys, evaluate(tmp_path / "pred.npz", truth, "pck"))
    assert "pred.npz: 1000 people are predicted" in error and "has 1016 in the test split" in error


def test_bad_flic_files(tmp_path, capsys):
    joints, pred = flic_people(), tmp_path / "pred.npz"
    np.savez(pred, pred=np.zeros((2, 11, 2)))

    def attempt(message, truth, pred=pred, *options):
        error = error_of(capsys, evaluate(pred, truth, "pck", *options))
        assert message in error, error

    truth = examples_mat(tmp_path / "examples.mat", joints, [1, 1])
    attempt("no people in the test split", examples_mat(tmp_path / "train.mat", joints, [0, 0]))
    attempt("--people is for LSP and MPII", truth, pred, "--people", "1:2")
    bad = np.empty((1, 1), [("coords", object), ("istest", object)])
    bad[0, 0] = np.zeros((2, 11)), 1
    scipy.io.savemat(tmp_path / "bad.mat", {"examples": bad})
    attempt("bad.mat: example 1: coords must be (2, 29), got shape (2, 11)", tmp_path / "bad.mat")
    scipy.io.savemat(tmp_path / "bad.mat", {"examples": np.array([[(1,)]], [("coords", object)])})
    attempt("bad.mat: examples has no field 'istest'", tmp_path / "bad.mat")
    np.savez(tmp_path / "other.npz", poses=joints)
    attempt("other.npz: no array 'joints', it has poses", tmp_path / "other.npz")
    attempt("other.npz: no array 'pred'", truth, tmp_path / "other.npz")
    np.savez(tmp_path / "nan.npz", pred=joints)
    attempt("nan.npz: pred of person 1 is not finite (1 are not)", truth, tmp_path / "nan.npz")
    scipy.io.savemat(tmp_path / "lsp.mat", {"joints": np.ones((3, 14, 5))})
    attempt("--observer-centric is for FLIC", tmp_path / "lsp.mat", pred, "--observer-centric")


# MPII -----------------------------------------------------------------------------------------------------------------


def mpii_json(form):
    """Two people whose joint k is at (10 k, 5 k); the second has neither pelvis nor an annotated right ankle."""
    people = []
    for i in range(2):
        pose = [[10.0 * k + 1, 5.0 * k + 1] for k in range(16)]
        seen = [1] * 16
        if i == 1:
            pose[0] = pose[6] = [-1, -1] if form == "msra" else [0, 0]
            seen[0] = seen[6] = 0
        if form == "msra":
            people.append({"image": "a.jpg", "center": [1, 2], "scale": 1.0, "joints": pose, "joints_vis": seen})
        else:
            hidden = [0 if k == 3 else v for k, v in enumerate(seen)]  # a position with 0: occluded, annotated
            people.append({"joint_self": [[*p, v] for p, v in zip(pose, hidden, strict=True)], "isValidation": 1.0})
    if form == "cpm":
        people.insert(1, people[0] | {"isValidation": 0.0})  # a training person
    return people


@pytest.fixture
def boxes(tmp_path):
    """Head boxes with a diagonal of 50: a head size of 30."""
    path = tmp_path / "boxes.mat"
    scipy.io.savemat(path, {"headboxes_src": np.array([[0.0, 0], [30, 40]])[..., None].repeat(2, -1)})
    return path


def write(path, content):
    text = json.dumps(content).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("form", ("msra", "cpm"))
@pytest.mark.parametrize("suffix", (".json", ".json.gz"))
def test_mpii_json_by_hand(tmp_path, capsys, boxes, form, suffix):
    truth = write(tmp_path / f"truth{suffix}", mpii_json(form))
    pred = mpii_json("msra")
    pred[1]["joints"][0] = pred[1]["joints"][6] = [500, 500]  # where nothing is annotated
    pred[0]["joints"][3][0] += 14.9  # half a head is 15
    pred[1]["joints"][3][0] += 15.1
    pred = write(tmp_path / "pred.json", pred)
    assert evaluate(pred, truth, "pckh", "--head-boxes", str(boxes)) == 0
    table, note = cells(capsys)
    assert note == "2 people, 30 joints"
    assert table["hip"] == 75 and table["ankle"] == 100 and table["mean"] == pytest.approx(100 * 26 / 27, abs=0.005)
    joints = np.array([p["joints"] for p in mpii_json("msra")], np.float64)
    scipy.io.savemat(tmp_path / "pred.mat", {"preds": joints - 1})
    assert evaluate(tmp_path / "pred.mat", truth, "pckh", "--head-boxes", str(boxes), "--offset", "1") == 0
    assert cells(capsys)[0]["mean"] == 100


def test_mpii_json_of_the_validation_people(shared_data, capsys):
    """Tompson 2015 against the widely used json, in which 13 of 44,240 joints differ."""
    file, truth = shared_data / "predictions" / "mpii_valid_tompson2015.mat", shared_data / "mpii_joints.json.gz"
    assert evaluate(file, truth, "pckh", "--head-boxes", str(file)) == 0
    table, note = cells(capsys)
    published = [95.6, 92.71, 83.36, 76.74, 81.93, 73.36, 65.45, 82.34]
    assert list(table.values()) == pytest.approx(published, abs=0.12)
    assert note == "2958 people, 44240 joints"


BAD_MPII = {
    "no boxes": (lambda p: p, "truth.json: MPII's json has no head boxes"),
    "two boxes": (lambda p: p[:1], "boxes.mat: 2 head boxes, "),
    "form": (lambda p: [{"pose": 1}, *p[1:]], "truth.json: person 0 has neither 'joints'"),
    "record": (lambda p: [p[0], 3], "truth.json: person 1 must be an object, got 3"),
    "field": (lambda p: [p[0], {}], "truth.json: person 1 has no 'joints'"),
    "visible": (lambda p: [p[0], p[1] | {"joints_vis": [1]}], "truth.json: person 1: joints_vis must be 16 finite"),
    "joints": (lambda p: [p[0], p[1] | {"joints": [[1, 2]] * 15}], "person 1: joints must be 16 times 2 finite"),
    "ragged": (lambda p: [p[0], p[1] | {"joints": [[1, 2]] * 15 + [[1]]}], "person 1: joints must be 16 times 2"),
    "nan": (lambda p: [p[0], p[1] | {"joints": [[1, float("nan")]] * 16}], "person 1: joints must be 16 times 2"),
    "nobody": (lambda p: [], "truth.json: contains no people"),
    "object": (lambda p: {}, "truth.json: must be people of MPII, a list, got a dict"),
}


@pytest.mark.parametrize("name", BAD_MPII)
def test_bad_mpii_json(tmp_path, capsys, boxes, name):
    change, message = BAD_MPII[name]
    truth, pred = write(tmp_path / "truth.json", change(mpii_json("msra"))), mpii_json("msra")
    options = [] if name == "no boxes" else ["--head-boxes", str(boxes)]
    assert message in error_of(capsys, evaluate(write(tmp_path / "pred.json", pred), truth, "pckh", *options))


def test_mpii_predictions_that_miss_somebody(tmp_path, capsys, boxes):
    truth = write(tmp_path / "truth.json", mpii_json("cpm"))
    pred = write(tmp_path / "pred.json", mpii_json("msra")[:1])
    error = error_of(capsys, evaluate(pred, truth, "pckh", "--head-boxes", str(boxes)))
    assert "pred.json: 1 people are predicted" in error and "has 2: say which they are by people, FIRST:LAST" in error
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(b"[1, 2, 3]" * 99)[:30])
    error = error_of(capsys, evaluate(pred, tmp_path / "cut.json.gz", "pckh", "--head-boxes", str(boxes)))
    assert "cut.json.gz: not gzip, or damaged" in error


# AI Challenger in COCO's form -----------------------------------------------------------------------------------------


def test_ai_challenger_in_cocos_form(tmp_path, capsys):
    """14 joints, no areas: AI Challenger's constants, 0.53 of the box."""
    keypoints = [value for k in range(14) for value in (10.0 * k, 5.0 * k, 2)]
    person = {"image_id": 1, "keypoints": keypoints, "bbox": [0, 0, 160, 80], "iscrowd": 0}
    truth = write(tmp_path / "truth.json", {"images": [{"id": 1}], "annotations": [person]})
    # Off by d in every joint: an OKS of the mean of exp(-d^2 / (8 sigma^2 area)), here between 0.7 and 0.75.
    area, d = 0.53 * 160 * 80, 2.4
    similarity = np.mean(np.exp(-(d**2) / (8 * np.array(AIC.sigmas) ** 2 * area)))
    hits = (similarity >= np.arange(0.5, 0.951, 0.05)).mean()
    assert 0.1 < hits < 0.9
    moved = [v + d if i % 3 == 0 else v for i, v in enumerate(keypoints)]
    pred = write(tmp_path / "pred.json", [{"image_id": 1, "keypoints": moved, "score": 0.5}])
    assert evaluate(pred, truth, "coco") == 0
    table, note = cells(capsys)
    assert table["AP"] == pytest.approx(hits) and note.endswith("no areas in the ground truth: 0.53 of the boxes")


def test_mmposes_file_of_ai_challenger(shared_data, tmp_path, capsys):
    """Real annotations as their own predictions."""
    truth = shared_data / "people" / "aic" / "test_aic.json"
    annotations = json.loads(truth.read_text())["annotations"]
    results = [{"image_id": a["image_id"], "keypoints": a["keypoints"], "score": 1.0} for a in annotations]
    assert evaluate(write(tmp_path / "pred.json", results), truth, "coco") == 0
    assert cells(capsys)[0]["AP"] == 1


def test_sigmas_for_joints_without_names(tmp_path, capsys):
    """Any number of joints, by numbers or by a skeleton."""
    joints = [v for k in range(4) for v in (10 + k, 20 + k, 2)]
    truth = coco_file(tmp_path / "truth.json", [coco_person(3, joints, area=400)])
    pred = write_json(tmp_path / "p.json", [{"image_id": 3, "category_id": 1, "keypoints": joints, "score": 0.5}])
    assert evaluate(pred, truth, "coco") == 2
    assert "4 joints per person and no names in the categories" in capsys.readouterr().err
    (tmp_path / "own.toml").write_text('joints = ["a", "b", "c", "d"]\nsigmas = [0.1, 0.1, 0.1, 0.1]')
    for sigmas in (tmp_path / "own.toml", "0.1,0.1,0.1,0.1"):
        assert evaluate(pred, truth, "coco", "--sigmas", str(sigmas)) == 0
        assert cells(capsys)[0]["AP"] == 1
    assert evaluate(pred, truth, "coco", "--sigmas", "1,1,1") == 2

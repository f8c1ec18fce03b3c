"""Files of FLIC and MPII. What is wrong with one is an InputError: the file and the record."""

import gzip
import json

import numpy as np
import torch

from ..errors import InputError
from ..skeletons import FLIC, MPII
from .arrays import load_npz
from .results import check_finite, load_mat, numbers, record, select, stacked, take

# Where examples.mat has FLIC's joints among its 29 columns.
FLIC_COLUMNS = (0, 1, 2, 3, 4, 5, 6, 9, 12, 13, 16)


def is_json(path):
    return path.name.endswith((".json", ".json.gz"))


# FLIC -----------------------------------------------------------------------------------------------------------------


def flic_examples(path, examples):
    """The joints (N, 11, 2) of examples.mat and which people are of the test set."""
    missing = {"coords", "istest"} - set(examples.dtype.names or ())
    if missing:
        raise InputError(f"{path}: examples has no field {sorted(missing)[0]!r}")
    joints, tested = [], []
    for i, example in enumerate(examples.ravel()):
        coords = np.asarray(example["coords"])
        if coords.ndim != 2 or coords.shape[0] != 2 or coords.shape[1] <= max(FLIC_COLUMNS):
            raise InputError(f"{path}: example {i + 1}: coords must be (2, 29), got shape {coords.shape}")
        if np.size(example["istest"]) != 1:
            raise InputError(f"{path}: example {i + 1}: istest must be 0 or 1")
        joints.append(coords[:, FLIC_COLUMNS].T)
        tested.append(bool(np.ravel(example["istest"])[0]))
    return stacked(joints, len(FLIC), 2), torch.tensor(tested)


def flic_truth(path):
    """The joints of the test people (N, 11, 2); NaN where they are not annotated."""
    if path.suffix == ".npz":
        arrays = load_npz(path)
        joints = take(arrays, path, "joints", (0, 1, 2), (None, len(FLIC), 2))
        tested = torch.ones(len(joints), dtype=torch.bool)
        if "is_train" in arrays:
            tested = take(arrays, path, "is_train", (0,), (len(joints),)) == 0
    else:
        file = load_mat(path)
        if "examples" not in file:
            held = ", ".join(sorted(key for key in file if not key.startswith("__")))
            raise InputError(f"{path}: no array 'examples', it has {held or 'none'}")
        joints, tested = flic_examples(path, file["examples"])
    if not tested.any():
        raise InputError(f"{path}: nobody is of the test set")
    return joints[tested]


def read_flic(path, target_path):
    """Predictions and ground truth of the test people, (N, 11, 2)."""
    target = flic_truth(target_path)
    if path.suffix == ".npz":
        pred = take(load_npz(path), path, "pred", (0, 1, 2), (None, len(FLIC), 2))
    else:
        pred = take(load_mat(path), path, "pred", (2, 1, 0), (None, len(FLIC), 2))
    check_finite(path, "pred", pred, 1)
    if len(pred) != len(target):
        raise InputError(f"{path}: {len(pred)} people are predicted, {target_path} has {len(target)} test people")
    return pred, target


def observers_sides(joints):
    """FLIC's joints with left and right as the observer sees them, and how many people had them swapped."""
    swapped = joints[:, FLIC.joints.index("right_shoulder"), 0] > joints[:, FLIC.joints.index("left_shoulder"), 0]
    mirrored = joints[:, list(FLIC.flip_index)]
    return torch.where(swapped[:, None, None], mirrored, joints), int(swapped.sum())


# MPII -----------------------------------------------------------------------------------------------------------------


def load_records(path):
    """A list of records; .json or .json.gz."""
    try:
        raw = path.read_bytes()
        content = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (EOFError, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: not gzip, or damaged ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{path}: not json ({error})") from None
    if not isinstance(content, list):
        raise InputError(f"{path}: must be people of MPII, a list, got a {type(content).__name__}")
    if not content:
        raise InputError(f"{path}: holds nobody")
    return content


def pose_of(path, number, field, values, width):
    try:
        pose = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        pose = np.empty(0)
    if pose.shape != (len(MPII), width) or not np.isfinite(pose).all():
        raise InputError(f"{path}: person {number}: {field} must be {len(MPII)} times {width} finite numbers")
    return pose


def mpii_people(path, truth):
    """Joints (N, 16, 2) and which are annotated (N, 16), of either form.

    With ``truth`` those of the validation people, where the form of CPM marks some, else all.
    """
    records = load_records(path)
    joints, annotated = [], []
    forms = {"joint_self": "CPM", "joints": "MSRA"}
    field = next((f for f in forms if isinstance(records[0], dict) and f in records[0]), None)
    if field is None:
        raise InputError(f"{path}: person 0 has neither 'joints' (MSRA's form) nor 'joint_self' (CPM's)")
    chosen = truth and any(isinstance(r, dict) and r.get("isValidation") for r in records)
    for i, entry in enumerate(records):
        (values,) = record(path, "person", i, entry, (field,))
        if chosen and not entry.get("isValidation"):
            continue
        pose = pose_of(path, i, field, values, 3 if field == "joint_self" else 2)
        if field == "joint_self":
            seen = (pose != 0).any(1)  # 0, 0, 0: not annotated; a position with 0: occluded, which counts
        elif "joints_vis" in entry or truth:
            (visible,) = record(path, "person", i, entry, ("joints_vis",))
            seen = numbers(path, "person", i, "joints_vis", visible, len(MPII)) > 0
        else:
            seen = np.ones(len(MPII), bool)
        joints.append(pose[:, :2])
        annotated.append(seen)
    return stacked(joints, len(MPII), 2), torch.from_numpy(np.array(annotated))


def head_boxes(path, people, of):
    """Head boxes (N, 4), by MPII's validation file."""
    boxes = take(load_mat(path), path, "headboxes_src", (2, 0, 1), (None, 2, 2)).flatten(1)
    if len(boxes) != people:
        raise InputError(f"{path}: {len(boxes)} head boxes, {of} has {people} people")
    return boxes


def mpii_predictions(path):
    """Predictions (N, 16, 2)."""
    if is_json(path):
        return mpii_people(path, truth=False)[0]
    found = load_mat(path)
    if "preds" in found:
        pred, name = take(found, path, "preds", (0, 1, 2), (None, len(MPII), 2)), "preds"
    else:
        pred, name = take(found, path, "pos_pred_src", (2, 0, 1), (None, len(MPII), 2)), "pos_pred_src"
    check_finite(path, name, pred, 1)
    return pred


def read_mpii(path, target_path, people, boxes_path=None):
    """Predictions and ground truth (N, 16, 2), which joints are annotated (N, 16), head boxes (N, 4)."""
    if is_json(target_path):
        if boxes_path is None:
            raise InputError(f"{target_path}: MPII's json has no head boxes: give mpii_gt_val.mat as --head-boxes")
        target, annotated = mpii_people(target_path, truth=True)
    else:
        truth = load_mat(target_path)
        target = take(truth, target_path, "pos_gt_src", (2, 0, 1), (None, len(MPII), 2))
        annotated = take(truth, target_path, "jnt_missing", (1, 0), (len(target), len(MPII))) < 0.5
        boxes_path = boxes_path or target_path
    boxes = head_boxes(boxes_path, len(target), target_path)
    pred = mpii_predictions(path)
    part = select(path, target_path, pred, target, people)
    return pred, target[part], annotated[part], boxes[part]

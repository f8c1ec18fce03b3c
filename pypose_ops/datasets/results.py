"""Files of predicted and annotated joints. What is wrong with one is an InputError: the file and the record."""

import json

import numpy as np
import torch

from ..errors import InputError
from ..skeletons import AIC, COCO

BOX_SHARE = 0.53  # of a box, what a person covers on average: xtcocotools


def load_mat(path):
    """The arrays of a .mat file."""
    import scipy.io  # here: it takes a third of a second

    try:
        with path.open("rb") as file:
            return scipy.io.loadmat(file)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or 'damaged'})") from None
    except Exception as error:  # scipy raises many kinds for damaged files
        raise InputError(f"{path}: not a .mat file, or damaged ({type(error).__name__})") from None


def holds(path, name):
    """Whether a .mat file has an array of this name."""
    return name in load_mat(path)


def load_json(path, kind, what):
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{path}: not json ({error})") from None
    if not isinstance(content, kind):
        raise InputError(f"{path}: must be {what}, got a {type(content).__name__}")
    return content


def take(file, path, name, axes, shape):
    """An array with its axes moved, so that it has this shape; None stands for any length."""
    if name not in file:
        held = ", ".join(sorted(key for key in file if not key.startswith("__")))
        raise InputError(f"{path}: no array {name!r}, it has {held or 'none'}")
    array = file[name]
    if array.ndim != len(axes) or array.dtype.kind not in "fiub":
        raise InputError(f"{path}: {name} must be {len(axes)} axes of numbers, got shape {array.shape}")
    array = array.transpose(axes)
    if any(want is not None and want != have for want, have in zip(shape, array.shape, strict=True)):
        raise InputError(f"{path}: {name} has the wrong shape {file[name].shape}")
    return torch.from_numpy(np.ascontiguousarray(array, np.float64))


def select(path, target_path, pred, target, people):
    """The people of the ground truth that are predicted: a slice."""
    first, last = people or (1, len(target))
    if last > len(target):
        raise InputError(f"{target_path}: --people ends at {last}, the file has {len(target)} people")
    if last - first + 1 != len(pred):
        wanted = f"--people {first}:{last}" if people else f"{target_path}"
        raise InputError(
            f"{path}: {len(pred)} people are predicted, {wanted} has {last - first + 1}: "
            "say which they are with --people"
        )
    return slice(first - 1, last)


def check_finite(path, name, pred, first):
    """Missing coordinates would be counted as misses without a word."""
    wrong = (~pred.isfinite()).flatten(1).any(1).nonzero()
    if len(wrong):
        raise InputError(f"{path}: {name} of person {int(wrong[0]) + first} is not finite ({len(wrong)} are not)")


def read_lsp(path, target_path, people):
    """Predictions and ground truth (N, 14, 2)."""
    truth = load_mat(target_path)
    joints_last = "joints" in truth and truth["joints"].ndim == 3 and truth["joints"].shape[0] == 14
    target = take(truth, target_path, "joints", (2, 0, 1) if joints_last else (2, 1, 0), (None, 14, 3))
    pred = take(load_mat(path), path, "pred", (2, 1, 0), (None, 14, 2))
    check_finite(path, "pred", pred, 1)
    return pred, target[select(path, target_path, pred, target, people), :, :2]


def record(path, what, number, entry, fields):
    """The fields of one record of a json list."""
    if not isinstance(entry, dict):
        raise InputError(f"{path}: {what} {number} must be an object, got {json.dumps(entry)[:40]}")
    for field in fields:
        if field not in entry:
            raise InputError(f"{path}: {what} {number} has no {field!r}")
    return [entry[field] for field in fields]


def numbers(path, what, number, field, values, count):
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise InputError(f"{path}: {what} {number}: {field} must be {count} finite numbers")
    return array


def identifier(path, what, number, field, value):
    if not isinstance(value, (int, str)) or isinstance(value, bool):
        raise InputError(f"{path}: {what} {number}: {field} must be a number or a string, got {json.dumps(value)[:40]}")
    return value


def only_once(path, what, number, field, value, seen):
    """Adds an identifier to those seen."""
    if identifier(path, what, number, field, value) in seen:
        raise InputError(f"{path}: {what} {number}: {field} {value} comes twice")
    seen.add(value)


def stacked(rows, *shape):
    return torch.from_numpy(np.array(rows, np.float64).reshape(-1, *shape))


def coco_skeleton(path, annotations):
    """COCO's, or AI Challenger's in COCO's form: by the number of joints of the first person."""
    joints = 3 * len(COCO)
    if annotations:
        (keypoints,) = record(path, "annotation", 0, annotations[0], ("keypoints",))
        joints = len(keypoints) if isinstance(keypoints, list) else 0
    for skeleton in (COCO, AIC):
        if joints == 3 * len(skeleton):
            return skeleton
    return COCO  # whose error says what is wrong


def coco_truth(path, annotations, known, skeleton):
    """Lists of keypoints, pictures, areas, boxes, crowds; the categories; and whether the areas are estimated."""
    joints = len(skeleton)
    # MMPose's files of AI Challenger have no areas; its evaluation takes about what a person covers of the box.
    estimated = bool(annotations) and not any(isinstance(a, dict) and "area" in a for a in annotations)
    fields = ("image_id", "keypoints", "bbox") + (() if estimated else ("area",))
    target, pictures, areas, boxes, crowd, categories, seen = [], [], [], [], [], set(), set()
    for i, annotation in enumerate(annotations):
        image_id, keypoints, box, *area = record(path, "annotation", i, annotation, fields)
        if "id" in annotation:
            only_once(path, "annotation", i, "id", annotation["id"], seen)
        if identifier(path, "annotation", i, "image_id", image_id) not in known:
            raise InputError(f"{path}: annotation {i} has an unknown image_id {image_id}")
        if "category_id" in annotation:
            categories.add(identifier(path, "annotation", i, "category_id", annotation["category_id"]))
        target.append(numbers(path, "annotation", i, "keypoints", keypoints, 3 * joints))
        x, y, width, height = numbers(path, "annotation", i, "bbox", box, 4)
        boxes.append((x, y, x + width, y + height))
        areas.append(BOX_SHARE * width * height if estimated else numbers(path, "annotation", i, "area", area, 1)[0])
        pictures.append(image_id)
        crowd.append(bool(annotation.get("iscrowd", 0)))
    return target, pictures, areas, boxes, crowd, categories, estimated


def coco_results(path, target_path, known, categories, joints):
    """Lists of keypoints, scores and pictures."""
    pred, scores, pictures = [], [], []
    for i, result in enumerate(load_json(path, list, "COCO results, a list")):
        image_id, keypoints, score = record(path, "result", i, result, ("image_id", "keypoints", "score"))
        if identifier(path, "result", i, "image_id", image_id) not in known:
            raise InputError(f"{path}: result {i} has image_id {image_id}, which is not in {target_path}")
        category = result.get("category_id")
        if categories and category is not None and category not in categories:
            raise InputError(f"{path}: result {i} has category_id {category}, nobody in {target_path} has")
        pred.append(numbers(path, "result", i, "keypoints", keypoints, 3 * joints))
        scores.append(numbers(path, "result", i, "score", [score], 1)[0])
        pictures.append(image_id)
    return pred, scores, pictures


def read_coco(path, target_path):
    """The arguments of metrics.coco_ap, the skeleton, and whether the areas are estimated."""
    truth = load_json(target_path, dict, "COCO annotations, an object")
    (images, annotations) = record(target_path, "the", "file", truth, ("images", "annotations"))
    for field, values in (("images", images), ("annotations", annotations)):
        if not isinstance(values, list):
            raise InputError(f"{target_path}: {field} must be a list, got a {type(values).__name__}")
    known = set()
    for i, image in enumerate(images):
        only_once(target_path, "image", i, "id", record(target_path, "image", i, image, ("id",))[0], known)
    skeleton = coco_skeleton(target_path, annotations)
    joints = len(skeleton)
    target, pictures, areas, boxes, crowd, categories, estimated = coco_truth(target_path, annotations, known, skeleton)
    pred, scores, pred_pictures = coco_results(path, target_path, known, categories, joints)
    number = {image_id: i for i, image_id in enumerate(sorted(known, key=lambda k: (str(type(k)), k)))}
    points = stacked(target, joints, 3)
    people = dict(
        pred=stacked(pred, joints, 3)[..., :2],
        scores=stacked(scores),
        pred_image=torch.tensor([number[k] for k in pred_pictures], dtype=torch.int64),
        target=points[..., :2],
        visible=points[..., 2] > 0,
        area=stacked(areas),
        target_image=torch.tensor([number[k] for k in pictures], dtype=torch.int64),
        boxes=stacked(boxes, 4),
        crowd=torch.tensor(crowd, dtype=torch.bool),
    )
    return people, skeleton, estimated


def aic_people(path, fields, joints):
    """(picture, name, keypoints, record) of every person of a file of AI Challenger."""
    seen = set()
    for i, entry in enumerate(load_json(path, list, "AI Challenger's form, a list")):
        picture, people, *_ = record(path, "picture", i, entry, fields)
        only_once(path, "picture", i, "image_id", picture, seen)
        if not isinstance(people, dict):
            raise InputError(f"{path}: picture {i}: keypoint_annotations must be an object")
        for name, keypoints in people.items():
            where = f"{picture}, {name}"
            yield picture, name, numbers(path, "picture", where, "keypoint_annotations", keypoints, 3 * joints), entry


def read_aic(path, target_path, skeleton):
    """The arguments of metrics.aic_score, and the predicted pictures that are not in the ground truth."""
    joints = len(skeleton)
    target, areas, pictures = [], [], []
    for picture, name, keypoints, entry in aic_people(
        target_path, ("image_id", "keypoint_annotations", "human_annotations"), joints
    ):
        boxes = entry["human_annotations"]
        box = boxes.get(name) if isinstance(boxes, dict) else None
        x1, y1, x2, y2 = numbers(target_path, "picture", f"{picture}, {name}", "human_annotations", box, 4)
        if x2 < x1 or y2 < y1:
            raise InputError(f"{target_path}: picture {picture}, {name}: human_annotations must be x1, y1, x2, y2")
        target.append(keypoints)
        areas.append((x2 - x1) * (y2 - y1))
        pictures.append(picture)
    number = {picture: i for i, picture in enumerate(dict.fromkeys(pictures))}
    pred, pred_pictures, unknown = [], [], {}
    for picture, _, keypoints, _ in aic_people(path, ("image_id", "keypoint_annotations"), joints):
        if picture in number:
            pred.append(keypoints)
            pred_pictures.append(number[picture])
        else:
            unknown[str(picture)] = None
    points = stacked(target, joints, 3)
    people = dict(
        pred=stacked(pred, joints, 3)[..., :2],
        pred_image=torch.tensor(pred_pictures, dtype=torch.int64),
        target=points[..., :2],
        visible=points[..., 2] == 1,  # 2: occluded, 3: not labelled
        area=stacked(areas),
        target_image=torch.tensor([number[p] for p in pictures], dtype=torch.int64),
    )
    return people, list(unknown)

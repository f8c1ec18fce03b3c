"""MPII Human Pose (Andriluka et al., CVPR 2014): the .mat of the release, and the two JSON formats in use.

Pixels start at 1 in all of them. JSON of MSRA and MMPose: image, center, scale, joints, joints_vis. JSON of CPM and the
hourglass: img_paths, objpos, scale_provided, joint_self, ...: jsonlab omits the outer list for exactly one
other person, and writes an object for none.

The person's box is the square of side ``200 scale`` around the centre moved down by ``15 scale`` (Newell et al. 2016).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..skeletons import MPII
from .coco import with_others
from .dataset import PoseDataset
from .files import FAR, fields_of, finite_numbers, floats, load_json, load_mat, stacked, take_numbers
from .images import ImageFile
from .results import check_finite, select
from .sample import Sample
from .source import ImageFinder

JOINTS = len(MPII)
FORMS = {"joint_self": ("CPM", 3), "joints": ("MSRA", 2)}  # by the field with the joints: whose form, numbers a joint


def read_records(path: str | Path) -> tuple[list[Any], str]:
    """The people of a json file, and which of ``FORMS`` it has."""
    records = load_json(path)
    if not isinstance(records, list):
        raise InputError(
            f"{path}: must be people of MPII, a list, got a {type(records).__name__}; expected MPII's json"
        )
    if not records:
        raise InputError(f"{path}: contains no people")
    field = next((f for f in FORMS if isinstance(records[0], Mapping) and f in records[0]), None)
    if field is None:
        raise InputError(
            f"{path}: person 0 has neither 'joints' (MSRA's form) nor 'joint_self' (CPM's); expected MPII's json"
        )
    return records, field


def joints_of(path: str | Path, number: int, record: Any, field: str) -> np.ndarray:
    """``(16, 2)`` or, in CPM's form, ``(16, 3)``; pixels from 1."""
    (values,) = fields_of(path, "person", number, record, (field,))
    width = FORMS[field][1]
    joints = floats(values) if isinstance(values, list) else None
    if joints is None or joints.shape != (JOINTS, width) or not np.isfinite(joints).all():
        raise InputError(f"{path}: person {number}: {field} must be {JOINTS} times {width} finite numbers")
    return joints


def visible_of(path: str | Path, number: int, record: Any) -> np.ndarray:
    """``(16,)`` bool, of MSRA's form."""
    (values,) = fields_of(path, "person", number, record, ("joints_vis",))
    return finite_numbers(path, "person", number, "joints_vis", values, JOINTS) > 0


def _sample(image: ImageFile, joints: np.ndarray, visible: np.ndarray, center: Any, scale: Any, **given: Any) -> Sample:
    """Of 1-based values."""
    center, scale = np.asarray(center, np.float64).reshape(2) - 1, float(scale)
    if not (np.isfinite(center).all() and np.abs(center).max() < FAR and 1e-6 < scale < 1e6):
        raise InputError(
            f"{image}: center {center + 1} and scale {scale:g} of a person; expected numbers, and more than 0"
        )
    middle, half = center + (0, 15 * scale), 100 * scale
    box = (*(middle - half).tolist(), *(middle + half).tolist())
    return Sample(image, np.asarray(joints) - 1, visible, box, center=tuple(center.tolist()), scale=scale, **given)


def read_mpii(path: str, split: str = "train", images: str | None = None) -> PoseDataset:
    """MPII: the validation people of CPM's json are the test split, as is the .mat's (which has no joints)."""
    if Path(path).suffix == ".mat":
        return _from_mat(path, split, images)
    records, field = read_records(path)
    read, name = (_cpm, "img_paths") if field == "joint_self" else (_msra, "image")
    dataset = PoseDataset(f"mpii:{path}", MPII)
    finder = ImageFinder(path, images, dataset.notes)
    for i, record in enumerate(records):
        if field == "joint_self" and isinstance(record, Mapping) and not _in_split(record, split):
            continue
        (image,) = fields_of(path, "person", i, record, (name,))
        if not isinstance(image, str):
            raise InputError(f"{path}: person {i}: {name} must be the name of an image")
        try:
            sample = read(path, i, finder.find(image), record)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: person {i}: not MPII's json ({type(error).__name__}: {error})") from None
        if sample.visible.any():
            dataset.samples.append(sample)
        else:
            dataset.skipped += 1
    if read is _msra:
        groups: dict[ImageFile, list[Sample]] = {}
        for sample in dataset.samples:
            groups.setdefault(sample.image, []).append(sample)
        for group in groups.values():
            with_others(group)
    return dataset


def _msra(path: str, i: int, image: ImageFile, record: Mapping[str, Any]) -> Sample:
    """Missing joints are (-1, -1) or have joints_vis 0."""
    joints, visible = joints_of(path, i, record, "joints"), visible_of(path, i, record)
    return _sample(image, joints, np.where(visible & (joints > 0).any(1), 2, 0), record["center"], record["scale"])


def _in_split(record: Mapping[str, Any], split: str) -> bool:
    return split == "all" or bool(record.get("isValidation", 0)) == (split == "test")


def _labels(triples: np.ndarray) -> np.ndarray:
    """(..., 3) of CPM's json: (0, 0, 0) is not labelled, otherwise 0 is occluded and 1 visible."""
    labelled = (triples != 0).any(-1)
    return np.where(labelled, np.where(triples[..., 2] > 0, 2, 1), 0)


def _cpm(path: str, i: int, image: ImageFile, record: Mapping[str, Any]) -> Sample:
    joints = joints_of(path, i, record, "joint_self")
    values = record.get("joint_others")
    others = np.zeros((0, JOINTS, 3)) if isinstance(values, Mapping) or not values else np.asarray(values, np.float64)
    if not (np.abs(others) <= FAR).all():
        raise InputError(f"{path}: person {i}: joint_others must be finite numbers, up to {FAR:g}")
    others = others.reshape(-1, JOINTS, 3)  # one other person is not in a list of its own
    visible = _labels(others)
    others = np.concatenate((np.where(visible[..., None] > 0, others[..., :2] - 1, 0), visible[..., None]), -1)
    size = floats([record.get("img_height"), record.get("img_width")])
    known = size is not None and size.shape == (2,) and bool(((size >= 1) & (size < 1e6)).all())
    return _sample(
        image, joints[:, :2], _labels(joints), record["objpos"], record["scale_provided"],
        size=(int(size[0]), int(size[1])) if known and size is not None else None, others=others.astype(np.float32),
    )  # fmt: skip


# Evaluation -----------------------------------------------------------------------------------------------------------


def is_json(path: Path) -> bool:
    """Whether the name is that of a json file, compressed or not."""
    return path.name.endswith((".json", ".json.gz"))


def mpii_people(path: Path, truth: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Joints (N, 16, 2), pixels from 1, and which are annotated (N, 16), of either form.

    With ``truth`` those of the validation people, where the form of CPM marks some, else all.
    """
    records, field = read_records(path)
    joints, annotated = [], []
    for i in _chosen(records) if truth else range(len(records)):
        record = records[i]
        fields_of(path, "person", i, record, (field,))
        pose = joints_of(path, i, record, field)
        if field == "joint_self":
            seen = (pose != 0).any(1)  # 0, 0, 0: not annotated; a position with 0: occluded, which counts
        elif "joints_vis" in record or truth:
            seen = visible_of(path, i, record)
        else:
            seen = np.ones(JOINTS, bool)
        joints.append(pose[:, :2])
        annotated.append(seen)
    return stacked(joints, JOINTS, 2), torch.from_numpy(np.array(annotated).reshape(-1, JOINTS))


def head_boxes(path: Path, people: int, of: Path) -> torch.Tensor:
    """Head boxes (N, 4), by MPII's validation file."""
    boxes = take_numbers(load_mat(path), path, "headboxes_src", (2, 0, 1), (None, 2, 2)).flatten(1)
    if len(boxes) != people:
        raise InputError(f"{path}: {len(boxes)} head boxes, {of} has {people} people")
    return boxes


def _chosen(records: list[Any]) -> list[int]:
    """The validation people where the form of CPM marks some, else all."""
    marked = [i for i, record in enumerate(records) if isinstance(record, Mapping) and record.get("isValidation")]
    return marked or list(range(len(records)))


def mpii_image_names(path: Path) -> list[str] | None:
    """The images of the people of :func:`mpii_people` in a ground truth; None for a .mat, which names none."""
    if not is_json(path):
        return None
    records, field = read_records(path)
    name = "img_paths" if field == "joint_self" else "image"
    return [str(records[i].get(name) or "") for i in _chosen(records)]


def mpii_predictions(path: Path) -> torch.Tensor:
    """Predictions (N, 16, 2)."""
    if is_json(path):
        return mpii_people(path, truth=False)[0]
    found = load_mat(path)
    if "preds" in found:
        pred, name = take_numbers(found, path, "preds", (0, 1, 2), (None, JOINTS, 2)), "preds"
    else:
        pred, name = take_numbers(found, path, "pos_pred_src", (2, 0, 1), (None, JOINTS, 2)), "pos_pred_src"
    check_finite(path, name, pred, 1)
    return pred


def read_mpii_results(
    path: Path, target_path: Path, people: tuple[int, int] | None, boxes_path: Path | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Predictions and ground truth (N, 16, 2), which joints are annotated (N, 16), head boxes (N, 4)."""
    if is_json(target_path):
        if boxes_path is None:
            raise InputError(f"{target_path}: MPII's json has no head boxes, mpii_gt_val.mat has them: give it too")
        target, annotated = mpii_people(target_path, truth=True)
    else:
        truth = load_mat(target_path)
        target = take_numbers(truth, target_path, "pos_gt_src", (2, 0, 1), (None, JOINTS, 2))
        annotated = take_numbers(truth, target_path, "jnt_missing", (1, 0), (len(target), JOINTS)) < 0.5
        boxes_path = boxes_path or target_path
    boxes = head_boxes(boxes_path, len(target), target_path)
    pred = mpii_predictions(path)
    part = select(path, target_path, pred, target, people)
    return pred, target[part], annotated[part], boxes[part]


# The release's .mat ---------------------------------------------------------------------------------------------------


def _items(value: Any) -> list[Any]:
    """A field of a struct that squeeze_me may have made a single one, an array of them, or nothing."""
    return [] if value is None else [v for v in np.atleast_1d(value).ravel() if hasattr(v, "_fieldnames")]


def _visible(point: Any) -> int:
    """is_visible may be missing, empty, a number or a text; a joint without it is labelled, and seen."""
    value = getattr(point, "is_visible", 1)
    text = str(value.tolist() if isinstance(value, np.ndarray) else value).strip("[] ")
    return 1 if text in ("0", "0.0") else 2


def _person(image: ImageFile, rect: Any) -> Sample | None:
    """One annorect, or None where it has neither joints nor position."""
    points, position, scale = (getattr(rect, name, None) for name in ("annopoints", "objpos", "scale"))
    points = [p for holder in _items(points) for p in _items(getattr(holder, "point", None))]
    position = _items(position)
    if not points or not position or not np.size(scale):
        return None
    joints, visible = np.zeros((JOINTS, 2)), np.zeros(JOINTS)
    for point in points:
        k = int(point.id)
        if not 0 <= k < JOINTS:
            raise ValueError(f"a joint's id is {k}, expected 0 to {JOINTS - 1}")
        joints[k], visible[k] = (float(point.x), float(point.y)), _visible(point)
    corners = [getattr(rect, name, None) for name in ("x1", "y1", "x2", "y2")]
    head = None if any(c is None or not np.size(c) for c in corners) else tuple(float(c) - 1 for c in corners)
    center = float(position[0].x), float(position[0].y)
    return _sample(image, joints, visible, center, scale, head=head)


def _from_mat(path: str, split: str, images: str | None) -> PoseDataset:
    release = load_mat(path, struct_as_record=False, squeeze_me=True).get("RELEASE")
    if not hasattr(release, "annolist") or not hasattr(release, "img_train"):
        raise InputError(f"{path}: expected MPII's RELEASE with annolist and img_train")
    dataset = PoseDataset(f"mpii:{path}", MPII)
    finder = ImageFinder(path, images, dataset.notes)
    try:
        for record, train in zip(_items(release.annolist), np.atleast_1d(release.img_train), strict=True):
            if split != "all" and bool(train) != (split == "train"):
                continue
            name, rects = str(record.image.name), _items(getattr(record, "annorect", None))
            people = [_person(finder.find(name), rect) for rect in rects]
            dataset.skipped += people.count(None)
            dataset.samples += with_others([person for person in people if person is not None])
    except InputError:
        raise
    except (AttributeError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise InputError(f"{path}: not MPII's RELEASE ({type(error).__name__}: {error})") from None
    return dataset

"""COCO's keypoint annotations: one reader for training, evaluation and boxes.

Visibility 0 is not labelled, 1 occluded, 2 visible; boxes are x, y, width, height. The joints are those named by the
categories of the file; without names, those of the format it is opened as.
"""

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..skeletons import AIC, COCO, Skeleton
from .dataset import PoseDataset
from .files import FAR, Id, as_id, fields_of, floats, identifier, load_json, only_once, shown
from .sample import Sample
from .skeleton_files import skeleton_from_category
from .source import ImageFinder

# Fields of annotations and images that nobody reads, most of a file's bytes.
UNREAD = ("segmentation", "caption", "coco_url", "flickr_url", "date_captured", "license", "num_keypoints")
BOX_SHARE = 0.53  # the average share of the box that a person covers: xtcocotools


@dataclass
class CocoPeople:
    """The annotated people of a file, in columns; N people, K joints.

    Attributes:
        path: of the file.
        skeleton: of the joints.
        images: image records by id.
        keypoints: ``(N, K, 3)`` float64: x, y, visibility.
        image: each person's image id.
        boxes: ``(N, 4)`` two corners; NaN if missing or empty.
        area: ``(N,)``; NaN if missing, 0 or negative.
        has_area: ``(N,)`` bool: the file has a field of that name.
        crowd: ``(N,)`` bool.
        category: ``(N,)`` index into ``categories``.
        categories: ids; None stands for people without one.
        record: ``(N,)`` indices of the annotations in the file.
        ids: each annotation's id, or None.
        notes: counts of skipped or reinterpreted values, by description.
    """

    path: str | Path
    skeleton: Skeleton
    images: dict[Id, Mapping[str, Any]]
    keypoints: np.ndarray
    image: list[Id]
    boxes: np.ndarray
    area: np.ndarray
    has_area: np.ndarray
    crowd: np.ndarray
    category: np.ndarray
    categories: list[Id | None]
    record: np.ndarray
    ids: Sequence[Any]
    notes: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.image)

    def joint_bounds(self) -> np.ndarray:
        """``(N, 4)`` bounds of each person's labelled joints; NaN without any."""
        hidden = ~(self.keypoints[..., 2:] > 0)
        points = self.keypoints[..., :2]
        low = np.where(hidden, np.inf, points).min(1, initial=np.inf)
        high = np.where(hidden, -np.inf, points).max(1, initial=-np.inf)
        bounds = np.concatenate((low, high), 1)
        return np.where(np.isfinite(bounds).all(1, keepdims=True), bounds, np.nan)

    def areas(self) -> tuple[np.ndarray, int]:
        """Areas for OKS, 0.53 of the box for missing ones; also returns the number of those."""
        missing = np.isnan(self.area)
        boxes = np.where(np.isnan(self.boxes), self.joint_bounds(), self.boxes)
        estimate = BOX_SHARE * (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        return np.where(missing, np.nan_to_num(estimate), self.area), int((missing & ~self.crowd).sum())


def image_records(path: str | Path, images: Any) -> dict[Id, Mapping[str, Any]]:
    """Image records by id."""
    if not isinstance(images, list):
        raise InputError(f"{path}: images must be a list, got a {type(images).__name__}")
    records: dict[Id, Mapping[str, Any]] = {}
    seen: set[Id] = set()
    for i, image in enumerate(images):
        (value,) = fields_of(path, "image", i, image, ("id",))
        records[only_once(path, "image", i, "id", value, seen)] = image
    return records


class ImageIds:
    """Finds an image by its id, as text or number, or by its file name or stem."""

    images: Mapping[Id, Mapping[str, Any]]

    def __init__(self, images: Mapping[Id, Mapping[str, Any]]) -> None:
        self.images, self._names = images, None

    def find(self, value: Any) -> Id | None:
        """The id in the file of annotations, or None."""
        found = as_id(value)
        if found is None or found in self.images:
            return found
        if isinstance(found, int):
            return str(found) if str(found) in self.images else None
        if found.isascii() and found.isdigit() and len(found) < 19 and int(found) in self.images:
            return int(found)
        return self._by_name().get(found)

    def _by_name(self) -> dict[str, Id]:
        if self._names is None:
            self._names, twice = {}, set()
            for key, image in self.images.items():
                name = image.get("file_name")
                if isinstance(name, str):
                    path = name.replace("\\", "/")
                    last = path.rsplit("/", 1)[-1]
                    for form in {path, last, last.rsplit(".", 1)[0]}:
                        if self._names.setdefault(form, key) != key:
                            twice.add(form)
            for form in twice:
                del self._names[form]
        return self._names


def _is_crowd(path: str | Path, i: int, value: Any) -> bool:
    if value in (0, 1, None, False, True):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in ("0", "1", "true", "false", "", "0.0", "1.0"):
        return value.strip().lower() in ("1", "true", "1.0")
    raise InputError(f"{path}: annotation {i}: iscrowd must be 0 or 1, got {shown(value)}")


def _flat(values: Any) -> Any:
    """The numbers of a keypoints field as a flat list, or None; packed fields are returned unchanged."""
    if isinstance(values, array):
        return values
    found = floats(values) if isinstance(values, list) else None
    if found is None or (found.ndim == 2 and found.shape[1] != 3) or found.ndim > 2:
        return None
    return array("d", found.ravel().tolist())


@dataclass
class _Found:
    """Annotations of people in lists, while reading."""

    record: list[int] = field(default_factory=list)
    keypoints: list[Any] = field(default_factory=list)
    category: list[Id | None] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)


def _with_joints(path: str | Path, annotations: list[Any], notes: Counter[str]) -> _Found:
    """Selects annotations with keypoints, and crowds without; counts other boxes."""
    found = _Found()
    for i, annotation in enumerate(annotations):
        if not isinstance(annotation, Mapping):
            raise InputError(f"{path}: annotation {i} must be an object, got {shown(annotation)}")
        values, crowd = annotation.get("keypoints"), _is_crowd(path, i, annotation.get("iscrowd"))
        if (values is None or (not isinstance(values, str) and not len(_sized(values)))) and not crowd:
            notes["annotations without keypoints, skipped"] += 1
            continue
        category = annotation.get("category_id")
        found.record.append(i)
        found.keypoints.append(values)
        found.category.append(None if category is None else identifier(path, "annotation", i, "category_id", category))
        found.crowd.append(crowd)
    return found


def _compact(ids: list[Any]) -> Sequence[Any]:
    """Ids without their objects, each of which would keep memory of the parsed file from being given back."""
    try:
        return array("q", ids) if all(type(i) is int for i in ids) else ids
    except OverflowError:
        return ids


def _sized(values: Any) -> Any:
    return values if hasattr(values, "__len__") else (values,)


def _named(path: str | Path, content: Mapping[str, Any]) -> dict[Id, Mapping[str, Any]]:
    """The file's categories by id."""
    categories = content.get("categories") or []
    if not isinstance(categories, list) or not all(isinstance(c, Mapping) for c in categories):
        raise InputError(f"{path}: categories must be a list of objects")
    return {key: c for c in categories if (key := as_id(c.get("id"))) is not None}


def _wanted(path: str | Path, named: Mapping[Id, Mapping[str, Any]], present: Sequence[Id | None], category: str) -> Id:
    """The id of the category named by the user."""
    for key, record in named.items():
        if category in (str(key), record.get("name")):
            return key
    if as_id(category) in present:
        return as_id(category)  # type: ignore[return-value]
    names = [str(named.get(k, {}).get("name", k)) for k in present if k is not None] or ["none"]
    raise InputError(f"{path}: no category {category!r}, it has {', '.join(names)[:200]}")


def _skeleton(
    path: str | Path,
    named: Mapping[Id, Mapping[str, Any]],
    categories: Sequence[Id | None],
    joints: int,
    default: Skeleton | None,
) -> Skeleton:
    """The skeleton of the people of these categories."""
    skeletons: dict[tuple[str, ...], tuple[Skeleton, str]] = {}
    for key in categories:
        record = named.get(key, {}) if key is not None else {}
        skeleton = skeleton_from_category(record, f"{path}: category {shown(record.get('name'))}")
        if skeleton is not None:
            skeletons.setdefault(skeleton.joints, (skeleton, str(record.get("name"))))
    if len(skeletons) > 1:
        what = " and ".join(f"{name} ({len(s)} joints)" for s, name in list(skeletons.values())[:4])
        raise InputError(f"{path}: the categories {what} have different joints: choose one by name")
    if skeletons:
        return next(iter(skeletons.values()))[0]
    if default is not None:
        return default
    by_count = {len(s): s for s in (COCO, AIC)}
    if joints in by_count:
        return by_count[joints]
    raise InputError(
        f"{path}: {joints} joints per person and no names in the categories; known are 17 (COCO) and 14 (AI Challenger)"
    )


def _triples(
    path: str | Path, found: _Found, ids: Sequence[Any], skeleton: Skeleton, notes: Counter[str]
) -> np.ndarray:
    """``(N, K, 3)``; unlabelled joints are 0, 0, 0."""
    count = 3 * len(skeleton)
    rows = []
    for i, values, crowd in zip(found.record, found.keypoints, found.crowd, strict=True):
        row = array("d", bytes(8 * count)) if crowd and not values else _flat(values)
        if row is None or len(row) != count:
            raise InputError(
                f"{path}: expected {len(skeleton)} keypoints x, y, visibility for annotation "
                f"{i if ids[i] is None else ids[i]}, the joints of {skeleton.name}; got "
                f"{'no numbers' if row is None else f'{len(row)} numbers'}"
            )
        rows.append(row)
    triples = np.frombuffer(b"".join(rows), np.float64).reshape(-1, len(skeleton), 3)
    labelled = triples[..., 2] > 0  # NaN and -1 are not
    odd = ~np.isin(triples[..., 2], (0, 1, 2))
    notes["visibilities are not 0, 1 or 2; more than 0 counts as labelled"] += int(
        odd[np.isfinite(triples[..., 2])].sum()
    )
    lost = labelled & ~np.isfinite(triples[..., :2]).all(-1)
    if lost.any():
        n, k = np.argwhere(lost)[0]
        raise InputError(f"{path}: {skeleton.joints[k]} of annotation {found.record[n]} is labelled and not finite")
    triples = np.where(labelled[..., None], triples, 0)
    wide = np.abs(triples[..., :2]) > FAR
    if wide.any():
        n, k, _ = np.argwhere(wide)[0]
        raise InputError(f"{path}: {skeleton.joints[k]} of annotation {found.record[n]} is at {triples[n, k, 0]:g} px")
    return triples


def _boxes(path: str | Path, annotations: list[Any], record: list[int], notes: Counter[str]) -> np.ndarray:
    """``(N, 4)`` corners, NaN if missing or empty."""
    values = [annotations[i].get("bbox") for i in record]
    try:
        boxes = np.array([(np.nan,) * 4 if v is None else v for v in values], np.float64).reshape(len(record), 4)
        wrong = ~np.isfinite(boxes).all(1)
    except (TypeError, ValueError, OverflowError):
        wrong = np.ones(len(record), bool)
    for n in np.flatnonzero(wrong):  # one is missing, or has something else in it
        if values[n] is not None:
            row = floats(values[n]) if isinstance(values[n], list) else None
            if row is None or row.shape != (4,) or not np.isfinite(row).all():
                raise InputError(
                    f"{path}: annotation {record[n]}: bbox must be 4 finite numbers, got {shown(values[n])} "
                    f"(id {shown(annotations[record[n]].get('id'))})"
                )
    if wrong.all() and len(record):
        boxes = np.array([(np.nan,) * 4 if v is None else floats(v) for v in values], np.float64).reshape(-1, 4)
    wide = np.flatnonzero(~(np.abs(np.nan_to_num(boxes)) <= FAR).all(1))
    if len(wide):
        raise InputError(f"{path}: annotation {record[wide[0]]}: bbox reaches to {np.abs(boxes[wide[0]]).max():g} px")
    corners = np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), 1)
    empty = ~(corners[:, 2:] > corners[:, :2]).all(1)
    notes["boxes are missing or empty: replaced by the bounds of the joints"] += int(empty.sum())
    return np.where(empty[:, None], np.nan, corners)


def _areas(path: str | Path, annotations: list[Any], record: list[int]) -> np.ndarray:
    values = [annotations[i].get("area") for i in record]
    area = floats(values)
    if area is None or area.shape != (len(record),):
        for i, value in zip(record, values, strict=True):
            if (found := floats(value)) is None or found.ndim:
                raise InputError(f"{path}: annotation {i}: area must be a number, got {shown(value)}")
        raise InputError(f"{path}: area must be numbers")
    return np.where((area > 0) & np.isfinite(area), area, np.nan)


def read_people(
    path: str | Path,
    content: Any = None,
    *,
    default: Skeleton | None = None,
    category: str | None = None,
    once: bool = False,
) -> CocoPeople:
    """Reads the people of a file in COCO's format.

    Args:
        path: of the file.
        content: the parsed file, if already read.
        default: the skeleton if the file names no joints; None: COCO's or AI Challenger's, by number.
        category: a name or id; None: every category with keypoints, which must have the same joints.
        once: refuse duplicate ids of annotations.
    """
    if content is None:
        content = load_json(path, packed=("keypoints",), dropped=UNREAD)
    expected = f"{path}: expected COCO annotations, an object with images and annotations"
    if not isinstance(content, Mapping):
        raise InputError(f"{expected}, got a {type(content).__name__}")
    for name in ("images", "annotations"):
        if name not in content:
            raise InputError(f"{expected}, it has no {name!r}")
    annotations = content["annotations"]
    if not isinstance(annotations, list):
        raise InputError(f"{path}: annotations must be a list, got a {type(annotations).__name__}")
    images, notes = image_records(path, content["images"]), Counter[str]()
    found = _with_joints(path, annotations, notes)
    if once:
        seen: set[Id] = set()
        for i in found.record:
            if (value := annotations[i].get("id")) is not None:
                only_once(path, "annotation", i, "id", value, seen)
    found, categories, skeleton = _choose(path, content, found, default, category, notes)
    ids = _compact([a.get("id") if isinstance(a, Mapping) else None for a in annotations])
    index = {key: n for n, key in enumerate(categories)}
    return CocoPeople(
        path=path,
        skeleton=skeleton,
        images=images,
        keypoints=_triples(path, found, ids, skeleton, notes),
        image=_images_of(path, annotations, found.record, images),
        boxes=_boxes(path, annotations, found.record, notes),
        area=_areas(path, annotations, found.record),
        has_area=np.array(["area" in annotations[i] for i in found.record], bool),
        crowd=np.array(found.crowd, bool),
        category=np.array([index[key] for key in found.category], np.int64),
        categories=categories,
        record=np.array(found.record, np.int64),
        ids=ids,
        notes=notes,
    )


def _choose(
    path: str | Path,
    content: Mapping[str, Any],
    found: _Found,
    default: Skeleton | None,
    category: str | None,
    notes: Counter[str],
) -> tuple[_Found, list[Id | None], Skeleton]:
    """Selects the people of the chosen categories; also returns the categories and the skeleton."""
    named = _named(path, content)
    with_joints = [
        key for key, v in zip(found.category, found.keypoints, strict=True) if v is not None and len(_sized(v))
    ]
    categories = list(dict.fromkeys(with_joints))
    if category is not None:
        categories = [_wanted(path, named, categories, category)]
    kept = [n for n, key in enumerate(found.category) if key in set(categories)]
    if len(kept) < len(found.record):
        notes["annotations of other categories, skipped"] += len(found.record) - len(kept)
    found = _Found(*([column[n] for n in kept] for column in vars(found).values()))
    first = next((v for v in found.keypoints if v is not None and len(_sized(v))), None)
    numbers = _flat(first) if first is not None else None
    joints = len(default or COCO) if first is None else (0 if numbers is None else len(numbers) // 3)
    return found, categories, _skeleton(path, named, categories, joints, default)


def _images_of(path: str | Path, annotations: list[Any], record: list[int], images: Mapping[Id, Any]) -> list[Id]:
    ids, keys, own = ImageIds(images), [], {key: key for key in images}
    for i in record:
        annotation = annotations[i]
        if "image_id" not in annotation:
            raise InputError(f"{path}: annotation {i} has no 'image_id' (id {shown(annotation.get('id'))})")
        value = annotation["image_id"]
        key = own.get(value) if type(value) is int else None  # the object of the images: see _compact
        if key is None:
            identifier(path, "annotation", i, "image_id", value)
            key = ids.find(value)
        if key is None or key not in images:
            raise InputError(
                f"{path}: annotation {i} has an unknown image_id {shown(value)} (id {shown(annotation.get('id'))})"
            )
        keys.append(key)
    return keys


# Training -------------------------------------------------------------------------------------------------------------


def with_others(people: list[Sample]) -> list[Sample]:
    """Gives each of the samples of one image the others."""
    if len(people) > 1:
        joints = np.stack([np.column_stack((s.keypoints, s.visible)) for s in people]).astype(np.float32)
        for i, sample in enumerate(people):
            sample.others = np.delete(joints, i, 0)
    return people


def _known_size(record: Mapping[str, Any]) -> tuple[int, int] | None:
    """``(height, width)``; 0, -1, null and text mean unknown."""
    size = floats([record.get("height"), record.get("width")])
    if size is None or size.shape != (2,) or not (np.isfinite(size) & (size >= 1) & (size < 1e6)).all():
        return None
    return int(size[0]), int(size[1])


def as_dataset(people: CocoPeople, name: str, images: str | None) -> PoseDataset:
    """People for training and testing: without crowds and people without labelled joints."""
    seen = people.keypoints[..., 2] > 0
    labelled = seen.any(1)
    dataset = PoseDataset(name, people.skeleton, notes=people.notes, people=people)
    dataset.skipped = int((~labelled & ~people.crowd).sum())
    kept = np.flatnonzero(labelled & ~people.crowd)
    finder = ImageFinder(people.path, images)
    values = people.keypoints[..., 2]
    visible = np.where(values == 1, 1, np.where(seen, 2, 0)).astype(np.uint8)
    found: dict[Id, tuple[Any, tuple[int, int] | None]] = {}
    groups: dict[Id, list[Sample]] = {}
    boxes = people.boxes.tolist()
    for n in kept.tolist():
        key = people.image[n]
        if key not in found:
            record = people.images[key]
            if not isinstance(record.get("file_name"), str):
                raise InputError(f"{people.path}: image {shown(key)} has no file_name")
            found[key] = finder.find(record["file_name"]), _known_size(record)
        image, size = found[key]
        sample = Sample(image, people.keypoints[n, :, :2], visible[n], size=size, annotation=n)
        sample.box = sample.joints_box() if np.isnan(people.boxes[n, 0]) else tuple(boxes[n])
        groups.setdefault(key, []).append(sample)
    dataset.samples = [sample for group in groups.values() for sample in with_others(group)]
    return dataset


def read_coco(path: str, split: str = "train", images: str | None = None, category: str | None = None) -> PoseDataset:
    """COCO's ``person_keypoints_*.json``, or any file of this format with other joints; a file is one split."""
    return as_dataset(read_people(path, default=COCO, category=category), f"coco:{path}", images)

"""COCO's keypoint annotations: one reader for training, evaluation and boxes.

Visibility 0 is not labelled, 1 occluded, 2 visible; boxes are x, y, width, height. The joints are those named by the
categories of the file; without names, those of the format it is opened as.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..skeletons import AIC, COCO, SKELETONS, Skeleton
from .coco_records import Annotations, ImageIds, Images, Whole, image_records, known_size, read_annotations
from .dataset import PoseDataset
from .files import FAR, Id, as_id, floats, identifier, shown
from .json_stream import stream_json
from .sample import Sample
from .skeleton_files import skeleton_from_category
from .source import ImageFinder

KNOWN: dict[Skeleton, str] = {COCO: "COCO", AIC: "AI Challenger"}
BOX_SHARE: float = 0.53  # the average share of the box that a person covers: xtcocotools


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
        guessed: the file names no joints, and they were taken as those of ``skeleton`` by their number.
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
    ids: Whole
    guessed: bool = False
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
    joints: int | None,
    known: Sequence[Skeleton],
) -> tuple[Skeleton, bool]:
    """The skeleton of the people of these categories, and whether the file names its joints."""
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
        return next(iter(skeletons.values()))[0], True
    for skeleton in known:
        if joints in (None, len(skeleton)):
            return skeleton, False
    if len(known) == 1:
        return known[0], False  # the first annotation does not fit, and is named
    counts = " and ".join(f"{len(s)} ({KNOWN.get(s, s.name)})" for s in known)
    raise InputError(
        f"{path}: {joints} joints per person and no names in the categories; known are {counts}: "
        "name them in the file, or give a skeleton of as many joints"
    )


def _rows(path: str | Path, found: Annotations, kept: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """``(N, K, 3)`` numbers of the chosen annotations; 0 for crowds without."""
    points, count = found.points, 3 * len(skeleton)
    counts, numbers = np.frombuffer(points.counts, np.int64), np.frombuffer(points.values)
    if not points.odd and (counts == count).all():
        rows = numbers.reshape(-1, count)
        return (rows if len(kept) == len(rows) else rows[kept]).reshape(-1, len(skeleton), 3)
    rows, ends = np.zeros((len(kept), count)), counts.cumsum()
    for row, n in zip(rows, kept.tolist(), strict=True):
        values: Any = numbers[ends[n] - counts[n] : ends[n]]
        if n in points.odd:
            values = _flat(points.odd[n])
        elif not len(values):
            continue  # of a crowd
        if values is None or len(values) != count:
            i = found.record[n]
            raise InputError(
                f"{path}: expected {len(skeleton)} keypoints x, y, visibility for annotation "
                f"{i if found.ids[i] is None else found.ids[i]}, the joints of {skeleton.name}; got "
                f"{'no numbers' if values is None else f'{len(values)} numbers'}; "
                "other joints need names in the categories"
            )
        row[:] = values
    return rows.reshape(-1, len(skeleton), 3)


def _flat(values: Any) -> np.ndarray | None:
    """The numbers of a keypoints field as a flat array, or None."""
    found = floats(values) if isinstance(values, list) else None
    if found is None or (found.ndim == 2 and found.shape[1] != 3) or found.ndim > 2:
        return None
    return found.ravel()


def _triples(
    path: str | Path, found: Annotations, kept: np.ndarray, skeleton: Skeleton, notes: Counter[str]
) -> np.ndarray:
    """``(N, K, 3)``; unlabelled joints are 0, 0, 0."""
    triples = _rows(path, found, kept, skeleton)  # the largest array by far: no copies of it
    visible = triples[..., 2]
    labelled = visible > 0  # NaN and -1 are not
    odd = ~np.isnan(visible) & (visible != 0) & (visible != 1) & (visible != 2)
    notes["visibilities are not 0, 1 or 2; more than 0 counts as labelled"] += int(odd.sum())
    lost = labelled & ~(np.isfinite(triples[..., 0]) & np.isfinite(triples[..., 1]))
    if lost.any():
        n, k = np.argwhere(lost)[0]
        i = found.record[int(kept[n])]
        raise InputError(f"{path}: {skeleton.joints[k]} of annotation {i} is labelled and not finite")
    triples[~labelled] = 0
    points = triples[..., :2]
    if points.max(initial=0) > FAR or points.min(initial=0) < -FAR:
        n, k, _ = np.argwhere(np.abs(points) > FAR)[0]
        i = found.record[int(kept[n])]
        raise InputError(f"{path}: {skeleton.joints[k]} of annotation {i} is at {triples[n, k, 0]:g} px")
    return triples


def _boxes(path: str | Path, found: Annotations, kept: np.ndarray, notes: Counter[str]) -> np.ndarray:
    """``(N, 4)`` corners, NaN if missing or empty."""
    column = found.boxes
    boxes = np.frombuffer(column.values).reshape(-1, 4)[kept]
    given = np.frombuffer(column.counts, np.int64)[kept] > 0
    for row, n in enumerate(kept.tolist()) if column.odd else ():
        if n in column.odd:
            values = floats(column.odd[n]) if isinstance(column.odd[n], list) else None
            boxes[row], given[row] = np.nan if values is None or values.shape != (4,) else values, True
    wrong = given & ~np.isfinite(boxes).all(1)
    if wrong.any():
        row = int(np.argmax(wrong))
        n = int(kept[row])
        i = found.record[n]
        raise InputError(
            f"{path}: annotation {i}: bbox must be 4 finite numbers, got "
            f"{shown(column.odd.get(n, boxes[row].tolist()))} (id {shown(found.ids[i])})"
        )
    far = given & (np.abs(boxes) > FAR).any(1)
    if far.any():
        row = int(np.argmax(far))
        i = found.record[int(kept[row])]
        raise InputError(f"{path}: annotation {i}: bbox reaches to {np.abs(boxes[row]).max():g} px")
    boxes[:, 2:] += boxes[:, :2]
    empty = ~(boxes[:, 2:] > boxes[:, :2]).all(1)
    notes["boxes are missing or empty: replaced by the bounds of the joints"] += int(empty.sum())
    boxes[empty] = np.nan
    return boxes


def _areas(path: str | Path, found: Annotations, kept: np.ndarray) -> np.ndarray:
    area = np.frombuffer(found.areas.values).copy()
    for n in kept.tolist() if found.areas.odd else ():
        if n in found.areas.odd:
            (value,) = found.areas.odd[n]
            number = floats(value)
            if number is None or number.ndim:
                raise InputError(f"{path}: annotation {found.record[n]}: area must be a number, got {shown(value)}")
            area[n] = number
    area = area[kept]
    return np.where((area > 0) & np.isfinite(area), area, np.nan)


def _images_of(path: str | Path, found: Annotations, kept: np.ndarray, images: Mapping[Id, Any]) -> list[Id]:
    ids, keys = ImageIds(images), []
    own = {key: key for key in images}  # the objects of the images, instead of one for each person
    for n in kept.tolist():
        value = found.image_id(n)
        key = own.get(value) if type(value) is int else None
        if key is None:
            i = found.record[n]
            identifier(path, "annotation", i, "image_id", value)
            key = ids.find(value)
            if key is None or key not in images:
                raise InputError(
                    f"{path}: annotation {i} has an unknown image_id {shown(value)} (id {shown(found.ids[i])})"
                )
        keys.append(key)
    return keys


def _choose(
    path: str | Path,
    named: Mapping[Id, Mapping[str, Any]],
    found: Annotations,
    known: Sequence[Skeleton],
    category: str | None,
) -> tuple[np.ndarray, list[Id | None], Skeleton, bool]:
    """Selects the annotations of the chosen categories; also the categories, the skeleton, and if it is a guess."""
    rows = [n for n in range(len(found)) if found.points.has(n)]
    categories = list(dict.fromkeys(found.category[n] for n in rows))
    if category is not None:
        categories = [_wanted(path, named, categories, category)]
    chosen = set(categories)
    kept = np.array([key in chosen for key in found.category], bool).nonzero()[0]
    first = next((n for n in rows if found.category[n] in chosen), None)
    joints = None
    if first is not None:
        flat = _flat(found.points.odd[first]) if first in found.points.odd else None
        joints = (
            found.points.counts[first] if first not in found.points.odd else 0 if flat is None else len(flat)
        ) // 3
    skeleton, has_names = _skeleton(path, named, categories, joints, known)
    guessed = len(kept) > 0 and not has_names and skeleton in SKELETONS.values()  # not one that the user gave
    return kept, categories, skeleton, guessed


def read_people(
    path: str | Path,
    content: Any = None,
    *,
    known: Sequence[Skeleton] = (COCO, AIC),
    category: str | None = None,
    once: bool = False,
) -> CocoPeople:
    """Reads the people of a file in COCO's format.

    Args:
        path: of the file.
        content: the parsed file, if already read.
        known: skeletons for a file that names no joints: the first with as many.
        category: a name or id; None: every category with keypoints, which must have the same joints.
        once: refuse duplicate ids of annotations.
    """
    if content is None:
        content = stream_json(path, {"images": lambda: Images(path), "annotations": lambda: Annotations(path)})
    expected = f"{path}: expected COCO annotations, an object with images and annotations"
    if not isinstance(content, Mapping):
        raise InputError(f"{expected}, got a {type(content).__name__}")
    for name in ("images", "annotations"):
        if name not in content:
            raise InputError(f"{expected}, it has no {name!r}")
    images, found = image_records(path, content["images"]), read_annotations(path, content["annotations"])
    notes = found.notes
    if once:
        found.unique_ids()
    else:
        notes["annotations have the id of another; all are kept"] += found.repeated_ids()
    kept, categories, skeleton, guessed = _choose(path, _named(path, content), found, known, category)
    if len(kept) < len(found):
        notes["annotations of other categories, skipped"] += len(found) - len(kept)
    index = {key: n for n, key in enumerate(categories)}
    return CocoPeople(
        path=path,
        skeleton=skeleton,
        images=images,
        keypoints=_triples(path, found, kept, skeleton, notes),
        image=_images_of(path, found, kept, images),
        boxes=_boxes(path, found, kept, notes),
        area=_areas(path, found, kept),
        has_area=np.frombuffer(found.has_area, bool)[kept],
        crowd=np.frombuffer(found.crowd, bool)[kept],
        category=np.array([index[found.category[n]] for n in kept.tolist()], np.int64),
        categories=categories,
        record=np.frombuffer(found.record, np.int64)[kept],
        ids=found.ids,
        guessed=guessed,
        notes=notes,
    )


# Training -------------------------------------------------------------------------------------------------------------


def with_others(people: list[Sample]) -> list[Sample]:
    """Gives each of the samples of one image the others."""
    if len(people) > 1:
        joints = np.stack([np.column_stack((s.keypoints, s.visible)) for s in people]).astype(np.float32)
        for i, sample in enumerate(people):
            sample.others = np.delete(joints, i, 0)
    return people


def as_dataset(people: CocoPeople, name: str, images: str | None) -> PoseDataset:
    """People for training and testing: without crowds and people without labelled joints."""
    seen = people.keypoints[..., 2] > 0
    labelled = seen.any(1)
    dataset = PoseDataset(name, people.skeleton, notes=people.notes, people=people)
    if people.guessed:
        what = f"people without names of joints in the file, taken as {people.skeleton.name}"
        dataset.notes[what] += len(people)
    dataset.skipped = int((~labelled & ~people.crowd).sum())
    kept = np.flatnonzero(labelled & ~people.crowd)
    finder = ImageFinder(people.path, images, dataset.notes)
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
            found[key] = finder.find(record["file_name"]), known_size(record)
        image, size = found[key]
        sample = Sample(image, people.keypoints[n, :, :2], visible[n], size=size, annotation=n)
        sample.box = sample.joints_box() if np.isnan(people.boxes[n, 0]) else tuple(boxes[n])
        groups.setdefault(key, []).append(sample)
    dataset.samples = [sample for group in groups.values() for sample in with_others(group)]
    return dataset


def read_coco(
    path: str,
    split: str = "train",
    images: str | None = None,
    category: str | None = None,
    skeleton: Skeleton | None = None,
) -> PoseDataset:
    """COCO's ``person_keypoints_*.json``, or any file of this format with other joints; a file is one split.

    ``skeleton`` names the joints of a file that does not, if it is the user's own and has as many.
    """
    people = read_people(path, known=known_or(COCO, skeleton), category=category)
    return as_dataset(people, f"coco:{path}", images)


def known_or(own: Skeleton, skeleton: Skeleton | None) -> tuple[Skeleton, ...]:
    """The skeletons of a file without names: the format's, or the user's own; another data set's would be a guess."""
    return (own,) if skeleton is None or skeleton in SKELETONS.values() else (own, skeleton)

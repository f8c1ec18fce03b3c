"""The records of COCO's annotations while a file is read: images by their ids, annotations in columns."""

import sys
from array import array
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import InputError
from .files import Id, as_id, fields_of, floats, identifier, only_once, shown

# Unused fields of annotations and images, most of a file's bytes.
UNREAD = ("segmentation", "caption", "coco_url", "flickr_url", "date_captured", "license", "num_keypoints")
MISSING = object()
Records = TypeVar("Records", "Images", "Annotations")


class Images(dict[Id, Mapping[str, Any]]):
    """Image records by id, without unused fields."""

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self._path, self._seen = path, set[Id]()

    def add(self, image: Any) -> None:
        """Takes the next record of the file."""
        i = len(self)
        (value,) = fields_of(self._path, "image", i, image, ("id",))
        key = only_once(self._path, "image", i, "id", value, self._seen)
        # One object for all fields of a name: the parser makes one for each.
        self[key] = {sys.intern(k): v for k, v in image.items() if k not in UNREAD}


def image_records(path: str | Path, images: Any) -> Images:
    """Image records by id."""
    return _taken(Images, "images", path, images)


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


def known_size(record: Mapping[str, Any]) -> tuple[int, int] | None:
    """``(height, width)`` of an image; 0, -1, null and text mean unknown."""
    size = floats([record.get("height"), record.get("width")])
    if size is None or size.shape != (2,) or not (np.isfinite(size) & (size >= 1) & (size < 1e6)).all():
        return None
    return int(size[0]), int(size[1])


# Annotations ----------------------------------------------------------------------------------------------------------


class Whole:
    """A column of whole numbers; other values are kept by their row."""

    values: "array[int]"
    odd: dict[int, Any]

    def __init__(self) -> None:
        self.values, self.odd = array("q"), dict[int, Any]()

    def add(self, value: Any) -> None:
        """Takes the next row."""
        if type(value) is int and -(2**63) <= value < 2**63:
            self.values.append(value)
        else:
            self.odd[len(self.values)] = value
            self.values.append(0)

    def __getitem__(self, row: int) -> Any:
        return self.odd[row] if row in self.odd else self.values[row]


class Numbers:
    """A column of lists of numbers, one after the other; other values are kept by their row."""

    values: "array[float]"
    counts: "array[int]"
    odd: dict[int, Any]

    def __init__(self) -> None:
        self.values, self.counts, self.odd = array("d"), array("q"), dict[int, Any]()

    def __len__(self) -> int:
        return len(self.counts)

    def add(self, values: Any, count: int | None = None) -> None:
        """Takes the next row; of ``count`` numbers, NaN for other values and for None."""
        kind = type(values)
        if (kind is list or kind is array) and (count is None or len(values) == count):
            try:
                self.values.extend(array("d", values))
                self.counts.append(len(values))
                return
            except (TypeError, OverflowError):
                pass  # nested, null or text
        if values is not None:
            self.odd[len(self.counts)] = values
        if count is not None:
            self.values.extend((np.nan,) * count)
        self.counts.append(0)

    def has(self, row: int) -> bool:
        """Whether there is a value in a row."""
        return self.counts[row] > 0 or row in self.odd


def is_crowd(path: str | Path, i: int, value: Any) -> bool:
    """Whether a value of the field iscrowd says so."""
    if value in (0, 1, None, False, True):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in ("0", "1", "true", "false", "", "0.0", "1.0"):
        return value.strip().lower() in ("1", "true", "1.0")
    raise InputError(f"{path}: annotation {i}: iscrowd must be 0 or 1, got {shown(value)}")


class Annotations:
    """The annotations with keypoints, and crowds without; other boxes are counted.

    Attributes:
        ids: of all annotations of the file.
        record: indices in the file; the following have one row for each.
        image: image ids as written, MISSING if there is none.
        category: category ids; None for annotations without one.
        points: flat lists of x, y, visibility; 0 numbers for crowds without.
        boxes: x, y, width, height.
        areas: one number each.
        has_area, crowd: 1 or 0.
        notes: counts of skipped annotations.
    """

    notes: Counter[str]
    ids: Whole
    image: Whole
    category: list[Id | None]
    record: "array[int]"
    points: Numbers
    boxes: Numbers
    areas: Numbers
    has_area: bytearray
    crowd: bytearray

    def __init__(self, path: str | Path) -> None:
        self._path, self.notes = path, Counter[str]()
        self.ids, self.image, self.category, self.record = Whole(), Whole(), list[Id | None](), array("q")
        self.points, self.boxes, self.areas = Numbers(), Numbers(), Numbers()
        self.has_area, self.crowd = bytearray(), bytearray()

    def __len__(self) -> int:
        return len(self.record)

    def add(self, annotation: Any) -> None:
        """Takes the next record of the file."""
        path, i = self._path, len(self.ids.values)
        if not isinstance(annotation, Mapping):
            raise InputError(f"{path}: annotation {i} must be an object, got {shown(annotation)}")
        get = annotation.get
        self.ids.add(get("id"))
        values, crowd = get("keypoints"), is_crowd(path, i, get("iscrowd"))
        if not values and not crowd:
            self.notes["annotations without keypoints, skipped"] += 1
            return
        category = get("category_id")
        self.record.append(i)
        self.crowd.append(crowd)
        self.category.append(None if category is None else identifier(path, "annotation", i, "category_id", category))
        self.image.add(get("image_id", MISSING))
        self.points.add(values or None)
        self.boxes.add(get("bbox"), 4)
        area = get("area")
        self.areas.add(None if area is None else [area], 1)
        self.has_area.append("area" in annotation)

    def image_id(self, row: int) -> Any:
        """As written; a line if there is none."""
        value, i = self.image[row], self.record[row]
        if value is MISSING:
            raise InputError(f"{self._path}: annotation {i} has no 'image_id' (id {shown(self.ids[i])})")
        return value

    def repeated_ids(self) -> int:
        """The number of annotations with the id of one before."""
        if not self.ids.odd:
            ids = np.frombuffer(self.ids.values, np.int64)[np.frombuffer(self.record, np.int64)]
            return len(ids) - len(np.unique(ids))
        given = [key for i in self.record if (key := as_id(self.ids[i])) is not None]
        return len(given) - len(set(given))

    def unique_ids(self) -> None:
        """Refuses ids that come twice."""
        seen: set[Id] = set()
        for i in self.record:
            if (value := self.ids[i]) is not None:
                only_once(self._path, "annotation", i, "id", value, seen)


def read_annotations(path: str | Path, annotations: Any) -> Annotations:
    """Annotations of a list, or as they are if they were read before."""
    return _taken(Annotations, "annotations", path, annotations)


def _taken(kind: type[Records], name: str, path: str | Path, records: Any) -> Records:
    if isinstance(records, kind):
        return records
    if not isinstance(records, list):
        raise InputError(f"{path}: {name} must be a list, got a {type(records).__name__}")
    found = kind(path)
    for record in records:
        found.add(record)
    return found

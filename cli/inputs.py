"""The input images of a command, and the boxes of people in them."""

import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pypose_ops.datasets.coco_records import image_records
from pypose_ops.datasets.files import as_id, load_json, shown
from pypose_ops.errors import InputError

from . import words

_PERSON = 1  # COCO's category


def expand(paths: Sequence[Path]) -> list[Path]:
    """Expands folders to their images, and patterns such as ``*.jpg`` to matching files."""
    endings, found = set(Image.registered_extensions()), []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in endings and p.is_file())
            if not inside:
                raise InputError(f"{path}: not a readable image: a folder without images")
            found += inside
        elif not path.exists() and any(c in str(path) for c in "*?["):
            matching = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file())
            if not matching:
                raise InputError(f"{path}: no file matches")
            found += matching
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def output_names(paths: Sequence[Path]) -> dict[Path, str]:
    """The name of each image's results: its stem; for duplicates, with the folders or the full name."""
    for name in (lambda p: p.stem, lambda p: str(_below(p, paths).with_suffix("")), lambda p: str(_below(p, paths))):
        names = {path: name(path) for path in paths}
        if len(set(names.values())) == len(paths):
            return names
    raise InputError("IMAGE: two images have the same name and would be written to the same file")


def _below(path: Path, paths: Sequence[Path]) -> Path:
    parents = [str(p.absolute().parent) for p in paths]
    return Path(os.path.relpath(path.absolute(), os.path.commonpath(parents)))


def image_id_of(path: Path) -> Any:
    """COCO's number of an image by its file name, or the name itself."""
    return int(path.stem) if path.stem.isascii() and path.stem.isdigit() and len(path.stem) < 19 else path.name


def boxes_by_image(path: Path, images: Sequence[Path]) -> dict[Path, Any]:
    """The entries of a file of boxes for each image.

    The file is a list for the only image, an object with a list for each file name, COCO's detections (a list with
    ``image_id``) or COCO's annotations. None: no people in the image.
    """
    content = load_json(path, dropped=("segmentation", "keypoints"))
    if isinstance(content, Mapping) and "images" in content and "annotations" in content:
        return _of_annotations(path, content, images)
    if isinstance(content, list) and content and all(isinstance(e, Mapping) and "image_id" in e for e in content):
        return _of_detections(path, content, images)
    named = isinstance(content, Mapping) and "boxes" not in content
    if not named and len(images) > 1:
        raise InputError(f"{path}: expected an object with a list for each of the {len(images)} images")
    lists = content if named else {images[0].name: content}
    found = {}
    for image in images:
        if image.name not in lists:
            raise InputError(f"{path}: no boxes for {image.name}, it has {', '.join(lists)[:80] or 'none'}")
        found[image] = lists[image.name]
    return found


def _of_people(entries: Sequence[Any]) -> list[Any]:
    """Selects COCO's category person, if the entries have categories and any is a person; excludes crowds."""
    entries = [e for e in entries if e.get("iscrowd") not in (1, True, "1")]
    people = [e for e in entries if as_id(e.get("category_id")) == _PERSON]
    return people or list(entries)


def _of_detections(path: Path, content: Sequence[Mapping[str, Any]], images: Sequence[Path]) -> dict[Path, Any]:
    groups: dict[Any, list[Any]] = {}
    for entry in _of_people(content):
        groups.setdefault(as_id(entry["image_id"]), []).append(entry)
    found = {}
    for image in images:
        forms = (image_id_of(image), image.stem, image.name)
        found[image] = next((groups[key] for key in forms if key in groups), None)
    if not any(found.values()):
        ids = words.first(groups)
        raise InputError(f"{path}: no boxes for {images[0].name}, the entries are of image_id {ids}")
    return found


def _of_annotations(path: Path, content: Mapping[str, Any], images: Sequence[Path]) -> dict[Path, Any]:
    if not isinstance(content["annotations"], list) or not all(isinstance(a, Mapping) for a in content["annotations"]):
        raise InputError(f"{path}: annotations must be a list of objects")
    records = image_records(path, content["images"])
    ids = {str(r.get("file_name")).replace("\\", "/").rsplit("/", 1)[-1]: key for key, r in records.items()}
    groups: dict[Any, list[Any]] = {}
    for entry in _of_people(content["annotations"]):
        groups.setdefault(as_id(entry.get("image_id")), []).append(entry)
    found = {}
    for image in images:
        if image.name not in ids:
            raise InputError(f"{path}: no boxes for {image.name}, it is of {shown(list(ids)[:3], 80)}")
        found[image] = groups.get(ids[image.name])
    return found

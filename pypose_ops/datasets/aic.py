"""AI Challenger's keypoints: a list of images, people by name, boxes of two corners.

Visibility 1 is visible, 2 occluded, 3 not labelled; in COCO's format, as converted by MMPose: 2, 1 and 0.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..errors import InputError
from ..skeletons import AIC, Skeleton
from .coco import as_dataset, known_or, read_people, with_others
from .coco_records import UNREAD
from .dataset import PoseDataset
from .files import fields_of, finite_box, finite_numbers, load_json, only_once, stacked
from .sample import Sample
from .source import ImageFinder

VISIBLE = np.array([0, 2, 1, 0], np.uint8)  # of their 1, 2 and 3


class Person(NamedTuple):
    """One person of a file: the image's id, the person's name, ``(14, 3)`` joints, and the record of the image."""

    image: Any
    name: str
    joints: np.ndarray
    record: Mapping[str, Any]


def read_records(path: str | Path, content: Any = None) -> list[Any]:
    """The list of images of a file."""
    content = load_json(path) if content is None else content
    if not isinstance(content, list):
        raise InputError(f"{path}: must be AI Challenger's form, a list, got a {type(content).__name__}")
    return content


def read_persons(path: str | Path, records: list[Any]) -> Iterator[Person]:
    """All people of a file."""
    seen: set[Any] = set()
    for i, record in enumerate(records):
        image, people = fields_of(path, "image", i, record, ("image_id", "keypoint_annotations"))
        only_once(path, "image", i, "image_id", image, seen)
        if not isinstance(people, Mapping):
            raise InputError(f"{path}: image {i}: keypoint_annotations must be an object")
        for name, values in people.items():
            joints = finite_numbers(path, "image", f"{image}, {name}", "keypoint_annotations", values, 3 * len(AIC))
            yield Person(image, name, joints.reshape(-1, 3), record)


def box_of(path: str | Path, person: Person) -> tuple[float, float, float, float]:
    """The corners of a person's box."""
    boxes = person.record.get("human_annotations")
    box = boxes.get(person.name) if isinstance(boxes, Mapping) else None
    where = f"{person.image}, {person.name}"
    x1, y1, x2, y2 = finite_box(path, "image", where, "human_annotations", box).tolist()
    if x2 < x1 or y2 < y1:
        raise InputError(f"{path}: image {where}: human_annotations must be x1, y1, x2, y2")
    return x1, y1, x2, y2


def image_name(identifier: Any) -> str:
    """The file of an image."""
    return str(identifier) if str(identifier).endswith(".jpg") else f"{identifier}.jpg"


def read_aic(
    path: str,
    split: str = "train",
    images: str | None = None,
    category: str | None = None,
    skeleton: Skeleton | None = None,
) -> PoseDataset:
    """Reads people from AI Challenger's own format or COCO's; a file is one split."""
    content = load_json(path, packed=("keypoints",), dropped=UNREAD)
    if not isinstance(content, list):
        people = read_people(path, content, known=known_or(AIC, skeleton), category=category)
        return as_dataset(people, f"aic:{path}", images)
    dataset = PoseDataset(f"aic:{path}", AIC)
    finder = ImageFinder(path, images, dataset.notes)
    groups: dict[Any, list[Sample]] = {}
    try:
        for person in read_persons(path, read_records(path, content)):
            codes = person.joints[:, 2]
            known = np.isin(codes, (0, 1, 2, 3))
            dataset.notes["visibilities are not 1, 2 or 3; not labelled"] += int((~known).sum())
            visible = VISIBLE[np.where(known, codes, 0).astype(int)]
            if not visible.any():
                dataset.skipped += 1
                continue
            box = box_of(path, person)
            if box[2] <= box[0] or box[3] <= box[1]:
                dataset.notes["boxes are missing or empty: replaced by the bounds of the joints"] += 1
                box = None
            sample = Sample(finder.find(image_name(person.image)), person.joints[:, :2], visible, box)
            sample.box = sample.box or sample.joints_box()
            groups.setdefault(person.image, []).append(sample)
    except InputError as error:
        if " has no 'image_id'" in str(error) or " has no 'keypoint_annotations'" in str(error):
            raise InputError(
                f"{path}: expected AI Challenger annotations, image_id, keypoint_annotations and human_annotations "
                f"({str(error).removeprefix(f'{path}: ')})"
            ) from None
        raise
    dataset.samples = [sample for group in groups.values() for sample in with_others(group)]
    return dataset


def read_aic_results(path: str | Path, target_path: str | Path) -> tuple[dict[str, torch.Tensor], list[str], list[str]]:
    """The arguments of :func:`.metrics.aic_score`.

    Also the predicted images that are not in the ground truth, and the file of the image of every annotated person.
    """
    truth = list(read_persons(target_path, read_records(target_path)))
    areas = []
    for person in truth:
        x1, y1, x2, y2 = box_of(target_path, person)
        areas.append((x2 - x1) * (y2 - y1))
    number = {image: i for i, image in enumerate(dict.fromkeys(person.image for person in truth))}
    pred, images, unknown = [], [], {}
    for person in read_persons(path, read_records(path)):
        if person.image in number:
            pred.append(person.joints)
            images.append(number[person.image])
        else:
            unknown[str(person.image)] = None
    points = stacked([person.joints for person in truth], len(AIC), 3)
    people = dict(
        pred=stacked(pred, len(AIC), 3)[..., :2],
        pred_image=torch.tensor(images, dtype=torch.int64),
        target=points[..., :2],
        visible=points[..., 2] == 1,  # 2: occluded, 3: not labelled
        area=stacked(areas),
        target_image=torch.tensor([number[person.image] for person in truth], dtype=torch.int64),
    )
    return people, list(unknown), [image_name(person.image) for person in truth]

"""Predicted people beside the annotated ones: COCO's results, and poses in .mat files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..skeletons import AIC, COCO, Skeleton
from .coco import CocoPeople, read_people
from .coco_records import UNREAD, ImageIds
from .files import Id, as_id, fields_of, finite_numbers, identifier, load_json, shown, stacked


def select(
    path: str | Path, target_path: str | Path, pred: torch.Tensor, target: torch.Tensor, people: tuple[int, int] | None
) -> slice:
    """Selects the predicted people of the ground truth."""
    first, last = people or (1, len(target))
    if last > len(target):
        raise InputError(f"{target_path}: people ends at {last}, the file has {len(target)} people")
    if last - first + 1 != len(pred):
        wanted = f"people {first}:{last}" if people else f"{target_path}"
        raise InputError(
            f"{path}: {len(pred)} people are predicted, {wanted} has {last - first + 1}: "
            "say which they are by people, FIRST:LAST"
        )
    return slice(first - 1, last)


def check_finite(path: str | Path, name: str, pred: torch.Tensor, first: int) -> None:
    """Refuses missing coordinates, which would silently count as misses."""
    wrong = (~pred.isfinite()).flatten(1).any(1).nonzero()
    if len(wrong):
        raise InputError(f"{path}: {name} of person {int(wrong[0]) + first} is not finite ({len(wrong)} are not)")


@dataclass
class CocoPair:
    """The arguments of :func:`.metrics.coco_ap`, and notes for the table.

    Attributes:
        people: the arguments of coco_ap but the sigmas; of all categories.
        pred_category, category: ``(D,)`` and ``(G,)`` the category of each.
        skeleton: of the joints.
        names: G names of image files; empty where the file has none.
        notes: lines about skipped and estimated values.
        guessed: as in :class:`.CocoPeople`.
    """

    people: dict[str, torch.Tensor]
    pred_category: torch.Tensor
    category: torch.Tensor
    skeleton: Skeleton
    names: list[str]
    notes: list[str]
    guessed: bool = False


def _estimated(truth: CocoPeople) -> tuple[torch.Tensor, list[str]]:
    """Areas, and notes about missing ones."""
    areas, estimated = truth.areas()
    counted = ~truth.crowd
    if estimated and truth.has_area.any():
        without = truth.record[~truth.has_area & counted]
        if len(without):
            n = int(without[0])
            raise InputError(f"{truth.path}: annotation {n} has no 'area' (id {shown(truth.ids[n])}), others have")
        return torch.from_numpy(areas), [f"{estimated} people have area 0 or none: 0.53 of their boxes"]
    notes = ["no areas in the ground truth: 0.53 of the boxes"] if estimated else []
    return torch.from_numpy(areas), notes


def _results(path: str | Path, truth: CocoPeople, one: bool) -> tuple[list[Any], list[float], list[Any], list[int]]:
    """Keypoints, scores, image ids and categories of a file of results; with ``one`` category, others are skipped."""
    content = load_json(path, packed=("keypoints",), dropped=UNREAD)
    if not isinstance(content, list):
        raise InputError(f"{path}: must be COCO results, a list, got a {type(content).__name__}")
    ids, index, joints = ImageIds(truth.images), {key: n for n, key in enumerate(truth.categories)}, len(truth.skeleton)
    pred, scores, images, categories = [], [], [], []
    for i, result in enumerate(content):
        image_id, keypoints, score = fields_of(path, "result", i, result, ("image_id", "keypoints", "score"))
        identifier(path, "result", i, "image_id", image_id)
        if one and result.get("category_id") is not None and as_id(result["category_id"]) not in index:
            truth.notes["results of other categories are left out"] += 1
            continue
        key = ids.find(image_id)
        if key is None or key not in truth.images:
            raise InputError(f"{path}: result {i} has image_id {image_id}, which is not in {truth.path}")
        pred.append(finite_numbers(path, "result", i, "keypoints", keypoints, 3 * joints))
        scores.append(float(finite_numbers(path, "result", i, "score", [score], 1)[0]))
        images.append(key)
        categories.append(_category(path, i, result.get("category_id"), index, truth.path))
    return pred, scores, images, categories


def _category(path: str | Path, i: int, value: Any, index: Mapping[Any, int], target_path: str | Path) -> int:
    if not index or (len(index) == 1 and (value is None or None in index)):
        return 0
    if value is None:
        raise InputError(f"{path}: result {i} has no category_id, {target_path} has {len(index)} categories")
    key = identifier(path, "result", i, "category_id", value)
    if key not in index:
        raise InputError(f"{path}: result {i} has category_id {value}, which does not occur in {target_path}")
    return index[key]


def read_coco_pair(
    path: str | Path, target_path: str | Path, category: str | None = None, skeleton: Skeleton | None = None
) -> CocoPair:
    """Results and annotations of COCO's form; ``skeleton`` names the joints of a file that does not."""
    known = (COCO, AIC) if skeleton is None else (COCO, AIC, skeleton)
    truth = read_people(target_path, known=known, category=category, once=True)
    pred, scores, images, categories = _results(path, truth, category is not None)
    points = stacked(pred, len(truth.skeleton), 3)[..., :2]
    return pair_of(truth, points, stacked(scores), images, torch.tensor(categories, dtype=torch.int64))


def pair_of(
    truth: CocoPeople, pred: torch.Tensor, scores: torch.Tensor, images: Sequence[Id], categories: torch.Tensor
) -> CocoPair:
    """Predicted people beside annotated ones.

    Args:
        truth: the annotated ones.
        pred: ``(D, K, 2)`` image pixels.
        scores: ``(D,)``.
        images: D ids of images in ``truth``.
        categories: ``(D,)`` as in ``truth.category``.
    """
    area, notes = _estimated(truth)
    notes += [f"{n} {what}" for what, n in truth.notes.items() if n]
    number = {key: i for i, key in enumerate(sorted(truth.images, key=lambda k: (str(type(k)), k)))}
    points, boxes = torch.from_numpy(truth.keypoints.copy()), torch.from_numpy(truth.boxes)
    people = dict(
        pred=pred.double(),
        scores=scores.double(),
        pred_image=torch.tensor([number[k] for k in images], dtype=torch.int64),
        target=points[..., :2],
        visible=points[..., 2] > 0,
        area=area,
        target_image=torch.tensor([number[k] for k in truth.image], dtype=torch.int64),
        boxes=boxes.nan_to_num(),
        crowd=torch.from_numpy(truth.crowd),
    )
    names = [str(truth.images[key].get("file_name") or "") for key in truth.image]
    return CocoPair(people, categories, torch.from_numpy(truth.category), truth.skeleton, names, notes, truth.guessed)

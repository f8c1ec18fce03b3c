"""The part of ``pypose-ops demo`` from photographs to poses, with the packaged weights."""

import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from pypose_ops import viz
from pypose_ops.errors import InputError
from pypose_ops.models import pretrained
from pypose_ops.models.inference import find_joints
from pypose_ops.models.training.scores import score, torso_of
from pypose_ops.models.weights.files import skeleton_of
from pypose_ops.skeletons import Skeleton, joint_map

from .files import read_image, write_image

# Systems are trained on whole people: the box extends below the image to where her feet would be.
ASTRONAUT = (-40.0, 0.0, 520.0, 1000.0)
THRESHOLD = 0.4  # joints with a lower score, guesses or outside the image, are not drawn


def photograph(photo: Any, out: Path) -> None:
    """Finds and draws the joints of scikit-image's astronaut.

    Args:
        image: ``(512, 512, 3)`` uint8.
        out (Path): of the drawing.
    """
    system, info = pretrained()
    skeleton = skeleton_of(info)
    coords, scores = find_joints(system, skeleton, photo, torch.tensor([ASTRONAUT]), flip=True)
    write_image(viz.draw_pose(photo, coords, scores, skeleton, threshold=THRESHOLD), out)
    drawn = int((scores >= THRESHOLD).sum())
    print(f"wrote {out}: {drawn} of {len(skeleton)} joints; her legs are outside the image")


def load_people(folder: Path, skeleton: Skeleton) -> Any:
    """The annotated people of a folder, by image.

    Args:
        folder (Path): with persons.json: a list of ``{"dataset", "image", "bbox_xywh", "joint_names",
            "keypoints_xyv"}``; visibility 0 not labelled, 1 occluded, 2 visible.
        skeleton (Skeleton): the order of the joints.

    Returns:
        dict: ``{image: (data set, boxes (N, 4), keypoints (N, K, 2), visible (N, K))}``; joints that the data
        set lacks are not visible.
    """
    path, people = folder / "persons.json", {}
    try:
        for person in json.loads(path.read_text()):
            labels = torch.tensor(person["keypoints_xyv"], dtype=torch.float32)
            index = torch.tensor(joint_map(person["joint_names"], skeleton.joints))
            labels = labels[index.clamp(min=0)] * (index >= 0)[:, None]
            x, y, width, height = person["bbox_xywh"]
            people.setdefault((person["dataset"], person["image"]), []).append(((x, y, x + width, y + height), labels))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
        raise InputError(f"{path}: expected a list of people with boxes and joints ({error})") from None
    found = {}
    for (dataset, image), entries in people.items():
        boxes, labels = zip(*entries, strict=True)
        labels = torch.stack(labels)
        found[image] = dataset, torch.tensor(boxes), labels[..., :2], labels[..., 2]
    return found


def find_everybody(folder: Path, out: Path, weights: str = "coco17") -> Any:
    """Finds and draws the people of :func:`load_people`.

    Args:
        folder (Path): with persons.json and the images.
        out (Path): folder for a drawing of each image.
        weights (str): name of packaged weights.

    Returns:
        tuple: skeleton; ``{data set: (joints (N, K, 2), keypoints (N, K, 2), visible (N, K))}``.
    """
    system, info = pretrained(weights)
    skeleton, found = skeleton_of(info), {}
    for image, (dataset, boxes, keypoints, visible) in load_people(folder, skeleton).items():
        photo = read_image(folder / image)
        coords, scores = find_joints(system, skeleton, photo, boxes, flip=True)
        drawn = viz.draw_pose(photo, coords, scores, skeleton, threshold=THRESHOLD)
        write_image(drawn, (out / image.replace("/", "-")).with_suffix(".png"))
        found.setdefault(dataset, []).append((coords, keypoints, visible))
    return skeleton, {name: tuple(map(torch.cat, zip(*parts, strict=True))) for name, parts in found.items()}


def counted(visible: torch.Tensor, skeleton: Skeleton) -> Any:
    """The numbers of people with a labelled torso and of their labelled joints, which PCK counts."""
    whole = (visible[:, list(torso_of(skeleton) or ())] > 0).all(1)
    return int(whole.sum()), int((visible[whole] > 0).sum())


def people(folder: Path, out: Path, weights: str = "coco17") -> Any:
    """Prints PCK@0.2 (of left shoulder to right hip) of annotated people in photographs; returns the overall value.

    Arguments as :func:`find_everybody`.
    """
    skeleton, found = find_everybody(folder, out, weights)
    everybody = tuple(map(torch.cat, zip(*found.values(), strict=True)))
    parts = found | {"all": everybody}
    numbers = [counted(visible, skeleton) for *_, visible in parts.values()]
    number, joints = numbers[-1]
    if number == 0:
        raise InputError(f"{folder / 'persons.json'}: expected people with a labelled torso, found none")
    scores = [score(*part, skeleton)["pck"] for part in parts.values()]
    table = Table("", *parts, title=f"Poses in photographs by {weights}: PCK@0.2, %")
    for row, values in zip(("people", "joints"), zip(*numbers, strict=True), strict=True):
        table.add_row(row, *map(str, values))
    for row in scores[-1]:
        table.add_row(row, *("-" if column[row] is None else f"{column[row]:.1f}" for column in scores))
    Console().print(table)
    mean = scores[-1]["mean"]
    print(
        f"PCK@0.2 {mean:.1f} of {number} people with a labelled torso (of {len(everybody[0])}), {joints} joints that "
        f"their data sets and {skeleton.name} both have"
    )
    print(f"wrote their poses to {out}")
    return mean

"""The part of ``pypose-ops demo`` that goes from photographs to poses, by the weights that come with the package."""

import json

import torch
from rich.console import Console
from rich.table import Table

from pypose_ops import viz
from pypose_ops.errors import InputError
from pypose_ops.models import pretrained
from pypose_ops.models.inference import find_joints
from pypose_ops.models.training.scores import score, torso_of
from pypose_ops.skeletons import SKELETONS, joint_map

from .files import read_picture, write_picture

# Systems learn from whole people: the box reaches as far below the image as she would.
ASTRONAUT = (-40.0, 0.0, 520.0, 1000.0)
THRESHOLD = 0.4  # joints with a smaller score are not drawn: guesses, and those out of the picture


def photograph(picture, out):
    """Finds and draws the joints of scikit-image's astronaut.

    Args:
        picture: ``(512, 512, 3)`` uint8.
        out (Path): of the drawing.
    """
    system, info = pretrained()
    skeleton = SKELETONS[info["skeleton"]]
    coords, scores = find_joints(system, skeleton, picture, torch.tensor([ASTRONAUT]), flip=True)
    write_picture(viz.draw_pose(picture, coords, scores, skeleton, threshold=THRESHOLD), out)
    drawn = int((scores >= THRESHOLD).sum())
    print(f"wrote {out}: {drawn} of {len(skeleton)} joints; her legs are out of the picture")


def load_people(folder, skeleton):
    """The annotated people of a folder, by picture.

    Args:
        folder (Path): with persons.json: a list of ``{"dataset", "image", "bbox_xywh", "joint_names",
            "keypoints_xyv"}``; visibility 0 not labelled, 1 occluded, 2 to be seen.
        skeleton (Skeleton): the order of joints wanted.

    Returns:
        dict: ``{image: (data set, boxes (N, 4), keypoints (N, K, 2), visible (N, K))}``; of a joint that the data set
        lacks, ``visible`` is 0.
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


def find_everybody(folder, out, weights="coco17"):
    """Finds and draws the people of :func:`load_people`.

    Args:
        folder (Path): with persons.json and the pictures.
        out (Path): folder for a drawing of each picture.
        weights (str): which of those that come with the package.

    Returns:
        tuple: skeleton; ``{data set: (joints (N, K, 2), keypoints (N, K, 2), visible (N, K))}``.
    """
    system, info = pretrained(weights)
    skeleton, found = SKELETONS[info["skeleton"]], {}
    for image, (dataset, boxes, keypoints, visible) in load_people(folder, skeleton).items():
        picture = read_picture(folder / image)
        coords, scores = find_joints(system, skeleton, picture, boxes, flip=True)
        drawn = viz.draw_pose(picture, coords, scores, skeleton, threshold=THRESHOLD)
        write_picture(drawn, (out / image.replace("/", "-")).with_suffix(".png"))
        found.setdefault(dataset, []).append((coords, keypoints, visible))
    return skeleton, {name: tuple(map(torch.cat, zip(*parts, strict=True))) for name, parts in found.items()}


def counted(visible, skeleton):
    """How many people have a labelled torso, and how many labelled joints they have: those that PCK counts."""
    whole = (visible[:, list(torso_of(skeleton))] > 0).all(1)
    return int(whole.sum()), int((visible[whole] > 0).sum())


def people(folder, out, weights="coco17"):
    """A table of PCK@0.2 (of left shoulder to right hip) of annotated people in photographs; returns it of all of them.

    Arguments as :func:`find_everybody`.
    """
    skeleton, found = find_everybody(folder, out, weights)
    everybody = tuple(map(torch.cat, zip(*found.values(), strict=True)))
    parts = found | {"all": everybody}
    numbers = [counted(visible, skeleton) for *_, visible in parts.values()]
    number, joints = numbers[-1]
    if number == 0:
        raise InputError(f"{folder / 'persons.json'}: expected people with a labelled torso, there is none")
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

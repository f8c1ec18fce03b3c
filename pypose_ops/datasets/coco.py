"""COCO person keypoints, and AI Challenger in COCO's form (as MMPose converts it) or its own.

COCO: visibility 0 not labelled, 1 occluded, 2 to be seen; boxes are x, y, width, height; crowds are not people.
AI Challenger's own: a list of pictures, people by name, boxes of two corners, visibility 1 to be seen, 2 occluded,
3 not labelled.
"""

import numpy as np

from ..errors import InputError
from ..skeletons import AIC, COCO
from .dataset import PoseDataset
from .sample import Sample
from .source import Source, load_json, pictures_folder

AIC_VISIBLE = np.array([0, 2, 1, 0], np.uint8)  # of their 1, 2 and 3


def _triples(path, record, values, joints):
    try:
        triples = np.asarray(values, np.float64).reshape(-1, 3)
    except (TypeError, ValueError):
        triples = np.zeros((0, 3))
    if len(triples) != joints or not np.isin(triples[:, 2], range(4)).all():
        raise InputError(f"{path}: expected {joints} keypoints x, y, visibility for {record}")
    return triples


def with_others(people):
    """Gives each of the samples of one picture the others."""
    joints = np.stack([np.column_stack((s.keypoints, s.visible)) for s in people]).astype(np.float32)
    for i, sample in enumerate(people):
        sample.others = np.delete(joints, i, 0)
    return people


def _from_coco(path, content, images, name, skeleton):
    if not (isinstance(content, dict) and isinstance(content.get("images"), list) and "annotations" in content):
        raise InputError(f"{path}: expected COCO annotations, an object with images and annotations")
    try:
        pictures = {picture["id"]: picture for picture in content["images"]}
        folder = Source(pictures_folder(path, images, content["images"][0]["file_name"])) if pictures else None
        dataset, people = PoseDataset(f"{name}:{path}", skeleton), {}
        for annotation in content["annotations"]:
            if annotation.get("iscrowd", 0):
                continue
            record = f"annotation {annotation.get('id')}"
            joints = _triples(path, record, annotation.get("keypoints"), len(skeleton))
            if not (joints[:, 2] > 0).any():
                dataset.skipped += 1
                continue
            picture = pictures[annotation["image_id"]]
            x, y, w, h = map(float, annotation["bbox"])
            size = (int(picture["height"]), int(picture["width"])) if "height" in picture else None
            sample = Sample(folder.picture(picture["file_name"]), joints[:, :2], joints[:, 2], (x, y, x + w, y + h))
            sample.size = size
            people.setdefault(annotation["image_id"], []).append(sample)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not COCO annotations ({type(error).__name__}: {error})") from None
    dataset.samples = [sample for group in people.values() for sample in with_others(group)]
    return dataset


def _from_aic(path, content, images):
    dataset = PoseDataset(f"aic:{path}", AIC)
    folder = None
    try:
        for picture in content:
            name, people = f"{picture['image_id']}.jpg", []
            folder = folder or Source(pictures_folder(path, images, name))
            for human, values in picture["keypoint_annotations"].items():
                joints = _triples(path, f"{human} of {name}", values, len(AIC))
                visible = AIC_VISIBLE[joints[:, 2].astype(int)]
                if not visible.any():
                    dataset.skipped += 1
                    continue
                box = tuple(map(float, picture["human_annotations"][human]))
                people.append(Sample(folder.picture(name), joints[:, :2], visible, box))
            dataset.samples += with_others(people) if people else []
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: expected AI Challenger annotations, image_id, keypoint_annotations and human_annotations "
            f"({type(error).__name__}: {error})"
        ) from None
    return dataset


def read_coco(path, split="train", images=None):
    """COCO's ``person_keypoints_*.json``; a file is one split."""
    return _from_coco(path, load_json(path), images, "coco", COCO)


def read_aic(path, split="train", images=None):
    """AI Challenger's keypoint annotations, its own list or COCO's form; a file is one split."""
    content = load_json(path)
    if isinstance(content, list):
        return _from_aic(path, content, images)
    return _from_coco(path, content, images, "aic", AIC)

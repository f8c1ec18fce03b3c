"""MPII Human Pose (Andriluka et al., CVPR 2014): the .mat of the release, and the two json forms in use.

All count pixels from 1. ``json`` of MSRA and MMPose: image, center, scale, joints, joints_vis. ``json`` of CPM and the
hourglass: img_paths, objpos, scale_provided, joint_self, ...: jsonlab leaves out the outer list where there is exactly
one other person, and writes an object where there is none.

The person's box is the square of side ``200 scale`` around the centre moved down by ``15 scale`` (Newell et al. 2016).
"""

from pathlib import Path

import numpy as np

from ..errors import InputError
from ..skeletons import MPII
from .coco import with_others
from .dataset import PoseDataset
from .sample import Sample
from .source import Source, load_json, load_mat, pictures_folder

JOINTS = len(MPII)


def _sample(picture, joints, visible, center, scale, **given):
    """Of 1-based values."""
    center, scale = np.asarray(center, np.float64).reshape(2) - 1, float(scale)
    middle, half = center + (0, 15 * scale), 100 * scale
    box = (*(middle - half).tolist(), *(middle + half).tolist())
    return Sample(picture, np.asarray(joints) - 1, visible, box, center=tuple(center.tolist()), scale=scale, **given)


def read_mpii(path, split="train", images=None):
    """MPII: the validation people of CPM's json are the test split, as is the .mat's (which has no joints)."""
    if Path(path).suffix == ".mat":
        return _from_mat(path, split, images)
    records = load_json(path)
    known = isinstance(records, list) and (not records or isinstance(records[0], dict))
    if known and records and "joint_self" in records[0]:
        read, name, wanted = _cpm, "img_paths", [r for r in records if _in_split(r, split)]
    elif known and (not records or "joints_vis" in records[0]):
        read, name, wanted = _msra, "image", records
    else:
        raise InputError(f"{path}: expected MPII's json, a list with joints and joints_vis, or with joint_self")
    dataset = PoseDataset(f"mpii:{path}", MPII)
    try:
        folder = Source(pictures_folder(path, images, wanted[0][name])) if wanted else None
        for record in wanted:
            sample = read(folder.picture(record[name]), record)
            if sample.visible.any():
                dataset.samples.append(sample)
            else:
                dataset.skipped += 1
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path}: not MPII's json ({type(error).__name__}: {error})") from None
    if read is _msra:
        groups = {}
        for sample in dataset.samples:
            groups.setdefault(sample.picture, []).append(sample)
        for group in groups.values():
            with_others(group)
    return dataset


def _msra(picture, record):
    """A missing joint is (-1, -1) or has joints_vis 0."""
    joints, visible = np.asarray(record["joints"], np.float64).reshape(JOINTS, 2), np.asarray(record["joints_vis"])
    return _sample(
        picture, joints, np.where((visible > 0) & (joints > 0).any(1), 2, 0), record["center"], record["scale"]
    )


def _in_split(record, split):
    return split == "all" or bool(record.get("isValidation", 0)) == (split == "test")


def _labels(triples):
    """(..., 3) of CPM's json: (0, 0, 0) is not labelled, elsewhere 0 is occluded and 1 to be seen."""
    labelled = (triples != 0).any(-1)
    return np.where(labelled, np.where(triples[..., 2] > 0, 2, 1), 0)


def _cpm(picture, record):
    joints = np.asarray(record["joint_self"], np.float64).reshape(JOINTS, 3)
    others = record.get("joint_others")
    others = np.zeros((0, JOINTS, 3)) if isinstance(others, dict) or not others else np.asarray(others, np.float64)
    others = others.reshape(-1, JOINTS, 3)  # one other person is not in a list of its own
    visible = _labels(others)
    others = np.concatenate((np.where(visible[..., None] > 0, others[..., :2] - 1, 0), visible[..., None]), -1)
    size = (int(record["img_height"]), int(record["img_width"])) if "img_height" in record else None
    return _sample(
        picture, joints[:, :2], _labels(joints), record["objpos"], record["scale_provided"],
        size=size, others=others.astype(np.float32),
    )  # fmt: skip


def _items(value):
    """A field of a struct that squeeze_me may have made a single one, an array of them, or nothing."""
    return [] if value is None else [v for v in np.atleast_1d(value).ravel() if hasattr(v, "_fieldnames")]


def _visible(point):
    """is_visible may be missing, empty, a number or a text; a joint without it is labelled, and seen."""
    value = getattr(point, "is_visible", 1)
    text = str(value.tolist() if isinstance(value, np.ndarray) else value).strip("[] ")
    return 1 if text in ("0", "0.0") else 2


def _person(picture, rect):
    """One annorect, or None where it has neither joints nor position."""
    points, position, scale = (getattr(rect, name, None) for name in ("annopoints", "objpos", "scale"))
    points = [p for holder in _items(points) for p in _items(getattr(holder, "point", None))]
    position = _items(position)
    if not points or not position or not np.size(scale):
        return None
    joints, visible = np.zeros((JOINTS, 2)), np.zeros(JOINTS)
    for point in points:
        joints[int(point.id)] = float(point.x), float(point.y)
        visible[int(point.id)] = _visible(point)
    corners = [getattr(rect, name, None) for name in ("x1", "y1", "x2", "y2")]
    head = None if any(c is None or not np.size(c) for c in corners) else tuple(float(c) - 1 for c in corners)
    center = float(position[0].x), float(position[0].y)
    return _sample(picture, joints, visible, center, scale, head=head)


def _from_mat(path, split, images):
    source = Path(path)
    try:
        data = source.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    release = load_mat(data, path).get("RELEASE")
    if not hasattr(release, "annolist") or not hasattr(release, "img_train"):
        raise InputError(f"{path}: expected MPII's RELEASE with annolist and img_train")
    dataset, folder = PoseDataset(f"mpii:{path}", MPII), None
    try:
        for record, train in zip(_items(release.annolist), np.atleast_1d(release.img_train), strict=True):
            if split != "all" and bool(train) != (split == "train"):
                continue
            name, rects = str(record.image.name), _items(getattr(record, "annorect", None))
            folder = folder or Source(pictures_folder(path, images, name))
            people = [_person(folder.picture(name), rect) for rect in rects]
            dataset.skipped += people.count(None)
            people = [person for person in people if person is not None]
            dataset.samples += with_others(people) if people else []
    except InputError:
        raise
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path}: not MPII's RELEASE ({type(error).__name__}: {error})") from None
    return dataset

"""The people and the maps of mrf_distractors.py: annotated joints, heatmaps rendered of them, and real heatmaps."""

import gzip
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pypose_ops import gaussian_heatmaps
from pypose_ops.skeletons import COCO, FLIC, MPII

SIDE = 64  # of the maps, pixels
CROP = 1.25  # a crop is that many times the longer side of the person's box
LONGER = SIDE / CROP  # that side in map pixels
RIGHT = 0.1  # of it
BODY = COCO.joints[5:]  # shoulders to ankles: the joints that MPII and COCO share
FLIC_BODY = tuple(name for name in COCO.joints if name in FLIC.joints)
HEATMAPS = "heatmaps/movenet_thunder_topdown.npz"


@dataclass
class People:
    """Joints of N people in pixels of their images: of the J that are asked for, and where their boxes are."""

    names: tuple  # of the joints
    xy: torch.Tensor  # (N, J, 2)
    visible: torch.Tensor  # (N, J) bool: annotated
    centre: torch.Tensor  # (N, 2) of the box around all annotated joints
    extent: torch.Tensor  # (N,) its longer side
    height: torch.Tensor  # (N,) of the whole, upright person
    real: torch.Tensor  # (N,) bool: in one of the images of the real heatmaps

    def __len__(self):
        return len(self.xy)

    def __getitem__(self, index):
        fields = (self.xy, self.visible, self.centre, self.extent, self.height, self.real)
        return People(self.names, *(field[index] for field in fields))

    def of(self, names):
        """The same people with only these joints."""
        chosen = [self.names.index(name) for name in names]
        return replace(self, names=tuple(names), xy=self.xy[:, chosen], visible=self.visible[:, chosen])

    def in_map(self, longer):
        """(N, J, 2) map pixels if ``longer``, (N,) image pixels, is the longer side of the person's box."""
        scale = (LONGER / longer)[:, None, None]
        return (self.xy - self.centre[:, None]) * scale + (SIDE - 1) / 2


def read_mpii(folder, names=BODY, least=6):
    """Training and validation people of MPII, those with ``least`` of the named joints."""
    with gzip.open(folder / "mpii_joints.json.gz") as file:
        rows = json.load(file)
    with np.load(folder / HEATMAPS, allow_pickle=False) as file:
        images = {Path(name).name for name in file["image"].tolist()}
    joints = torch.tensor([row["joint_self"] for row in rows])
    annotated = (joints[..., :2] != 0).any(-1)
    low = torch.where(annotated[..., None], joints[..., :2], math.inf).amin(1)
    high = torch.where(annotated[..., None], joints[..., :2], -math.inf).amax(1)
    chosen = [MPII.joints.index(name) for name in names]
    people = People(
        tuple(names),
        joints[:, chosen, :2],
        annotated[:, chosen],
        (low + high) / 2,
        (high - low).amax(1),
        200 * torch.tensor([row["scale_provided"] for row in rows]),
        torch.tensor([row["img_paths"] in images for row in rows]),
    )
    usable = (people.visible.sum(1) >= least) & (people.extent > 0)
    held_out = torch.tensor([row["isValidation"] for row in rows]) > 0
    return people[usable & ~held_out], people[usable & held_out]


def read_flic(folder, crops, generator):
    """Training and test people of FLIC, whose images end at the hips, placed and sized as whole people are.

    Args:
        crops (tuple[People, People]): of MPII, for training and test: each person's torso gets the place and length
            that the torso of a random one of these has in its box.
    """
    with np.load(folder / "flic_joints.npz", allow_pickle=False) as file:
        xy, is_train = torch.from_numpy(file["joints"]).float(), torch.from_numpy(file["is_train"])
    chosen = [FLIC.joints.index(name) for name in FLIC_BODY]
    parts = []
    for rows, whole in zip((is_train, ~is_train), crops, strict=True):
        seen = whole.visible[:, [BODY.index(name) for name in TORSO]].all(1)
        whole = whole[seen & (torso(whole.xy, whole.names)[1] > 0)]
        whole = whole[torch.randint(len(whole), (int(rows.sum()),), generator=generator)]
        (middle, length), (its, its_length) = torso(whole.xy, whole.names), torso(xy[rows], FLIC.joints)
        placed = (xy[rows] - its[:, None]) * (length / its_length)[:, None, None] + middle[:, None]
        placed = placed[:, chosen]
        box = (whole.centre, whole.extent, whole.height, torch.zeros_like(whole.real))
        parts.append(People(FLIC_BODY, placed, placed.isfinite().all(-1), *box)[its_length > 0])
    return tuple(parts)


TORSO = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")


def torso(xy, names):
    """Middle (N, 2) and length (N,) between the middles of the shoulders and of the hips."""
    a, b, c, d = (xy[:, names.index(name)] for name in TORSO)
    return (a + b + c + d) / 4, ((a + b) / 2 - (c + d) / 2).norm(dim=-1)


def rendered(people, generator, strength=None):
    """Heatmaps of people as a detector sees them, each with a second person in the crop.

    A confident joint is a narrow peak, an unsure one a broad one: a standard deviation from 1.2 px at height 0.9 to
    3 px at 0, as in the heatmaps of scikit-image's astronaut. Every joint has a height between 0.1 and 0.9, one in
    seven is missed (below 0.05). What distracts: another person of the same set, 0.6 to 1.6 times as large and 12 to
    36 px away, with heights of the same kind; for every second joint a peak at the other side's joint, at up to 0.5;
    in every map one anywhere, at up to 0.15. All three are weaker in some crops than in others: by a factor between
    0 and 1.

    Args:
        strength (float, optional): this factor, the same for all crops.

    Returns:
        tuple: maps (N, J, 64, 64), true joints (N, J, 2) in map pixels, (N, J) which of them count: those that are
        annotated, in the map, and not of a person of the real heatmaps.
    """
    count, joints = people.visible.shape

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(*shape, generator=generator)

    def blobs(xy, visible, height):
        seen_at = xy + torch.randn(xy.shape, generator=generator)
        maps = gaussian_heatmaps(seen_at, 3 - 2 * height, (SIDE, SIDE), visible=visible)
        return maps * height[..., None, None]

    def heights():
        missed = uniform(0, 1, count, joints) < 1 / 7
        return torch.where(missed, uniform(0, 0.05, count, joints), uniform(0.1, 0.9, count, joints))

    xy = people.in_map(people.extent * uniform(1.0, 1.2, count))
    maps = blobs(xy, people.visible, heights())

    strength = uniform(0, 1, count, 1) if strength is None else torch.full((count, 1), strength)
    other = torch.randperm(count, generator=generator)
    second = people[other].in_map(people.extent[other] * uniform(1.0, 1.2, count))
    size, angle, distance = uniform(0.6, 1.6, count), uniform(0, 2 * math.pi, count), uniform(12, 36, count)
    away = torch.stack((angle.cos(), angle.sin()), -1) * distance[:, None]
    second = (second - (SIDE - 1) / 2) * size[:, None, None] + (SIDE - 1) / 2 + away[:, None]
    maps = maps.maximum(blobs(second, people.visible[other], strength * heights()))

    mirror = [people.names.index(opposite(name)) for name in people.names]
    height = torch.where(uniform(0, 1, count, joints) < 0.5, uniform(0, 0.5, count, joints), 0.0)
    maps = maps.maximum(blobs(xy[:, mirror], people.visible[:, mirror], strength * height))
    anywhere = uniform(0, SIDE - 1, count, joints, 2)
    maps = maps.maximum(blobs(anywhere, None, strength * uniform(0, 0.15, count, joints)))
    inside = ((xy >= -0.5) & (xy < SIDE - 0.5)).all(-1)
    return maps, xy, people.visible & inside & ~people.real[:, None]


def opposite(name):
    left, right = "left_", "right_"
    return name.replace(left, right) if left in name else name.replace(right, left)


def read_real(folder, names):
    """Real heatmaps of MoveNet: maps, truth in map pixels, which joints are annotated, tolerance (N, 1), data set."""
    with np.load(folder / HEATMAPS, allow_pickle=False) as file:
        arrays = {key: file[key] for key in ("heatmaps", "joint_names", "gt_kps", "hm2img", "bbox_xywh", "dataset")}
    chosen = [arrays["joint_names"].tolist().index(name) for name in names]
    maps = torch.from_numpy(arrays["heatmaps"].astype(np.float32))[:, chosen]
    truth, hm2img = (torch.from_numpy(arrays[key]) for key in ("gt_kps", "hm2img"))
    truth = truth[:, chosen]
    scale = hm2img[:, 0, 0]
    xy = (truth[..., :2] - hm2img[:, None, :, 2]) / scale[:, None, None]
    longer = torch.from_numpy(arrays["bbox_xywh"])[:, 2:].amax(1) / scale
    return maps, xy, truth[..., 2] > 0, RIGHT * longer[:, None], arrays["dataset"].tolist()

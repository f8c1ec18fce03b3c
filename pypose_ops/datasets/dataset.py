"""A list of people, converted and checked."""

from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import InputError
from ..skeletons import Skeleton, joint_map
from .sample import PictureError, Sample


def reordered(array, index):
    """``(..., K, C)`` in another order of joints; zeros where the index is -1."""
    moved = array[..., np.maximum(index, 0), :].copy()
    moved[..., np.asarray(index) < 0, :] = 0
    return moved


@dataclass
class PoseDataset:
    """People of one data set (or several), in one order of joints.

    Attributes:
        name (str): what it was opened as.
        skeleton (Skeleton): the order of the joints.
        samples (list[Sample]): the people.
        skipped (int): annotated people who have no labelled joint; they are left out.
        dropped_joints (int): labelled joints that lie far out of their pictures; they count as not labelled.
    """

    name: str
    skeleton: Skeleton
    samples: list = field(default_factory=list)
    skipped: int = 0
    dropped_joints: int = 0

    def __len__(self):
        return len(self.samples)

    def convert(self, skeleton):
        """In the order of another skeleton, by joint names; people who have none of its joints are left out."""
        if skeleton == self.skeleton:
            return self
        index = joint_map(self.skeleton.joints, skeleton.joints)
        samples = []
        for s in self.samples:
            joints = reordered(np.column_stack((s.keypoints, s.visible)), index)
            others = reordered(s.others, index)
            changed = {"keypoints": joints[:, :2], "visible": joints[:, 2], "others": others}
            samples.append(Sample(**(vars(s) | changed)))
        kept = [s for s in samples if s.visible.any()]
        if samples and not kept:
            raise InputError(f"{self.name}: no joint of {self.skeleton.name} is one of {skeleton.name}")
        return replace(self, skeleton=skeleton, samples=kept, skipped=self.skipped + len(samples) - len(kept))

    def checked(self):
        """Itself, once its people, pictures and joints have been looked at.

        Raises:
            InputError: nobody is there, a picture is missing, or a joint lies far out of its picture.
        """
        if not self.samples:
            raise InputError(f"{self.name}: no people with labelled joints (of {self.skipped}), expected at least one")
        check_pictures(self)
        check_joints(self)
        return self


def check_pictures(dataset):
    """Every picture must be there; the sizes of those that can be read are filled in."""
    by_picture = {}
    for sample in dataset.samples:
        by_picture.setdefault(sample.picture, []).append(sample)
    missing = [picture for picture in by_picture if not picture.exists()]
    if missing:
        count = f", {len(missing)} of {len(by_picture)} are missing" if len(missing) > 1 else ""
        raise InputError(f"{missing[0]}: no such picture, {dataset.name} names it{count}")
    for picture, samples in by_picture.items():
        if samples[0].size is None:
            try:
                size = picture.size()
            except PictureError:
                continue  # counted and reported when it is wanted
            for sample in samples:
                sample.size = size


def check_joints(dataset):
    """Joints farther out of the picture than half its longer side are mistakes: one of LSPET's 10,000 people has one.

    (MPII has joints 94 px out; they stay.) Where few people have such joints, these count as not labelled; more than
    one in a hundred is a file of other pictures or other units.
    """
    wrong = {}
    for i, sample in enumerate(dataset.samples):
        if not np.isfinite(sample.keypoints).all():
            raise InputError(f"{sample.picture}: a labelled joint is not finite")
        if sample.size is not None:
            height, width = sample.size
            slack = max(height, width) / 2
            outside = (sample.keypoints < -slack) | (sample.keypoints > (width + slack, height + slack))
            if outside.any():
                wrong[i] = outside.any(1)
    if len(wrong) > len(dataset) / 100:
        first, outside = next(iter(wrong.items()))
        sample, k = dataset.samples[first], int(outside.argmax())
        x, y = sample.keypoints[k].tolist()
        raise InputError(
            f"{sample.picture}: {dataset.skeleton.joints[k]} is at ({x:g}, {y:g}), far out of the picture of "
            f"{sample.size[1]}x{sample.size[0]} px; such are {len(wrong)} of {len(dataset)} people of {dataset.name}"
        )
    for i, outside in wrong.items():
        dataset.samples[i].drop(outside)
        dataset.dropped_joints += int(outside.sum())
    empty = [i for i in wrong if not dataset.samples[i].visible.any()]
    dataset.samples = [sample for i, sample in enumerate(dataset.samples) if i not in empty]
    dataset.skipped += len(empty)

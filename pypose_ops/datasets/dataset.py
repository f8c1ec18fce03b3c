"""Lists of people, with conversion and checks."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..skeletons import Skeleton, joint_map
from .images import ImageError, ImageFile
from .sample import Sample

if TYPE_CHECKING:
    from .coco import CocoPeople


def reordered(array: np.ndarray, index: Sequence[int]) -> np.ndarray:
    """Reorders the joints of ``(..., K, C)``; zeros for index -1."""
    moved = array[..., np.maximum(index, 0), :].copy()
    moved[..., np.asarray(index) < 0, :] = 0
    return moved


@dataclass
class PoseDataset:
    """People of one or more data sets, with the same skeleton.

    Attributes:
        name (str): the spec that was opened.
        skeleton (Skeleton): the order of the joints.
        samples (list[Sample]): the people.
        skipped (int): number of annotated people without labelled joints, who are skipped.
        dropped_joints (int): number of labelled joints far outside their images, treated as not labelled.
        notes (Counter): counts of other skipped or reinterpreted values.
        people (CocoPeople or None): all people in a COCO file, including crowds, for its AP.
    """

    name: str
    skeleton: Skeleton
    samples: list[Sample] = field(default_factory=list)
    skipped: int = 0
    dropped_joints: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    people: "CocoPeople | None" = None

    def __len__(self) -> int:
        return len(self.samples)

    def image_paths(self) -> set[str]:
        """The files that its images are in."""
        return {sample.image.path for sample in self.samples}

    def convert(self, skeleton: Skeleton) -> "PoseDataset":
        """Converts to another skeleton by joint name; people without any of its joints are skipped."""
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
            raise InputError(f"{self.name}: {self.skeleton.name} and {skeleton.name} have no common joints")
        return replace(self, skeleton=skeleton, samples=kept, skipped=self.skipped + len(samples) - len(kept))

    def checked(self) -> "PoseDataset":
        """Checks people, images and joints; returns itself.

        Raises:
            InputError: no people, an image is missing or of another size, or a joint is far outside its image.
        """
        if not self.samples:
            notes = "".join(f"; {n} {what}" for what, n in self.notes.items() if n)
            raise InputError(
                f"{self.name}: no people with labelled joints (of {self.skipped}), expected at least one{notes}"
            )
        check_images(self)
        check_joints(self)
        return self


def check_images(dataset: PoseDataset) -> None:
    """Checks that every image exists and has the size stated in the file; fills in missing sizes."""
    by_image: dict[ImageFile, list[Sample]] = {}
    for sample in dataset.samples:
        by_image.setdefault(sample.image, []).append(sample)
    missing = [image for image in by_image if not image.exists()]
    if missing:
        count = f", {len(missing)} of {len(by_image)} are missing" if len(missing) > 1 else ""
        hint = "" if dataset.name.startswith("lsp") else "; use ,images=FOLDER for their folder"
        raise InputError(f"{missing[0]}: no such image, named in {dataset.name}{count}{hint}")
    for image, samples in by_image.items():
        said = samples[0].size
        try:
            size, frames = image.header()
            dataset.notes["images of several frames; the first is used"] += frames > 1
        except ImageError:
            continue  # reported when it is loaded
        if said is not None and said != size:
            turned = " (rotated by its EXIF orientation)" if said == size[::-1] and image.is_turned() else ""
            raise InputError(
                f"{image}: {size[1]}x{size[0]} pixels{turned}; {dataset.name} says {said[1]}x{said[0]}, "
                "so the coordinates belong to another image"
            )
        for sample in samples:
            sample.size = size


def check_joints(dataset: PoseDataset) -> None:
    """Drops joints farther outside the image than half its longer side: one of LSPET's 10,000 people has one.

    (MPII has joints 94 px outside, which are kept.) If more than one in a hundred people has such joints, the file is
    of other images or in other units, and refused.
    """
    wrong = {}
    for i, sample in enumerate(dataset.samples):
        if not np.isfinite(sample.keypoints).all():
            raise InputError(f"{sample.image}: a labelled joint is not finite")
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
            f"{sample.image}: {dataset.skeleton.joints[k]} is at ({x:g}, {y:g}), far outside the image of "
            f"{sample.size[1]}x{sample.size[0]} px; as for {len(wrong)} of {len(dataset)} people of {dataset.name}"
        )
    for i, outside in wrong.items():
        dataset.samples[i].drop(outside)
        dataset.dropped_joints += int(outside.sum())
    empty = [i for i in wrong if not dataset.samples[i].visible.any()]
    dataset.samples = [sample for i, sample in enumerate(dataset.samples) if i not in empty]
    dataset.skipped += len(empty)

"""Data sets of annotated people: every format is read into :class:`Sample`."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..skeletons import Skeleton
from .aic import read_aic
from .coco import read_coco
from .dataset import PoseDataset
from .images import ImageError, ImageFile
from .lsp import read_lsp, read_lspet
from .mpii import read_mpii
from .sample import Sample

__all__ = [
    "FORMATS",
    "SPLITS",
    "ImageError",
    "ImageFile",
    "PoseDataset",
    "Sample",
    "data_path",
    "hold_out",
    "joined",
    "open_dataset",
]

FORMATS: dict[str, Callable[..., PoseDataset]] = {
    "lsp": read_lsp,
    "lspet": read_lspet,
    "mpii": read_mpii,
    "coco": read_coco,
    "aic": read_aic,
}
SPLITS = ("train", "test", "all")


def data_path(spec: str) -> Path:
    """The file or folder that a specification of :func:`open_dataset` names."""
    return Path(re.split(",(?:images|category)=", str(spec).partition(":")[2])[0])


def open_dataset(spec: str, split: str = "train", skeleton: Skeleton | None = None) -> PoseDataset:
    """Opens a data set and checks it.

    Args:
        spec (str): ``FORMAT:PATH``: lsp or lspet with a folder or a zip archive; mpii, coco or aic with an annotation
            file, with its images next to it, in ``images`` or in a folder of the split; otherwise:
            ``FORMAT:PATH,images=FOLDER``. ``,category=NAME`` selects one category of a COCO file.
        split (str): ``"train"``, ``"test"`` or ``"all"``; annotation files without splits belong to all of them.
        skeleton (Skeleton, optional): the order of joints; default: that of the data set. One of your own also names
            the joints of a COCO file without names, if it has as many.

    Returns:
        PoseDataset: its people in the order of the files.

    Raises:
        InputError: one line that names the file and what was expected.
    """
    kind, colon, rest = str(spec).partition(":")
    if not colon or kind not in FORMATS:
        raise InputError(f"data must be FORMAT:PATH with a format of {', '.join(FORMATS)}, got {spec}")
    if split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)}, got {split}")
    options: dict[str, Any] = {}
    for _ in range(2):  # in either order
        for other in ("category", "images"):
            before, found, value = rest.rpartition(f",{other}=")
            if found and other not in options and ",images=" not in value and ",category=" not in value:
                rest, options[other] = before, value
    if "category" in options and kind not in ("coco", "aic"):
        raise InputError(f"data: ,category= is for coco and aic, got {spec}")
    if kind in ("coco", "aic"):
        options["skeleton"] = skeleton
    dataset = FORMATS[kind](rest, split, options.pop("images", "") or None, **options).checked()
    return dataset if skeleton is None else dataset.convert(skeleton)


def joined(datasets: Sequence[PoseDataset]) -> PoseDataset:
    """Concatenates data sets of the same skeleton."""
    samples = [sample for dataset in datasets for sample in dataset.samples]
    name = ", ".join(dataset.name for dataset in datasets)
    skipped, dropped = (sum(getattr(d, name) for d in datasets) for name in ("skipped", "dropped_joints"))
    notes = sum((d.notes for d in datasets), Counter[str]())
    return PoseDataset(name, datasets[0].skeleton, samples, skipped, dropped, notes)


def hold_out(dataset: PoseDataset, count: int = 200, seed: int = 0) -> tuple[PoseDataset, PoseDataset]:
    """Splits off random images for validation, by ``seed``: ``(the rest, the held-out)``.

    Whole images are held out, so that no person's neighbours are trained on; at most a fifth of them.
    """
    images = sorted({sample.image for sample in dataset.samples}, key=str)
    drawn = np.random.default_rng(seed).permutation(len(images))[: min(count, len(images) // 5)]
    held = {images[i] for i in drawn}
    rest, kept = ([s for s in dataset.samples if (s.image in held) == part] for part in (False, True))
    return replace(dataset, samples=rest), replace(dataset, samples=kept)

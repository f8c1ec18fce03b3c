"""Data sets of annotated people: every format becomes :class:`Sample`."""

from dataclasses import replace

import numpy as np

from ..errors import InputError
from .coco import read_aic, read_coco
from .dataset import PoseDataset
from .lsp import read_lsp, read_lspet
from .mpii import read_mpii
from .sample import Picture, PictureError, Sample

__all__ = [
    "FORMATS",
    "SPLITS",
    "Picture",
    "PictureError",
    "PoseDataset",
    "Sample",
    "hold_out",
    "joined",
    "open_dataset",
]

FORMATS = {"lsp": read_lsp, "lspet": read_lspet, "mpii": read_mpii, "coco": read_coco, "aic": read_aic}
SPLITS = ("train", "test", "all")


def open_dataset(spec, split="train", skeleton=None):
    """Opens a data set and checks it.

    Args:
        spec (str): ``FORMAT:PATH``: lsp or lspet with a folder or a zip archive; mpii, coco or aic with an annotation
            file, whose pictures are beside it or in ``images``; elsewhere: ``FORMAT:PATH,images=FOLDER``.
        split (str): ``"train"``, ``"test"`` or ``"all"``; an annotation file without splits is all of each.
        skeleton (Skeleton, optional): the order of joints wanted; default: the data set's own.

    Returns:
        PoseDataset: its people in the order of the files.

    Raises:
        InputError: one line that names the file and what was expected.
    """
    kind, colon, rest = str(spec).partition(":")
    if not colon or kind not in FORMATS:
        raise InputError(f"--data must be FORMAT:PATH with a format of {', '.join(FORMATS)}, got {spec}")
    if split not in SPLITS:
        raise InputError(f"--split must be one of {', '.join(SPLITS)}, got {split}")
    path, _, images = rest.partition(",images=")
    dataset = FORMATS[kind](path, split, images or None).checked()
    return dataset if skeleton is None else dataset.convert(skeleton)


def joined(datasets):
    """Several data sets of one skeleton as one."""
    samples = [sample for dataset in datasets for sample in dataset.samples]
    name = ", ".join(dataset.name for dataset in datasets)
    skipped, dropped = (sum(getattr(d, name) for d in datasets) for name in ("skipped", "dropped_joints"))
    return PoseDataset(name, datasets[0].skeleton, samples, skipped, dropped)


def hold_out(dataset, count=200, seed=0):
    """Splits off pictures for validation, drawn by ``seed``: ``(the rest, the held-out)``.

    Pictures, so that nobody's neighbour is trained on; at most a fifth of them.
    """
    pictures = sorted({sample.picture for sample in dataset.samples}, key=str)
    drawn = np.random.default_rng(seed).permutation(len(pictures))[: min(count, len(pictures) // 5)]
    held = {pictures[i] for i in drawn}
    parts = [[s for s in dataset.samples if (s.picture in held) == kept] for kept in (False, True)]
    return tuple(replace(dataset, samples=part) for part in parts)

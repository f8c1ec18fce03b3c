"""Leeds Sports Pose (Johnson & Everingham, BMVC 2010) and its extension LSPET (CVPR 2011): a folder or the zip.

Both have ``joints.mat`` next to ``images/``. LSP's third row is 1 where a joint is *occluded*, and every joint counts;
LSPET's third column is 1 where a joint is *labelled*; other coordinates are meaningless. LSP's images show one person
in the middle; LSPET's boxes are the bounds of the labelled joints.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from ..skeletons import LSP
from .dataset import PoseDataset
from .files import is_hdf5, load_mat, no_array, take_numbers
from .results import check_finite, select
from .sample import Sample
from .source import Source

TRAIN = 1000  # LSP's first images
SHAPES = {"LSP": (3, 14), "LSPET": (14, 3)}  # of joints, whose last axis is that of people


def _joints(source: Source, name: str) -> tuple[np.ndarray, str, Counter[str]]:
    """The array, its path, and notes about it."""
    path, data = f"{source.path}/joints.mat", source.enter("joints.mat").read("joints.mat")
    variables = load_mat(path, data, squeeze_me=True)
    joints = variables.get("joints")
    if not isinstance(joints, np.ndarray) or joints.dtype.kind not in "fiu":
        held = ", ".join(k for k in variables if not k.startswith("__")) or "nothing"
        raise InputError(f"{path}: expected an array joints of {name}, it has {held}")
    joints = np.atleast_3d(joints).astype(np.float64)
    if joints.shape[:2] != SHAPES[name]:
        others = [other for other, shape in SHAPES.items() if joints.shape[:2] == shape]
        hint = f": that is {others[0]}'s, open it as {others[0].lower()}" if others else ""
        rows, columns = SHAPES[name]
        raise InputError(
            f"{path}: expected joints of shape ({rows}, {columns}, N) as in {name}, got {joints.shape}{hint}"
        )
    notes = Counter({"file of MATLAB 7.3 (HDF5), whose axes are reversed": int(is_hdf5(data))})
    return joints, path, notes


def read_lsp(path: str, split: str = "train", images: str | None = None) -> PoseDataset:
    """LSP: ``joints`` (3, 14, N). The first 1,000 are for training, the others for testing."""
    source = Source(path)
    joints, path, notes = _joints(source, "LSP")
    people = {"train": range(min(TRAIN, joints.shape[2])), "test": range(TRAIN, joints.shape[2])}
    samples = [
        Sample(source.image(f"images/im{i + 1:04d}.jpg"), joints[:2, :, i].T, np.where(joints[2, :, i] == 1, 1, 2))
        for i in people.get(split, range(joints.shape[2]))
    ]
    return PoseDataset(f"lsp:{source.path}", LSP, samples, notes=notes)


def read_lspet(path: str, split: str = "train", images: str | None = None) -> PoseDataset:
    """LSPET: ``joints`` (14, 3, N); all of it is for training."""
    source = Source(path)
    joints, path, notes = _joints(source, "LSPET")
    dataset = PoseDataset(f"lspet:{source.path}", LSP, notes=notes)
    for i in () if split == "test" else range(joints.shape[2]):
        visible = np.where(joints[:, 2, i] == 1, 2, 0)
        if not visible.any():
            dataset.skipped += 1
            continue
        dataset.samples.append(Sample(source.image(f"images/im{i + 1:05d}.jpg"), joints[:, :2, i], visible))
        dataset.samples[-1].box = dataset.samples[-1].joints_box()
    return dataset


def read_lsp_results(
    path: Path, target_path: Path, people: tuple[int, int] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and ground truth (N, 14, 2)."""
    truth = load_mat(target_path)
    if "joints" not in truth:
        raise no_array(target_path, "joints", truth)
    joints_last = np.ndim(truth["joints"]) == 3 and truth["joints"].shape[0] == 14
    target = take_numbers(truth, target_path, "joints", (2, 0, 1) if joints_last else (2, 1, 0), (None, 14, 3))
    pred = take_numbers(load_mat(path), path, "pred", (2, 1, 0), (None, 14, 2))
    check_finite(path, "pred", pred, 1)
    return pred, target[select(path, target_path, pred, target, people), :, :2]

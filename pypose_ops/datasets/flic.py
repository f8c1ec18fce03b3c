"""Reads FLIC's files; problems raise InputErrors that name file and record."""

from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from ..skeletons import FLIC
from .files import load_mat, load_npz, no_array, stacked, take_numbers
from .results import check_finite

# The columns of FLIC's joints among the 29 of examples.mat.
FLIC_COLUMNS = (0, 1, 2, 3, 4, 5, 6, 9, 12, 13, 16)


def flic_examples(path: Path, examples: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """The joints (N, 11, 2) of examples.mat and which people belong to the test split."""
    missing = {"coords", "istest"} - set(np.asarray(examples).dtype.names or ())
    if missing:
        raise InputError(f"{path}: examples has no field {sorted(missing)[0]!r}")
    joints, tested = [], []
    for i, example in enumerate(examples.ravel()):
        coords = np.asarray(example["coords"])
        if coords.ndim != 2 or coords.shape[0] != 2 or coords.shape[1] <= max(FLIC_COLUMNS):
            raise InputError(f"{path}: example {i + 1}: coords must be (2, 29), got shape {coords.shape}")
        if np.size(example["istest"]) != 1:
            raise InputError(f"{path}: example {i + 1}: istest must be 0 or 1")
        if coords.dtype.kind not in "fiu":
            raise InputError(f"{path}: example {i + 1}: coords must be numbers")
        joints.append(coords[:, FLIC_COLUMNS].T)
        tested.append(bool(np.ravel(example["istest"])[0]))
    return stacked(joints, len(FLIC), 2), torch.tensor(tested)


def flic_truth(path: Path) -> torch.Tensor:
    """The joints of the test split (N, 11, 2); NaN if not annotated."""
    if path.suffix == ".npz":
        arrays = load_npz(path)
        joints = take_numbers(arrays, path, "joints", (0, 1, 2), (None, len(FLIC), 2))
        tested = torch.ones(len(joints), dtype=torch.bool)
        if "is_train" in arrays:
            tested = take_numbers(arrays, path, "is_train", (0,), (len(joints),)) == 0
    else:
        file = load_mat(path)
        if "examples" not in file:
            raise no_array(path, "examples", file)
        joints, tested = flic_examples(path, file["examples"])
    if not tested.any():
        raise InputError(f"{path}: no people in the test split")
    return joints[tested]


def flic_image_names(path: Path) -> list[str] | None:
    """The images of the test split of examples.mat; None without names, as in .npz."""
    examples = None if path.suffix == ".npz" else load_mat(path).get("examples")
    if examples is None or "filepath" not in (np.asarray(examples).dtype.names or ()):
        return None
    tested = [example for example in examples.ravel() if np.ravel(example["istest"])[0]]
    return [str(np.ravel(example["filepath"])[0]) if np.size(example["filepath"]) else "" for example in tested]


def read_flic_results(path: Path, target_path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and ground truth of the test split, (N, 11, 2)."""
    target = flic_truth(target_path)
    if path.suffix == ".npz":
        pred = take_numbers(load_npz(path), path, "pred", (0, 1, 2), (None, len(FLIC), 2))
    else:
        pred = take_numbers(load_mat(path), path, "pred", (2, 1, 0), (None, len(FLIC), 2))
    check_finite(path, "pred", pred, 1)
    if len(pred) != len(target):
        raise InputError(f"{path}: {len(pred)} people are predicted, {target_path} has {len(target)} in the test split")
    return pred, target


def observers_sides(joints: torch.Tensor) -> tuple[torch.Tensor, int]:
    """FLIC's joints with the observer's left and right, and the number of people with swapped sides."""
    swapped = joints[:, FLIC.joints.index("right_shoulder"), 0] > joints[:, FLIC.joints.index("left_shoulder"), 0]
    mirrored = joints[:, list(FLIC.flip_index)]
    return torch.where(swapped[:, None, None], mirrored, joints), int(swapped.sum())

"""Leeds Sports Pose (Johnson & Everingham, BMVC 2010) and its extension LSPET (CVPR 2011): a folder or the zip.

Both have ``joints.mat`` beside ``images/``. LSP's third row is 1 where a joint is *occluded*, and every joint counts;
LSPET's third column is 1 where a joint is *labelled*, and coordinates elsewhere mean nothing. The pictures of LSP show
one person in the middle; the box of LSPET is that of its labelled joints.
"""

import numpy as np

from ..errors import InputError
from ..skeletons import LSP
from .dataset import PoseDataset
from .sample import Sample
from .source import Source, load_mat

TRAIN = 1000  # LSP's first pictures


def _joints(source, name):
    path = f"{source.path}/joints.mat"
    variables = load_mat(source.enter("joints.mat").read("joints.mat"), path)
    joints = variables.get("joints")
    if joints is None or not isinstance(joints, np.ndarray) or joints.dtype.kind not in "fiu":
        held = ", ".join(k for k in variables if not k.startswith("__")) or "nothing"
        raise InputError(f"{path}: expected an array joints of {name}, it has {held}")
    return np.atleast_3d(joints).astype(np.float64), path


def read_lsp(path, split="train", images=None):
    """LSP: ``joints`` (3, 14, N). The first 1,000 are for training, the others for testing."""
    source = Source(path)
    joints, path = _joints(source, "LSP")
    if joints.shape[:2] != (3, 14):
        hint = ": that is LSPET's, open it as lspet" if joints.shape[:2] == (14, 3) else ""
        raise InputError(f"{path}: expected joints of shape (3, 14, N) as in LSP, got {joints.shape}{hint}")
    people = {"train": range(min(TRAIN, joints.shape[2])), "test": range(TRAIN, joints.shape[2])}
    samples = [
        Sample(source.picture(f"images/im{i + 1:04d}.jpg"), joints[:2, :, i].T, np.where(joints[2, :, i] == 1, 1, 2))
        for i in people.get(split, range(joints.shape[2]))
    ]
    return PoseDataset(f"lsp:{source.path}", LSP, samples)


def read_lspet(path, split="train", images=None):
    """LSPET: ``joints`` (14, 3, N); all of it is for training."""
    source = Source(path)
    joints, path = _joints(source, "LSPET")
    if joints.shape[:2] != (14, 3):
        hint = ": that is LSP's, open it as lsp" if joints.shape[:2] == (3, 14) else ""
        raise InputError(f"{path}: expected joints of shape (14, 3, N) as in LSPET, got {joints.shape}{hint}")
    dataset = PoseDataset(f"lspet:{source.path}", LSP)
    for i in () if split == "test" else range(joints.shape[2]):
        visible = np.where(joints[:, 2, i] == 1, 2, 0)
        if not visible.any():
            dataset.skipped += 1
            continue
        dataset.samples.append(Sample(source.picture(f"images/im{i + 1:05d}.jpg"), joints[:, :2, i], visible))
        dataset.samples[-1].box = dataset.samples[-1].joints_box()
    return dataset

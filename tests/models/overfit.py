"""Sixteen real people, and whether a system can learn them by heart."""

import io
import zipfile
from dataclasses import fields

import numpy as np
import torch
from PIL import Image
from scipy.io import loadmat

from pypose_ops import crop_patches, geometry, metrics, skeletons
from pypose_ops.models import Batch

TORSO = tuple(skeletons.LSP.joints.index(name) for name in ("left_shoulder", "right_hip"))


def lsp_people(folder, system, count=16, *, padding=1.25):
    """The first people of LSP's training set in upright crops of ``system.input_size``: a :class:`Batch`.

    The box is that of the joints, a square enlarged by ``padding``. ``folder`` is that of ``lsp_dataset.zip``.
    """
    with zipfile.ZipFile(folder / "lsp_dataset.zip") as archive:
        joints = loadmat(io.BytesIO(archive.read("joints.mat")))["joints"][:, :, :count]
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[:count]
        photos = [np.array(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names]
    joints = torch.from_numpy(joints.transpose(2, 1, 0).astype(np.float32))  # (N, 14, 3): x, y, occluded
    keypoints = joints[..., :2] - 1  # MATLAB counts from 1
    boxes = torch.cat((keypoints.amin(1), keypoints.amax(1)), -1)
    center, scale = geometry.box_to_center_and_scale(boxes, system.input_size, padding=padding)
    transforms = geometry.box_to_transform(center, scale, 0.0, system.input_size, align="center")
    images = crop_patches(
        [torch.from_numpy(image).permute(2, 0, 1) for image in photos],
        transforms,
        system.input_size,
        mean=system.mean,
        std=system.std,
        antialias=True,
    )
    keypoints = geometry.transform_points(keypoints, geometry.invert_transform(transforms))
    return Batch(images, keypoints, torch.ones(count, 14, dtype=torch.bool), joints[..., 2] > 0.5)


def overfit(system, batch, steps, *, lr=2e-3, size=None, phase=None, target=None, every=10):
    """Trains one phase with Adam, the last third with a falling rate.

    Args:
        steps (int): at most.
        size (int or None): people in each step, in random order; None: all.
        target (float or None): stop when the last stage's PCK@0.2 has come to this, looked at ``every`` steps.

    Returns:
        int: steps taken.
    """
    phase = system.phases[-1] if phase is None else phase
    system.begin_phase(phase, [batch])
    trained = [p for p in system.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trained, lr)
    falling = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda n: min(1.0, 3.2 * (1 - n / steps)))
    people = len(batch.images)
    parts = []
    for step in range(1, steps + 1):
        parts = parts or list(torch.randperm(people).split(size or people))
        system.train()
        optimiser.zero_grad()
        sum(system.losses(chosen(batch, parts.pop()) if size else batch, phase).values()).backward()
        optimiser.step()
        falling.step()
        if target is not None and step % every == 0 and results(system, batch)[-1][0] >= target:
            return step
    return steps


def chosen(batch, index):
    """The people of a batch with these numbers."""
    values = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return Batch(**{name: None if value is None else value[index] for name, value in values.items()})


def results(system, batch, **options):
    """``(PCK@0.2, mean distance in pixels of the crop)`` per stage."""
    system.eval()
    torso = torch.linalg.vector_norm(batch.keypoints[:, TORSO[0]] - batch.keypoints[:, TORSO[1]], dim=-1)
    out = []
    for coords, _ in system.poses(batch.images, **options):
        pck = metrics.pck(coords, batch.keypoints, visible=batch.visible, norm=torso, threshold=0.2)["mean"]
        distance = torch.linalg.vector_norm(coords - batch.keypoints, dim=-1)[batch.visible].mean()
        out.append((float(pck), float(distance)))
    return out

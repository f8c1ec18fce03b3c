"""Labels that a stronger model disagrees with."""

import json

import numpy as np
import pytest
import torch
from data_files import lsp_folder

from pypose_ops.datasets import open_dataset
from pypose_ops.errors import InputError
from pypose_ops.models.training.corrections import LIMBS, apply_corrections, as_json, file_name, find_corrections
from pypose_ops.skeletons import LSP

K = len(LSP)


def people(count):
    """Joints well apart, torsos of about 30 px; everything labelled, and a model that is right and sure."""
    torch.manual_seed(1)
    truth = torch.zeros(count, K, 2)
    rows = ("head_top", "neck", *LIMBS["arms"], *LIMBS["legs"])
    for k, name in enumerate(LSP.joints):
        row = rows.index(name.removeprefix("left_").removeprefix("right_"))
        truth[:, k] = torch.tensor([0.0 if name.startswith("left") else 30.0, 12.0 * row])
    return truth, torch.full((count, K), 2), truth + torch.randn(count, K, 2), torch.full((count, K), 0.95)


def swapped(points, limb):
    pairs = [[LSP.joints.index(f"{side}_{part}") for side in ("left", "right")] for part in LIMBS[limb]]
    out = points.clone()
    for a, b in pairs:
        out[a], out[b] = points[b], points[a]
    return out


def test_what_is_right_stays():
    exchanged, mask = find_corrections(*people(5), LSP)
    assert not mask.any() and not any(rows.any() for rows in exchanged.values())


@pytest.mark.parametrize("limb", LIMBS)
def test_limbs_on_the_wrong_side(limb):
    labels, *others = people(3)
    labels[1] = swapped(labels[1], limb)
    exchanged, mask = find_corrections(labels, *others, LSP)
    assert exchanged[limb].tolist() == [False, True, False] and not mask.any()
    assert not exchanged[next(other for other in LIMBS if other != limb)].any()


def test_a_joint_at_the_wrong_place():
    labels, visible, pred, sure = people(2)
    labels[0, 3] += 60
    assert find_corrections(labels, visible, pred, sure, LSP)[1].nonzero().tolist() == [[0, 3]]
    sure[0, 3] = 0.5  # an uncertain model corrects nothing
    assert not find_corrections(labels, visible, pred, sure, LSP)[1].any()


def test_corrections_are_applied_by_the_names_of_images(tmp_path):
    dataset = open_dataset(f"lsp:{lsp_folder(tmp_path / 'lsp', 3)}", "all")
    before = [(s.keypoints.copy(), s.visible.copy()) for s in dataset.samples]
    exchanged = {limb: torch.tensor([False, limb == "legs", False]) for limb in LIMBS}
    mask = torch.zeros(3, K, dtype=torch.bool)
    mask[1, 13] = True
    written = as_json(dataset, exchanged, mask)
    assert written == {"im0002.jpg": {"exchange": ["legs"], "mask": ["head_top"]}}
    (tmp_path / "c.json").write_text(json.dumps(written))
    assert apply_corrections(dataset, tmp_path / "c.json") == 1
    left, right = (LSP.joints.index(f"{side}_ankle") for side in ("left", "right"))
    np.testing.assert_array_equal(dataset.samples[1].keypoints[left], before[1][0][right])
    assert dataset.samples[1].visible[left] == before[1][1][right] and dataset.samples[1].visible[13] == 0
    np.testing.assert_array_equal(dataset.samples[0].keypoints, before[0][0])
    assert file_name(dataset.samples[2]) == "im0003.jpg"


@pytest.mark.parametrize("content", ["text", "[]", '{"im0001.jpg": 3}', '{"im0001.jpg": {"exchange": ["x"]}}'])
def test_corrections_that_are_none(tmp_path, content):
    dataset = open_dataset(f"lsp:{lsp_folder(tmp_path / 'lsp', 1)}", "all")
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(InputError, match="c.json: expected corrections"):
        apply_corrections(dataset, tmp_path / "c.json")
    with pytest.raises(InputError, match="none.json: cannot be read"):
        apply_corrections(dataset, tmp_path / "none.json")

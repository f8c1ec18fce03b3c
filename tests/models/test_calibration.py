"""Scores as probabilities."""

import pytest
import torch

from pypose_ops.datasets import hold_out, open_dataset
from pypose_ops.models import pretrained
from pypose_ops.models.calibration import (
    Calibration,
    calibration_of,
    expected_calibration_error,
    fit_calibration,
    found_joints,
)
from pypose_ops.models.training.loading import People
from pypose_ops.models.training.scores import predict_people, torso_of
from pypose_ops.skeletons import SKELETONS


def drawn(count, temperature, bias):
    """Scores, and joints that are found with the probability that a calibration says."""
    scores = torch.rand(count, len(temperature)) * 0.98 + 0.01
    truth = Calibration(temperature, bias)
    return scores, torch.rand_like(scores) < truth.probabilities(scores), truth


def test_what_was_drawn_is_fitted():
    scores, found, truth = drawn(20_000, (0.5, 2.0, 1.0), (1.0, -0.5, 0.0))
    fitted = fit_calibration(scores, found, torch.ones_like(found))
    assert fitted.temperature == pytest.approx(truth.temperature, rel=0.1)
    assert fitted.bias == pytest.approx(truth.bias, abs=0.1)
    assert expected_calibration_error(scores[:, 0], found[:, 0]) > 0.08
    assert expected_calibration_error(fitted.probabilities(scores), found) < 0.01


def test_joints_without_a_label_do_not_count():
    scores, found, _ = drawn(5_000, (0.5, 2.0), (1.0, 0.0))
    counted = torch.rand_like(scores) < 0.5
    wrong = torch.where(counted, found, ~found)
    assert fit_calibration(scores, wrong, counted) == fit_calibration(scores, found & counted, counted)


@pytest.mark.parametrize("always", [True, False])
def test_joints_that_are_always_found_or_never(always):
    scores = torch.rand(50, 3)
    fitted = fit_calibration(scores, torch.full((50, 3), always), torch.ones(50, 3, dtype=torch.bool))
    assert ((fitted.probabilities(scores) > 0.5) == always).float().mean() > 0.9


def test_error_by_hand():
    probabilities = torch.tensor([0.1, 0.1, 0.9, 0.9])
    found = torch.tensor([False, False, True, False])
    assert expected_calibration_error(probabilities, found, bins=2) == pytest.approx((0.2 + 0.8) / 4)
    assert expected_calibration_error(torch.tensor([1.0, 0.0]), torch.tensor([True, False])) == 0


def test_found_joints():
    keypoints = torch.tensor([[[0.0, 0.0], [0.0, 10.0], [5.0, 5.0]]] * 2)
    visible = torch.tensor([[2, 1, 2], [0, 2, 2]])
    pred = keypoints + torch.tensor([[0.0, 0.0], [0.0, 1.9], [0.0, 2.1]])
    found, counted = found_joints(pred, keypoints, visible, (0, 1))
    assert counted.tolist() == [[True] * 3, [False] * 3] and found.tolist() == [[True, True, False], [False] * 3]


def test_metadata_say_it():
    calibration = Calibration((0.5, 2.0), (1.0, 0.0))
    assert calibration_of({"calibration": calibration.as_info()}) == calibration
    assert calibration_of({}) is None


@pytest.mark.parametrize("name", ["coco17", "lsp14"])
def test_the_packaged_weights_are_calibrated(name, shared_data):
    """On people that they were not trained with; coco17's joints are fitted on others than these."""
    system, info = pretrained(name)
    skeleton, calibration = SKELETONS[info["skeleton"]], calibration_of(info)
    assert len(calibration.temperature) == len(calibration.bias) == len(skeleton)
    trained, held_out = hold_out(open_dataset(f"lsp:{shared_data / 'lsp_dataset.zip'}", "train", skeleton), 200, 0)
    dataset = trained if name == "coco17" else held_out
    dataset.samples = dataset.samples[:80]
    people = People(dataset)
    coords, scores, index, _ = predict_people(system, skeleton, people)
    found, counted = found_joints(coords[-1], people.keypoints[index], people.visible[index], torso_of(skeleton))
    raw = expected_calibration_error(scores[-1][counted], found[counted])
    fitted = expected_calibration_error(calibration.probabilities(scores[-1])[counted], found[counted])
    assert fitted <= 0.05 < 0.1 < raw

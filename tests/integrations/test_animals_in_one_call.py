"""sleap-nn's lists of peaks and DeepLabCut's targets, which on a CPU take one call, against the steps elsewhere."""

import pytest
import torch

from pypose_ops.integrations import deeplabcut, sleap_nn


def odd_maps(size, dtype):
    """Plateaus, also at the borders, noise, and pixels that are not finite."""
    generator = torch.Generator().manual_seed(size[1])
    maps = torch.rand(2, 3, *size, generator=generator).to(dtype)
    maps[0, 0] = (3 * maps[0, 0]).round() / 3
    maps[0, 1, 0] = 0.9
    for value in (torch.inf, -torch.inf, torch.nan):
        maps[1, 1][torch.rand(size, generator=generator) < 0.1] = value
    maps[1, 2] -= 2
    return maps


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.float16))
@pytest.mark.parametrize("size", ((1, 1), (1, 40), (30, 1), (5, 8), (9, 33), (20, 64), (3, 70)))
@pytest.mark.parametrize("refinement", (None, "integral"))
def test_lists_of_peaks_in_one_call_and_in_steps(monkeypatch, dtype, size, refinement):
    maps = odd_maps(size, dtype)
    for threshold in (0.2, -1.5):
        listed = sleap_nn.find_local_peaks(maps, threshold, refinement)
        with monkeypatch.context() as patch:
            patch.setattr(sleap_nn, "list_peaks", lambda *_: None)
            expected = sleap_nn.find_local_peaks(maps, threshold, refinement)
        assert [t.dtype for t in listed] == [t.dtype for t in expected]
        torch.testing.assert_close(listed, expected, rtol=0, atol=0)


def test_lists_of_no_peaks_and_of_no_maps():
    for shape in ((0, 3, 8, 8), (2, 0, 8, 8), (2, 3, 8, 8)):
        coords, values, samples, channels = sleap_nn.find_local_peaks(torch.zeros(shape))
        assert coords.shape == (0, 2) and len(values) == len(samples) == len(channels) == 0


def test_more_peaks_than_the_steps_find_at_once(monkeypatch):
    maps = torch.rand(2, 2, 150, 90, generator=torch.Generator().manual_seed(0))
    listed = sleap_nn.find_local_peaks(maps, 0.1, "integral")
    assert len(listed[0]) > 4 * sleap_nn.MAX_PEAKS
    monkeypatch.setattr(sleap_nn, "list_peaks", lambda *_: None)
    torch.testing.assert_close(listed, sleap_nn.find_local_peaks(maps, 0.1, "integral"), rtol=0, atol=1e-4)


def test_a_long_map_with_few_peaks():
    maps = torch.zeros(1, 2, 2, 20000)
    maps[0, 0, 1, 19999] = maps[0, 1, 0, 7] = maps[0, 0, 0, 7] = maps[0, 1, 1, 3] = 1.0
    coords, _, _, channels = sleap_nn.find_local_peaks(maps)
    assert coords.tolist() == [[7, 0], [7, 0], [3, 1], [19999, 1]] and channels.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("kind", ("gaussian", "plateau"))
@pytest.mark.parametrize("animals", (0, 1, 3))
@pytest.mark.parametrize(("stride", "compat"), ((8, "deeplabcut"), (5, "deeplabcut"), (3.5, None)))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_targets_in_one_call_and_in_steps(monkeypatch, kind, animals, stride, compat, dtype):
    generator = torch.Generator().manual_seed(animals)
    keypoints = (torch.rand(3, animals, 5, 2, generator=generator) * 200 - 30).to(dtype)
    keypoints[:1] = keypoints[:1].round()  # pixels on the edge of a disc
    visible = torch.randint(-1, 3, (3, animals, 5), generator=generator)
    if animals:
        keypoints[1, 0, :3, 0] = torch.tensor([torch.nan, torch.inf, 1e9])
    for options in ({}, {"gradient_masking": True}, {"weights_dtype": torch.int64, "dist_thresh": 40.0}):
        targets = deeplabcut.heatmap_targets(keypoints, visible, (20, 31), stride, kind=kind, compat=compat, **options)
        with monkeypatch.context() as patch:
            patch.setattr(deeplabcut, "disc_targets", lambda *_, **__: None)
            expected = deeplabcut.heatmap_targets(
                keypoints, visible, (20, 31), stride, kind=kind, compat=compat, **options
            )
        torch.testing.assert_close(tuple(targets), tuple(expected), rtol=0, atol=0)


def test_targets_that_are_differentiated_take_steps():
    keypoints = torch.full((1, 1, 1, 2), 40.0, requires_grad=True)
    targets = deeplabcut.heatmap_targets(keypoints, torch.ones(1, 1, 1), (10, 10), 8.0)
    (gradient,) = torch.autograd.grad(targets.locref.sum(), keypoints)
    assert (gradient > 0).all()

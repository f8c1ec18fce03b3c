"""benchmarks/training_step.py: its three ways take the same step, and its parts are the whole of it."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pypose_ops import decode_heatmaps, gaussian_heatmaps, reference
from pypose_ops.codecs import HourglassHeatmap
from pypose_ops.datasets import Sample
from pypose_ops.models.systems.stacked_hourglass import StackedHourglass, StackedHourglassConfig
from pypose_ops.models.training import crops
from pypose_ops.models.training.loading import People

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "benchmarks"), str(ROOT / "docs")]

import draw_training_step  # noqa: E402
import loader_path  # noqa: E402
import training_step  # noqa: E402
from training_step import Clock, Loader, Operators, Reference  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


class Options:
    device, batch, workers = CPU, 4, 0


class Smooth(training_step.Generated):
    """Images in which neighbours are alike, so that interpolations agree."""

    def decode(self):
        height, width = self.size()
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        return torch.stack((x * 2, y * 1.5, 60 + 0.5 * x + y), -1).clamp(0, 255).to(torch.uint8)


def generated(count, kind=Smooth):
    """Some of them with joints that are not labelled."""
    dataset = training_step.generated(count)
    for i, sample in enumerate(dataset.samples):
        visible = sample.visible * (np.random.default_rng(i).random(14) < 0.8)
        dataset.samples[i] = Sample(kind(i), sample.keypoints, visible, size=sample.size)
    return dataset


def ways(count=20, size=(64, 64), batch=4, kinds=(Operators, Reference, Loader)):
    """Ways around one tiny network."""
    torch.manual_seed(0)
    dataset = generated(count)
    net = StackedHourglass(14, StackedHourglassConfig(stacks=2, width=16, depth=2, sigma=2.0, input_size=size))
    net.to(memory_format=torch.channels_last)
    options = Options()
    options.batch = batch
    people = People(dataset)
    return [kind(net, people, dataset.skeleton, options) for kind in kinds]


def test_results_of_a_run(tmp_path, capsys):
    """The parts add up to the step of another clock, and the losses of the first step agree."""
    path = tmp_path / "results.json"
    sizes = "--people 16 --batch 4 --rounds 1 --steps 2 --warmup 1 --workers 1".split()
    assert training_step.main(["--data", "generated", "--device", "cpu", *sizes, "--json", str(path)]) == 0
    text, results = capsys.readouterr().out, json.loads(path.read_text())
    assert list(results["ways"]) == list(training_step.WAYS) and text.count("not measured") == 3
    for way in results["ways"].values():
        assert list(way["parts"]) == list(training_step.PARTS) and min(way["parts"].values()) >= 0
        assert sum(way["parts"].values()) == pytest.approx(way["step"], rel=0.1, abs=2e-3)
        assert way["images_per_second"] == pytest.approx(4 / way["step"]) and way["memory"] is None
        assert way["share"]["crop"] == pytest.approx(way["parts"]["crop"] / way["step"])
        assert np.isfinite(way["turns"][0]["losses"]).all() and 0 <= way["turns"][0]["pck"] <= 100
    ours, plain, usual = (way["turns"][0]["losses"] for way in results["ways"].values())
    assert ours[0] == pytest.approx(plain[0], rel=1e-5) and usual[0] == pytest.approx(ours[0], rel=0.2)
    assert draw_training_step.main([str(path), str(path), "--out", str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_operators_and_reference_train_alike():
    ours, plain, _ = ways()
    weights = {name: value.clone() for name, value in ours.net.state_dict().items()}
    first, second = (training_step.turn(way, weights, 1, 3) for way in (ours, plain))
    assert first["losses"][0] == pytest.approx(second["losses"][0], rel=1e-5)
    assert first["losses"] == pytest.approx(second["losses"], rel=1e-2)  # AdamW's first steps are the gradients' signs
    assert first["losses"][-1] != first["losses"][0] and len(first["parts"]) == 3


def test_a_step_is_that_of_the_system():
    """The gradient in two parts is the gradient, and the loss that of the system."""
    (way,) = ways(kinds=(Operators,))
    way.net.eval()  # a second forward pass gives the same
    batch = way.crop(next(way.source(1)))
    whole = sum(way.net.losses(batch).values())
    expected = torch.autograd.grad(whole, list(way.net.parameters()))
    kept = []

    class Keep:
        def step(self):
            kept.extend(p.grad.clone() for p in way.net.parameters())

        def zero_grad(self):
            pass

    clock, pck = Clock(CPU), training_step.metrics.PCK()
    loss = training_step.step(way, way.source(1), Keep(), clock, pck)
    (parts,) = clock.seconds()
    assert loss == whole and list(parts) == list(training_step.PARTS) and min(parts.values()) > 0
    for gradient, wanted in zip(kept, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-7)
    assert pck.compute()["counts"].sum() > 0


def test_the_reference_takes_the_operators_places():
    from pypose_ops.codecs import _base

    (way,) = ways(kinds=(Reference,))
    before = crops.crop_patches
    with way.replaced():
        assert crops.crop_patches is reference.crop_patches
        assert _base.heatmap_mse_loss is reference.heatmap_mse_loss
        assert _base.decode_heatmaps is reference.decode_heatmaps
    assert crops.crop_patches is before and _base.decode_heatmaps is decode_heatmaps


def test_loader_makes_the_same_crops_and_targets():
    """Half bodies, mirrors, turns, colours; and the same people beyond the end of an epoch. Crops that enlarge."""
    ours, usual = ways(count=50, size=(256, 256), batch=12, kinds=(Operators, Loader))
    codec, flips = HourglassHeatmap((256, 256), (64, 64), 2.0), 0
    for loaded, items in itertools.islice(zip(ours.source(6), usual.source(6), strict=False), 6):
        batch, (theirs, maps, weights) = ours.crop(loaded), usual.to_device(items)
        assert torch.equal(batch.visible, theirs.visible) and 0 < batch.visible.float().mean() < 1
        torch.testing.assert_close(batch.keypoints, theirs.keypoints, rtol=1e-4, atol=1e-2)
        # Normalised: a grey level is 0.02. Edges differ by the rounding of coordinates.
        difference = (batch.images - theirs.images).abs()
        assert difference.mean() < 0.01 and (difference > 0.1).float().mean() < 0.01
        expected, known = codec.encode(batch.keypoints, batch.visible)
        torch.testing.assert_close(maps, expected, rtol=0, atol=1e-6)
        assert torch.equal(weights, known)
        stages = [torch.randn_like(maps), torch.randn_like(maps)]
        torch.testing.assert_close(loader_path.maps_loss(stages, maps, weights), ours.loss(batch, stages))
        flips += (ours.draws[loaded.index, 0] < 0.5).sum()
    assert 6 < flips < 66
    half_bodies = ours.draws[:, 6] < 0.1
    assert half_bodies.any() and not half_bodies.all()


def test_summary():
    """Means over a turn, since waiting comes in bursts; medians over the turns."""
    step = dict.fromkeys(training_step.PARTS, 0.01)
    turn = {"parts": [step, step | {"data": 0.41}], "step": 0.5, "losses": [1.0], "pck": 1.0, "memory": 2**20}
    disturbed = turn | {"parts": [step | {"decode": 9.0}] * 2, "step": 9.0, "memory": 2**21}
    result = training_step.summary([turn, disturbed, turn], 8)
    assert result["parts"] == pytest.approx(step | {"data": 0.21})
    assert result["step"] == 0.5 and result["images_per_second"] == 16 and result["memory"] == 2**21
    assert result["share"] == pytest.approx({"crop": 0.02, "target+loss": 0.02, "decode": 0.02})


@pytest.mark.parametrize("sigma", (1.75, 2.0))
def test_targets_of_numpy(sigma):
    """Everywhere, also beside the map, up to the rounding of halves."""
    points = torch.rand(40, 14, 2) * 60 - 14
    visible = torch.rand(40, 14) < 0.8
    expected = gaussian_heatmaps(points, sigma, (32, 36), visible=visible, center="rounded", truncate=3.0)
    people = zip(points.numpy(), visible.numpy(), strict=True)
    maps, weights = zip(*(loader_path.gaussian_targets(p, v, sigma, (32, 36)) for p, v in people), strict=True)
    torch.testing.assert_close(torch.from_numpy(np.stack(maps)), expected, rtol=0, atol=1e-6)
    drawn = torch.from_numpy(np.stack(weights)) > 0
    assert torch.equal(drawn, expected.amax((2, 3)) > 0) and drawn.any() and not drawn.all()


def test_decoder_of_numpy():
    maps = torch.randn(6, 14, 12, 10)
    maps[0, 0] = -1.0  # no peak
    maps[1] = maps[1].round()  # ties
    maps[2, :, 0] += 9  # at the border
    transform = torch.tensor([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0]])
    expected = decode_heatmaps(maps, refine="quarter", missing=-1.0, transform=transform).coords
    assert np.array_equal(loader_path.decoded(maps.numpy(), 4), expected.numpy())


def test_pillow_where_there_is_no_opencv(monkeypatch):
    pixels = Smooth(1).decode().numpy()
    angle = np.float64([[0.8, -0.3, 12.0], [0.2, 0.9, 3.0]])
    first = loader_path.warped(pixels, angle, (60, 80)).astype(float)
    monkeypatch.setattr(loader_path, "cv2", None)
    second = loader_path.warped(pixels, angle, (60, 80)).astype(float)
    inside = (first > 0).all(-1) & (second > 0).all(-1)
    assert inside.sum() > 2000 and np.abs(first - second)[inside].max() <= 2


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (["--batch", "0"], "--batch must be positive, got 0"),
        (["--workers", "-1"], "--workers must not be negative, got -1"),
        (["--data", "lsp:missing.zip"], "missing.zip: no such file"),
        (["--data", "generated", "--people", "3"], "there are only 3 people"),
        (["--json", "missing/a.json"], "missing/a.json: no such folder"),
    ],
)
def test_bad_options(bad, said, capsys):
    assert training_step.main(["--device", "cpu", *bad]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_bad_choices(capsys, monkeypatch, tmp_path):
    with pytest.raises(SystemExit) as stop:
        training_step.main(["--preset", "huge"])
    assert stop.value.code == 2
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert training_step.main(["--device", "cuda"]) == 2 and "torch sees no GPU" in capsys.readouterr().err
    assert draw_training_step.main([str(tmp_path / "none.json")]) == 2

"""The experiment of docs/mrf_real_data.md: synthetic crops, the choice, and what was chosen on real heatmaps."""

import functools
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import mrf_distractors as experiment  # noqa: E402
import mrf_people  # noqa: E402

read_mpii = functools.cache(mrf_people.read_mpii)  # seconds
CHOSEN = experiment.Settings(size="box", smooth=72, floor=3e-2, graph="limbs", weight=2.0)


def upright(count):
    """People who stand: the same joints for all, arms and legs spread a little differently."""
    left = torch.tensor([[10.0, -60.0], [25.0, -30.0], [30.0, 0.0], [10.0, 0.0], [12.0, 40.0], [14.0, 80.0]])
    right = left * torch.tensor([-1.0, 1.0])
    xy = torch.stack((left, right), 1).flatten(0, 1) + 5 * torch.randn(count, 12, 2)
    xy, visible = xy + 100 * torch.rand(count, 1, 2), torch.rand(count, 12) < 0.95
    low, high = xy.amin(1), xy.amax(1)
    extent = (high - low).amax(1)
    real = torch.zeros(count, dtype=torch.bool)
    return mrf_people.People(mrf_people.BODY, xy, visible, (low + high) / 2, extent, 1.1 * extent, real)


def test_crops_are_as_described():
    people = upright(50)
    maps, truth, count = mrf_people.rendered(people, torch.Generator().manual_seed(0), strength=0.0)
    assert maps.shape == (50, 12, 64, 64) and maps.min() >= 0 and maps.max() <= 0.9
    assert not (count & ~people.visible).any() and count.sum() > 0.9 * people.visible.sum()
    # Nothing distracts: the peak is the joint, up to a pixel of noise and rounding.
    assert experiment.share(experiment.right(maps, truth, 5.0), count) > 0.99
    heights = maps.flatten(2).amax(-1)[count]
    assert 0.05 < (heights < 0.06).float().mean() < 0.25
    again = mrf_people.rendered(people, torch.Generator().manual_seed(0), strength=0.0)
    assert torch.equal(maps, again[0])
    people.real[0] = True
    assert torch.equal(mrf_people.rendered(people, torch.Generator().manual_seed(0), strength=0.0)[2][1:], count[1:])
    assert not mrf_people.rendered(people, torch.Generator().manual_seed(0), strength=0.0)[2][0].any()
    hard = mrf_people.rendered(people, torch.Generator().manual_seed(0), strength=1.0)
    assert experiment.share(experiment.right(hard[0], hard[1], 5.0), hard[2]) < 0.8


def test_the_choice():
    """People with one pose: the messages help in every graph, and the tables hold every setting."""
    before, rows = experiment.sweep(
        upright(300),
        upright(40),
        torch.Generator().manual_seed(1),
        sizes=("box",),
        smooths=(2,),
        floors=(1e-2,),
        weights=(0.3, 1.0),
    )
    assert len(rows) == 6
    assert all(experiment.best(rows, graph=graph)[1] > before + 0.05 for graph in experiment.GRAPHS)
    text = experiment.sweep_tables(rows, before)
    assert text.count("| full |") == 1 and f"best after {experiment.percent(experiment.best(rows)[1])}" in text


def test_restricted_graphs():
    model = experiment.full_model(upright(100), "height", 2)
    limbs = experiment.restricted(model, mrf_people.BODY, "limbs", 1e-2)
    tree = experiment.restricted(model, mrf_people.BODY, "tree", 1e-2)
    assert len(model.edges) == 132 and len(limbs.edges) == 24 and len(tree.edges) == 22
    edge = limbs.edges[5]
    assert torch.allclose(limbs.prior[5], model.prior[model.edges.index(edge)], rtol=1e-4)


def test_mirrored_names():
    assert mrf_people.opposite("left_knee") == "right_knee" and mrf_people.opposite("right_hip") == "left_hip"
    assert mrf_people.opposite("nose") == "nose"


def test_real_people(shared_data):
    """MPII's joints help on real heatmaps of other people, and the page states what is computed."""
    train, held_out = read_mpii(shared_data)
    assert len(train) > 20000 and len(held_out) > 2000
    assert not train.real.any() and held_out.real.sum() == 5
    rows = experiment.on_real_maps(experiment.model_of(train, CHOSEN), shared_data, train.names)
    assert [row[:2] for row in rows] == [("coco", 135), ("mpii", 56), ("aic", 83), ("all", 274)]
    assert rows[-1][3] > rows[-1][2] and all(after >= before for *_, before, after in rows)
    page = (ROOT / "docs" / "mrf_real_data.md").read_text(encoding="utf-8")
    assert experiment.real_table(rows) in page


def test_flic_people_stand_where_mpii_people_do(shared_data):
    mpii = read_mpii(shared_data)
    flic, _ = mrf_people.read_flic(shared_data, mpii, torch.Generator().manual_seed(0))
    assert len(flic) == 3987 and flic.visible.all()
    xy = flic.in_map(1.1 * flic.extent)
    middle, length = mrf_people.torso(xy, flic.names)
    expected = mrf_people.torso(mpii[0].in_map(1.1 * mpii[0].extent), mpii[0].names)
    assert (middle.median(0).values - expected[0].median(0).values).abs().max() < 3
    assert abs(length.median() - expected[1].median()) < 3


def test_command_line(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mrf_distractors.py", "--help"])
    with pytest.raises(SystemExit) as stop:
        experiment.arguments()
    assert stop.value.code == 0 and "--choose-only" in capsys.readouterr().out

"""Hourglass, CPM, PAF net and part heatmap regression learn sixteen real people by heart, stage by stage better."""

import pytest
from overfit import lsp_people, overfit, results
from pypose_ops.models import build

# Steps of four people in each phase.
RECIPES = {
    "stacked_hourglass": ((180,), 4e-3),
    "cpm": ((224,), 3e-3),
    "paf_net": ((240,), 2e-3),
    "part_heatmap_regression": ((120, 64, 120), 4e-3),
}


@pytest.mark.parametrize("name", RECIPES)
def test_overfit(shared_data, name):
    system = build(name, 14, "compact")
    batch = lsp_people(shared_data, system)
    steps, lr = RECIPES[name]
    for phase, count in zip(system.phases, steps, strict=True):
        overfit(system, batch, count, lr=lr, size=4, phase=phase)
    stages = results(system, batch)
    print(name, [(round(pck, 1), round(distance, 2)) for pck, distance in stages])
    first, last = stages[0], stages[-1]
    assert last[0] >= 95 and last[0] >= first[0]
    assert last[1] < first[1]

"""Hourglass, CPM, PAF net and part heatmap regression learn sixteen real people by heart, stage by stage better."""

import pytest
from overfit import lsp_people, overfit, results

from pypose_ops.models import build

# Steps of four people in each phase, and the rate.
RECIPES = {
    "stacked_hourglass": ((180,), 4e-3),
    "cpm": ((160,), 3e-3),
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
    first, *_, last = results(system, batch)
    print(name, first, last)
    assert last[0] >= 95
    assert last[0] >= first[0] - 0.5  # one of the 224 joints
    # Once every joint is right, the order of sums decides: 1.04 to 1.07 were seen on a processor without AVX-512.
    assert last[1] < (1.1 if last[0] > 99 else 1.0) * first[1]

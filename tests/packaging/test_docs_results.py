"""docs/results.md says what the runs in docs/results/ say."""

import csv
import json
import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
DATA = ["lsp:lsp_dataset.zip", "lspet:lspet_dataset.zip"]
RUNS = sorted(path.parent for path in (DOCS / "results").glob("*/run.json"))


@pytest.fixture(scope="module")
def draw_results():
    sys.path.insert(0, str(DOCS))
    try:
        import draw_results

        return draw_results
    finally:
        sys.path.remove(str(DOCS))


def test_the_tables_are_of_the_runs(draw_results):
    text = (DOCS / "results.md").read_text()
    assert draw_results.filled(text, draw_results.read_runs()) == text
    assert len(RUNS) >= 6


@pytest.mark.parametrize("folder", RUNS, ids=lambda path: path.name)
def test_a_run(folder):
    run, test = (json.loads((folder / name).read_text()) for name in ("run.json", "test.json"))
    assert test["people"] == 500 and test["split"] == "test" and not test["left_out"]
    assert run["data"] in (DATA, DATA[:1]) and run["held_out"] == 200
    with (folder / "epochs.csv").open(newline="") as file:
        pck = [float(line["val_pck"]) for line in csv.DictReader(file)]
    # What was printed is what was logged, and the epoch that was best on the held-out people was kept.
    log = (folder / "train.log").read_text()
    assert [float(v) for v in re.findall(r"val_pck ([\d.]+)", log)] == pytest.approx(pck, rel=1e-4)
    assert re.search(r"wrote weights.safetensors after [\d.]+ minutes", log)
    assert not re.search(r"lsp(et)?:\S*/", log)  # no folders of the machine

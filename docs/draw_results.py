"""Fills the tables of docs/results.md, and draws docs/results.png, from docs/results/.

python docs/draw_results.py [--add RUN TEST LOG]... [--before NAME RUN LOG]... [--flip NAME TEST]... [--published DATA]

--add RUN TEST LOG first copies a run there: the folder of train, the json of test, and what train printed; as they
are, without the folders of data sets. --before NAME RUN LOG adds the run with whose weights the run NAME began, --flip
NAME TEST the json of test --flip. --published DATA first scores published predictions, DATA/predictions/lsp_*.mat.
"""

import argparse
import csv
import json
import re
from pathlib import Path

from pypose_ops.cli.plot import read_logs
from pypose_ops.models import SYSTEMS
from pypose_ops.skeletons import LSP

FOLDER = Path(__file__).with_name("results")
PAGE = FOLDER.with_suffix(".md")
GROUPS = [name for name, _ in LSP.groups]
PRETRAINED = "efficientnet_lite0"  # the preset that begins from ImageNet weights
AUTHORS = {"tompson2014": "Tompson et al. 2014", "fan2015": "DS-CNN, Fan et al. 2015", "wei2016": "CPM, also on MPII"}


def copy_json(path, to):
    """Copies options or scores, without the folders of data sets and the curves."""
    text = json.loads(path.read_text())
    text["data"] = [re.sub(r":.*/", ":", spec) for spec in text["data"]]
    for stage in text.get("stages", []):
        stage.pop("curve")
    to.write_text(json.dumps(text, indent=1) + "\n")


def add(run, log, to):
    """Copies a run to a folder."""
    to.mkdir(parents=True, exist_ok=True)
    copy_json(run / "run.json", to / "run.json")
    (to / "train.log").write_text(re.sub(r"(lsp|lspet):\S*/", r"\1:", log.read_text()).replace(str(run) + "/", ""))
    epochs = read_logs(run)
    columns = sorted({name for values in epochs.values() for name in values if name.startswith(("loss", "val_"))})
    with (to / "epochs.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["phase", "epoch", *columns])
        for (phase, epoch), values in sorted(epochs.items()):
            table.writerow([phase, epoch, *(f"{values[c]:.6g}" if c in values else "" for c in columns)])


def score_published(data):
    """PCK and PCP of predictions on LSP's test images 1001 to 1500, and PCK on all 1,000."""
    import numpy as np
    import scipy.io
    import torch

    from pypose_ops.models.training.scores import score

    truth = scipy.io.loadmat(data / "predictions" / "lsp_joints.mat")["joints"][:, :, 1000:]
    truth = torch.from_numpy(truth.astype(np.float64)).permute(2, 1, 0)
    visible = torch.where(truth[..., 2] == 1, 1, 2)
    out = {}
    for name in AUTHORS:
        pred = scipy.io.loadmat(data / "predictions" / f"lsp_{name}.mat")["pred"].astype(np.float64)
        pred = torch.from_numpy(pred).permute(2, 1, 0)
        scores = score(pred[:500], truth[:500, :, :2], visible[:500], LSP)
        scores.pop("curve")
        out[name] = scores | {"pck_of_all": score(pred, truth[..., :2], visible, LSP)["pck"]["mean"]}
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "published.json").write_text(json.dumps(out, indent=1) + "\n")


def read_runs():
    """``{name: (run.json, stages, stages with flip test, log)}``, in the order of the systems."""
    found = {}
    for path in FOLDER.glob("*/run.json"):
        run, test = (json.loads((path.parent / name).read_text()) for name in ("run.json", "test.json"))
        stages, flipped = test["stages"], path.parent / "test_flip.json"
        flipped = json.loads(flipped.read_text())["stages"] if flipped.exists() else [None] * len(stages)
        found[path.parent.name] = run, stages, flipped, (path.parent / "train.log").read_text()
    order = list(SYSTEMS)
    return dict(sorted(found.items(), key=lambda item: (order.index(item[1][0]["system"]), item[0])))


def row(*cells):
    return "| " + " | ".join(f"{c:.1f}" if isinstance(c, float) else "-" if c is None else str(c) for c in cells) + " |"


def scores_of(stage, flipped=None):
    pcp = [stage["pcp_strict"]["mean"], stage["pcp_relaxed"]["mean"]]
    return [stage["pck"][g] for g in [*GROUPS, "mean"]] + [flipped and flipped["pck"]["mean"], *pcp]


def table_of_tests(runs, published):
    """PCK of every run's last stage, and of published predictions."""
    lines = [row("", *GROUPS, "PCK@0.2", "flip test", "PCP strict", "relaxed", "parameters", "minutes")]
    lines.append("|---|" + "--:|" * (len(GROUPS) + 6))
    for name, (_, stages, flipped, log) in runs.items():
        minutes = float(re.search(r"after ([\d.]+) minutes", log)[1])
        parameters = re.search(r"([\d,]+) parameters", log)[1]
        title = f"[`{name}`](results/{name})"
        lines.append(row(title, *scores_of(stages[-1], flipped[-1]), parameters, f"{minutes:.0f}"))
    for name, stage in published.items():
        lines.append(row(f"{AUTHORS[name]} ({stage['pck_of_all']:.1f} on all 1,000)", *scores_of(stage), "", ""))
    return lines


def table_of_stages(runs):
    """Every stage of every run."""
    head = ("", "stage", "PCK@0.2", "flip test", "seen", "occluded", "PCP strict", "relaxed")
    lines = [row(*head), "|---|---|" + "--:|" * 6]
    for name, (_, stages, flipped, _) in runs.items():
        for n, (stage, other) in enumerate(zip(stages, flipped, strict=True), 1):
            pcp = stage["pcp_strict"]["mean"], stage["pcp_relaxed"]["mean"]
            pck = stage["pck"]["mean"], other and other["pck"]["mean"], stage["pck_seen"], stage["pck_occluded"]
            lines.append(row(f"`{name}`", n, *pck, *pcp))
    return lines


def filled(text, runs):
    """The page with its tables: of runs from scratch, and of those from ImageNet weights."""
    published = json.loads((FOLDER / "published.json").read_text())
    pretrained = {name: run for name, run in runs.items() if run[0]["preset"] == PRETRAINED}
    scratch = {name: run for name, run in runs.items() if name not in pretrained}
    tables = {
        "test": table_of_tests(scratch, published),
        "stages": table_of_stages(scratch),
        "pretrained test": table_of_tests(pretrained, {}),
        "pretrained stages": table_of_stages(pretrained),
    }
    for name, lines in tables.items():
        begin, end = f"<!-- table: {name} -->\n", "<!-- end of table -->"
        before, rest = text.split(begin)
        text = before + begin + "\n".join(lines) + "\n" + rest[rest.index(end) :]
    return text


def trained_stage(line, phases):
    """PCK of the stage that an epoch trained: its phase's, and the last one's where all are trained together."""
    stages = sum(name.startswith("val_pck_") and value != "" for name, value in line.items())
    number = stages if phases == 1 else min(int(line["phase"]) + 1, stages)
    return float(line[f"val_pck_{number}"])


def draw(runs):
    """PCK of the held-out people over the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch of all phases", ylabel="PCK@0.2 of the 200 held-out people, %")
    for number, name in enumerate(runs):
        with (FOLDER / name / "epochs.csv").open(newline="") as file:
            lines = list(csv.DictReader(file))
        phases = len({line["phase"] for line in lines})
        values = [trained_stage(line, phases) for line in lines]
        axes.plot(range(1, len(values) + 1), values, "-" if number < 10 else "--", marker=".", label=name)
    figure.legend(loc="outside right upper")
    axes.set_xscale("log")  # half of the runs have fewer than 18 epochs, one has 90
    axes.grid(alpha=0.3, which="both")
    figure.savefig(FOLDER.with_suffix(".png"), dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", nargs=3, type=Path, action="append", default=[], metavar=("RUN", "TEST", "LOG"))
    parser.add_argument("--before", nargs=3, type=Path, action="append", default=[], metavar=("NAME", "RUN", "LOG"))
    parser.add_argument("--flip", nargs=2, type=Path, action="append", default=[], metavar=("NAME", "TEST"))
    parser.add_argument("--published", type=Path, metavar="DATA")
    args = parser.parse_args()
    for run, test, log in args.add:
        add(run, log, FOLDER / run.name)
        copy_json(test, FOLDER / run.name / "test.json")
    for name, run, log in args.before:
        add(run, log, FOLDER / name / "before")
    for name, test in args.flip:
        copy_json(test, FOLDER / name / "test_flip.json")
    if args.published:
        score_published(args.published)
    runs = read_runs()
    PAGE.write_text(filled(PAGE.read_text(), runs))
    draw(runs)


if __name__ == "__main__":
    main()

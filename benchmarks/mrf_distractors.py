"""Does a spatial model pick the right person?  python benchmarks/mrf_distractors.py --data ../shared/data --out out/mrf

Chooses how priors are made and messages are weighed with annotated joints and rendered heatmaps only: every person of a
validation set is drawn as a detector would see it, together with a second person, and a joint is right if its argmax is
within 0.1 of the person's longer box side. What won is then tried, once, on real heatmaps, which take no part in the
choice. Prints both as tables (docs/mrf_real_data.md) and writes them as results.json.

Data: mpii_joints.json.gz, flic_joints.npz and heatmaps/movenet_thunder_topdown.npz below --data or PYPOSE_OPS_DATA.
"""

import argparse
import itertools
import json
import math
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from mrf_people import BODY, FLIC_BODY, LONGER, RIGHT, SIDE, read_flic, read_mpii, read_real, rendered

from pypose_ops.models import SpatialModel, full_edges, limb_edges, tree_edges
from pypose_ops.skeletons import COCO

BIAS = 1e-4
SIZES = ("box", "height")
SMOOTH = (2, 8, 18, 32, 72)  # a standard deviation of 1, 2, 3, 4 and 6 px
FLOORS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
GRAPHS = ("full", "limbs", "tree")
WEIGHTS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0)


@dataclass(frozen=True)
class Settings:
    """What is chosen: a person's size, passes of smoothing, floor of the maps, graph, weight of the messages."""

    size: str
    smooth: int
    floor: float
    graph: str
    weight: float


def full_model(people, size, smooth):
    """Priors between all joints; weight 1."""
    longer = people.height if size == "height" else 1.1 * people.extent
    joints = len(people.names)
    return SpatialModel.from_displacements(
        people.in_map(longer),
        people.visible,
        full_edges(range(joints)),
        (SIDE, SIDE),
        joints,
        smooth=smooth,
        bias=BIAS,
    )


def restricted(model, names, graph, floor, weight=1.0):
    """The same priors on fewer edges."""
    if graph == "full":
        wanted = model.edges
    elif graph == "tree":
        wanted = tree_edges(model.edges, model.information())
    else:
        where = {COCO.joints.index(name): i for i, name in enumerate(names)}
        wanted = [(where[v], where[j]) for v, j in limb_edges(COCO, where)]
    prior = model.prior.detach()[[model.edges.index(edge) for edge in wanted]]
    return SpatialModel(prior, wanted, len(names), bias=BIAS, floor=floor, weight=weight)


def model_of(people, settings):
    model = full_model(people, settings.size, settings.smooth)
    return restricted(model, people.names, settings.graph, settings.floor, settings.weight)


def right(energy, truth, tolerance):
    """(N, J) bool: the argmax is within ``tolerance`` map pixels of the truth."""
    index = energy.flatten(2).argmax(-1)
    found = torch.stack((index % SIDE, index.div(SIDE, rounding_mode="floor")), -1)
    return (found - truth).norm(dim=-1) <= tolerance


def share(hits, count):
    return (hits & count).sum().item() / count.sum().item()


@torch.no_grad()
def sweep(train, test, generator, *, sizes=SIZES, smooths=SMOOTH, floors=FLOORS, graphs=GRAPHS, weights=WEIGHTS):
    """Share of right joints before, and for each of the settings after: ``(float, list[tuple[Settings, float]])``."""
    maps, truth, count = rendered(test, generator)
    energy, rows = torch.empty_like(maps), []
    for size, smooth in itertools.product(sizes, smooths):
        model = full_model(train, size, smooth)
        for graph, floor in itertools.product(graphs, floors):
            spatial = restricted(model, train.names, graph, floor)
            evidence, messages = spatial.evidence(maps), spatial.messages(maps)
            for weight in weights:
                torch.add(evidence, messages, alpha=weight, out=energy)
                hits = right(energy, truth, RIGHT * LONGER)
                rows.append((Settings(size, smooth, floor, graph, weight), share(hits, count)))
    return share(right(maps, truth, RIGHT * LONGER), count), rows


def best(rows, **wanted):
    """The settings with the largest share among those with the wanted values."""
    return max(
        (row for row in rows if all(getattr(row[0], name) == value for name, value in wanted.items())),
        key=lambda row: row[1],
    )


@torch.no_grad()
def against_strength(train, test, settings, seed, strengths=(0.0, 0.25, 0.5, 0.75, 1.0)):
    """The chosen settings on easier and harder crops: rows of strength, share before, share after."""
    model, rows = model_of(train, settings), []
    for strength in strengths:
        maps, truth, count = rendered(test, torch.Generator().manual_seed(seed), strength)
        hits = (right(values, truth, RIGHT * LONGER) for values in (maps, model(maps)))
        rows.append((strength, *(share(hit, count) for hit in hits)))
    return rows


@torch.no_grad()
def on_real_maps(model, folder, names):
    """Rows of data set, annotated joints, right before, right after."""
    maps, truth, count, tolerance, dataset = read_real(folder, names)
    hits = [right(values, truth, tolerance) & count for values in (maps, model(maps))]
    rows = []
    for name in (*dict.fromkeys(dataset), "all"):
        of_it = torch.tensor([name in (one, "all") for one in dataset])
        rows.append((name, *(int(values[of_it].sum()) for values in (count, *hits))))
    return rows


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def percent(value):
    return f"{100 * value:.1f} %"


def sweep_tables(rows, before):
    """Markdown: weight by graph, smoothing by floor, sizes; other settings at their best values."""
    chosen, after = best(rows)
    parts = [f"argmax before {percent(before)}, best after {percent(after)}: {chosen}\n"]
    weights = sorted({settings.weight for settings, _ in rows})
    graphs = list(dict.fromkeys(settings.graph for settings, _ in rows))
    fixed = {name: getattr(chosen, name) for name in ("size", "smooth", "floor")}
    cells = [[g, *(percent(best(rows, graph=g, weight=w, **fixed)[1]) for w in weights)] for g in graphs]
    parts.append(table(["graph \\ weight", *weights], cells))
    floors = sorted({settings.floor for settings, _ in rows})
    smooths = sorted({settings.smooth for settings, _ in rows})
    fixed = {name: getattr(chosen, name) for name in ("size", "graph")}
    cells = [
        [f"{math.sqrt(s / 2):.0f} px", *(percent(best(rows, smooth=s, floor=f, **fixed)[1]) for f in floors)]
        for s in smooths
    ]
    parts.append(table(["smoothing \\ floor", *floors], cells))
    sizes = list(dict.fromkeys(settings.size for settings, _ in rows))
    parts.append(table(["size by", "best"], [[size, percent(best(rows, size=size)[1])] for size in sizes]))
    return "\n".join(parts)


def real_table(rows):
    cells = [
        [name, count, f"{before} ({percent(before / count)})", f"{after} ({percent(after / count)})"]
        for name, count, before, after in rows
    ]
    return table(["data set", "joints", "before", "after"], cells)


def real_trials(train, rows, folder):
    """Real heatmaps with what was chosen, with the best of the other graphs, and without weighing the messages."""
    chosen, _ = best(rows)
    graphs = dict.fromkeys(settings.graph for settings, _ in rows)
    trials = {"chosen": chosen} | {f"best {g}": best(rows, graph=g)[0] for g in graphs if g != chosen.graph}
    trials["best full, weight 1"] = replace(best(rows, graph="full")[0], weight=1.0)
    return [(label, s, on_real_maps(model_of(train, s), folder, train.names)) for label, s in trials.items()]


def trials_table(trials):
    cells = [
        [label, s.size, s.graph, f"{math.sqrt(s.smooth / 2):.0f} px", s.floor, s.weight, *real[-1][2:]]
        for label, s, real in trials
    ]
    return table(["", "size by", "graph", "smoothing", "floor", "weight", "before", "after"], cells)


def default_data():
    return Path(os.environ.get("PYPOSE_OPS_DATA", Path(__file__).parents[2] / "shared" / "data"))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=default_data(), help="folder of the data (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder for results.json")
    parser.add_argument("--people", type=int, default=500, help="validation people per set (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--choose-only", action="store_true", help="leave the real heatmaps alone")
    return parser.parse_args()


def run(folder, people, seed):
    """The choice on synthetic crops, set by set: name, people of the priors and of the choice, before, rows."""
    generator = torch.Generator().manual_seed(seed)
    mpii = read_mpii(folder)
    flic = read_flic(folder, mpii, generator)
    shared = [name for name in FLIC_BODY if name in BODY]
    sets = {
        "MPII priors, chosen on MPII people": mpii,
        "FLIC priors, chosen on FLIC people": flic,
        "FLIC priors, chosen on MPII people": (flic[0].of(shared), mpii[1].of(shared)),
    }
    for name, (train, test) in sets.items():
        test = test[torch.randperm(len(test), generator=generator)[:people]]
        yield name, train, test, *sweep(train, test, generator)


def main():
    args = arguments()
    results = {}
    for name, train, test, before, rows in run(args.data, args.people, args.seed):
        chosen, after = best(rows)
        print(f"\n## {name}\n\n{len(train)} people for the priors, {len(test)} for the choice")
        print(sweep_tables(rows, before))
        harder = against_strength(train, test, chosen, args.seed + 1)
        print(table(["strength", "before", "after"], [[s, percent(b), percent(a)] for s, b, a in harder]))
        kept = [[*asdict(settings).values(), after] for settings, after in rows]
        results[name] = dict(settings=asdict(chosen), before=before, after=after, strength=harder, sweep=kept)
        if not args.choose_only:
            trials = real_trials(train, rows, args.data)
            print("on real heatmaps\n")
            print(real_table(trials[0][2]))
            print(trials_table(trials))
            results[name]["real"] = [(label, asdict(settings), real) for label, settings, real in trials]
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

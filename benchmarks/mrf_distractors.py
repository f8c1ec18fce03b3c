"""Does a spatial model pick the right person?  python benchmarks/mrf_distractors.py --data ../shared/data --out out/mrf

Chooses how priors are made and messages are weighed with annotated joints and rendered heatmaps only: every person of a
validation set is drawn as a detector would see it, together with a second person, and a joint is right if its argmax is
within 0.1 of the person's longer box side. What won is then tried, once, on real heatmaps, which take no part in the
choice. Prints both as tables (docs/mrf_real_data.md) and writes them as results.json.

Data: mpii_joints.json.gz, flic_joints.npz and heatmaps/movenet_thunder_topdown.npz below --data or PYPOSE_OPS_DATA.
"""

import argparse
import gzip
import itertools
import json
import math
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pypose_ops import gaussian_heatmaps
from pypose_ops.models import SpatialModel, full_edges, limb_edges, tree_edges
from pypose_ops.skeletons import COCO, FLIC, MPII

SIDE = 64  # of the maps, pixels
CROP = 1.25  # a crop is that many times the longer side of the person's box
LONGER = SIDE / CROP  # that side in map pixels
RIGHT = 0.1  # of it
BODY = COCO.joints[5:]  # shoulders to ankles: the joints that MPII and COCO share
FLIC_BODY = tuple(name for name in COCO.joints if name in FLIC.joints)
BIAS = 1e-4
HEATMAPS = "heatmaps/movenet_thunder_topdown.npz"

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


@dataclass
class People:
    """Joints of N people in pixels of their pictures: of the J that are asked for, and where their boxes are."""

    names: tuple  # of the joints
    xy: torch.Tensor  # (N, J, 2)
    visible: torch.Tensor  # (N, J) bool: annotated
    centre: torch.Tensor  # (N, 2) of the box around all annotated joints
    extent: torch.Tensor  # (N,) its longer side
    height: torch.Tensor  # (N,) of the whole, upright person
    real: torch.Tensor  # (N,) bool: in one of the pictures of the real heatmaps

    def __len__(self):
        return len(self.xy)

    def __getitem__(self, index):
        fields = (self.xy, self.visible, self.centre, self.extent, self.height, self.real)
        return People(self.names, *(field[index] for field in fields))

    def of(self, names):
        """The same people with only these joints."""
        chosen = [self.names.index(name) for name in names]
        return replace(self, names=tuple(names), xy=self.xy[:, chosen], visible=self.visible[:, chosen])

    def in_map(self, longer):
        """(N, J, 2) map pixels if ``longer``, (N,) picture pixels, is the longer side of the person's box."""
        scale = (LONGER / longer)[:, None, None]
        return (self.xy - self.centre[:, None]) * scale + (SIDE - 1) / 2


def read_mpii(folder, names=BODY, least=6):
    """Training and validation people of MPII, those with ``least`` of the named joints."""
    with gzip.open(folder / "mpii_joints.json.gz") as file:
        rows = json.load(file)
    with np.load(folder / HEATMAPS, allow_pickle=False) as file:
        pictures = {Path(name).name for name in file["image"].tolist()}
    joints = torch.tensor([row["joint_self"] for row in rows])
    annotated = (joints[..., :2] != 0).any(-1)
    low = torch.where(annotated[..., None], joints[..., :2], math.inf).amin(1)
    high = torch.where(annotated[..., None], joints[..., :2], -math.inf).amax(1)
    chosen = [MPII.joints.index(name) for name in names]
    people = People(
        tuple(names),
        joints[:, chosen, :2],
        annotated[:, chosen],
        (low + high) / 2,
        (high - low).amax(1),
        200 * torch.tensor([row["scale_provided"] for row in rows]),
        torch.tensor([row["img_paths"] in pictures for row in rows]),
    )
    usable = (people.visible.sum(1) >= least) & (people.extent > 0)
    held_out = torch.tensor([row["isValidation"] for row in rows]) > 0
    return people[usable & ~held_out], people[usable & held_out]


def read_flic(folder, crops, generator):
    """Training and test people of FLIC, whose pictures end at the hips, placed and sized as whole people are.

    Args:
        crops (tuple[People, People]): of MPII, for training and test: each person's torso gets the place and length
            that the torso of a random one of these has in its box.
    """
    with np.load(folder / "flic_joints.npz", allow_pickle=False) as file:
        xy, is_train = torch.from_numpy(file["joints"]).float(), torch.from_numpy(file["is_train"])
    chosen = [FLIC.joints.index(name) for name in FLIC_BODY]
    parts = []
    for rows, whole in zip((is_train, ~is_train), crops, strict=True):
        seen = whole.visible[:, [BODY.index(name) for name in TORSO]].all(1)
        whole = whole[seen & (torso(whole.xy, whole.names)[1] > 0)]
        whole = whole[torch.randint(len(whole), (int(rows.sum()),), generator=generator)]
        (middle, length), (its, its_length) = torso(whole.xy, whole.names), torso(xy[rows], FLIC.joints)
        placed = (xy[rows] - its[:, None]) * (length / its_length)[:, None, None] + middle[:, None]
        placed = placed[:, chosen]
        box = (whole.centre, whole.extent, whole.height, torch.zeros_like(whole.real))
        parts.append(People(FLIC_BODY, placed, placed.isfinite().all(-1), *box)[its_length > 0])
    return tuple(parts)


TORSO = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")


def torso(xy, names):
    """Middle (N, 2) and length (N,) between the middles of the shoulders and of the hips."""
    a, b, c, d = (xy[:, names.index(name)] for name in TORSO)
    return (a + b + c + d) / 4, ((a + b) / 2 - (c + d) / 2).norm(dim=-1)


def rendered(people, generator, strength=None):
    """Heatmaps of people as a detector sees them, each with a second person in the crop.

    A confident joint is a narrow peak, an unsure one a broad one: a standard deviation from 1.2 px at height 0.9 to
    3 px at 0, as in the heatmaps of scikit-image's astronaut. Every joint has a height between 0.1 and 0.9, one in
    seven is missed (below 0.05). What distracts: another person of the same set, 0.6 to 1.6 times as large and 12 to
    36 px away, with heights of the same kind; for every second joint a peak at the other side's joint, at up to 0.5;
    in every map one anywhere, at up to 0.15. All three are weaker in some crops than in others: by a factor between
    0 and 1.

    Args:
        strength (float, optional): this factor, the same for all crops.

    Returns:
        tuple: maps (N, J, 64, 64), true joints (N, J, 2) in map pixels, (N, J) which of them count: those that are
        annotated, in the map, and not of a person of the real heatmaps.
    """
    count, joints = people.visible.shape

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(*shape, generator=generator)

    def blobs(xy, visible, height):
        seen_at = xy + torch.randn(xy.shape, generator=generator)
        maps = gaussian_heatmaps(seen_at, 3 - 2 * height, (SIDE, SIDE), visible=visible)
        return maps * height[..., None, None]

    def heights():
        missed = uniform(0, 1, count, joints) < 1 / 7
        return torch.where(missed, uniform(0, 0.05, count, joints), uniform(0.1, 0.9, count, joints))

    xy = people.in_map(people.extent * uniform(1.0, 1.2, count))
    maps = blobs(xy, people.visible, heights())

    strength = uniform(0, 1, count, 1) if strength is None else torch.full((count, 1), strength)
    other = torch.randperm(count, generator=generator)
    second = people[other].in_map(people.extent[other] * uniform(1.0, 1.2, count))
    size, angle, distance = uniform(0.6, 1.6, count), uniform(0, 2 * math.pi, count), uniform(12, 36, count)
    away = torch.stack((angle.cos(), angle.sin()), -1) * distance[:, None]
    second = (second - (SIDE - 1) / 2) * size[:, None, None] + (SIDE - 1) / 2 + away[:, None]
    maps = maps.maximum(blobs(second, people.visible[other], strength * heights()))

    mirror = [people.names.index(opposite(name)) for name in people.names]
    height = torch.where(uniform(0, 1, count, joints) < 0.5, uniform(0, 0.5, count, joints), 0.0)
    maps = maps.maximum(blobs(xy[:, mirror], people.visible[:, mirror], strength * height))
    anywhere = uniform(0, SIDE - 1, count, joints, 2)
    maps = maps.maximum(blobs(anywhere, None, strength * uniform(0, 0.15, count, joints)))
    inside = ((xy >= -0.5) & (xy < SIDE - 0.5)).all(-1)
    return maps, xy, people.visible & inside & ~people.real[:, None]


def opposite(name):
    left, right = "left_", "right_"
    return name.replace(left, right) if left in name else name.replace(right, left)


def full_model(people, size, smooth):
    """Priors between all joints; weight 1."""
    longer = people.height if size == "height" else 1.1 * people.extent
    joints = len(people.names)
    return SpatialModel.from_displacements(
        people.in_map(longer),
        people.visible,
        full_edges(joints),
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
            evidence = maps.clamp(min=floor).log()
            messages = restricted(model, train.names, graph, floor)(maps) - evidence
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


def read_real(folder, names):
    """Real heatmaps of MoveNet: maps, truth in map pixels, which joints are annotated, tolerance (N, 1), data set."""
    with np.load(folder / HEATMAPS, allow_pickle=False) as file:
        arrays = {key: file[key] for key in ("heatmaps", "joint_names", "gt_kps", "hm2img", "bbox_xywh", "dataset")}
    chosen = [arrays["joint_names"].tolist().index(name) for name in names]
    maps = torch.from_numpy(arrays["heatmaps"].astype(np.float32))[:, chosen]
    truth, hm2img = (torch.from_numpy(arrays[key]) for key in ("gt_kps", "hm2img"))
    truth = truth[:, chosen]
    scale = hm2img[:, 0, 0]
    xy = (truth[..., :2] - hm2img[:, None, :, 2]) / scale[:, None, None]
    longer = torch.from_numpy(arrays["bbox_xywh"])[:, 2:].amax(1) / scale
    return maps, xy, truth[..., 2] > 0, RIGHT * longer[:, None], arrays["dataset"].tolist()


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
    """Markdown: weight by graph, smoothing by floor, sizes; what is not named is at its best."""
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

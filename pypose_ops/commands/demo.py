"""Decode the shipped sample, draw it, and compare speed and accuracy.

Writes the pose and the heatmaps of scikit-image's astronaut, compares every decoder with the net's own decode, and
prints the speed of every operator against its reference. With --data it also decodes annotated people.
"""

from importlib import resources
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.benchmark import Timer

from pypose_ops import decode_heatmaps, gaussian_heatmaps, reference
from pypose_ops.skeletons import COCO

from . import InputError
from .decode import REFINE, draw, print_joints
from .files import load_heatmaps, load_npz, take

SURE = 0.3  # the net's own score; joints with less are not in the picture, or guesses
NEAR = 0.1  # of the longer side of the person's box
SAME_PEAK = 3  # heatmap px
NETS = {"MoveNet Thunder": "movenet_thunder_topdown.npz", "EfficientPose II Lite": "efficientpose_topdown.npz"}


def add_arguments(parser):
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("out/demo"), help="default: %(default)s")
    parser.add_argument("--data", metavar="DIR", type=Path, help="a folder with heatmaps/ of annotated people")


def decode_all(path, key="heatmaps"):
    """A heatmap file, all its arrays, and its coordinates in picture px by every decoder."""
    file, arrays = load_heatmaps(path, key), load_npz(path)
    coords = {refine: decode_heatmaps(file.heatmaps, refine=refine, transform=file.hm2img).coords for refine in REFINE}
    return file, arrays, coords


def near_own(file, arrays, coords):
    """Mean distance in heatmap px to the net's own decode, by choice of joints and decoder."""
    own = torch.from_numpy(arrays["own_xy"]).view_as(coords["none"])
    pixel = torch.linalg.det(file.hm2img[:, :, :2]).abs().sqrt()[:, None]  # one heatmap px in picture px
    distance = {refine: (c - own).norm(dim=-1) / pixel for refine, c in coords.items()}
    sure = torch.from_numpy(arrays["own_score"]).view_as(distance["none"]) >= SURE
    # The net prefers peaks near the person's centre; in a crowd the highest peak may be somebody else's.
    label = f"own score >= {SURE}"
    choices = {label: sure, f"{label}, same peak": sure & (distance["none"] <= SAME_PEAK)}
    return {
        f"{label} ({chosen.sum().item()})": {refine: d[chosen].mean().item() for refine, d in distance.items()}
        for label, chosen in choices.items()
    }


def near_truth(path, arrays, coords):
    """Per data set: how many people and visible joints, and the share of these joints near the truth, by decoder."""
    truth = torch.from_numpy(take(arrays, "gt_kps", path))
    side = torch.from_numpy(take(arrays, "bbox_xywh", path))[:, 2:].amax(1, keepdim=True)
    dataset = take(arrays, "dataset", path)
    near = {refine: (c - truth[..., :2]).norm(dim=-1) <= NEAR * side for refine, c in coords.items()}
    found = {}
    for name in dict.fromkeys(dataset.tolist()):
        rows = torch.from_numpy(dataset == name)
        counted = (truth[..., 2] == 2) & rows[:, None]
        shares = {refine: hits[counted].float().mean().item() for refine, hits in near.items()}
        found[name] = rows.sum().item(), counted.sum().item(), shares
    return found


def sample(out):
    """Decodes and draws the astronaut."""
    try:
        from skimage.data import astronaut
    except ImportError:
        raise InputError("the demo needs scikit-image: pip install 'pypose_ops[demo]'") from None

    with resources.as_file(resources.files("pypose_ops") / "data" / "astronaut_movenet.npz") as path:
        file, arrays, coords = decode_all(path, "heat")
    table = Table("joints", *REFINE, title="Astronaut: mean distance to the net's own decode, heatmap px")
    for choice, means in near_own(file, arrays, coords).items():
        table.add_row(choice, *(f"{mean:.3f}" for mean in means.values()))
    peaks = decode_heatmaps(file.heatmaps, transform=file.hm2img)
    print_joints(peaks, file.joint_names, "Astronaut, dark, picture px")
    Console().print(table)
    paths = draw(astronaut(), file.heatmaps, peaks, file.joint_names, COCO, file.hm2img, out / "astronaut.png")
    print("\n".join(f"wrote {path}" for path in paths))


def speed():
    """Times each operator and its reference on the same batch."""
    keypoints = torch.rand(64, 17, 2) * torch.tensor([48.0, 64.0])
    heatmaps = gaussian_heatmaps(keypoints, 2.0, (64, 48))
    calls = {"gaussian_heatmaps": ("f(keypoints, 2.0, (64, 48))", gaussian_heatmaps, reference.gaussian_heatmaps)}
    for refine in REFINE:
        call = f"f(heatmaps, refine={refine!r})"
        calls[f"decode_heatmaps {refine}"] = (call, decode_heatmaps, reference.decode_heatmaps)
    threads = torch.get_num_threads()
    table = Table("operator", title=f"Batch 64 x 17 joints x 64x48, CPU, {threads} threads")
    table.add_column("against pypose_ops.reference", justify="right")
    for name, (call, op, slow) in calls.items():
        times = []
        for f in (op, slow):
            scope = {"f": f, "keypoints": keypoints, "heatmaps": heatmaps}
            timer = Timer(call, globals=scope, num_threads=threads)
            timer.timeit(1)
            times.append(timer.blocked_autorange(min_run_time=0.3).median)
        table.add_row(name, f"{times[1] / times[0]:.1f}x faster")
    Console().print(table)


def people(folder):
    """Decodes annotated people with every decoder; tables of how near they come to the truth and to the net's own."""
    truth = Table("net", "data set", "people", "joints", *REFINE, title=f"Joints within {NEAR} of the longer box side")
    own = Table("net", "joints", *REFINE, title="Mean distance to the net's own decode, heatmap px")
    for net, name in NETS.items():
        path = folder / "heatmaps" / name
        file, arrays, coords = decode_all(path)
        for dataset, (count, joints, shares) in near_truth(path, arrays, coords).items():
            truth.add_row(net, dataset, str(count), str(joints), *(f"{share:.3f}" for share in shares.values()))
        if "own_xy" in arrays:
            for choice, means in near_own(file, arrays, coords).items():
                own.add_row(net, choice, *(f"{mean:.3f}" for mean in means.values()))
    Console().print(truth, own)


def run(args):
    if args.data is not None and not args.data.is_dir():
        raise InputError(f"{args.data}: no such folder")
    sample(args.out)
    speed()
    if args.data is not None:
        people(args.data)

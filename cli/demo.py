"""Go from a photograph to a pose, decode the packaged heatmaps, and compare speed and accuracy.

Finds the joints of scikit-image's astronaut with the packaged weights and draws them. Decodes and draws the heatmaps of
another network, compares every decoder with the network's own, and prints the speed of every operator relative to its
reference. With --data it also processes annotated people and prints the PCK@0.2 of their poses.
"""

import argparse
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.benchmark import Timer

from pypose_ops import decode_heatmaps, find_peaks, gaussian_heatmaps, reference
from pypose_ops.datasets.files import load_npz, take
from pypose_ops.errors import InputError
from pypose_ops.models.weights.files import PACKAGED
from pypose_ops.skeletons import COCO

from . import demo_poses
from .decode import REFINE, draw, print_joints
from .files import load_heatmaps

SURE = 0.3  # the network's own score; joints below are guesses or outside the image
NEAR = 0.1  # relative to the longer side of the person's box
SAME_PEAK = 3  # heatmap px
# The networks for these people draw narrower blobs than the default blur expects.
DECODERS: dict[str, dict[str, Any]] = {name: {"refine": refine} for name, refine in REFINE.items()} | {
    "dark, sigma 1.5": {"refine": "dark", "sigma": 1.5}
}
CROWDS: dict[str, tuple[str, str, Callable[[torch.Tensor], torch.Tensor] | None]] = {
    "OpenPose MobileNet thin": ("openpose_thin_coco_images.npz", "heat_{}", None),
    "PoseNet MobileNet": ("posenet_coco_images.npz", "heat_logit_{}", torch.sigmoid),
}
THRESHOLD = 0.1  # for the peaks of several people
NETS = {"MoveNet Thunder": "movenet_thunder_topdown.npz", "EfficientPose II Lite": "efficientpose_topdown.npz"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("out/demo"), help="default: %(default)s")
    parser.add_argument(
        "--data", metavar="DIR", type=Path, help="folder of annotated people, with people/ and heatmaps/"
    )


def decode_all(path: Path, key: str = "heatmaps") -> Any:
    """A heatmap file, its arrays, and its coordinates in image px by every decoder."""
    file, arrays = load_heatmaps(path, key), load_npz(path)
    coords = {
        name: decode_heatmaps(file.heatmaps, transform=file.hm2img, **options).coords
        for name, options in DECODERS.items()
    }
    return file, arrays, coords


def pixel_size(file: Any) -> torch.Tensor:
    """One heatmap px in image px, (B, 1)."""
    return torch.linalg.det(file.hm2img[:, :, :2]).abs().sqrt()[:, None]


def near_own(file: Any, arrays: dict[str, Any], coords: torch.Tensor) -> dict[str, dict[str, float]]:
    """Mean distance in heatmap px to the network's own decoding, by selection of joints and decoder."""
    own = torch.from_numpy(arrays["own_xy"]).view_as(coords["none"])
    distance = {refine: (c - own).norm(dim=-1) / pixel_size(file) for refine, c in coords.items()}
    sure = torch.from_numpy(arrays["own_score"]).view_as(distance["none"]) >= SURE
    # The network prefers peaks near the person's centre; in a crowd the highest peak may belong to another person.
    label = f"own score >= {SURE}"
    choices = {label: sure, f"{label}, same peak": sure & (distance["none"] <= SAME_PEAK)}
    return {
        f"{label} ({chosen.sum().item()})": {refine: d[chosen].mean().item() for refine, d in distance.items()}
        for label, chosen in choices.items()
    }


def near_truth(path: Path, arrays: dict[str, Any], coords: torch.Tensor) -> dict[str, Any]:
    """Per data set: numbers of people and visible joints, and the share of joints near their labels, by decoder."""
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


def error(path: Path, file: Any, arrays: dict[str, Any], coords: torch.Tensor) -> tuple[int, dict[str, float]]:
    """Number of visible joints that argmax finds, and their mean distance to the labels in heatmap px, by decoder."""
    truth = torch.from_numpy(take(arrays, "gt_kps", path))
    side = torch.from_numpy(take(arrays, "bbox_xywh", path))[:, 2:].amax(1, keepdim=True)
    distance = {name: (c - truth[..., :2]).norm(dim=-1) for name, c in coords.items()}
    found = (truth[..., 2] == 2) & (distance["none"] <= NEAR * side)
    return found.sum().item(), {name: (d / pixel_size(file))[found].mean().item() for name, d in distance.items()}


def strict_maxima(maps: torch.Tensor) -> list[torch.Tensor]:
    """Coordinates per joint of all pixels above the threshold that are higher than their eight neighbours."""
    padded = torch.nn.functional.pad(maps, (1, 1, 1, 1), value=-torch.inf)
    height, width = maps.shape[-2:]
    around = [
        padded[..., dy : dy + height, dx : dx + width] for dy in range(3) for dx in range(3) if (dy, dx) != (1, 1)
    ]
    is_peak = (maps > THRESHOLD) & (maps > torch.stack(around).amax(0))
    return [joint.nonzero().flip(-1).float() for joint in is_peak[0]]


def crowd(path: Path, key: str, activation: Any) -> tuple[int, dict[str, int]]:
    """The labelled joints of images with several people, and how many have a peak nearby, by method."""
    arrays, labelled, covered = load_npz(path), 0, {}
    for image in range(int(take(arrays, "n_images", path))):
        maps = torch.from_numpy(take(arrays, key.format(image), path)).float()[None]
        maps = maps if activation is None else activation(maps)
        hm2img = torch.from_numpy(take(arrays, f"hm2img_{image}", path))
        truth = torch.from_numpy(take(arrays, f"gt_kps_{image}", path))
        side = torch.from_numpy(take(arrays, f"bbox_xywh_{image}", path))[:, 2:].amax(1)
        places = {"strict 3x3 maxima": strict_maxima(maps)}
        for refine in ("none", "dark"):
            peaks = find_peaks(maps, threshold=THRESHOLD, refine=REFINE[refine])
            places[f"find_peaks, {refine}"] = [c[:n] for c, n in zip(peaks.coords[0], peaks.counts[0], strict=True)]
        person, joint = (truth[..., 2] > 0).nonzero(as_tuple=True)
        labelled += len(person)
        for name, coords in places.items():
            hits = [
                bool(
                    (
                        (coords[k] @ hm2img[:, :2].T + hm2img[:, 2] - truth[p, k, :2]).norm(dim=-1) <= NEAR * side[p]
                    ).any()
                )
                for p, k in zip(person.tolist(), joint.tolist(), strict=True)
            ]
            covered[name] = covered.get(name, 0) + sum(hits)
    return labelled, covered


def sample(out: Path) -> None:
    """Decodes and draws the astronaut."""
    try:
        from skimage.data import astronaut
    except ImportError:
        raise InputError("the demo needs scikit-image: pip install 'pypose_ops[demo]'") from None

    with resources.as_file(resources.files("pypose_ops") / "data" / "astronaut_movenet.npz") as path:
        file, arrays, coords = decode_all(path, "heat")
    table = Table("joints", *DECODERS, title="Astronaut: mean distance to the network's own decoding, heatmap px")
    for choice, means in near_own(file, arrays, coords).items():
        table.add_row(choice, *(f"{mean:.3f}" for mean in means.values()))
    peaks = decode_heatmaps(file.heatmaps, transform=file.hm2img)
    print_joints(peaks, file.joint_names, "Astronaut, dark, image px")
    Console().print(table)
    paths = draw(astronaut(), file.heatmaps, peaks, file.joint_names, COCO, file.hm2img, out / "astronaut.png")
    print("\n".join(f"wrote {path}" for path in paths))
    demo_poses.photograph(astronaut(), out / "astronaut-from-photograph.png")


def speed() -> None:
    """Measures each operator and its reference on the same batch."""
    keypoints = torch.rand(64, 17, 2) * torch.tensor([48.0, 64.0])
    heatmaps = gaussian_heatmaps(keypoints, 2.0, (64, 48))
    calls = {"gaussian_heatmaps": ("f(keypoints, 2.0, (64, 48))", gaussian_heatmaps, reference.gaussian_heatmaps)}
    for name, refine in REFINE.items():
        call = f"f(heatmaps, refine={refine!r})"
        calls[f"decode_heatmaps {name}"] = (call, decode_heatmaps, reference.decode_heatmaps)
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


def people(folder: Path) -> None:
    """Decodes annotated people with every decoder; prints distances to the labels and to the network's decoding."""
    truth = Table(
        "net", "data set", "people", "joints", *DECODERS, title=f"Joints within {NEAR} of the longer box side"
    )
    labels = Table(
        "net", "joints", *DECODERS, title="Mean distance to the labels, heatmap px, of joints that argmax finds"
    )
    own = Table("net", "joints", *DECODERS, title="Mean distance to the network's own decoding, heatmap px")
    for net, name in NETS.items():
        path = folder / "heatmaps" / name
        file, arrays, coords = decode_all(path)
        for dataset, (count, joints, shares) in near_truth(path, arrays, coords).items():
            truth.add_row(net, dataset, str(count), str(joints), *(f"{share:.3f}" for share in shares.values()))
        joints, means = error(path, file, arrays, coords)
        labels.add_row(net, str(joints), *(f"{mean:.3f}" for mean in means.values()))
        if "own_xy" in arrays:
            for choice, means in near_own(file, arrays, coords).items():
                own.add_row(net, choice, *(f"{mean:.3f}" for mean in means.values()))
    found = Table(
        "net", "labelled joints", title=f"Joints of several people with a peak within {NEAR} of the longer side"
    )
    for net, (name, key, activation) in CROWDS.items():
        labelled, covered = crowd(folder / "heatmaps" / name, key, activation)
        for way in covered if not found.rows else ():
            found.add_column(way)
        found.add_row(net, str(labelled), *map(str, covered.values()))
    Console().print(truth, labels, own, found)


def run(args: argparse.Namespace) -> None:
    if args.data is not None and not args.data.is_dir():
        raise InputError(f"{args.data}: no such folder")
    sample(args.out)
    speed()
    if args.data is not None:
        people(args.data)
        if (args.data / "people").is_dir():
            for weights in PACKAGED:
                demo_poses.people(args.data / "people", args.out / "people" / weights, weights)
        else:
            print(f"{args.data / 'people'}: no such folder, so photographs of people are skipped")

"""Where the time of a training step goes.  python benchmarks/training_step.py [--data FORMAT:PATH] [--json FILE]

A hourglass of two stacks (paper: 256 x 256 and 256 channels; compact: 128 x 128 and 64), trained in three ways on the
same people with the same random numbers, in turns:

  operators   images to the device; crops, targets and loss, decoding by the operators
  reference   the same by pypose_ops.reference, plain torch
  loader      crops and targets by OpenCV and NumPy in processes of the loader, plain mean squared error, decoding by
              NumPy (loader_path.py)

Every way also keeps a running PCK@0.2 of the training people, which is what the decoding is for. Times are means over
the steps of a turn, of parts on a GPU between CUDA events, so that nothing waits for the clock; what is told is the
median of the turns. In every way the images are in memory, decoded.
"""

import argparse
import contextlib
import itertools
import json
import os
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import bench_tools
import loader_path
import numpy as np
import torch
from torch.utils.data import DistributedSampler

from pypose_ops import metrics, reference, skeletons
from pypose_ops.codecs import _base as codec_module
from pypose_ops.datasets import PoseDataset, Sample, open_dataset
from pypose_ops.errors import InputError
from pypose_ops.models import build
from pypose_ops.models.systems.heatmap_system import stage_losses
from pypose_ops.models.training import crops
from pypose_ops.models.training.loading import People, train_loader
from pypose_ops.models.training.scores import torso_of

PARTS = ("data", "crop", "forward", "target+loss", "backward", "optimizer", "decode")
OPERATORS = ("crop", "target+loss", "decode")
WAYS = ("operators", "reference", "loader")
SEED = 0


@dataclass(frozen=True)
class Generated:
    """An image of noise, of LSP's usual size."""

    number: int

    def decode(self):
        random = np.random.default_rng(self.number)
        return torch.from_numpy(random.integers(0, 256, (*self.size(), 3), np.uint8))

    def size(self):
        return (150, 110) if self.number % 3 else (110, 150)


def generated(count):
    """People whose joints are anywhere in images of noise."""
    samples = []
    for i in range(count):
        image, random = Generated(i), np.random.default_rng(i)
        height, width = image.size()
        joints = random.random((len(skeletons.LSP), 2)) * (width - 20, height - 20) + 10
        samples.append(Sample(image, joints, random.integers(1, 3, len(joints)), size=image.size()))
    return PoseDataset("generated", skeletons.LSP, samples)


class Clock:
    """Seconds by part, step by step: a part is what lies between its mark and the mark before."""

    def __init__(self, device):
        self.on_gpu = device.type == "cuda"
        self.marks = [self._now()]

    def mark(self):
        self.marks.append(self._now())

    def _now(self):
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self):
        """A dict of PARTS for each step; on a GPU the last work must be done."""
        between = [self._between(start, end) for start, end in itertools.pairwise(self.marks)]
        steps = zip(*[iter(between)] * len(PARTS), strict=True)
        return [dict(zip(PARTS, step, strict=True)) for step in steps]

    def _between(self, start, end):
        return start.elapsed_time(end) / 1e3 if self.on_gpu else end - start


class Operators:
    """As ``pypose_ops.models.training`` trains: images go to the device, and nothing comes back."""

    def __init__(self, net, people, skeleton, options):
        self.net, self.people, self.options, self.device = net, people, options, options.device
        self.crops = crops.Crops(net, skeleton, crops.Augmentation())
        self.draws = torch.rand(len(people), crops.DRAWS, generator=torch.Generator().manual_seed(SEED))
        self.torso, self.pin = torso_of(skeleton), self.device.type == "cuda"
        self.on_device = self.draws.to(self.device)

    def replaced(self):
        """A context in which a step runs."""
        return contextlib.nullcontext()

    def source(self, _):
        """What ``next`` gives a step."""
        loader = train_loader(self.people, self.options.batch, seed=SEED, pin=self.pin)
        while True:
            yield from loader

    def to_device(self, loaded):
        return loaded.to(self.device, non_blocking=True)

    def crop(self, loaded):
        """A :class:`pypose_ops.models.Batch`."""
        return self.crops(loaded, self.on_device[loaded.index])[0]

    def loss(self, batch, stages):
        codec = self.net.codec(batch.images, stages[-1])
        return sum(stage_losses(codec, stages, batch.keypoints, batch.visible).values())

    def decode(self, batch, maps):
        """Joints in pixels of the crop, with the truth on the same device: ``(coords, keypoints, visible)``."""
        return self.net.decode(batch.images, maps).coords.float(), batch.keypoints, batch.visible

    def score(self, pck, batch, maps):
        coords, keypoints, visible = self.decode(batch, maps)
        norm = metrics.torso_size(keypoints, self.torso)
        norm = norm.masked_fill(~visible[:, list(self.torso)].all(1), float("nan"))
        pck.update(coords, keypoints, visible=visible, norm=norm)


class Reference(Operators):
    """The very same code with the definitions in plain torch in the places of the operators."""

    def replaced(self):
        stack = contextlib.ExitStack()
        places = ((crops, "crop_patches"), (codec_module, "heatmap_mse_loss"), (codec_module, "decode_heatmaps"))
        for module, name in places:
            stack.enter_context(mock.patch.object(module, name, getattr(reference, name)))
        return stack


class Loader(Operators):
    """The usual way, :mod:`loader_path`."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        images = torch.empty(1, 3, *self.net.input_size)
        codec = self.net.codec(images, images[..., ::4, ::4])  # of which only the sizes count
        self.stride = self.net.input_size[0] // codec.size[0]
        self.dataset = loader_path.CroppedPeople(self.people, self.crops, self.draws, codec)

    def source(self, steps, workers=None):
        order = list(DistributedSampler(self.people, 1, 0, shuffle=True, seed=SEED))  # that of train_loader
        workers = self.options.workers if workers is None else workers
        return iter(loader_path.loader_of(self.dataset, self.options.batch, order, steps, workers, self.pin))

    def to_device(self, items):
        return loader_path.to_batch(items, self.device)

    def crop(self, loaded):
        batch, *self.targets = loaded
        return batch

    def loss(self, batch, stages):
        return loader_path.maps_loss(stages, *self.targets)

    def decode(self, batch, maps):
        coords = loader_path.decoded(maps.float().cpu().numpy(), self.stride)
        return torch.from_numpy(coords), batch.keypoints.cpu(), batch.visible.cpu()

    def batch_seconds(self):
        """Time that one process needs for a batch."""
        source, times = self.source(4, workers=0), []
        for _ in range(4):
            start = time.perf_counter()
            next(source)
            times.append(time.perf_counter() - start)
        return statistics.median(times[1:])


def step(way, source, optimizer, clock, pck, bf16=False):
    """One step of training; returns its loss, on the device.

    The gradient of the loss to the maps is taken first, by itself: it is the operators' work, not the network's.
    """
    loaded = way.to_device(next(source))
    clock.mark()
    batch = way.crop(loaded)
    clock.mark()
    with torch.autocast(way.device.type, torch.bfloat16, enabled=bf16):
        stages = way.net.heatmaps(batch.images)
        clock.mark()
        leaves = [maps.detach().requires_grad_() for maps in stages]
        loss = way.loss(batch, leaves)
    loss.backward()
    clock.mark()
    torch.autograd.backward(stages, [maps.grad for maps in leaves])
    clock.mark()
    optimizer.step()
    optimizer.zero_grad()
    clock.mark()
    way.score(pck, batch, leaves[-1].detach())
    clock.mark()
    return loss.detach()


def turn(way, weights, warmup, steps, bf16=False):
    """Some steps of one way from the same weights.

    Returns:
        dict: ``parts``, seconds of each step after the first ``warmup``; ``step``, their mean by the wall clock;
        ``losses`` and ``pck`` of all steps; ``memory``, bytes on the GPU at most, or None.
    """
    net, on_gpu = way.net, way.device.type == "cuda"
    net.load_state_dict(weights)
    net.train()
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-4)
    pck, losses = metrics.PCK(threshold=0.2), []
    finish = torch.cuda.synchronize if on_gpu else lambda: None
    with way.replaced():
        source, clock = way.source(warmup + steps), Clock(way.device)
        losses += [step(way, source, optimizer, clock, pck, bf16) for _ in range(warmup)]
        finish()
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        clock, start = Clock(way.device), time.perf_counter()
        losses += [step(way, source, optimizer, clock, pck, bf16) for _ in range(steps)]
        finish()
        seconds = (time.perf_counter() - start) / steps
    memory = torch.cuda.max_memory_allocated() if on_gpu else None
    losses, pck = torch.stack(losses).tolist(), float(pck.compute()["mean"])
    return {"parts": clock.seconds(), "step": seconds, "losses": losses, "pck": pck, "memory": memory}


def compare(options, people, skeleton):
    """Turns of the three ways after each other, ``options.rounds`` times: the results of each."""
    torch.manual_seed(SEED)
    net = build("stacked_hourglass", len(skeleton), options.preset, stacks=2)
    net.to(options.device, memory_format=torch.channels_last)
    ways = [kind(net, people, skeleton, options) for kind in (Operators, Reference, Loader)]
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    turns = {name: [] for name in WAYS}
    for _ in range(options.rounds):
        for name, way in zip(WAYS, ways, strict=True):
            # A loader's processes begin with a batch each.
            warmup = options.warmup + (options.workers if name == "loader" else 0)
            turns[name].append(turn(way, weights, warmup, options.steps, options.bf16))
    results = {name: summary(turns[name], options.batch) for name in WAYS}
    results["loader"]["process_seconds"] = ways[-1].batch_seconds()
    return results


def summary(turns, batch):
    """Medians over the turns of one way."""
    parts = {}
    for part in PARTS:  # a mean: waiting for a loader comes in bursts
        parts[part] = statistics.median(statistics.mean(step[part] for step in turn["parts"]) for turn in turns)
    whole = statistics.median(turn["step"] for turn in turns)
    return {
        "parts": parts,
        "step": whole,
        "images_per_second": batch / whole,
        "share": {part: parts[part] / whole for part in OPERATORS},
        "turns": turns,
        "memory": max(turn["memory"] for turn in turns) if turns[0]["memory"] is not None else None,
    }


def report(results):
    """Markdown."""
    head = ["ms", "step", *PARTS, "images/s", "GPU memory"]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
    for name, way in results["ways"].items():
        times = [f"{1e3 * s:.1f}" for s in (way["step"], *way["parts"].values())]
        memory = "not measured" if way["memory"] is None else f"{way['memory'] / 2**30:.2f} GiB"
        lines.append("| " + " | ".join([name, *times, f"{way['images_per_second']:.0f}", memory]) + " |")
    ours, plain, usual = (results["ways"][name] for name in WAYS)
    shares = ", ".join(f"{part} {share:.2%}" for part, share in ours["share"].items())
    a, b, c = (way["turns"][0]["losses"][0] for way in (ours, plain, usual))
    lines += [
        "",
        f"share of the operators' step: {shares}; all three {sum(ours['share'].values()):.2%}",
        f"loss of the first step: operators {a:.7g}, reference {b:.7g} ({abs(a - b) / b:.1e} apart), loader {c:.7g}",
        f"a process of the loader makes a batch in {1e3 * usual['process_seconds']:.0f} ms",
    ]
    return "\n".join(lines)


def arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = "as the command line's train has it, or generated; default: LSP below PYPOSE_OPS_DATA, or generated"
    parser.add_argument("--data", metavar="FORMAT:PATH", help=data)
    parser.add_argument("--people", type=int, default=1000, help="at most (default: %(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--preset", choices=("paper", "compact"), help="default: paper on a GPU, else compact")
    parser.add_argument("--batch", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=4, help="turns of each way (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="that are timed in a turn (default: %(default)s)")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them (default: %(default)s)")
    cores = os.cpu_count() or 1
    workers = "processes of the loader (default: half the cores, at most 8)"
    parser.add_argument("--workers", type=int, default=min(8, max(1, cores // 2)), help=workers)
    parser.add_argument("--bf16", action="store_true", help="network under autocast")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results")
    options = parser.parse_args(argv)
    for name in ("people", "batch", "rounds", "steps"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} must be positive, got {getattr(options, name)}")
    for name in ("warmup", "workers"):
        if getattr(options, name) < 0:
            raise InputError(f"--{name} must not be negative, got {getattr(options, name)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no GPU")
    on_gpu = options.device != "cpu" and torch.cuda.is_available()
    options.device = torch.device("cuda" if on_gpu else "cpu")
    options.preset = options.preset or ("paper" if on_gpu else "compact")
    if options.json and not options.json.parent.is_dir():
        raise InputError(f"--json {options.json}: no such folder")
    return options


def people_of(options):
    """Images in memory, the skeleton, and the name of the data."""
    lsp = Path(os.environ.get("PYPOSE_OPS_DATA", "")) / "lsp_dataset.zip"
    spec = options.data or (f"lsp:{lsp}" if "PYPOSE_OPS_DATA" in os.environ and lsp.exists() else "generated")
    dataset = generated(options.people) if spec == "generated" else open_dataset(spec)
    dataset.samples = dataset.samples[: options.people]
    people = People(dataset)
    if len(people) < options.batch:
        raise InputError(f"--batch {options.batch}: there are only {len(people)} people")
    return people, dataset.skeleton, spec.partition(":")[0]


def run(argv):
    options = arguments(argv)
    people, skeleton, data = people_of(options)
    bench_tools.settle_allocator()
    about = {
        "device": bench_tools.device_name(options.device),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "workers": options.workers,
        "warp": loader_path.WARP,
        "data": data,
        "people": len(people),
        "preset": options.preset,
        "batch": options.batch,
        "bf16": options.bf16,
        "steps": options.rounds * options.steps,
    }
    print(", ".join(f"{name} {value}" for name, value in about.items()) + "\n", flush=True)
    results = about | {"ways": compare(options, people, skeleton)}
    print(report(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


def main(argv=None):
    try:
        run(argv)
    except InputError as error:
        print(f"training_step.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The poses of people in many images, on one machine or on a cluster, with Ray Data.

IMAGES is a folder of images, or a parquet file with a column `path` and optionally `boxes`, for each image a list of
[x1, y1, x2, y2], two corners in image pixels. Images without boxes (null, or a folder) are searched for people; with
--whole each of them shows one person.

OUT/poses receives parquet files with a row for each image: `id`, its place in IMAGES; `path`; `people`, a list of
{box, score, keypoints, scores}; and `error`, why an image could not be read, else null. Each worker holds one model. A
block of images is tried again when its worker dies. After an interruption the same command continues: blocks that are
written are not computed again, and no image is written twice. On a cluster, IMAGES and OUT are on storage that all
machines share.

    pip install "pypose_ops[ray]"
    python examples/ray_poses.py photos out --workers 4
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import ray
import torch
from PIL import Image
from ray.data.checkpoint import CheckpointConfig

from pypose_ops.datasets import ImageError, ImageFile
from pypose_ops.errors import InputError
from pypose_ops.models.inference import find_people_in
from pypose_ops.models.person_finder import find_boxes, finder_of
from pypose_ops.models.weights.files import open_weights, skeleton_of

PERSON = pa.struct(
    [
        ("box", pa.int32()),  # which of the boxes
        ("score", pa.float32()),
        ("keypoints", pa.list_(pa.list_(pa.float32(), 2))),  # image pixels, NaN where none was found
        ("scores", pa.list_(pa.float32())),
    ]
)
POSES = pa.schema([("id", pa.int64()), ("path", pa.string()), ("people", pa.list_(PERSON)), ("error", pa.string())])
BOXES = pa.list_(pa.list_(pa.float64()))
RETRIES = 3  # of a block, before the job stops
RESERVED = 2  # CPUs


class Worker:
    """One model; called with a block of images, it returns their poses in the same order."""

    def __init__(self, weights: str, device: str, whole: bool, **options: Any) -> None:
        torch.set_num_threads(1)  # there is a worker for every core
        self.system, info = open_weights(weights)
        self.system.to(device)
        self.skeleton, self.whole, self.options = skeleton_of(info), whole, options
        self.finder = None if whole else finder_of(self.system).to(device)

    def __call__(self, images: pa.Table) -> pa.Table:
        # Lists: NumPy batches are read-only, and stacked or of objects by what a block happens to hold.
        rows = images.to_pylist()
        errors: list[str | None] = []
        found = find_people_in(self._opened(rows, errors), self.system, self.skeleton, **self.options)
        people = [_people(*each) for each in found]
        # Images that could not be read were not passed on.
        there = iter(people)
        for row, error in zip(rows, errors, strict=True):
            row["error"], row["people"] = error, [] if error else next(there)
        return pa.Table.from_pylist([{name: row[name] for name in POSES.names} for row in rows], POSES)

    def _opened(self, rows: list[dict[str, Any]], errors: list[str | None]) -> Iterator[Any]:
        for row in rows:
            try:
                image = ImageFile(row["path"]).upright()
                boxes, scores = self._boxes(image, row["boxes"])
            except (ImageError, ValueError) as error:
                errors.append(str(error) if isinstance(error, ImageError) else f"{row['path']}: {error}")
                continue
            errors.append(None)
            yield image, boxes, scores, torch.zeros(len(boxes))

    def _boxes(self, image: Image.Image, given: list[list[float]] | None) -> tuple[torch.Tensor, torch.Tensor]:
        if given is None and self.finder is not None:
            return find_boxes(self.finder, image)
        given = [[0.0, 0.0, *map(float, image.size)]] if given is None else given
        if any(len(box) != 4 or None in box for box in given):
            raise ValueError("a box must be four numbers, x1, y1, x2, y2")
        boxes = torch.tensor(given, dtype=torch.float64).reshape(-1, 4)
        if not (boxes.isfinite().all() and (boxes[:, 2:] > boxes[:, :2]).all()):
            raise ValueError("a box must be finite and not empty")
        return boxes, torch.ones(len(boxes))


def _people(joints: torch.Tensor, joint_scores: torch.Tensor, scores: torch.Tensor, boxes: torch.Tensor) -> list[Any]:
    columns = (tensor.tolist() for tensor in (joints, joint_scores, scores, boxes))
    return [
        dict(zip(("keypoints", "scores", "score", "box"), each, strict=True)) for each in zip(*columns, strict=True)
    ]


def read_images(path: Path) -> pa.Table:
    """The images of a folder or a parquet file: id, path and boxes."""
    if path.is_dir():
        endings = set(Image.registered_extensions())
        paths = sorted(str(file.absolute()) for file in path.rglob("*") if file.suffix.lower() in endings)
        boxes = pa.nulls(len(paths), BOXES)
    else:
        try:
            table = pq.read_table(path)
            paths = table["path"].cast(pa.string()).to_pylist()
            boxes = table["boxes"].cast(BOXES) if "boxes" in table.column_names else pa.nulls(len(paths), BOXES)
        except FileNotFoundError:
            raise InputError(f"{path}: no such file or folder") from None
        except (KeyError, OSError, pa.ArrowException) as error:
            text = " ".join(str(error).split())[:200]
            raise InputError(f"{path}: expected parquet with path, and boxes as lists of numbers ({text})") from None
        if None in paths:
            raise InputError(f"{path}: row {paths.index(None)} has no path")
    if not paths:
        raise InputError(f"{path}: no images")
    return pa.table({"id": pa.array(range(len(paths)), pa.int64()), "path": pa.array(paths), "boxes": boxes})


def prepare(out: Path, images: pa.Table, options: dict[str, Any]) -> None:
    """Writes the input with its ids, and what the job is; refuses the results of another one."""
    digest = hashlib.sha256()
    for column in images.columns:
        digest.update(repr(column.to_pylist()).encode())
    job = {"images": len(images), "digest": digest.hexdigest(), **options}
    record = out / "job.json"
    if record.exists():
        if json.loads(record.read_text()) != job:
            raise InputError(f"{out}: has the poses of other images or options, expected another folder")
        return
    if (out / "poses").exists():
        raise InputError(f"{out}: has poses of something else, expected another folder")
    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(images, out / "images.parquet")
    draft = record.with_suffix(".part")
    draft.write_text(json.dumps(job))
    draft.replace(record)  # last: images that are not whole are written again


def share_of_cpus(workers: int, cpus: float) -> float:
    """CPUs that each worker asks for. Two are left, to reading and writing and to the filter of what is done: a job
    whose workers hold all CPUs waits forever."""
    if workers > cpus - RESERVED:
        warnings.warn(f"{workers} workers share {cpus:g} CPUs with reading and writing", stacklevel=2)
    return math.floor(100 * min(1.0, max(cpus - RESERVED, 0.0) / workers)) / 100


def connect(address: str | None) -> float:
    """Starts Ray here or joins a cluster; returns the number of its CPUs."""
    # The filter holds a CPU by Ray's count, but uses next to none.
    ray.init(**({"num_cpus": (os.cpu_count() or 1) + 1} if address is None else {"address": address}))
    cpus = ray.cluster_resources().get("CPU", 0.0)
    if cpus < RESERVED:
        raise InputError(f"--address {address}: has {cpus:g} CPUs, needs {RESERVED} or more")
    return cpus


def run(args: argparse.Namespace) -> int:
    images = read_images(args.images)
    fixed = {name: getattr(args, name) for name in ("weights", "whole", "flip", "nms")}
    prepare(args.out, images, fixed)
    cpus = connect(args.address)
    context = ray.data.DataContext.get_current()
    context.actor_task_retry_on_errors = True
    # Two phases: the ids of a block are noted before its poses are written, and confirmed after.
    done = CheckpointConfig("id", str((args.out / "checkpoint").absolute()), delete_checkpoint_on_success=False)
    done.checkpoint_actor_pool_max_size = 1
    context.checkpoint_config = done
    workers = args.workers or max(1, int(cpus) - RESERVED)
    options = {**fixed, "batch": args.batch, "device": "cuda" if args.gpus else "cpu"}
    data = ray.data.read_parquet(str((args.out / "images.parquet").absolute()))
    data = data.repartition(target_num_rows_per_block=args.block)
    data = data.map_batches(
        Worker,
        fn_constructor_kwargs=options,
        batch_size=None,  # a whole block
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=share_of_cpus(workers, cpus),
        num_gpus=args.gpus,
        max_restarts=-1,
        max_task_retries=RETRIES,
    )
    data.write_parquet(str((args.out / "poses").absolute()))
    written = pads.dataset(args.out / "poses", format="parquet")
    if written.count_rows() != len(images):
        raise RuntimeError(f"{args.out}: {written.count_rows()} rows of {len(images)} images")
    bad = written.to_table(columns=["error"], filter=pads.field("error").is_valid())
    print(f"wrote the poses of {len(images) - len(bad)} images to {args.out / 'poses'}")
    if len(bad):
        print(f"{len(bad)} of {len(images)} images have an error: {bad['error'][0]}", file=sys.stderr)
    return 1 if len(bad) else 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", metavar="IMAGES", type=Path)
    parser.add_argument("out", metavar="OUT", type=Path)
    parser.add_argument("--weights", metavar="NAME|FILE", default="coco17", help="default: %(default)s")
    parser.add_argument("--whole", action="store_true", help="images without boxes show one person each")
    parser.add_argument("--flip", action="store_true", help="flip test: average with the mirrored crop")
    parser.add_argument("--nms", type=float, default=0.9, help="OKS above which people are duplicates")
    parser.add_argument("--workers", type=int, help="default: one for each CPU but one")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs for each worker, 0.5 to share one (default: CPU)")
    parser.add_argument("--block", type=int, default=256, help="images of a block (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="people per forward pass (default: %(default)s)")
    parser.add_argument("--address", help="of a Ray cluster, or auto; default: this machine")
    args = parser.parse_args(argv)
    try:
        for name in ("workers", "block", "batch"):
            if getattr(args, name) is not None and getattr(args, name) < 1:
                raise InputError(f"--{name} must be positive, got {getattr(args, name)}")
        if not 0 < args.nms <= 1:
            raise InputError(f"--nms must be from 0 to 1, got {args.nms}")
        open_weights(args.weights)  # here rather than in every worker
        return run(args)
    except InputError as error:
        print(f"ray_poses: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

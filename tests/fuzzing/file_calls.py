"""What reads each kind of file: readers and commands, and what may come of it: a value, or one line."""

import contextlib
import io
import json
import math
import warnings
from pathlib import Path

import numpy as np
import torch

from pypose_ops.cli import inputs
from pypose_ops.cli.crop import parse_boxes
from pypose_ops.cli.main import main
from pypose_ops.datasets import ImageError, ImageFile, open_dataset
from pypose_ops.datasets.skeleton_files import read_skeleton, skeleton_as_json
from pypose_ops.errors import InputError
from pypose_ops.models import build, load_checkpoint
from pypose_ops.models.training.corrections import apply_corrections
from pypose_ops.models.training.loading import People
from pypose_ops.models.weights.files import load_weights, save_weights
from pypose_ops.skeletons import COCO

from . import file_seeds as seeds
from .draws import Draw
from .file_mutations import damaged, mutated, wrapped

MOST_CHARACTERS = 1000  # of one line


class Wrong(Exception):
    """A reader gave something that is no value."""


# Readers --------------------------------------------------------------------------------------------------------------


def dataset(kind):
    """Opens a data set, and looks at every person."""

    def read(path, draw):
        split = draw.pick(("train", "test", "all", "all", "all", "all"))
        found = open_dataset(f"{kind}:{path}", split)
        for sample in found.samples:
            check_sample(sample, len(found.skeleton))
        if draw.chance(0.1):
            people = People(found, memory=draw.pick((0, 1 << 20)))
            people.collate([people[0]])

    return read


def check_sample(sample, joints):
    box = sample.box
    right = (
        sample.keypoints.shape == (joints, 2)
        and np.isfinite(sample.keypoints).all()
        and sample.visible.any()
        and set(sample.visible.tolist()) <= {0, 1, 2}
        and sample.others.shape[1:] == (joints, 3)
        and (box is None or (all(map(math.isfinite, box)) and box[2] > box[0] and box[3] > box[1]))
        and (sample.size is None or min(sample.size) > 0)
    )
    if not right:
        raise Wrong(f"a person with keypoints {sample.keypoints.tolist()[:3]}, box {box}, size {sample.size}")


def boxes_of(path, draw):
    image = Path(path).parent / draw.pick(("a.png", "4.png"))
    entries = inputs.boxes_by_image(Path(path), [image])[image]
    if entries is None:
        return
    boxes, _ = parse_boxes(Path(path), entries)
    if not (boxes.isfinite().all() and (boxes[:, 2:] > boxes[:, :2]).all()):
        raise Wrong(f"boxes {boxes.tolist()[:3]}")


def corrected(path, draw):
    folder = Path(path).parent
    apply_corrections(open_dataset(f"coco:{folder / 'truth.json'}"), path)


def skeleton(path, draw):
    json.dumps(skeleton_as_json(read_skeleton(path)))


def weights(path, draw):
    system, _ = load_weights(path) if draw.chance(0.8) else (load_checkpoint(path), None)
    if not all(t.isfinite().all() for t in system.state_dict().values() if t.is_floating_point()):
        raise Wrong("weights that are not finite")


def image(path, draw):
    file = ImageFile(str(path))
    with contextlib.suppress(ImageError):
        height, width = file.size()
        pixels = file.decode()
        if tuple(pixels.shape) != (height, width, 3):
            raise Wrong(f"an image of {tuple(pixels.shape)}, its size is {height}, {width}")


# Commands -------------------------------------------------------------------------------------------------------------


def command(*arguments):
    """Runs a command: ``FILE`` is the broken file, ``HERE`` its folder."""

    def run(path, draw):
        words = [a.replace("FILE", str(path)).replace("HERE", str(Path(path).parent)) for a in arguments]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(words)
        lines = err.getvalue().splitlines()
        if status == 2:
            if len(lines) != 1 or not lines[0].startswith("pypose-ops: error: ") or len(lines[0]) > MOST_CHARACTERS:
                raise Wrong(f"{words[0]}: exit code 2 with {err.getvalue()[:300]!r}")
            raise InputError(lines[0])
        if status != 0 or lines:
            raise Wrong(f"{words[0]}: exit code {status}, {err.getvalue()[:300]!r}")

    run.__name__ = arguments[0]
    return run


def evaluate(metric, *more, truth="FILE", pred="HERE/pred.json"):
    return command("evaluate", "--metric", metric, "--ground-truth", truth, "--predictions", pred, *more)


PREDICT = ("predict", "HERE/a.png", "--no-images", "--out", "HERE/out", "--weights")

predict_image = command("predict", "FILE", *PREDICT[2:], "HERE/tiny.safetensors", "--whole")

# name: (file's name, seed, encoding, readers and commands)
JSON, NPZ, MAT = "json", seeds.as_npz, seeds.as_mat
KINDS = {
    "coco": ("f.json", seeds.coco, JSON, (dataset("coco"), evaluate("coco"), boxes_of)),
    "coco of own joints": (
        "f.json", seeds.own_coco, JSON,
        (dataset("coco"), evaluate("coco", "--sigmas", "1,1,1,1", pred="HERE/own.json")),
    ),
    "coco results": ("f.json", seeds.results, JSON, (evaluate("coco", truth="HERE/truth.json", pred="FILE"), boxes_of)),
    "aic": ("f.json", seeds.aic, JSON, (dataset("aic"), evaluate("aic", pred="HERE/aic.json"))),
    "aic results": ("f.json", seeds.aic, JSON, (evaluate("aic", truth="HERE/aic.json", pred="FILE"),)),
    "mpii, msra": (
        "f.json", seeds.msra, JSON,
        (
            dataset("mpii"), evaluate("pckh", "--head-boxes", "HERE/heads.mat", pred="HERE/msra.json"),
            evaluate("pckh", "--head-boxes", "HERE/heads.mat", truth="HERE/msra.json", pred="FILE"),
        ),
    ),
    "mpii, cpm": ("f.json", seeds.cpm, JSON, (dataset("mpii"),)),
    "mpii, mat": ("f.mat", seeds.mpii_release, MAT, (dataset("mpii"),)),
    "mpii truth": ("f.mat", seeds.mpii_truth, MAT, (evaluate("pckh", pred="HERE/pckh.mat"),)),
    "mpii pred": ("f.mat", seeds.mpii_pred, MAT, (evaluate("pckh", truth="HERE/heads.mat", pred="FILE"),)),
    "lsp": (
        "joints.mat", seeds.lsp, MAT, (
            lambda path, draw: dataset("lsp")(Path(path).parent, draw), evaluate("pck", pred="HERE/lsp.mat"),
            evaluate("pcp", pred="HERE/lsp.mat"), evaluate("pdj", pred="HERE/lsp.mat"),
        ),
    ),
    "lspet": ("joints.mat", seeds.lspet, MAT, (lambda path, draw: dataset("lspet")(Path(path).parent, draw),)),
    "lsp pred": ("f.mat", seeds.lsp_pred, MAT, (evaluate("pck", truth="HERE/lsp_truth.mat", pred="FILE"),)),
    "flic": ("f.npz", seeds.flic, NPZ, (evaluate("pck", pred="HERE/flic.npz"), evaluate("pdj", pred="HERE/flic.npz"))),
    "flic pred": ("f.npz", seeds.flic_pred, NPZ, (evaluate("pck", truth="HERE/flic_truth.npz", pred="FILE"),)),
    "heatmaps": (
        "f.npz", seeds.maps, NPZ,
        (command("decode", "FILE", "--json", "HERE/out.json"), command("decode", "FILE", "--skeleton", "coco")),
    ),
    "fields": ("f.npz", seeds.fields, NPZ, (command("decode", "FILE", "--paf", "paf", "--json", "HERE/out.json"),)),
    "boxes": (
        "f.json", seeds.boxes, JSON,
        (
            boxes_of, command("crop", "HERE/a.png", "--boxes", "FILE", "--size", "8x6", "--out", "HERE/crops"),
            command(*PREDICT, "HERE/tiny.safetensors", "--boxes", "FILE"),
        ),
    ),
    "boxes by name": ("f.json", seeds.boxes_by_name, JSON, (boxes_of,)),
    "skeleton": ("f.toml", seeds.skeleton, seeds.as_toml, (skeleton,)),
    "corrections": ("f.json", seeds.corrections, JSON, (corrected,)),
    "weights": (
        "f.safetensors", None, "safetensors", (weights, weights, weights, command(*PREDICT, "FILE", "--whole")),
    ),
    "images": ("f.png", None, "image", (image, image, predict_image)),
}  # fmt: skip


def prepare(folder):
    """The valid files that stand beside the broken ones."""
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "a.png").write_bytes(seeds.image("png"))
    for i in range(3):
        (folder / "images" / f"im{i + 1:04d}.jpg").write_bytes(seeds.image("jpeg"))
        (folder / "images" / f"im{i + 1:05d}.jpg").write_bytes(seeds.image("jpeg"))
    (folder / "a.jpg").write_bytes(seeds.image("jpeg"))
    for name, content in {
        "truth.json": seeds.coco(), "pred.json": seeds.results(), "aic.json": seeds.aic(), "msra.json": seeds.msra(),
        "own.json": seeds.own_results(),
    }.items():  # fmt: skip
        (folder / name).write_text(json.dumps(content))
    plain = Draw(0, 0)
    for name, content in {
        "heads.mat": seeds.mpii_truth(), "pckh.mat": seeds.mpii_pred(), "lsp.mat": seeds.lsp_pred(),
        "lsp_truth.mat": seeds.lsp(),
    }.items():  # fmt: skip
        (folder / name).write_bytes(seeds.as_mat(plain, content))
    for name, content in {"flic.npz": seeds.flic_pred(), "flic_truth.npz": seeds.flic()}.items():
        np.savez(folder / name, **content)
    torch.manual_seed(0)
    options = {"stacks": 1, "width": 8, "depth": 1, "input_size": [64, 64]}
    info = {"system": "stacked_hourglass", "preset": "compact", "skeleton": "coco", "options": options}
    save_weights(folder / "tiny.safetensors", build("stacked_hourglass", len(COCO), "compact", **options), info)


def content_of(draw, folder, kind):
    """The bytes of a broken file of a kind."""
    _, seed, encoding, _ = KINDS[kind]
    if encoding == "image":
        return damaged(draw, seeds.image(draw.pick(("png", "jpeg", "gif", "tiff16", "bmp"))))
    if encoding == "safetensors":
        return broken_weights(draw, (Path(folder) / "tiny.safetensors").read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(20):
            tree = mutated(draw, seed())
            try:
                if encoding == JSON:
                    return wrapped(draw, json.dumps(tree))
                data = encoding(draw, tree)
                return damaged(draw, data) if draw.chance(0.15) else data
            except Exception:  # noqa: S112  what cannot be encoded is drawn anew
                continue
    return b""


def broken_weights(draw, data):
    """A safetensors file whose header, or the json texts in its metadata, were changed."""
    length = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    kind = draw.pick(("metadata", "metadata", "metadata", "header", "numbers", "bytes"))
    if kind == "bytes":
        return damaged(draw, data)
    if kind == "numbers":
        values = np.frombuffer(rest, np.float32).copy()
        at = draw.integer(0, len(values) - 1)
        values[at : at + draw.pick((1, len(values)))] = draw.pick((math.nan, math.inf, 1e38, 0.0))
        rest = values.tobytes()
    if kind == "metadata":
        texts = {k: json.loads(v) if k not in ("format",) else v for k, v in header["__metadata__"].items()}
        changed = mutated(draw, texts)
        if isinstance(changed, dict):
            changed = {str(k): v if k == "format" and isinstance(v, str) else json.dumps(v) for k, v in changed.items()}
        header["__metadata__"] = changed
    if kind == "header":
        header = mutated(draw, header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + rest


def one_file(seed, number, folder, only=None):
    """Writes the file of a number and reads it; returns the kind, and whether it was refused.

    Raises:
        Exception: whatever is neither a value nor one line.
    """
    draw = Draw(seed, number)
    kind = draw.pick(list(KINDS))
    if only is not None and kind != only:
        return kind, None
    name, _, _, readers = KINDS[kind]
    path = Path(folder) / name
    path.write_bytes(content_of(draw, folder, kind))
    reader = draw.pick(readers)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        try:
            reader(path, draw)
        except InputError as error:
            text = str(error)
            if not text or len(text) > MOST_CHARACTERS:
                raise Wrong(f"a line of {len(text)} characters: {text[:300]!r}") from None
            return kind, True
    return kind, False

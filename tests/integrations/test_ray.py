"""examples/ray_poses.py on two local workers: one of them is killed, or the whole job, and no image is lost or doubled.

pip install "pypose_ops[ray]"
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("ray.data", reason="needs ray")
pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

from pypose_ops.models import pretrained  # noqa: E402
from pypose_ops.models.inference import find_people  # noqa: E402
from pypose_ops.skeletons import SKELETONS  # noqa: E402

PROGRAM = Path(__file__).parents[2] / "examples" / "ray_poses.py"
# Ray's workers run at niceness 15, where a busy machine hardly lets them run.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
MOST_SECONDS = 500
takes_minutes = pytest.mark.skipif(not os.environ.get("PYPOSE_OPS_SLOW"), reason="takes minutes: PYPOSE_OPS_SLOW=1")


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("ray_poses", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def images(folder, count):
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        small = random.integers(0, 256, (6, 5, 3), dtype=np.uint8)
        Image.fromarray(small).resize((60, 72)).save(folder / f"{number:04d}.png", compress_level=1)
    return folder


def started(images, out, *options):
    command = [sys.executable, PROGRAM, images, out, "--weights", "lsp14", "--whole", "--workers", "2", *options]
    return subprocess.Popen(
        [*map(str, command)],
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=out.parent,
    )


def ended(process):
    output, _ = process.communicate(timeout=MOST_SECONDS)
    assert process.returncode == 0, output[-3000:]
    return output


def below(process):
    """The processes that it started, and those that they did, by number with their command line."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                names[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it has ended
    found = {process.pid}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: names[pid] for pid in found - {process.pid}}


def wait_for_files(process, folder, count):
    start = time.monotonic()
    while len(list(folder.glob("*.parquet"))) < count:
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() - start < MOST_SECONDS
        time.sleep(0.05)


def ids(out):
    return sorted(pq.read_table(out / "poses")["id"].to_pylist())


@takes_minutes
def test_a_worker_is_killed(program, tmp_path):
    folder, out = images(tmp_path / "images", 2000), tmp_path / "out"
    process = started(folder, out, "--block", "50")
    wait_for_files(process, out / "poses", 3)
    workers = [pid for pid, name in below(process).items() if name.startswith("ray::") and "Worker" in name]
    assert len(workers) == 2, below(process)
    os.kill(workers[0], signal.SIGKILL)
    assert len(list((out / "poses").glob("*.parquet"))) < 20  # in between
    output = ended(process)
    assert "wrote the poses of 2000 images" in output
    assert "died" in output or "restart" in output.lower() or "SIGKILL" in output, output[-3000:]
    assert ids(out) == list(range(2000))
    rows = pq.read_table(out / "poses").sort_by("id").to_pylist()
    assert [Path(row["path"]).name for row in rows] == [f"{number:04d}.png" for number in range(2000)]
    assert all(row["error"] is None and len(row["people"]) == 1 for row in rows)
    worker = program.Worker("lsp14", "cpu", True, flip=False, nms=0.9, batch=32)
    some = program.read_images(folder).slice(990, 30)
    for found, wanted in zip(rows[990:1020], worker(some).to_pylist(), strict=True):
        for a, b in zip(found["people"], wanted["people"], strict=True):
            np.testing.assert_allclose(a["keypoints"], b["keypoints"], atol=1e-3)
            np.testing.assert_allclose(a["scores"], b["scores"], atol=1e-5)


@takes_minutes
def test_the_job_is_killed_and_continued(tmp_path):
    folder, out = images(tmp_path / "images", 400), tmp_path / "out"
    process = started(folder, out, "--block", "20")
    wait_for_files(process, out / "poses", 4)
    rest = below(process)
    for pid in (process.pid, *rest):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it ended with the others
    process.communicate()
    before = {path: path.stat().st_mtime_ns for path in (out / "poses").glob("*.parquet")}
    confirmed = sum(len(pq.read_table(path)) for path in (out / "checkpoint").glob("*.parquet"))
    assert 0 < confirmed < 400
    assert "wrote the poses of 400 images" in ended(started(folder, out, "--block", "20"))
    assert ids(out) == list(range(400))
    kept = [path for path, time in before.items() if path.exists() and path.stat().st_mtime_ns == time]
    assert sum(len(pq.read_table(path)) for path in kept) >= confirmed  # not computed again
    (folder / "0003.png").unlink()
    other = started(folder, out)
    assert other.wait(MOST_SECONDS) == 2
    assert "has the poses of other images or options" in other.stdout.read()


def test_rows_of_a_block(program, tmp_path):
    """Boxes or none, an image that is none, boxes that are none: as without Ray, in the order of the block."""
    folder = images(tmp_path / "images", 2)
    (folder / "0002.png").write_bytes(b"nothing of the kind")
    first = str(folder / "0000.png")
    boxes = [[[5, 5, 40, 60], [0.5, 0, 60, 72]], None, None, [], [[0, 0, 9]], [[5, 5, 5, 9]], [[0, 0, 9, float("nan")]]]
    paths = [first, *(str(folder / f"000{n}.png") for n in (1, 2)), first, first, first, first]
    pq.write_table(pa.table({"path": paths, "boxes": pa.array(boxes, program.BOXES)}), tmp_path / "in.parquet")
    table = program.read_images(tmp_path / "in.parquet")
    worker = program.Worker("lsp14", "cpu", True, flip=True, nms=0.9, batch=2)
    rows = worker(table).to_pylist()
    assert [row["id"] for row in rows] == list(range(7)) and [row["path"] for row in rows] == paths
    assert [len(row["people"]) for row in rows] == [2, 1, 0, 0, 0, 0, 0]
    messages = [
        None,
        None,
        "not a readable image",
        None,
        "four numbers",
        "finite and not empty",
        "finite and not empty",
    ]
    for row, message in zip(rows, messages, strict=True):
        assert row["error"] is None if message is None else message in row["error"] and row["path"] in row["error"]
    system, info = pretrained("lsp14")
    found = find_people(
        system,
        SKELETONS[info["skeleton"]],
        Image.open(first),
        torch.tensor(boxes[0]),
        torch.ones(2),
        0.0,
        flip=True,
    )
    np.testing.assert_allclose([p["keypoints"] for p in rows[0]["people"]], found[0], atol=1e-3)
    assert [p["box"] for p in rows[0]["people"]] == found[3].tolist()


def test_people_are_searched_without_boxes(program, tmp_path):
    path = tmp_path / "astronaut.png"
    Image.fromarray(pytest.importorskip("skimage.data").astronaut()).save(path)
    table = program.read_images(tmp_path)
    (row,) = program.Worker("coco17", "cpu", False, flip=False, nms=0.9, batch=8)(table).to_pylist()
    assert len(row["people"]) == 1 and len(row["people"][0]["keypoints"]) == 17


def test_bad_input_is_one_line(program, tmp_path, capsys):
    folder = images(tmp_path / "images", 1)
    (tmp_path / "text").write_text("nothing of the kind")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other" / "poses").mkdir(parents=True)
    pq.write_table(pa.table({"name": ["a"]}), tmp_path / "column.parquet")
    pq.write_table(pa.table({"path": ["a", None]}), tmp_path / "null.parquet")
    pq.write_table(pa.table({"path": ["a"], "boxes": ["b"]}), tmp_path / "boxes.parquet")
    for given, options, message in (
        ("none", (), "no such file or folder"),
        ("empty", (), "no images"),
        ("text", (), "expected parquet with path, and boxes"),
        ("column.parquet", (), "expected parquet with path"),
        ("null.parquet", (), "row 1 has no path"),
        ("boxes.parquet", (), "boxes as lists of numbers"),
        (folder, ("--workers", "0"), "--workers must be positive, got 0"),
        (folder, ("--nms", "2"), "--nms must be from 0 to 1"),
        (folder, ("--weights", "none.safetensors"), "none.safetensors"),
    ):
        assert program.main([str(tmp_path / given), str(tmp_path / "out"), *options]) == 2, given
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert program.main([str(folder), str(tmp_path / "other")]) == 2
    assert "has poses of something else" in capsys.readouterr().err


def test_cpus_are_left_to_reading(program):
    assert program.share_of_cpus(2, 4.0) == 1.0 and program.share_of_cpus(2, 8.0) == 1.0
    for workers, cpus, share in ((2, 3.0, 0.5), (3, 4.0, 0.66), (1, 2.0, 0.0)):
        with pytest.warns(UserWarning, match=f"{workers} workers share {cpus:g} CPUs with reading and writing"):
            assert program.share_of_cpus(workers, cpus) == share


def test_what_the_job_was_is_on_disk(program, tmp_path):
    table = program.read_images(images(tmp_path / "images", 3))
    program.prepare(tmp_path / "out", table, {"flip": False})
    assert json.loads((tmp_path / "out" / "job.json").read_text())["images"] == 3
    program.prepare(tmp_path / "out", table, {"flip": False})
    for other, options in ((table, {"flip": True}), (table.slice(1), {"flip": False})):
        with pytest.raises(program.InputError, match="other images or options"):
            program.prepare(tmp_path / "out", other, options)

"""Training: it goes on after a kill as if nothing had happened, and on two processes as on one."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from data_files import lsp_folder, write_json
from tiny_system import register

from pypose_ops import skeletons
from pypose_ops.datasets import hold_out, open_dataset
from pypose_ops.models import SYSTEMS, build, system_class
from pypose_ops.models.weights.files import load_weights, save_weights

pytest.importorskip("lightning")

from pypose_ops.cli.main import main  # noqa: E402
from pypose_ops.cli.plot import read_logs  # noqa: E402
from pypose_ops.models.training.levers import one_cycle  # noqa: E402

PROGRAM = Path(__file__).with_name("tiny_system.py")


@pytest.fixture(autouse=True)
def tiny():
    register()
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return f"lsp:{lsp_folder(tmp_path_factory.mktemp('lsp'), 20)}"


def options(data, out, *more, epochs=4, batch=8):
    sizes = ["--epochs", str(epochs), "--batch", str(batch), "--lr", "0.01", "--held-out", "4"]
    return ["train", "tiny", "--data", data, "--out", str(out), "--device", "cpu", *sizes, *more]


def program(*arguments):
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The folder of an uninterrupted run."""
    register()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("whole") / "run"
    assert main(options(data, out)) == 0
    return out


def losses(folder, names=("loss", "val_loss", "val_pck", "val_pck_1", "val_pck_2")):
    """By phase and epoch."""
    return {key: [values[n] for n in names] for key, values in read_logs(folder).items()}


def weights(folder, name="weights.safetensors"):
    return load_weights(folder / name)[0].state_dict()


def assert_same(a, b, **tolerance):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], **(tolerance or {"atol": 0, "rtol": 0}))


def test_a_run_leaves(whole):
    system, info = load_weights(whole / "weights.safetensors")
    assert type(system).__name__ == "Tiny" and info["skeleton"] == "lsp" and not system.training
    assert (whole / "phase-0-coarse.safetensors").exists()
    assert sorted(losses(whole)) == [(0, 0), (0, 1), (1, 0), (1, 1)]  # two phases, with half of the epochs each
    held_out = json.loads((whole / "held_out.json").read_text())
    assert held_out["people"] == 4 and len(held_out["stages"]) == 2
    # The better epoch of the last phase was kept.
    best = max(values[2] for (phase, _), values in losses(whole).items() if phase == 1)
    assert held_out["stages"][-1]["pck"]["mean"] == pytest.approx(best, abs=1e-3)
    # The first phase does not touch the second stage, and vice versa.
    first, last = weights(whole, "phase-0-coarse.safetensors"), weights(whole)
    assert all(torch.equal(first[n], last[n]) == n.startswith("coarse") for n in first)


def test_short_epochs_at_the_end_train_and_are_validated(data, tmp_path):
    more = ["--data", data, "--last-epochs", "2", "--phase-epochs", "3,3"]
    assert main(options(data, tmp_path, *more, batch=4)) == 0
    logs = read_logs(tmp_path)
    for phase in (0, 1):
        found = [logs[phase, epoch]["val_loss"] for epoch in range(3)]
        assert len(set(found)) == 3, found  # each from a validation of its own
        (log,) = tmp_path.glob(f"logs/{phase}-*/version_0/metrics.csv")
        rates = [float(row["lr-AdamW"]) for row in csv.DictReader(log.open()) if row["lr-AdamW"]]
        assert rates[1:] == pytest.approx([0.01 * one_cycle(1 / 3), 0.01 * one_cycle(2 / 3)])


def test_joints_are_found_by_name_not_by_number():
    aic = skeletons.AIC
    for name in ("deeppose", "dual_source"):
        system = build(name, len(aic), "compact", **system_class(name).options_of(aic))
        assert [aic.joints[k] for k in system.torso] == ["left_shoulder", "right_hip"]
    assert build("paf_net", len(aic), "compact", **system_class("paf_net").options_of(aic)).limbs == list(aic.edges)
    assert system_class("cpm").options_of(aic) == {}


@pytest.mark.parametrize("system", [name for name in SYSTEMS if name != "tiny"])
def test_every_system(data, tmp_path, capsys, system):
    """One epoch of every phase, on a few people; then its weights are read and used."""
    phases = len(build(system, 14, "compact").phases)
    more = ["--recipe", "--epochs", str(phases), "--held-out", "3", "--device", "cpu"]
    assert main(["train", system, "--data", data, "--out", str(tmp_path / "run"), *more]) == 0
    assert len(losses(tmp_path / "run", ("loss", "val_loss", "val_pck"))) == phases
    more = ["--split", "all", "--per-stage", "--flip", "--json", str(tmp_path / "e.json")]
    assert main(["test", "--weights", str(tmp_path / "run" / "weights.safetensors"), "--data", data, *more]) == 0
    assert json.loads((tmp_path / "e.json").read_text())["people"] == 20


def test_seed(data, whole, tmp_path):
    assert main(options(data, tmp_path / "same", epochs=2)) == main(options(data, tmp_path / "again", epochs=2)) == 0
    assert losses(tmp_path / "same") == losses(tmp_path / "again")
    assert_same(weights(tmp_path / "same"), weights(tmp_path / "again"))
    assert main(options(data, tmp_path / "other", "--seed", "1", epochs=2)) == 0
    assert losses(tmp_path / "same") != losses(tmp_path / "other")


@pytest.mark.parametrize(("line", "more"), [(1, ()), (3, ("--ema", "0.8"))], ids=["first phase", "second phase, ema"])
def test_resume_after_kill(data, whole, tmp_path, line, more):
    out = tmp_path / "run"
    if more:
        plain, whole = whole, tmp_path / "whole"
        assert main(options(data, whole, *more)) == 0
        assert losses(plain) != losses(whole)
    process = program(*options(data, out, *more))
    seen = []
    for text in process.stdout:
        seen += [text] if "epoch" in text else []
        if len(seen) == line:
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert not (out / "weights.safetensors").exists()
    assert main(options(data, out, *more, "--resume")) == 0
    assert losses(out) == losses(whole)
    assert_same(weights(out), weights(whole))


def test_two_processes_are_one_with_the_doubled_batch(data, tmp_path):
    more = ("--set", "dropout=0")  # a mask of dropout is one process's own
    assert main(options(data, tmp_path / "one", *more)) == 0
    process = program(*options(data, tmp_path / "two", *more, "--devices", "2", batch=4))
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert_same(weights(tmp_path / "two"), weights(tmp_path / "one"), atol=2e-5, rtol=1e-4)
    for key, values in losses(tmp_path / "one").items():
        assert losses(tmp_path / "two")[key] == pytest.approx(values, rel=1e-4)


@pytest.mark.parametrize("part", ["training", "held out"])
def test_a_rank_without_data_does_not_hang_the_other(tmp_path, part):
    """The image of one of two people cannot be read: in every epoch, one of two processes has no people."""
    folder, people = tmp_path / "lsp", 2 if part == "training" else 12
    dataset = open_dataset(f"lsp:{lsp_folder(folder, people)}", "all")
    bad = dataset.samples[0] if part == "training" else hold_out(dataset, 2)[1].samples[1]
    Path(str(bad.image)).write_bytes(b"no image")
    more = ("--held-out", "0" if part == "training" else "2", "--devices", "2")
    process = program(*options(f"lsp:{folder}", tmp_path / "run", *more, epochs=2, batch=1))
    try:
        output, _ = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0 and "1 images could not be read" in output, output
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run").values())


def test_a_bad_image_is_counted_and_reported(tmp_path, capsys):
    folder = lsp_folder(tmp_path / "lsp", 20)
    (folder / "images" / "im0005.jpg").write_bytes((folder / "images" / "im0004.jpg").read_bytes()[:300])
    assert main(options(f"lsp:{folder}", tmp_path / "run", epochs=2)) == 0
    text = capsys.readouterr().out
    assert "1 images could not be read and were skipped:" in text and "im0005.jpg" in text


def test_a_batch_of_bad_images_only(tmp_path, capsys):
    folder = lsp_folder(tmp_path / "lsp", 4)
    images = sorted((folder / "images").iterdir())
    for image in images[1:]:
        image.write_bytes(b"no image")
    arguments = options(f"lsp:{folder}", tmp_path / "run", "--held-out", "0", epochs=2, batch=1)
    assert main(arguments) == 0
    assert "3 images could not be read" in capsys.readouterr().out
    images[0].write_bytes(b"no image")
    arguments[arguments.index(str(tmp_path / "run"))] = str(tmp_path / "again")
    assert "none of its images could be read, the first is" in refused(capsys, arguments)


def test_early_stop_and_half_precision(data, tmp_path, capsys):
    more = ("--patience", "1", "--precision", "bf16-mixed", "--phase-epochs", "1,9", "--clip", "1", "--lr", "1e-9")
    assert main(options(data, tmp_path / "run", *more)) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fine, epoch")]
    assert 1 < len(lines) < 9  # nothing is learnt, so nothing gets better
    pck, *stages = map(float, re.search(r"val_pck (\S+) \(stages: (\S+) (\S+)\), ", lines[0]).groups())
    assert stages[1] == pytest.approx(pck, abs=0.051)


def test_start_from_weights(data, whole, tmp_path):
    more = ("--weights", str(whole / "weights.safetensors"), "--lr", "1e-12", "--weight-decay", "0")
    assert main(options(data, tmp_path / "run", *more, epochs=2)) == 0
    assert_same(weights(tmp_path / "run"), weights(whole), atol=1e-6, rtol=0)


# What is wrong with what the user gives


def refused(capsys, arguments):
    """The one line that is printed."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("pypose-ops: error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--epochs", "0"], "--epochs must be positive, got 0"),
        (["--batch", "-1"], "--batch must be positive, got -1"),
        (["--epochs", "1"], "--epochs must be 2 or more, one for each of coarse, fine; got 1"),
        (["--phase-epochs", "3"], "--phase-epochs must be 2 numbers, for coarse, fine"),
        (["--phase-epochs", "a"], "--phase-epochs must be numbers"),
        (["--augment-scale", "-0.1"], "--augment-scale must not be negative, got -0.1"),
        (["--held-out", "-1"], "--held-out must not be negative"),
        (["--device", "abacus"], "device: "),
        (["--precision", "8"], "--precision must be"),
        (["--preset", "huge"], "tiny has no preset 'huge'; it has paper, compact"),
        (["--set", "width"], "--set must be OPTION=VALUE"),
        (["--set", "depth=3"], "depth"),
        (["--resume"], "nothing to resume, no run.json"),
        (["--data", "coco:nowhere.json"], "nowhere.json: no such file"),
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors: no such file"),
    ],
)
def test_wrong_options(data, tmp_path, capsys, more, message):
    assert message in refused(capsys, options(data, tmp_path / "run", *more))


def test_wrong_system(data, tmp_path, capsys):
    line = refused(capsys, ["train", "huge", "--data", data, "--out", tmp_path])
    assert "SYSTEM must be one of" in line and "got huge" in line


def test_a_folder_with_a_run(data, whole, capsys):
    assert "already contains a run; use --resume to continue it" in refused(capsys, options(data, whole))
    assert "the run is complete" in refused(capsys, options(data, whole, "--resume"))
    line = refused(capsys, options(data, whole, "--resume", batch=2))
    assert "run.json: the run has recipe" in line and '"batch": 8' in line


def small_hourglass(path, **info):
    system = build("stacked_hourglass", 14, "compact", stacks=1, width=16, depth=1)
    said = {"system": "stacked_hourglass", "preset": "compact", "skeleton": "lsp"}
    save_weights(path, system, said | {"options": {"stacks": 1, "width": 16, "depth": 1}} | info)
    return path


def test_weights_of_another_system(data, tmp_path, capsys):
    path = small_hourglass(tmp_path / "w.safetensors")
    line = refused(capsys, options(data, tmp_path / "run", "--weights", path))
    assert f"{path}: expected weights of tiny, these are of stacked_hourglass" in line


def test_a_run_of_another_system(data, whole, tmp_path, capsys):
    arguments = options(data, whole, "--resume")
    arguments[1] = "stacked_hourglass"
    assert 'the run has system "tiny", not "stacked_hourglass"' in refused(capsys, arguments)


def test_damaged_checkpoint(data, tmp_path, capsys):
    assert main(options(data, tmp_path / "run")) == 0
    (tmp_path / "run" / "weights.safetensors").unlink()
    last = tmp_path / "run" / "checkpoints" / "1-fine" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    line = refused(capsys, options(data, tmp_path / "run", "--resume"))
    assert "1-fine/last.ckpt: expected a checkpoint written by train; damaged" in line


class Code:
    """Makes a folder where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_in_a_checkpoint_is_not_run(data, tmp_path, capsys):
    assert main(options(data, tmp_path / "run")) == 0
    (tmp_path / "run" / "weights.safetensors").unlink()
    last = tmp_path / "run" / "checkpoints" / "1-fine" / "last.ckpt"
    torch.save(torch.load(last, weights_only=True) | {"more": Code(str(tmp_path / "ran"))}, last)
    assert "last.ckpt: expected a checkpoint written by train" in refused(
        capsys, options(data, tmp_path / "run", "--resume")
    )
    assert not (tmp_path / "ran").exists()


def test_weight_files(tmp_path, capsys, data):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\xff" * 100)
    foreign = tmp_path / "foreign.safetensors"
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, foreign)
    larger = small_hourglass(tmp_path / "larger.safetensors", options={"stacks": 2, "width": 16, "depth": 1})
    unfit = small_hourglass(tmp_path / "unfit.safetensors", options={"stacks": 1, "width": 8, "depth": 1})
    unknown = small_hourglass(tmp_path / "unknown.safetensors", system="vgg")
    text = write_json(tmp_path / "a.json", {})
    for path, message in {
        broken: "expected a safetensors file; not one, or damaged",
        text: "expected a safetensors file; not one, or damaged",
        foreign: "expected weights written by train",
        larger: "its metadata does not describe a system (a system of ",
        unfit: "the tensors do not fit the system (",
        unknown: "weights of vgg, expected one of",
        tmp_path / "none": "no such file",
    }.items():
        line = refused(capsys, ["test", "--weights", path, "--data", data])
        assert f"{path}: {message}" in line


def test_half_precision_weights(tmp_path):
    system = build("stacked_hourglass", 14, "compact", stacks=1, width=16, depth=1)
    info = {"system": "stacked_hourglass", "preset": "compact", "skeleton": "lsp"}
    info["options"] = {"stacks": 1, "width": 16, "depth": 1}
    save_weights(tmp_path / "half", system, info, dtype=torch.float16)
    save_weights(tmp_path / "full", system, info)
    loaded, said = load_weights(tmp_path / "half")
    assert (tmp_path / "half").stat().st_size < 0.75 * (tmp_path / "full").stat().st_size
    assert said["options"] == info["options"]
    for name, value in loaded.state_dict().items():
        assert value.dtype == system.state_dict()[name].dtype
        torch.testing.assert_close(value, system.state_dict()[name], atol=1e-4, rtol=1e-3)
    assert_same(load_weights(tmp_path / "full")[0].state_dict(), system.state_dict())


def test_a_full_disk(data, tmp_path, capsys, monkeypatch):
    """The second epoch's checkpoint does not fit: one line, the first one is whole, and the run goes on from it."""
    from lightning.fabric.plugins.io import torch_io

    save, out = torch_io._atomic_save, tmp_path / "run"

    def full(checkpoint, path):
        if checkpoint["epoch"] == 1:
            raise OSError(28, "No space left on device")
        save(checkpoint, path)

    monkeypatch.setattr(torch_io, "_atomic_save", full)
    line = refused(capsys, options(data, out))
    assert "run: cannot be written (No space left on device); --resume goes on after its last whole epoch" in line
    assert not list(out.rglob("*.safetensors"))
    assert all("state_dict" in torch.load(path, weights_only=True) for path in out.rglob("*.ckpt"))
    monkeypatch.setattr(torch_io, "_atomic_save", save)
    assert main(options(data, out, "--resume")) == 0 and (out / "weights.safetensors").exists()

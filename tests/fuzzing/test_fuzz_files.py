"""The fuzzer of files: its first files; every valid file is read, and errors are detected."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fuzzing import file_calls, file_campaign
from fuzzing import file_seeds as seeds
from fuzzing.draws import Draw

from pypose_ops.errors import InputError

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "fuzz_files.py"
FILES = 300
PLAIN = SimpleNamespace(chance=lambda probability: False, pick=lambda choices: choices[0])  # nothing is broken
EXPECTED = ("no people with labelled joints", "no boxes for", "box 0 must be four numbers")  # of another split or image


def test_broken_files_are_a_value_or_one_line():
    command = [sys.executable, SCRIPT, "--files", str(FILES), "--seed", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{FILES} files, seed 0, numbers 0 to {FILES - 1}: 0 failures" in done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    file_calls.prepare(folder)
    return folder


def valid(folder, kind):
    _, seed, encoding, _ = file_calls.KINDS[kind]
    if encoding == "safetensors":
        return (folder / "tiny.safetensors").read_bytes()
    if encoding == "image":
        return seeds.image("png")
    return json.dumps(seed()).encode() if encoding == "json" else encoding(PLAIN, seed())


@pytest.mark.parametrize("kind", file_calls.KINDS)
def test_valid_files_are_read(folder, kind):
    name, *_, readers = file_calls.KINDS[kind]
    (folder / name).write_bytes(valid(folder, kind))
    for reader in readers:
        read = 0
        for number in range(8):  # some splits and images have no people
            try:
                reader(folder / name, Draw(3, number))
                read += 1
            except InputError as error:
                assert any(text in str(error) for text in EXPECTED)
        assert read or (kind == "coco results" and reader is file_calls.boxes_of)  # they have no boxes


def test_a_file_depends_on_its_seed_and_number_alone(folder):
    first = [file_calls.content_of(Draw(5, n), folder, "aic") for n in range(20)]
    assert first == [file_calls.content_of(Draw(5, n), folder, "aic") for n in range(20)] and len(set(first)) > 10


@pytest.mark.parametrize("fault", ["traceback", "long line", "memory", "hang"])
def test_what_is_wrong_is_noticed(folder, monkeypatch, capsys, fault):
    def reader(path, draw):
        if fault == "traceback":
            raise KeyError("images")
        if fault == "long line":
            raise InputError("many words " * 50)
        if fault == "hang":
            file_campaign.hang(0, None)

    monkeypatch.setattr(file_calls, "KINDS", {"coco": ("f.json", seeds.coco, "json", (reader,))})
    monkeypatch.setattr(file_calls, "MOST_CHARACTERS", 200)
    if fault == "memory":
        monkeypatch.setattr(file_campaign, "peak", iter([0, 2 << 30, 2 << 30]).__next__)
    options = SimpleNamespace(seed=0, only=None)
    assert file_campaign.attempt(options, 7, folder) == "failed"
    assert "FAILED file 7" in (out := capsys.readouterr().out) and "scripts/fuzz_files.py --seed 0 --file 7" in out

"""benchmarks/machine.py: the file of a machine from a made-up run, the files in benchmarks/results, and their table."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SECRET = "host-of-somebody"


@pytest.fixture
def machine():
    if not FOLDER.is_dir():
        pytest.skip("no benchmarks folder beside the tests")
    spec = importlib.util.spec_from_file_location("machine", FOLDER / "machine.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entry(op, row, least, kind="cpu", shape="64x17x64x48", **info):
    info |= {"op": op, "shape": shape, "direction": "forward", "row": row, "torch": "2.13.0", "threads": 2}
    info |= {"device": "CPU x86_64" if kind == "cpu" else "H100, driver 1", "copy_bytes_per_second": 2.5e10}
    stats = {"min": least, "median": 2 * least, "rounds": 9}
    return {"group": f"{op} {shape} forward {kind}", "extra_info": info, "stats": stats, "fullname": SECRET}


def results(*entries):
    of_machine = {"node": SECRET, "cpu": {"brand_raw": "A  Processor(R) 7"}}
    commit = {"id": "abc", "project": SECRET}
    return {"machine_info": of_machine, "commit_info": commit, "datetime": "2026-01-02T03:04:05", "benchmarks": entries}


def run(machine, monkeypatch, folder, content, *options):
    (folder / "benchmarks.json").write_text(content if isinstance(content, str) else json.dumps(content))
    monkeypatch.setattr(sys, "argv", ["machine.py", str(folder / "benchmarks.json"), *options])
    return machine.main()


def test_the_file_of_a_machine(machine, monkeypatch, tmp_path):
    entries = (entry("decode_heatmaps", "op, dark", 300e-6, load_before=0.123), entry("decode_heatmaps", "floor", 1e-4))
    assert run(machine, monkeypatch, tmp_path, results(*entries), "--out", str(tmp_path / "results")) == 0
    (path,) = (tmp_path / "results").iterdir()
    assert path.name == "a-processor-7-torch-2.13.0.json" and SECRET not in path.read_text()
    content = machine.read(tmp_path / "results")[path.stem]
    assert content["machine"]["processor"] == "A Processor(R) 7" and content["machine"]["gpu"] is None
    assert content["software"]["revision"] == "abc"
    wanted = {"date": "2026-01-02", "threads": 2, "load_before": 0.12, "copy_gb_per_s": {"cpu": 25.0}}
    assert content["run"] == wanted
    assert [(row["min_us"], row["median_us"], row["rounds"]) for row in content["rows"]] == [
        (300, 600, 9),
        (100, 200, 9),
    ]
    head, rule, line, gpu = machine.table({"one": content}).splitlines()
    assert line.startswith("| A Processor(R) 7, ") and " | 300 | " in line and line.endswith("| 3.00 |")
    assert gpu.startswith("| any NVIDIA GPU | not measured |")
    assert len({text.count("|") for text in (head, rule, line, gpu)}) == 1


def test_a_gpu_has_its_own_line(machine, monkeypatch, tmp_path):
    on_gpu = entry("gaussian_heatmaps", "op", 9e-4, "cuda", device_seconds=5e-6)
    assert run(machine, monkeypatch, tmp_path, results(on_gpu), "--name", "My GPU", "--out", str(tmp_path / "to")) == 0
    table = machine.table(machine.read(tmp_path / "to"))
    assert "| H100, driver 1 | 2.13.0 | 2 | 25.0 | 5 |" in table and "any NVIDIA GPU" not in table
    assert "| any CPU | not measured |" in table and (tmp_path / "to" / "my-gpu.json").is_file()


@pytest.mark.parametrize("content", ["no json", "{}", json.dumps(results())])
def test_other_files_are_refused_in_a_line(machine, monkeypatch, capsys, tmp_path, content):
    assert run(machine, monkeypatch, tmp_path, content) == 2
    error = capsys.readouterr().err
    assert "no results of pytest-benchmark" in error and error.count("\n") == 1


def test_files_that_were_contributed(machine):
    """Each has the format, and a name that the file itself would get or its contributor gave."""
    files = machine.read(FOLDER / "results")
    assert all(name == name.lower() for name in files)
    assert machine.table(files).count("\n") >= 1 + max(len(files), 1)


def test_a_wrong_file_is_named(machine, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"format": 1, "machine": {}}))
    with pytest.raises(ValueError, match=r"x.json: machine must have processor, "):
        machine.read(tmp_path)

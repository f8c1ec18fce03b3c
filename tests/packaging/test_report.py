"""benchmarks/report.py: ratios and verdicts on a made-up result file."""

import importlib.util
import json
from pathlib import Path

import pytest

from pypose_ops import reference

PATH = Path(__file__).parents[2] / "benchmarks" / "report.py"


@pytest.fixture
def report():
    if not PATH.is_file():
        pytest.skip("no benchmarks folder beside the tests")
    spec = importlib.util.spec_from_file_location("report", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entry(op, row, seconds, device="cpu", shape="64x17x64x48", **info):
    info |= {"op": op, "row": row, "device": device, "bytes_moved": 10**9, "torch": "2.13", "threads": 2}
    return {"group": f"{op} {shape} forward {device}", "extra_info": info, "stats": {"min": seconds, "median": 9.0}}


def table(report, tmp_path, *entries):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"benchmarks": entries}))
    return report.report(report.load(path, "min"))


def test_ratios_and_verdicts(report, tmp_path):
    rows = {"op": 2.0, "floor": 1.0, "separable torch": 8.0, "reference": 20.0}
    text = table(report, tmp_path, *(entry("gaussian_heatmaps", *row) for row in rows.items()))
    assert "| render / fill_ | cpu | <= 1.5 | 2.00 | missed |" in text
    assert "| separable torch / render | cpu | >= 3.5 | 4.00 | met |" in text
    assert "| op | 2000.00 ms | 2.00 | 10.00 | 1.00 | 0.50 |  |" in text
    assert "MMPose" not in text  # no row, no verdict
    assert "busy" not in text


def test_device_time_and_share_of_the_copy_bandwidth(report, tmp_path):
    info = {"device": "cuda", "shape": "512x17x64x48", "device_seconds": 0.5, "copy_bytes_per_second": 2.5e9}
    text = table(report, tmp_path, entry("decode_heatmaps", "op, dark", 3.0, **info))
    assert "| decode dark, share of copy bandwidth | cuda | >= 0.85 | 0.80 | missed |" in text
    assert "| op, dark | 500.00 ms |" in text


def test_a_busy_machine_is_named(report, tmp_path):
    assert "machine was busy" in table(report, tmp_path, entry("gaussian_heatmaps", "op", 1.0, load_before=1.2))


def test_chart_is_drawn(report, tmp_path):
    table(report, tmp_path, entry("gaussian_heatmaps", "op", 1.0), entry("gaussian_heatmaps", "floor", 0.5))
    assert report.chart(report.load(tmp_path / "results.json", "min"), tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size > 1000


def test_every_operator_has_a_roofline(monkeypatch):
    """A new operator needs its bytes and operations in benchmarks/roofline.py and a line in docs/roofline.md."""
    monkeypatch.syspath_prepend(PATH.parent)
    import roofline

    assert roofline.missing() == []
    page = (Path(__file__).parents[2] / "docs" / "roofline.md").read_text()
    assert all(f"`{name}`" in page for name in reference.__all__)


def test_a_sweep_is_written_and_drawn(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(PATH.parent)
    import sweep

    options = ["--device", "cpu", "--ops", "gaussian_heatmaps", "oks", "--batches", "1", "2"]
    monkeypatch.setattr("sys.argv", ["sweep.py", *options, "--dtypes", "float32", "float16", "--out", str(tmp_path)])
    assert sweep.main() == 0
    result = json.loads((tmp_path / "sweep.json").read_text())
    found = [(row["op"], row["batch"], row["dtype"], row["direction"]) for row in result["rows"]]
    assert len(found) == len(set(found)) == 10 and ("oks", 2, "float16", "forward") not in found
    assert all(row["seconds"] > 0 for row in result["rows"]) and result["copy_bytes_per_second"] > 0
    assert (tmp_path / "sweep.png").stat().st_size > 1000
    assert "gaussian_heatmaps 2 x 17, 64 x 48 float16 forward+backward, op: " in capsys.readouterr().out


def test_rows_that_a_sweep_has_no_time_for_are_named(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(PATH.parent)
    import sweep

    options = ["--device", "cpu", "--ops", "find_peaks", "--batches", "1", "--dtypes", "float32", "--seconds", "0"]
    monkeypatch.setattr("sys.argv", ["sweep.py", *options, "--out", str(tmp_path)])
    assert sweep.main() == 1
    assert "find_peaks 1 x 17, 64 x 48, radius 1 float32 forward, op: not measured" in capsys.readouterr().out


def test_growth_is_written_and_drawn(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(PATH.parent)
    import sweep

    options = ["--device", "cpu", "--growth", "--ops", "decode_simcc", "--memory", "0.001", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["sweep.py", *options])
    assert sweep.main() == 0 and (tmp_path / "growth.png").stat().st_size > 1000
    cells = capsys.readouterr().out.splitlines()[2].strip("| ").split(" | ")
    assert cells[0] == "decode_simcc" and " us" in cells[1] and cells[3].strip() == ""
    assert sweep.exponents({1: 1.0, 10: 10.0, 100: 1000.0}) == pytest.approx([1, 2])

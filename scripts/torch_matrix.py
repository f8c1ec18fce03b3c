#!/usr/bin/env python3
"""Installs one wheel beside several releases of torch, in fresh environments, and runs the operators' tests in each.

    python scripts/torch_matrix.py dist/pypose_ops-*.whl --torch 2.10.0 2.11.0 2.13.0 --pythons python3.11 python3.13

Prints a row for the table of docs/install.md per environment. A release of torch for CUDA is several gigabytes, which
are downloaded, and deleted with the environment; it is imported without a GPU.
"""

import argparse
import os
import re
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHOSEN = "cpu and (matches_reference or gradients_match_reference or test_export)"
TESTS = ("pytest", "hypothesis", "expecttest")
ABOUT = """
import importlib.util, platform, torch, pypose_ops
module = "_C" if importlib.util.find_spec("pypose_ops._C") else "ctypes"
print(platform.python_version(), torch.__version__, pypose_ops.build_info()["torch_headers"], module, sep=" | ")
"""


def one(wheel: Path, torch: str, python: str) -> str:
    """A row: Python, torch, the headers of the build, how its facts were read, and how the tests went."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        pip = [f"{folder}/bin/python", "-m", "pip", "install", "--quiet", "--no-cache-dir"]
        installed = subprocess.run([*pip, f"torch=={torch}", "numpy", *TESTS], stderr=subprocess.PIPE, text=True)
        if installed.returncode != 0:
            return f"| {python} | {torch} | | | not run: {installed.stderr.strip().splitlines()[-1][:120]} |"
        subprocess.run([*pip, "--no-deps", str(wheel)], check=True)
        about = subprocess.run(
            [f"{folder}/bin/python", "-W", "ignore", "-c", ABOUT], cwd=folder, capture_output=True, text=True
        )
        if about.returncode != 0:
            return f"| {python} | {torch} | | | FAILED: {about.stderr.strip().splitlines()[-1]} |"
        command = [f"{folder}/bin/pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "tests" / "ops"), "-k", CHOSEN]
        tests = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
        return f"| {about.stdout.strip()} | {re.sub(r' in .*| deselected,?|=+', '', tests).strip()} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--torch", nargs="+", default=["2.10.0", "2.11.0", "2.13.0", "2.14.1", "2.15.0"])
    parser.add_argument("--pythons", nargs="+", default=["python3.11"])
    options = parser.parse_args()
    print("| Python | torch | built with | facts from | tests |\n|---|---|---|---|---|")
    for python in options.pythons:
        for torch in options.torch:
            print(one(options.wheel.resolve(), torch, python), flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Installs one wheel beside several releases of torch and Python, in fresh environments, and runs the operators'
contract there (tests/run_contract.py).

    python scripts/torch_matrix.py dist/pypose_ops-*.whl --torch 2.10.0 2.15.0 --pythons python3.11 python3.13

Prints a row for the table of docs/install.md per environment. PyPI's torch for x86_64 Linux is a CUDA build of several
gigabytes; each environment is deleted before the next is made. None needs a GPU. With --beside FOLDER, what torch needs
is not installed each time but found there (pip install --target FOLDER nvidia-cublas ... sympy ...).
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RELEASES = ("2.10.0", "2.11.0", "2.13.0", "2.14.1", "2.15.0")
PACKAGES = ("numpy", "pillow", "scipy", "rich", "safetensors", "pytest", "hypothesis", "expecttest")
ABOUT = """
import importlib.util, platform, torch, pypose_ops
module = "_C" if importlib.util.find_spec("pypose_ops._C") else "ctypes"
build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
print(platform.python_version(), f"{torch.__version__}, {build}", module, sep=" | ")
"""


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no output"])[-1][:160]


def try_one(torch: str, python: str, folder: str, options: argparse.Namespace) -> str:
    """A row: Python, torch and its build, how the build information was read, and how the tests went."""
    venv = subprocess.run([python, "-m", "venv", folder], capture_output=True, text=True)
    if venv.returncode != 0:
        return f"| {python} | {torch} | | not run: {last_line(venv.stderr)} |"
    pip = [f"{folder}/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    requirements = [f"torch=={torch}", *PACKAGES]
    if options.beside:
        for site in Path(folder, "lib").glob("*/site-packages"):
            (site / "beside.pth").write_text(f"{options.beside.resolve()}\n")
        subprocess.run([*pip, *PACKAGES], check=True)
        requirements = ["--no-deps", "--no-compile", f"torch=={torch}"]
    installed = subprocess.run([*pip, *requirements], capture_output=True, text=True)
    if installed.returncode != 0:
        return f"| {python} | {torch} | | not run: {last_line(installed.stderr)} |"
    subprocess.run([*pip, "--no-deps", str(options.wheel.resolve())], check=True)
    about = subprocess.run(
        [f"{folder}/bin/python", "-W", "ignore", "-c", ABOUT], cwd=folder, capture_output=True, text=True
    )
    if about.returncode != 0:
        return f"| {python} | {torch} | | FAILED: {last_line(about.stderr)} |"
    tests = [f"{folder}/bin/python", "-W", "ignore", str(ROOT / "tests" / "run_contract.py"), *options.tests]
    done = subprocess.run(tests, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr)
    return f"| {about.stdout.strip()} | {last_line(done.stdout).removeprefix('all: ')} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--torch", nargs="+", default=RELEASES, help="default: %(default)s")
    parser.add_argument("--pythons", nargs="+", default=[sys.executable], help="default: this one")
    parser.add_argument(
        "--tests", nargs=argparse.REMAINDER, default=[], help="arguments of tests/run_contract.py, last"
    )
    parser.add_argument("--beside", type=Path, help="folder with what torch needs")
    options = parser.parse_args()
    print("| Python | torch | information from | operators |\n|---|---|---|---|", flush=True)
    for python in options.pythons:
        for torch in options.torch:
            with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
                print(try_one(torch, python, folder, options), flush=True)


if __name__ == "__main__":
    main()

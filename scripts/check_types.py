#!/usr/bin/env python3
"""Checks the types of the installed package: its public symbols by pyright's checker, a user's script by mypy.

python scripts/check_types.py    # in an environment with the package (not editable), mypy and basedpyright

basedpyright is pyright in one wheel: pyright's own package downloads it when it first runs.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "tests" / "packaging" / "typed_user.py"
LEAST = 0.99
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def run(*command):
    """Outside of the source folder, whose package is not the installed one."""
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run([*map(str, command)], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)


def completeness():
    """The share of public symbols whose types are known, and the first of those that are not."""
    done = run(
        sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable,
        "--verifytypes", "pypose_ops", "--ignoreexternal", "--outputjson",
    )  # fmt: skip
    report = json.loads(done.stdout[done.stdout.index("{") :])["typeCompleteness"]
    unknown = [s for s in report["symbols"] if s["isExported"] and not (s["isTypeKnown"] and not s["isTypeAmbiguous"])]
    lines = [f"{s['name']}: {s['diagnostics'][0]['message'] if s['diagnostics'] else 'unknown'}" for s in unknown]
    return report["completenessScore"], lines


def main():
    done = run(sys.executable, "-m", "mypy", "--strict", SCRIPT)
    print(f"mypy --strict {SCRIPT.name}: {done.stdout.strip() or done.stderr.strip()}")
    score, lines = completeness()
    print(f"pyright --verifytypes pypose_ops: {100 * score:.1f} % of public symbols known, {100 * LEAST:.0f} % wanted")
    print(*lines[:40], sep="\n")
    return 0 if done.returncode == 0 and score >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())

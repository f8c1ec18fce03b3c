"""docs/findings.md lists the scripts in findings/, and nothing else."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_index_is_complete():
    page = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "findings").glob("*.sh")) and listed

"""The Python examples of docs/decoders.md run, one after the other."""

import re
from pathlib import Path

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "decoders.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_examples_run():
    assert len(EXAMPLES) == 2
    scope = {}
    for number, example in enumerate(EXAMPLES):
        exec(compile(example, f"decoders.md, example {number}", "exec"), scope)
    assert scope["coords"].shape == (5, 3, 2)

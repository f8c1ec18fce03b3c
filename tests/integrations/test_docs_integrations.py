"""The Python examples of docs/integrations.md run, each on its own."""

import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "integrations.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_run(number):
    assert len(EXAMPLES) == 7
    if "from mmpose" in EXAMPLES[number]:
        pytest.importorskip("mmpose.registry", exc_type=ImportError)
    exec(compile(EXAMPLES[number], f"integrations.md, example {number}", "exec"), {})

"""Every Python example of the README and of docs/examples.md runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/examples.md")
EXAMPLES = {
    f"{page}, example {number}": example
    for page in PAGES
    for number, example in enumerate(
        re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    )
}


@pytest.mark.parametrize("page", PAGES)
def test_pages_have_examples(page):
    text = "\n".join(example for name, example in EXAMPLES.items() if name.startswith(page))
    assert "gaussian_heatmaps(" in text and "decode_heatmaps(" in text


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[name], name, "exec"), {})

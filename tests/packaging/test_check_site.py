"""scripts/check_site.py finds what is wrong with a site: links in the files, the rest in a browser."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "check_site.py"
CHROMIUM = any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
HEAD = "<!doctype html><meta name=viewport content='width=device-width'><link rel=icon href='data:,'>"
SEARCH = HEAD + "<div id=search-results><ul><li>decode_heatmaps, skeleton</ul></div>"
WRONG = {
    "<script>console.error('a fault')</script>": "console: a fault",
    "<script>missing()</script>": "exception: ReferenceError: missing is not defined",
    "<div style='width: 492px; height: 9px'></div>": "500 pixels wide at 360",
    f"<img src='{PIXEL}'>": "an image without text",
    "<img src='data:image/png;base64,AA' alt='broken'>": "an image that is not there",
    "<script src='https://example.org/a.js'></script>": "asks for https://example.org/a.js",
}


def check(site, *options):
    return subprocess.run([sys.executable, SCRIPT, site, *options], capture_output=True, text=True, timeout=300)


def write(site, **pages):
    for name, content in pages.items():
        (site / f"{name}.html").write_text(content, encoding="utf-8")


def test_links(tmp_path):
    write(tmp_path, index="<a href='b.html#there'>b</a><a href='#top' id=top></a><a href='https://x.org'></a>")
    write(tmp_path, b="<p id=there><img src='index.html'>")
    right = check(tmp_path, "--links")
    assert right.returncode == 0 and "4 links of 2 pages, 0 wrong" in right.stdout
    write(tmp_path, b="<a href='c.html'></a><a href='index.html#nowhere'></a>")
    wrong = check(tmp_path, "--links")
    assert wrong.returncode == 1
    for line in ("b.html: c.html: no such file", "index.html#nowhere: no such anchor", "#there: no such anchor"):
        assert line in wrong.stdout


def test_no_site(tmp_path):
    assert "no index.html" in check(tmp_path).stderr


@pytest.mark.skipif(CHROMIUM, reason="there is a Chromium")
def test_without_a_browser_it_says_so(tmp_path):
    write(tmp_path, index=HEAD)
    done = check(tmp_path)
    assert done.returncode == 2 and "no Chromium" in done.stdout


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
def test_in_a_browser(tmp_path):
    write(tmp_path, index=HEAD + f"<img src='{PIXEL}' alt='a pixel'>", search=SEARCH)
    right = check(tmp_path)
    assert right.returncode == 0, right.stdout
    for number, body in enumerate(WRONG):
        write(tmp_path, **{f"wrong{number}": HEAD + body})
    write(tmp_path, search=HEAD)
    lines = check(tmp_path, "--patience", "0.3").stdout.splitlines()
    for number, complaint in enumerate(WRONG.values()):
        for scheme in ("file", "http"):
            of_page = [line for line in lines if line.startswith(f"{scheme} wrong{number}.html")]
            assert any(complaint in line for line in of_page), f"{complaint}: {of_page}"
    assert sum("search for heatmap: 0 results" in line for line in lines) == 2

#!/usr/bin/env python3
"""Checks the built site: links in the files, and every page in a browser.

python scripts/check_site.py [--links] [--pages PATTERN] [--shots FOLDER] [SITE]    # SITE: docs/_build/html

Links and anchors between pages are checked in the files, without a network (--links: nothing else). Then headless
Chromium opens every page from disk and from a local server, 1280 and 360 pixels wide, and finds errors in the console,
requests to other hosts, horizontal scrolling at 360 pixels, images without text or without pixels, and a search without
results. --shots writes an image of every page at both widths. Exit code 1 where something is wrong; 2 without Chromium.
"""

import argparse
import base64
import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
WIDTHS = (1280, 360)
SEARCHES = {
    "heatmap": "decode_heatmaps",
    "skeleton": "skeleton",
}  # what is searched: what a result's address or text has
PROBE = """({
  width: document.documentElement.scrollWidth,
  nameless: [...document.images].filter(i => !i.alt.trim()).map(i => i.src),
  broken: [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src),
  widest: [...document.querySelectorAll('article *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1
    && !e.closest('pre, table, .highlight, math')).slice(0, 3).map(e => e.tagName + '.' + e.className),
})"""


class Page(HTMLParser):
    """The links of a page and the anchors in it."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        self.links += [values[name] for name in ("href", "src") if values.get(name)]


def check_links(site):
    """What links of pages lead to, if that is not there."""
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    wrong = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                wrong.append(f"{path.relative_to(site)}: {link}: no such file")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors | {""}:
                wrong.append(f"{path.relative_to(site)}: {link}: no such anchor")
    print(f"{sum(len(page.links) for page in pages.values())} links of {len(pages)} pages, {len(wrong)} wrong")
    return wrong


class Browser:
    """Headless Chromium, spoken to over a pair of pipes in its DevTools protocol."""

    def __init__(self, program, folder):
        (from_here, self.write), (self.read, to_here) = os.pipe(), os.pipe()
        options = [
            *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"),
            *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
            # No name is resolved, so that nothing but files and this machine is reached.
            *("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--user-data-dir={folder}", "about:blank"),
        ]
        command = ["sh", "-c", f'exec "$@" 3<&{from_here} 4>&{to_here}', "sh", program, *options]
        self.process = subprocess.Popen(command, pass_fds=(from_here, to_here), stderr=subprocess.DEVNULL)
        os.close(from_here)
        os.close(to_here)
        self.number, self.rest, self.events, self.session = 0, b"", [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self):
        self.session = None
        self.call("Browser.close")
        self.process.wait(20)

    def message(self):
        while b"\0" not in self.rest:
            data = os.read(self.read, 1 << 20)
            if not data:
                raise SystemExit("check_site: Chromium has ended")
            self.rest += data
        text, _, self.rest = self.rest.partition(b"\0")
        return json.loads(text)

    def call(self, method, **params):
        self.number += 1
        request = {"id": self.number, "method": method, "params": params}
        if self.session:
            request["sessionId"] = self.session
        os.write(self.write, json.dumps(request).encode() + b"\0")
        while True:
            answer = self.message()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise SystemExit(f"check_site: {method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def evaluate(self, script):
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        return answer["result"].get("value")

    def open(self, address, width):
        """Opens a page and returns what it complained about."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.events.clear()
        self.call("Page.navigate", url=address)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self.message())
        # Lazy images, too, before they are judged.
        self.evaluate(
            "Promise.all([...document.images].map(i => { i.loading = 'eager';"
            " return i.complete ? 0 : new Promise(r => { i.onload = i.onerror = r; }); }))"
        )
        return [text for event in self.events for text in complaints(event)]

    def shot(self, path):
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 6000), "scale": 1}
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)["data"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(data))


def complaints(event):
    """What one event says is wrong."""
    params = event["params"]
    if event["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
        yield f"console: {' '.join(str(a.get('value', a.get('description'))) for a in params['args'])}"
    elif event["method"] == "Runtime.exceptionThrown":
        detail = params["exceptionDetails"]
        yield f"exception: {detail.get('exception', {}).get('description', detail['text'])}"
    elif event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
        yield f"log: {params['entry']['text']} {params['entry'].get('url', '')}"
    elif event["method"] == "Network.requestWillBeSent":
        address = urlsplit(params["request"]["url"])
        if address.scheme not in ("file", "data", "blob", "about") and address.hostname != "127.0.0.1":
            yield f"asks for {params['request']['url']}"


def check_pages(browser, base, names, shots):
    """What is wrong with the pages under an address."""
    wrong = []
    for name in names:
        for width in WIDTHS:
            found = browser.open(f"{base}/{name}", width)
            page = browser.evaluate(PROBE)
            if width < 600 and page["width"] > width:
                found.append(
                    f"{page['width']} pixels wide at {width}: {', '.join(page['widest']) or 'no element found'}"
                )
            found += [f"an image without text: {source}" for source in page["nameless"]]
            found += [f"an image that is not there: {source}" for source in page["broken"]]
            wrong += [f"{base.split(':')[0]} {name} at {width}: {text}" for text in found]
            if shots is not None:
                browser.shot(shots / str(width) / Path(name).with_suffix(".png"))
    return wrong


def check_search(browser, base, patience):
    wrong = []
    for word, wanted in SEARCHES.items():
        found = browser.open(f"{base}/search.html?q={word}", WIDTHS[0])
        results = ""
        for _ in range(int(10 * patience)):
            results = browser.evaluate("(document.querySelector('#search-results ul') || {}).innerHTML || ''")
            if wanted in results:
                break
            time.sleep(0.1)
        else:
            found.append(f"{results.count('<li')} results, none with {wanted}")
        wrong += [f"{base.split(':')[0]} search for {word}: {text}" for text in found]
    return wrong


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def check_in_browser(program, site, pages, shots, patience):
    names = [path.relative_to(site).as_posix() for path in pages]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    wrong = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(program, folder)
        for base, images in ((site.as_uri(), shots), (f"http://127.0.0.1:{server.server_port}", None)):
            wrong += check_pages(browser, base, names, images)
            wrong += check_search(browser, base, patience)
        browser.close()
    server.shutdown()
    print(f"{len(names)} pages from disk and from a server, at {WIDTHS} pixels: {len(wrong)} complaints")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", metavar="SITE", nargs="?", type=Path, default=ROOT / "docs" / "_build" / "html")
    parser.add_argument("--links", action="store_true", help="check the links alone")
    parser.add_argument(
        "--pages", metavar="PATTERN", default="**/*.html", help="open these alone, such as 'api/*.html'"
    )
    parser.add_argument("--patience", metavar="S", type=float, default=10, help="seconds for a search")
    parser.add_argument("--shots", metavar="FOLDER", type=Path)
    args = parser.parse_args()
    site = args.site.resolve()
    if not (site / "index.html").is_file():
        parser.error(f"{args.site}: no index.html; make docs builds the site")
    wrong = check_links(site)
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not args.links and program is not None:
        wrong += check_in_browser(program, site, sorted(site.glob(args.pages)), args.shots, args.patience)
    print(*wrong, sep="\n")
    if not args.links and program is None:
        print("no Chromium: the pages were not opened")
        return 2
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

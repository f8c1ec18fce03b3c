"""The documentation site: `make docs`.

Sphinx, because it reads the docstrings and types as they are, executes the tutorials (sphinx-gallery), and its search
works without a network.
"""

import contextlib
import io
import os
import re
import sys
from pathlib import Path

from sphinx.pycode import ModuleAnalyzer

import pypose_ops
from pypose_ops.cli import main

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "benchmarks")]
import draw_operators  # noqa: E402
import draw_skeletons  # noqa: E402
import machine  # noqa: E402

project = "pypose_ops"
author = copyright = "The pypose_ops developers"
version = release = pypose_ops.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
intersphinx_mapping = {}  # built without a network
exclude_patterns = ["_build", "tutorials/*.py", "tutorials/GALLERY_HEADER.rst", "results/*"]
html_theme = "furo"
html_title = "pypose_ops"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
html_js_files = ["offline.js"]
html_extra_path = ["llms.txt"]
templates_path = []
pygments_style = "friendly"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
myst_url_schemes = ("http", "https", "mailto")

autodoc_typehints = "signature"
python_maximum_signature_line_length = 100  # longer ones have a line for every argument
python_display_short_literal_types = True
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": False}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
nitpicky = False

sphinx_gallery_conf = {
    "examples_dirs": "tutorials",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "show_memory": False,
    "write_computation_times": False,
    "show_signature": False,
    "download_all_examples": False,
    "remove_config_comments": True,
    "matplotlib_animations": False,
}


def write_operator_pages(app):
    """A page for every operator: its effect on a real image, then its documentation."""
    folder = HERE / "api" / "operators"
    folder.mkdir(parents=True, exist_ok=True)
    for name in pypose_ops.reference.__all__:
        page = f"# {name}\n\n"
        if name in draw_operators.OPERATORS:
            draw_operators.draw(name, folder / f"{name}.png")
            caption = draw_operators.caption(name)
            page += f"![{caption}]({name}.png)\n\n{caption}\n\n"
        page += f"```{{eval-rst}}\n.. autofunction:: pypose_ops.{name}\n```\n"
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != page:
            path.write_text(page, encoding="utf-8")
    draw_skeletons.draw_skeletons(folder.parent / "skeletons.png")
    draw_operators.draw_predicted(folder.parent / "predicted.png")


def write_command_page(app):
    """The help of every command."""
    os.environ |= {"COLUMNS": "100", "NO_COLOR": "1"}
    page = "# Commands\n\n`pypose-ops COMMAND`; every problem with a file or an option is one line, and exit code 2.\n"
    for command, summary in main.COMMANDS.items():
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            main.main([command, "--help"])
        page += f"\n## {command}\n\n{summary}\n\n```text\n{text.getvalue()}```\n"
    path = HERE / "api" / "commands.md"
    if not path.exists() or path.read_text(encoding="utf-8") != page:
        path.write_text(page, encoding="utf-8")


def drop_links_to_files(app, page, source):
    """Files and folders of the repository that are no pages: links there, words here."""
    source[0] = re.sub(r"(?<!!)\[([^\]]+)\]\((?:results|\.\.)/[^)]*\)", r"\1", source[0])


def list_machines(app, page, source):
    """The table of the machines whose benchmarks were contributed."""
    if page == "machines":
        files = machine.read(HERE.parent / "benchmarks" / "results")
        source[0] = source[0].replace("<!-- machines -->", machine.table(files))


def name_thumbnails(app, page, source):
    """The thumbnails of the tutorials are links, and have no text of their own: it is their tutorial's title."""
    if page == "gallery/index":
        title = r"(\n\n  :doc:`[^`]+`\n\n\.\. raw:: html\n\n +<div class=\"sphx-glr-thumbnail-title\">([^<]+)</div>)"
        source[0] = re.sub(":alt:" + title, r":alt: \2\1", source[0])


def forget_overloads():
    """They repeat all arguments for every return type: a page shows the function's own signature."""
    analyze = ModuleAnalyzer.analyze

    def without_overloads(self):
        analyze(self)
        self.overloads = {}

    ModuleAnalyzer.analyze = without_overloads


def setup(app):
    forget_overloads()
    app.connect("source-read", list_machines)
    app.connect("source-read", name_thumbnails)
    app.connect("source-read", drop_links_to_files)
    app.connect("builder-inited", write_operator_pages, priority=100)
    app.connect("builder-inited", write_command_page, priority=100)

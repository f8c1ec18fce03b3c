"""Finds the installed torch for CMake, and asks the build front end for one only where there is none.

Printed by CMake (``python cmake/torch_dir.py``): the folder of the torch package. Used by scikit-build-core as a
dynamic-metadata provider: it adds no metadata, its only purpose is ``get_requires_for_dynamic_metadata``.
"""

import importlib.util
import pathlib
import sys
import sysconfig

STABLE_HEADER = pathlib.Path("include", "torch", "csrc", "stable", "library.h")


def find_torch():
    """The folder of a torch package that has the stable ABI headers, or None."""
    candidates = []
    spec = importlib.util.find_spec("torch")
    if spec is not None and spec.origin:
        candidates.append(pathlib.Path(spec.origin).parent)
    # Under build isolation torch is not importable, but these are still the folders of the target environment.
    for key in ("platlib", "purelib"):
        candidates.append(pathlib.Path(sysconfig.get_path(key)) / "torch")
    for folder in candidates:
        if (folder / STABLE_HEADER).is_file():
            return folder
    return None


def dynamic_metadata(settings, project):
    return {}


def get_requires_for_dynamic_metadata(settings):
    return [] if find_torch() else ["torch>=2.10"]


if __name__ == "__main__":
    found = find_torch()
    if found is None:
        sys.exit("no torch with the stable ABI headers (torch >= 2.10) in this environment")
    print(found)

"""Shared by the integrations: importing a supported version of a library, and replacing its functions."""

import importlib
import importlib.metadata
import sys
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any


def require(module: str, package: str, versions: Iterable[str], *names: str) -> ModuleType:
    """Imports a module of an installed package whose version starts with one of ``versions``.

    Raises:
        ImportError: the package is missing or of another version, or has no such module or no ``names`` in it; one
            line.
    """
    wanted = tuple(versions)
    found: str | None
    try:
        found = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        found = _version_of_source(module.split(".")[0])
    named = f"{package} {' or '.join(wanted)}"
    if found is None:
        raise ImportError(f"pypose_ops.integrations needs {named}, which is not installed")
    if not any(found == v or found.startswith(v + ".") for v in wanted):
        raise ImportError(f"pypose_ops.integrations needs {named}, and {package} {found} is installed")
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # a requirement of the package
        raise ImportError(f"pypose_ops.integrations needs {module}, and {package} {found} has none") from None
    for name in names:
        if not hasattr(imported, name):
            raise ImportError(f"pypose_ops.integrations needs {module}.{name}, and {package} {found} has none")
    return imported


def _version_of_source(name: str) -> str | None:
    """Of a library that is on the path without being installed."""
    try:
        return getattr(importlib.import_module(name), "__version__", None)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None


class Replacement:
    """Replaces functions of a library by those of pypose_ops; a context manager, with ``undo()`` to restore them."""

    def __init__(self) -> None:
        self._before: list[tuple[Any, str, Any]] = []

    def put(self, owner: Any, name: str, value: Any) -> None:
        """Sets one attribute, or one entry of a dict."""
        if isinstance(owner, dict):
            self._before.append((owner, name, owner[name]))
            owner[name] = value
        else:
            self._before.append(
                (owner, name, owner.__dict__[name] if isinstance(owner, type) else getattr(owner, name))
            )
            setattr(owner, name, value)

    def everywhere(self, package: str, values: Mapping[Any, Any]) -> None:
        """Replaces each key by its value under every name in the loaded modules of ``package``."""
        by_id = {id(old): (old, new) for old, new in values.items()}
        for module in [m for name, m in sys.modules.items() if name == package or name.startswith(package + ".")]:
            for name, value in list(vars(module).items()):
                if id(value) in by_id:
                    self.put(module, name, by_id[id(value)][1])

    def undo(self) -> None:
        while self._before:
            owner, name, value = self._before.pop()
            if isinstance(owner, dict):
                owner[name] = value
            else:
                setattr(owner, name, value)

    def __enter__(self) -> "Replacement":
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()

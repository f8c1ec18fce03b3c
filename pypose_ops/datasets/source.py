"""Access to data sets in folders, zip archives and annotation files; problems raise InputError."""

from collections import Counter
from pathlib import Path

from ..errors import InputError
from .files import shown
from .images import ImageError, ImageFile, members


class Source:
    """A folder or a zip archive with a data set in it."""

    path: Path

    def __init__(self, path: str | Path) -> None:
        self.path, self.prefix = Path(path), ""
        self.names: frozenset[str] | None = None
        if self.path.is_dir():
            return
        if not self.path.exists():
            raise InputError(f"{path}: no such file or folder")
        try:
            self.names = members(str(self.path))
        except Exception:  # zipfile raises many kinds of errors for damaged archives
            raise InputError(f"{path}: expected a folder or a zip archive; not a zip archive, or truncated") from None

    def enter(self, name: str) -> "Source":
        """Enters the folder that contains the file ``name``: the top or a folder directly below it."""
        if self.names is not None:
            found = sorted((n for n in self.names if n == name or n.endswith("/" + name)), key=len)
            self.prefix = found[0][: -len(name)] if found else ""
        elif not (self.path / name).exists():
            self.prefix: str = next((f"{f.parent.name}/" for f in sorted(self.path.glob(f"*/{name}"))), "")
        return self

    def read(self, name: str) -> bytes:
        """Reads the bytes of a file."""
        try:
            return self.image(name).read()
        except (OSError, KeyError):
            raise InputError(f"{self.path}: expected {name} in it, there is no such file") from None
        except ImageError as error:
            raise InputError(str(error)) from None
        except Exception as error:
            raise InputError(f"{self.path}: {name} cannot be read ({type(error).__name__}): truncated?") from None

    def image(self, name: str) -> ImageFile:
        """An image in it."""
        if self.names is not None:
            return ImageFile(str(self.path), self.prefix + name)
        return ImageFile(str(self.path / (self.prefix + name)))


class ImageFinder:
    """Finds the images named in an annotation file.

    They are in the folder given by the user; or next to the file, in ``images/`` next to or above it, or in a folder of
    the split as in COCO and CVAT: ``val2017/`` or ``images/default/`` for ``annotations/*_val2017.json``. Names of
    another machine (``C:\\data\\a.jpg``) are found by their ends, which ``notes`` counts.
    """

    def __init__(
        self, annotations: str | Path, images: str | Path | None = None, notes: Counter[str] | None = None
    ) -> None:
        path = Path(annotations)
        self.notes: Counter[str] = Counter() if notes is None else notes
        split = path.name.split(".")[0].rsplit("_", 1)[-1]
        roots = (
            [path.parent, path.parent.parent] if path.is_absolute() or path.parent.name else [path.parent, Path("..")]
        )
        below = (".", "images", split, f"images/{split}")
        self.roots: list[Path] = [Path(images)] if images else [root / folder for root in roots for folder in below]
        self.last = self.roots[0]
        self._found: dict[Path, tuple[str, bool]] = {}

    def find(self, name: str) -> ImageFile:
        """The image of this name, which may include folders, also with Windows separators.

        Raises:
            InputError: the name is none, or two names have the same end and only one image has it.
        """
        forms = [name] if "\\" not in name else [name, name.replace("\\", "/")]
        path = self._look_for(name, forms)
        shortened = path is None
        if path is None:
            folders = forms[-1].split("/")
            path = self._look_for(name, ["/".join(folders[k:]) for k in range(1, len(folders))])
        if path is None:
            return ImageFile(str(self.roots[0] / forms[-1]))
        if shortened and path not in self._found:
            self.notes["images found by the end of their names, without the folders before"] += 1
        other, before = self._found.setdefault(path, (name, shortened))
        if other != name and (shortened or before):
            raise InputError(f"{path}: could be {shown(other, 80)} or {shown(name, 80)}: put them into these folders")
        return ImageFile(str(path))

    def _look_for(self, name: str, forms: list[str]) -> Path | None:
        for root in (self.last, *self.roots):
            for form in forms:
                try:
                    if form and (root / form).is_file():
                        self.last: Path = root
                        return root / form
                except (OSError, ValueError):
                    raise InputError(f"{name[:80]!r}: no name of an image") from None
        return None

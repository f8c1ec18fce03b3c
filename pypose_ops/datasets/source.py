"""Where data sets lie: folders, zip archives, annotation files. What is wrong with one is an InputError."""

import io
import json
import zipfile
from pathlib import Path

from ..errors import InputError
from .sample import Picture, members


class Source:
    """A folder or a zip archive with a data set in it."""

    def __init__(self, path):
        self.path = Path(path)
        self.prefix = ""
        if self.path.is_dir():
            self.names = None
            return
        if not self.path.exists():
            raise InputError(f"{path}: no such file or folder")
        try:
            self.names = members(str(self.path))
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError):
            raise InputError(f"{path}: expected a folder or a zip archive; not a zip archive, or truncated") from None

    def enter(self, name):
        """Moves to the folder that holds the file ``name``: the top, or a folder right under it."""
        if self.names is not None:
            found = sorted((n for n in self.names if n == name or n.endswith("/" + name)), key=len)
            self.prefix = found[0][: -len(name)] if found else ""
        elif not (self.path / name).exists():
            self.prefix = next((f"{f.parent.name}/" for f in sorted(self.path.glob(f"*/{name}"))), "")
        return self

    def read(self, name):
        """The bytes of a file in it."""
        try:
            return self.picture(name).read()
        except (OSError, KeyError):
            raise InputError(f"{self.path}: expected {name} in it, there is no such file") from None
        except Exception as error:
            raise InputError(f"{self.path}: {name} cannot be read ({type(error).__name__}): truncated?") from None

    def picture(self, name):
        if self.names is not None:
            return Picture(str(self.path), self.prefix + name)
        return Picture(str(self.path / (self.prefix + name)))


def load_mat(data, name):
    """The variables of a .mat file's bytes; structs become objects with attributes."""
    import scipy.io

    try:
        return scipy.io.loadmat(io.BytesIO(data), struct_as_record=False, squeeze_me=True)
    except Exception as error:  # scipy raises many kinds for damaged files
        raise InputError(f"{name}: expected a .mat file; not one, or damaged ({type(error).__name__})") from None


def load_json(path):
    """The content of a json file, which may be compressed by gzip."""
    import gzip

    try:
        data = Path(path).read_bytes()
        return json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or 'damaged'})") from None
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: expected json ({error})") from None


def pictures_folder(annotations, images, first):
    """Where the pictures of an annotation file are: ``images``, or beside it, or in ``images/`` beside or above it."""
    folder = Path(annotations).parent
    candidates = [Path(images)] if images else [folder, folder / "images", folder.parent / "images"]
    return next((c for c in candidates if (c / first).exists()), candidates[0])

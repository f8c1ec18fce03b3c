"""Reads the elements of long JSON lists one after the other, so that a file is never in memory as a whole."""

import contextlib
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ..errors import InputError
from .files import load_json, unpacked_limit

BLOCK: int = 1 << 18  # characters read at a time
SPACE: re.Pattern[str] = re.compile(r"[ \t\n\r]*")
DECODER: json.JSONDecoder = json.JSONDecoder()


def stream_json(path: str | Path, lists: Mapping[str, Callable[[], Any]]) -> Any:
    """Like :func:`load_json`, but does not keep the elements of some lists.

    Args:
        path: of the file.
        lists: for fields of the outermost object, what makes the object that takes the place of the list: its ``add``
            is called with each element.
    """
    try:
        with _opened(path) as file:
            return _Reader(file).fields(lists)
    except InputError:
        raise  # for an element
    except (OSError, EOFError, ValueError, RecursionError, zlib.error):  # damaged, say
        content = load_json(path)
    if isinstance(content, dict):
        for name, made in lists.items():
            if isinstance(content.get(name), list):
                elements, content[name] = content[name], made()
                for element in elements:
                    content[name].add(element)
    return content


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[IO[str]]:
    with Path(path).open("rb") as file:
        binary: Any = file
        if file.peek(2)[:2] == b"\x1f\x8b":
            binary = _Limited(gzip.GzipFile(fileobj=file), unpacked_limit(Path(path).stat().st_size))
        with io.TextIOWrapper(binary, json.detect_encoding(binary.peek(4)[:4]), "surrogatepass", newline="") as text:
            yield text


class _Limited(io.BufferedReader):
    """A compressed file of which no more than a number of bytes is read."""

    def __init__(self, file: Any, limit: int) -> None:
        super().__init__(file)
        self._limit = limit

    def read1(self, size: int = -1, /) -> bytes:
        data = super().read1(size)
        if self.tell() > self._limit:
            raise ValueError("unpacks to too many bytes")
        return data


class _Reader:
    """JSON text, from where it has been read.

    Raises:
        ValueError: it is damaged, or ends.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file, self._text, self._at, self._ended = file, "", 0, False

    def _more(self) -> None:
        if self._ended:
            raise ValueError("the text ends within a value")
        rest = self._text[self._at :]
        new = self._file.read(max(BLOCK, len(rest)))  # doubled, so that long values are not begun again too often
        self._text, self._at, self._ended = rest + new, 0, not new

    def _next(self, expected: str) -> str:
        """Moves to the next character that is no white space, one of those expected."""
        self._at = SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
        while self._at == len(self._text):
            self._more()
            self._at = SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
        found = self._text[self._at]
        if expected and found not in expected:
            raise ValueError(f"expected one of {expected}")
        return found

    def _value(self) -> Any:
        """Parses a value, and moves to the character that follows it."""
        self._next("")
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
                end = SPACE.match(self._text, end).end()  # type: ignore[union-attr]
                if self._text[end] in ",]}:":
                    self._at = end
                    return value
            except (ValueError, IndexError):
                pass
            self._more()  # the text read so far may end within the value

    def _elements(self) -> Iterator[Any]:
        self._at += 1
        if self._next("") != "]":
            while True:
                yield self._value()
                if self._next(",]") == "]":
                    break
                self._at += 1
        self._at += 1

    def fields(self, lists: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        """The fields of the outermost object."""
        found: dict[str, Any] = {}
        self._next("{")
        self._at += 1
        end = self._next('"}')
        while end != "}":
            self._next('"')
            name = self._value()
            if name in found:
                raise ValueError(f"{name} comes twice")
            self._next(":")
            self._at += 1
            if name in lists and self._next("") == "[":
                found[name] = lists[name]()
                for element in self._elements():
                    found[name].add(element)
            else:
                found[name] = self._value()
            end = self._next(",}")
            self._at += 1
        if SPACE.sub("", self._text[self._at :]) or self._file.read(1).strip():
            raise ValueError("text after the end")
        return found

"""Opening rosbag2 recordings (sqlite3 or mcap) with the `rosbags` library; damage becomes one clear message."""

from __future__ import annotations

import logging
import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from ..errors import DataFormatError

_log = logging.getLogger("gena3d.io")
_ADVICE = {
    ".mcap": "the recording was probably cut off: `mcap recover FILE` of the MCAP tools saves what is readable",
    ".db3": "the recording was probably cut off: `sqlite3 FILE .recover` saves what is readable",
}


@dataclass
class Bag:
    """An open recording.

    topics   message type of each topic
    damage   empty, or what stopped the reading before the end
    """

    path: Path
    topics: Mapping[str, str]
    damage: str = ""
    _readers: list[Reader] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """(topic, serialized message) in the order of recording; ends early, with `damage` set, where files break."""
        for reader in self._readers:
            connections = [c for c in reader.connections if c.topic in topics]
            if not connections:
                continue
            try:
                for connection, _, raw in reader.messages(connections):
                    yield connection.topic, raw
            except Exception as error:
                if not self.damage:
                    self.damage = f"{self.path}: damaged after some messages ({error}); the part before was read"
                    _log.warning(self.damage)


def open_bag(path: Path) -> Bag:
    """Open a rosbag2 folder (with or without metadata.yaml) or one .mcap or .db3 file; use it with `with`.

    Raises `DataFormatError` if it cannot be opened.
    """
    files = [path]
    if path.is_dir() and not (path / "metadata.yaml").is_file():
        # A recorder that was killed leaves no metadata.yaml.
        files = sorted([*path.glob("*.mcap"), *path.glob("*.db3")])
    stack, readers = ExitStack(), []
    for file in files:
        try:
            readers.append(stack.enter_context(Reader(file)))
        except Exception as error:
            stack.close()
            raise DataFormatError(
                f"{file}: cannot be opened as a rosbag2 recording ({error}){_advice(file)}"
            ) from error
    topics = {c.topic: c.msgtype for reader in readers for c in reader.connections}
    return Bag(path, topics, _readers=readers, _stack=stack)


_typestore = get_typestore(Stores.ROS2_HUMBLE)
"""The types read here have had the same fields in every distribution since Foxy."""


def deserialize(raw: bytes, msgtype: str, where: str) -> Any:
    """The message in `raw`; raises `DataFormatError`, beginning with `where`, for a cut-off one."""
    try:
        return _typestore.deserialize_cdr(raw, msgtype)
    except Exception as error:
        raise DataFormatError(f"{where}: a message of type {msgtype} cannot be decoded ({error})") from error


def header_stamp_ns(raw: bytes) -> int:
    """`header.stamp` in nanoseconds of a serialized message that begins with a header, without decoding the rest."""
    seconds, nanoseconds = struct.unpack_from("<iI" if raw[1] & 1 else ">iI", raw, 4)
    return seconds * 1_000_000_000 + nanoseconds


def _advice(file: Path) -> str:
    names = [file] if file.is_file() else sorted(file.iterdir())
    advice = next((_ADVICE[name.suffix] for name in names if name.suffix in _ADVICE), "")
    return f"; {advice}" if advice else ""

"""Event files of TensorBoard that follow one another, whatever the clock of a machine says.

TensorBoard reads the files of a folder in the order of their names, which begin with a time. A start on a machine whose
clock is behind, or within the same second, must not sort before what it continues: its steps would be read first, and
then taken back. So the clock of an event file is set forward, where it must, to the end of the newest file there is.
"""

from __future__ import annotations

import io
import os
import re
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.record_writer import RecordWriter

from stackgan_dist.storage.folder import Folder

_NAME = re.compile(r"events\.out\.tfevents\.(\d{10,})\.")
_VERSION = "brain.Event:2"
_WALL_TIME = b"\x09"
"""With what an event begins: its first field, a double."""


class Clock:
    """Times for the event files of one folder, which never go back.

    Args:
        folder: where they are. Raises OSError or StoreError when it cannot be read.
    """

    def __init__(self, folder: Folder) -> None:
        stamps = {name: int(found[1]) for name in folder.names() if (found := _NAME.match(name))}
        self._stamp = max(stamps.values(), default=0)
        newest = [name for name, stamp in stamps.items() if stamp == self._stamp]
        self._latest = max((_end(folder, name) for name in newest), default=0.0)
        self._ahead_s = max(0.0, max(self._latest, self._stamp) - time.time())

    def now(self) -> float:
        """Seconds since 1970, not before any event there is."""
        self._latest = max(self._latest, time.time() + self._ahead_s)
        return self._latest

    def file_name(self) -> str:
        """For a new event file: as TensorBoard calls them, behind all there are."""
        self._stamp = max(int(self.now()), self._stamp + 1)
        return f"events.out.tfevents.{self._stamp:010d}.{socket.gethostname()}.{os.getpid()}.0"


class EventFile:
    """One event file in `folder`, named and dated by `clock`. An event is in the file, whole, when a method returns.

    With `purge_step`, TensorBoard does not show what earlier files have from this step on. Every method raises OSError
    where the disk does; the file is then as it was before.
    """

    def __init__(self, folder: Path, clock: Clock, purge_step: int | None = None) -> None:
        self._clock = clock
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / clock.file_name()).open("xb", buffering=0)
        try:
            self._append(_record(Event(wall_time=clock.now(), file_version=_VERSION)))
            if purge_step is not None:
                start = SessionLog(status=SessionLog.START)
                self._append(_record(Event(wall_time=clock.now(), step=purge_step, session_log=start)))
        except BaseException:
            self.close()
            raise

    def add_scalars(self, values: Mapping[str, float], step: int) -> None:
        """A point in each of the curves."""
        records = [_scalar(tag, value, step, self._clock.now()) for tag, value in values.items()]
        self._append(b"".join(records))

    def add_image(self, tag: str, png: bytes, size: tuple[int, int], step: int) -> None:
        """An RGB picture, as the content of a PNG file of `size` (width, height)."""
        image = Summary.Image(width=size[0], height=size[1], colorspace=3, encoded_image_string=png)
        self._add(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    def add_text(self, tag: str, content: str) -> None:
        """A text in Markdown."""
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(dtype="DT_STRING", string_val=[content.encode()], tensor_shape=shape)
        metadata = create_summary_metadata(tag, "")
        self._add(Summary(value=[Summary.Value(tag=f"{tag}/text_summary", metadata=metadata, tensor=tensor)]), 0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _add(self, summary: Summary, step: int) -> None:
        self._append(_record(Event(wall_time=self._clock.now(), step=step, summary=summary)))

    def _append(self, records: bytes) -> None:
        begin = self._file.tell()
        try:
            rest = memoryview(records)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(begin)
            self._file.seek(begin)
            raise


def scalars_file(folder: Folder, values: Mapping[str, float], step: int) -> tuple[str, bytes]:
    """(name, content) of an event file with one point in each of the curves, for `folder`."""
    clock = Clock(folder)
    version = _record(Event(wall_time=clock.now(), file_version=_VERSION))
    return clock.file_name(), version + b"".join(_scalar(tag, v, step, clock.now()) for tag, v in values.items())


def _scalar(tag: str, value: float, step: int, time_s: float) -> bytes:
    summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
    return _record(Event(wall_time=time_s, step=step, summary=summary))


def _record(event: Event) -> bytes:
    buffer = io.BytesIO()
    RecordWriter(buffer).write(event.SerializeToString())
    return buffer.getvalue()


def _end(folder: Folder, name: str) -> float:
    """The time of the last event in the file `name`; 0 where it has none."""
    with io.BytesIO(folder.read(name)) if folder.path is None else (folder.path / name).open("rb") as file:
        return _last_time(file)


def _last_time(file: BinaryIO) -> float:
    """Only lengths and times are read: checksums are slow in Python, and pictures long."""
    latest = 0.0
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    # A record is the length of its event (8 bytes), a checksum (4), the event, a checksum (4).
    while len(head := file.read(21)) == 21:
        (length,) = struct.unpack_from("<Q", head)
        if head[12:13] == _WALL_TIME:
            latest = max(latest, struct.unpack_from("<d", head, 13)[0])
        file.seek(min(size, file.tell() + length - 9 + 4))
    return latest

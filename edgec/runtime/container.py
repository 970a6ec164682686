"""The two forms of a bundle, a folder and a zip file, as one: names, sizes and bytes.

In a zip, weights are stored; small files may be deflated, within limits that no bomb keeps.

Nothing here believes the manifest, and nothing is read whose size was not checked before.
"""

import os
import re
import stat
import zipfile
from pathlib import Path
from typing import IO, Dict, Union

from edgec.runtime.manifest import refuse, schema

DEFLATED_MEMBER = 16 << 20  # bytes that one deflated file may have when it is unpacked
DEFLATED_TOTAL = 64 << 20  # and all of them together
BROKEN = "Copy the bundle again: the file is incomplete or damaged."


class Folder:
    """A bundle that lies unpacked. Python's own `__pycache__` folders are not part of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sizes: Dict[str, int] = {}
        self._walk(path, "")

    def _walk(self, folder: Path, prefix: str) -> None:
        with os.scandir(str(folder)) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = prefix + entry.name
                if entry.is_symlink():
                    refuse("{}: a symbolic link is not allowed in a bundle".format(name))
                if entry.is_dir():
                    if entry.name != "__pycache__":
                        self._walk(folder / entry.name, name + "/")
                elif entry.is_file():
                    self.sizes[name] = entry.stat().st_size
                else:
                    refuse("{}: neither a file nor a folder".format(name))

    def open(self, name: str) -> IO[bytes]:
        """Open a file that `sizes` lists."""
        return open(str(self.path / name), "rb")

    def close(self) -> None:
        """Nothing to release."""


class Archive:
    """A bundle in one zip file, read from the file that was opened, not from its name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_ends(path)
        try:
            self._zip = zipfile.ZipFile(str(path))
        # zipfile raises NotImplementedError for a compression or a version that it does not know
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            refuse("{}: the zip file is truncated or damaged: {}".format(path, error), BROKEN)
        try:
            self.sizes = self._checked(path.stat().st_size)
        except BaseException:
            self._zip.close()
            raise

    def _checked(self, size: int) -> Dict[str, int]:
        sizes: Dict[str, int] = {}
        stored = deflated = 0
        safe = schema()["$defs"]["file"]["pattern"]
        for member in self._zip.infolist():
            name = member.filename
            if not re.search(safe, name):
                refuse("{!r}: the name is unsafe or leaves the bundle".format(name[:200]))
            if name in sizes:
                refuse("{!r} is twice in the zip file".format(name))
            if stat.S_ISLNK(member.external_attr >> 16):
                refuse("{}: a symbolic link is not allowed in a bundle".format(name))
            if member.flag_bits & 1:
                refuse("{}: encrypted".format(name))
            sizes[name] = member.file_size
            if member.compress_type == zipfile.ZIP_STORED:
                stored += member.file_size
                if member.compress_size != member.file_size:
                    refuse("{}: its two sizes differ: it could be a zip bomb".format(name[:200]))
                continue
            deflated += member.file_size
            if member.compress_type != zipfile.ZIP_DEFLATED or (
                max(member.file_size - DEFLATED_MEMBER, deflated - DEFLATED_TOTAL) > 0
            ):
                refuse("{}: compressed beyond the limits: a zip bomb?".format(name[:200]))
        if stored > size:
            refuse("the zip file claims more bytes than it has: it could be a zip bomb")
        return sizes

    def open(self, name: str) -> IO[bytes]:
        """Open a file that `sizes` lists. zipfile raises BadZipFile where the data is damaged."""
        return self._zip.open(name)

    def close(self) -> None:
        """Close the zip file."""
        self._zip.close()


def _check_ends(path: Path) -> None:
    """A zip is found by its end, and the golden arrays are zips too: a bundle that is cut off
    behind them would open as theirs. So it has to begin and to end as one that was stored whole.
    """
    with open(str(path), "rb") as stream:
        begin = stream.read(4)
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - 22))
        end = stream.read(4)
    if begin != b"PK\x03\x04":
        refuse("{} is no bundle".format(path), "Give the path of a .edgec file or its folder.")
    if end != b"PK\x05\x06":
        refuse("{}: the zip file is truncated or damaged".format(path), BROKEN)


def open_container(path: Path) -> Union[Folder, Archive]:
    """The bundle at `path`. Raises InputError: not there, not readable, not a bundle, not safe."""
    try:
        return Folder(path) if path.is_dir() else Archive(path)
    except FileNotFoundError:
        refuse("{} does not exist".format(path), "Give the path of a .edgec file or its folder.")
    except OSError as error:
        refuse("{} cannot be read: {}".format(path, error.strerror or error), "Check permissions.")

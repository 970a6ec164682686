"""A bundle, verified as a whole when it is opened: structure, names, sizes and hashes."""

import hashlib
import tempfile
import zipfile
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, Dict, List, Optional, Type, Union

from edgec.runtime import manifest as manifests
from edgec.runtime import npz
from edgec.runtime.container import BROKEN, Folder, open_container
from edgec.runtime.manifest import refuse

_CHUNK = 1 << 20


class Bundle:
    """An open bundle: its `manifest` and its files. Safe to read from several threads.

    Raises InputError: anything that is missing, unlisted, changed, newer or unsafe.
    """

    def __init__(self, path: Union[str, Path]) -> None:
        self.source = Path(path)
        self._container = open_container(self.source)
        self._folder: "Optional[tempfile.TemporaryDirectory[str]]" = None
        self.digest = ""  # the sha256 of manifest.json, and so of all that it lists
        try:
            self.manifest = self._verified_manifest()
            self.files: Dict[str, Dict[str, Any]] = self.manifest["files"]
            self._verify_names()
            for name in sorted(self.files):
                self._verify_file(name)
        except BaseException:
            self.close()
            raise

    def read(self, name: str) -> bytes:
        """The bytes of a listed file. Raises InputError where the bundle has no such file."""
        self._require(name)
        with self._container.open(name) as stream:
            return stream.read()

    def arrays(self, name: str) -> Dict[str, Any]:
        """The arrays of a listed `.npz` file. Raises InputError: damaged or pickled."""
        return npz.read(self.read(name), name)

    def path(self, name: str) -> Path:
        """A file of the file system with the content of `name`.

        In a zip it is extracted to a private folder, which `close` or the end of the process
        removes; files extracted by one bundle keep their places relative to each other.
        """
        self._require(name)
        if isinstance(self._container, Folder):
            return self._container.path / name
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="edgec-")
        target = Path(self._folder.name) / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(target.name + ".partial~")
            with self._container.open(name) as stream, open(str(partial), "wb") as copy:
                for block in iter(lambda: stream.read(_CHUNK), b""):
                    copy.write(block)
            partial.replace(target)
        return target

    @property
    def packed(self) -> bool:
        """Whether the bundle is one zip file (else a folder)."""
        return not isinstance(self._container, Folder)

    def close(self) -> None:
        """Release the zip file and the extracted files."""
        self._container.close()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> "Bundle":
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def _require(self, name: str) -> None:
        if name not in self.files:
            refuse("the bundle has no file {!r}".format(name))

    def _verified_manifest(self) -> Dict[str, Any]:
        size = self._container.sizes.get(manifests.NAME)
        if size is None:
            hint = "Give the path of a .edgec file or of the folder that holds manifest.json."
            refuse("{} holds no manifest.json: it is no bundle".format(self.source), hint)
        if size > manifests.MAX_BYTES:
            refuse("manifest.json has {} bytes, more than {}".format(size, manifests.MAX_BYTES))
        try:
            with self._container.open(manifests.NAME) as stream:
                data = stream.read(size + 1)
            self.digest = hashlib.sha256(data).hexdigest()
            return manifests.parse(data)
        # zipfile raises NotImplementedError for a compression or a version that it does not know
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
            refuse("manifest.json cannot be read: {}".format(error), BROKEN)

    def _verify_names(self) -> None:
        present = set(self._container.sizes) - {manifests.NAME}
        unlisted = sorted(present - set(self.files))
        if unlisted:
            refuse("the manifest does not list {}".format(_some(unlisted)))
        missing = sorted(set(self.files) - present)
        if missing:
            refuse("the bundle lacks {}".format(_some(missing)), BROKEN)

    def _verify_file(self, name: str) -> None:
        entry, size = self.files[name], self._container.sizes[name]
        if size != entry["bytes"]:
            wanted = "{} has {} bytes, the manifest says {}".format(name, size, entry["bytes"])
            refuse(wanted, BROKEN)
        digest = hashlib.sha256()
        try:
            with self._container.open(name) as stream:
                for block in iter(lambda: stream.read(_CHUNK), b""):
                    digest.update(block)
        # zipfile raises NotImplementedError for a compression or a version that it does not know
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
            refuse("{} cannot be read: {}".format(name, error), BROKEN)
        if digest.hexdigest() != entry["sha256"]:
            refuse("{} was changed: its sha256 is not the manifest's".format(name), BROKEN)


def _some(names: List[str]) -> str:
    shown = ", ".join(repr(name[:200]) for name in names[:3])
    return shown + (" and {} more".format(len(names) - 3) if len(names) > 3 else "")

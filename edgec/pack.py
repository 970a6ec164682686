"""Writes bundles: the files, a copy of the runtime, and the manifest that lists them all.

The same inputs give the same bytes: sorted names, fixed times and permissions. Weights are stored,
so that they can be read in place; what is small and compresses well is deflated.
"""

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import IO, Any

from edgec.errors import InputError, InternalError
from edgec.runtime import manifest as manifests
from edgec.runtime.container import DEFLATED_MEMBER
from edgec.runtime.npz import MODE, STAMP
from edgec.runtime.npz import dump as npz_bytes

__all__ = ["npz_bytes", "runtime_files", "validate", "write_bundle", "write_spares"]

_MAIN = b"""import os, sys
sys.dont_write_bytecode = True
from edgec.runtime.cli import main
sys.exit(main(bundle=os.path.dirname(__file__) or "."))
"""
_CHUNK = 1 << 20
_DEFLATED = (".py", ".json", ".xml", ".npz", ".config")


def write_bundle(
    manifest: Mapping[str, Any],
    files: Mapping[str, Path | bytes],
    output: Path,
    *,
    force: bool,
    folder: bool = False,
) -> Path:
    """Write the bundle `output` (one zip file, or a folder) and return its path.

    `files`: name in the bundle -> a file or its bytes. `manifest["files"]` is filled in here.
    The bundle appears under its name only when it is complete.
    Raises InputError: `output` exists and not `force`, cannot be written, or is another kind of
    thing than a bundle; InternalError: the manifest breaks its schema.
    """
    if os.path.lexists(output):
        _check_replaceable(output, force)
    runtime = runtime_files()
    if clash := sorted(set(runtime) & set(files)):
        raise InternalError(f"files {clash} belong to the runtime")
    contents: dict[str, Path | bytes] = {**runtime, **files}
    listed = {name: _entry(contents[name]) for name in sorted(contents)}
    try:
        complete = json.loads(json.dumps({**manifest, "files": listed}, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InternalError(f"the manifest is not JSON: {error}") from error
    validate(complete)
    text = json.dumps(complete, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    contents[manifests.NAME] = text.encode()
    try:
        return _write_folder(contents, output) if folder else _write_zip(contents, output)
    except OSError as error:
        raise InputError(
            f"cannot write {output}: {error.strerror or error}",
            hint="Choose a folder that exists, is writable and has room, with -o.",
        ) from error


def write_spares(files: Sequence[Path], output: Path) -> None:
    """Write models of fallbacks into the zip file `output`, each under its sha256; none: no file.

    The same files give the same bytes. The file appears when it is complete.
    """
    if not files:
        output.unlink(missing_ok=True)
        return
    if output.is_dir():
        raise InputError(f"{output} is a folder and is not replaced", hint="Use another -o.")
    _write_zip({_entry(path)["sha256"]: path for path in files}, output)


def runtime_files() -> dict[str, bytes]:
    """What runs the bundle on a device: `__main__.py`, the runtime and the manifest's schema."""
    found = {"__main__.py": _MAIN}
    package = resources.files("edgec")
    for name in ("__init__.py", "errors.py", "bundle.schema.json"):
        found[f"edgec/{name}"] = (package / name).read_bytes()
    for item in (package / "runtime").iterdir():
        if item.name.endswith(".py"):
            found[f"edgec/runtime/{item.name}"] = item.read_bytes()
    return found


def validate(manifest: Mapping[str, Any]) -> None:
    """Check a complete manifest as the schema and as the device see it. Raises InternalError."""
    import jsonschema

    problem = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(manifests.schema()).iter_errors(manifest)
    )
    if problem is not None:
        raise InternalError(f"manifest.json: {problem.json_path}: {problem.message[:500]}")
    try:
        manifests.check(dict(manifest))
    except InputError as error:
        raise InternalError(error.message) from error


def _entry(content: Path | bytes) -> dict[str, Any]:
    if isinstance(content, bytes):
        return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    with content.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"sha256": digest, "bytes": content.stat().st_size}


def _check_replaceable(output: Path, force: bool) -> None:
    if not force:
        raise InputError(f"{output} exists already", hint="Replace it with --force, or use -o.")
    bundle = (
        (output / manifests.NAME).is_file()
        if output.is_dir() and not output.is_symlink()
        else output.is_file()
    )
    if not bundle:
        raise InputError(f"{output} is no bundle and is not replaced", hint="Use another -o.")


def _write_zip(contents: Mapping[str, Path | bytes], output: Path) -> Path:
    handle, temporary = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
                for name in sorted(contents):
                    _add(archive, stream, name, contents[name])
            _to_disk(stream)
        os.chmod(temporary, 0o644)
        if output.is_dir():
            shutil.rmtree(output)
        os.replace(temporary, output)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return output


def _add(archive: zipfile.ZipFile, stream: IO[bytes], name: str, content: Path | bytes) -> None:
    member = zipfile.ZipInfo(name, STAMP)
    member.external_attr, member.create_system = MODE, 3
    member.file_size = len(content) if isinstance(content, bytes) else content.stat().st_size
    if name.endswith(_DEFLATED) and member.file_size <= DEFLATED_MEMBER // 4:
        member.compress_type = zipfile.ZIP_DEFLATED
    with archive.open(member, "w") as target:
        if isinstance(content, bytes):
            target.write(content)
        else:
            with content.open("rb") as source:
                shutil.copyfileobj(source, target, _CHUNK)


def _write_folder(contents: Mapping[str, Path | bytes], output: Path) -> Path:
    temporary = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
    try:
        for name, content in sorted(contents.items()):
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as stream:
                if isinstance(content, bytes):
                    stream.write(content)
                else:
                    with content.open("rb") as source:
                        shutil.copyfileobj(source, stream, _CHUNK)
                _to_disk(stream)
        temporary.chmod(0o755)
        if output.is_dir():
            old = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}.")) / "old"
            os.replace(output, old)
            os.replace(temporary, output)
            shutil.rmtree(old.parent)
        else:
            output.unlink(missing_ok=True)
            os.replace(temporary, output)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return output


def _to_disk(stream: IO[bytes]) -> None:
    stream.flush()
    os.fsync(stream.fileno())

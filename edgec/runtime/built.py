"""What `finish` left beside a bundle, found again: `built/<stamp>-<bundle>/manifest.json`.

The bundle's own bytes never change. A folder belongs to one bundle (its manifest's sha256) on one
device (its stamp); after an update of the device the stamp is another one, and nothing stale is
opened. Everything is checked before it is used: the built manifest names a step of the bundle's
build plan and a file in its own folder, with its hash, and nothing else of it is believed.
"""

import json
import os
import re
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Union

from edgec.errors import InputError, ToolchainError
from edgec.runtime import stamp
from edgec.runtime.bundle import Bundle
from edgec.runtime.manifest import refuse
from edgec.runtime.tensorrt_build import digest

FOLDER, NAME = "built", "manifest.json"
SCHEMA = 1
AGAIN = "Build it anew on this device: python3 BUNDLE finish --again."
_MOST = 4 << 20  # bytes of a built manifest
_FILE = re.compile(r"[A-Za-z0-9._-]{1,200}\Z")
ONNXRUNTIME = {"disabled_optimizers": ["WeightBiasQuantization"]}  # it quantizes what is float


class Choice(NamedTuple):
    """How an engine runs here: a step of its plan, and the path of the file made for it.

    `file` is empty where the bundle's own is used.
    """

    step: int
    file: str


class Ready(NamedTuple):
    """What to open for an engine."""

    backend: str
    device: str
    source: Union[Path, bytes]
    settings: Mapping[str, Any]


def folder(bundle: Bundle, device: stamp.Device) -> Path:
    """Where the engines of a bundle for a device lie."""
    name = "{}-{}".format(stamp.name(device), bundle.digest[:12])
    return bundle.source.absolute().parent / FOLDER / name


def steps(engine: Mapping[str, Any]) -> List[Dict[str, Any]]:
    """The plan of an engine: from the fastest to the safest."""
    found: List[Dict[str, Any]] = engine["build"]["steps"]
    return found


def read(bundle: Bundle, place: Path) -> Optional[Dict[str, Choice]]:
    """The choices by engine, or None where nothing was finished. InputError: not sound."""
    path = place / NAME
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > _MOST:
            raise ValueError("too large")
        page = json.loads(path.read_text(encoding="utf-8"))
        if page["schema"] != SCHEMA or page["bundle"] != bundle.digest:
            raise ValueError("it is of another bundle, or of another edgec")
        choices = {}
        for engine in waiting(bundle):
            row = page["engines"][engine["name"]]
            choice = Choice(row["step"], row["file"])
            if type(choice.step) is not int or not 0 <= choice.step < len(steps(engine)):
                raise ValueError("step {!r} of {}".format(choice.step, engine["name"]))
            if choice.file and not _FILE.match(choice.file):
                raise ValueError("file {!r}".format(choice.file))
            if choice.file and digest(place / choice.file) != row["sha256"]:
                raise ValueError("{} was changed".format(choice.file))
            full = str(place / choice.file) if choice.file else ""
            choices[engine["name"]] = choice._replace(file=full)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError("{} is not sound: {}".format(path, error), hint=AGAIN) from error
    return choices


def waiting(bundle: Bundle) -> List[Dict[str, Any]]:
    """The engines that have a build plan."""
    return [engine for engine in bundle.manifest["engines"] if "build" in engine]


def resolve(bundle: Bundle, choices: Optional[Mapping[str, Choice]] = None) -> Sequence[Ready]:
    """What to open for each engine, in their order. `choices`: instead of what finish left.

    UnsupportedError: the bundle is for another device. ToolchainError: `finish` has to come first.
    """
    found = []
    for engine in bundle.manifest["engines"]:
        if "build" not in engine:
            found.append(_plain(bundle, engine))
            continue
        if choices is None:
            choices = _here(bundle, engine)
        choice = choices.get(engine["name"])
        found.append(_made(bundle, engine, choice) if choice else _shipped(bundle, engine))
    return found


def _here(bundle: Bundle, engine: Mapping[str, Any]) -> Mapping[str, Choice]:
    device = stamp.probe(engine["build"]["module"])
    place = folder(bundle, device)
    made = read(bundle, place)
    if made is None:
        _refuse(bundle, engine, device, place)
    return made or {}


def _refuse(bundle: Bundle, engine: Mapping[str, Any], device: stamp.Device, place: Path) -> None:
    """Say why an engine cannot be opened yet; an engine that was built ahead can be."""
    wrong = stamp.mismatches(engine["build"]["requires"], device)
    if wrong:
        raise stamp.wrong_device(bundle.manifest["target"], device, wrong)
    ready = engine["build"]["ready"]
    if ready and device.version:
        return
    others = sorted(place.parent.glob("*-" + bundle.digest[:12])) if place.parent.is_dir() else []
    message = "engine {} has to be built on this device first".format(engine["name"])
    if ready:
        message = "engine {}: {}".format(engine["name"], device.missing)
    if others:
        message += "; it was finished for {}, and this is {}".format(
            others[0].name.rpartition("-")[0], stamp.name(device)
        )
    raise ToolchainError(message, hint="Run once: python3 BUNDLE finish. It falls back as it must.")


def _plain(bundle: Bundle, engine: Mapping[str, Any]) -> Ready:
    source = _file(bundle, engine["artifact"], engine["data_files"])
    return Ready(engine["backend"], engine["device"], source, engine["settings"])


def _shipped(bundle: Bundle, engine: Mapping[str, Any]) -> Ready:
    """The engine that lies in the bundle."""
    plain = _plain(bundle, engine)
    return plain._replace(settings=_settings(bundle, engine))


def _made(bundle: Bundle, engine: Mapping[str, Any], choice: Choice) -> Ready:
    step = steps(engine)[choice.step]
    if step["by"] == "onnxruntime":
        source = Path(choice.file) if choice.file else _file(bundle, step["model"], [])
        return Ready("onnxruntime", "cpu", source, ONNXRUNTIME)
    if not choice.file:
        return _shipped(bundle, engine)
    settings = dict(_settings(bundle, engine), plugins=plugins(bundle, engine, step))
    return Ready(engine["backend"], engine["device"], Path(choice.file), settings)


def plugins(
    bundle: Bundle, engine: Mapping[str, Any], step: Mapping[str, Any]
) -> List[Dict[str, Any]]:
    """The plugins that a step needs, with their files; see `tensorrt_plugins`."""
    declared = engine["build"].get("plugins", ()) if step.get("plugins") else ()
    files = ("cubin", "launch")
    return [dict(one, **{what: str(bundle.path(one[what])) for what in files}) for one in declared]


def _settings(bundle: Bundle, engine: Mapping[str, Any]) -> Dict[str, Any]:
    build, target = engine["build"], bundle.manifest["target"]
    return {
        "module": build["module"],
        "requires": build["requires"],
        "target": {"name": target["name"], "stack": target["stack"]},
    }


def _file(bundle: Bundle, name: str, data: Sequence[str]) -> Union[Path, bytes]:
    if bundle.packed and not data:
        return bundle.read(name)
    for other in data:
        bundle.path(other)
    return bundle.path(name)


def spare(bundle: Bundle, name: str, into: Path) -> Path:
    """Take a model out of the file of spares beside the bundle, checked, to `into`.

    ToolchainError: the file is not there. InputError: it is not the one of this bundle.
    """
    import shutil
    import zipfile

    entry = bundle.manifest["spares"][name]
    source = spares_of(bundle.source)
    if not source.is_file():
        hint = "Copy {} beside the bundle.".format(source.name)
        raise ToolchainError("{} is not there".format(source.name), hint=hint)
    partial = into.with_name(into.name + ".partial~")
    try:
        with zipfile.ZipFile(str(source)) as archive:
            if archive.getinfo(entry["sha256"]).file_size != entry["bytes"]:
                refuse("{}: {} has another size".format(source.name, name))
            with archive.open(entry["sha256"]) as stream, partial.open("wb") as copy:
                shutil.copyfileobj(stream, copy, 1 << 20)
        if digest(partial) != entry["sha256"]:
            refuse("{}: {} was changed".format(source.name, name))
        os.replace(str(partial), str(into))
    # zipfile raises NotImplementedError for a compression or a version that it does not know
    except (KeyError, zipfile.BadZipFile, OSError, NotImplementedError) as error:
        refuse("{}: {} cannot be read: {}".format(source.name, name, error))
    finally:
        if partial.exists():
            partial.unlink()
    return into


def spares_of(bundle: Path) -> Path:
    """The file of spares of a bundle: model.edgec -> model.spares."""
    name = bundle.name[: -len(".edgec")] if bundle.name.endswith(".edgec") else bundle.name
    return bundle.with_name(name + ".spares")

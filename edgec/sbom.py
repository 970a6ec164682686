"""What a bundle or an image is made of, as a CycloneDX 1.6 bill of materials in JSON.

Source: https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

import edgec
from edgec.runtime.bundle import Bundle
from edgec.runtime.npz import write_bytes

SUFFIX = ".cdx.json"


def beside(bundle: Path) -> Path:
    """Write a bundle's bill of materials beside it: model.host.edgec -> model.host.cdx.json."""
    with Bundle(bundle) as opened:
        manifest = opened.manifest
    file = bundle if bundle.is_file() else bundle / "manifest.json"
    with open(file, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    path = bundle.with_name(bundle.name.removesuffix(".edgec") + SUFFIX)
    return write(path, of_bundle(manifest, bundle.name, digest))


def of_bundle(manifest: Mapping[str, Any], name: str, sha256: str) -> str:
    """A bundle: its engines, the source model, and the packages that it needs on the device."""
    main = Component(
        name=name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="bundle",
        hashes=[_sha256(sha256)],
        properties=[
            Property(name="edgec:target", value=manifest["target"]["name"]),
            Property(name="edgec:stack", value=manifest["target"]["stack"]),
        ],
    )
    source = manifest["source"]
    parts = [
        Component(
            name=source["name"],
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref="source",
            description="the model that the bundle was built from; not in the bundle",
            hashes=[_sha256(source["sha256"])],
        )
    ]
    for file, entry in sorted(manifest["files"].items()):
        if file.startswith("engines/"):
            parts.append(
                Component(
                    name=file,
                    type=ComponentType.FILE,
                    bom_ref=file,
                    hashes=[_sha256(entry["sha256"])],
                )
            )
    backends = {engine["backend"] for engine in manifest["engines"]}
    for package, version in sorted(manifest["toolchain"].items()):
        if package in backends | {"numpy"}:
            parts.append(_python(package, version))
    return _text(main, parts, f"bundle:{sha256}")


def of_image(
    tag: str, properties: Mapping[str, str], python: Iterable[str], debian: Iterable[str]
) -> str:
    """An image. `python`: "numpy 2.4.6"; `debian`: "libc6 2.36-9 amd64", as dpkg lists them."""
    facts = [Property(name=f"edgec:{key}", value=value) for key, value in properties.items()]
    main = Component(
        name=tag, type=ComponentType.CONTAINER, bom_ref="image", properties=facts or None
    )
    parts = {}
    for line in python:
        name, _, version = line.partition(" ")
        one = _python(name.lower().replace("_", "-"), version)
        parts[str(one.purl)] = one
    for line in debian:
        name, version, arch = line.split()
        purl = PackageURL("deb", "debian", name, version, qualifiers={"arch": arch})
        parts[str(purl)] = Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=str(purl),
            purl=purl,
        )
    return _text(main, parts.values(), "\n".join([tag, *sorted(parts)]))


def write(path: Path, text: str) -> Path:
    """Write a bill of materials beside what it is of; it appears when it is complete."""
    write_bytes(path, f"{text}\n".encode())
    return path


def _python(name: str, version: str) -> Component:
    purl = PackageURL("pypi", name=name, version=version)
    return Component(
        name=name, version=version, type=ComponentType.LIBRARY, bom_ref=str(purl), purl=purl
    )


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _text(main: Component, parts: Iterable[Component], identity: str) -> str:
    tool = Component(name="edgec", version=edgec.__version__, type=ComponentType.APPLICATION)
    about = BomMetaData(
        component=main,
        tools=ToolRepository(components=[tool]),
        timestamp=datetime.fromtimestamp(
            int(os.environ.get("SOURCE_DATE_EPOCH", datetime.now().timestamp())), UTC
        ),
    )
    serial = uuid.uuid5(uuid.NAMESPACE_URL, identity)
    bom = Bom(components=parts, metadata=about, serial_number=serial)
    bom.register_dependency(main, list(bom.components))
    return str(JsonV1Dot6(bom).output_as_string(indent=1))

"""`edgec image`: a Dockerfile per device, and images from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgec.cli.common import FILE, Page, json_option, stack_option, write_json

if TYPE_CHECKING:
    from edgec.image.context import Context
    from edgec.image.program import Program


@click.command("image")
@click.argument("name", metavar="TARGET")
@stack_option
@click.option("--bundle", type=FILE, help="A .edgec file for TARGET: adds the device image.")
@click.option("-o", "--output", type=FILE, help="The folder to write; default: <target>.image.")
@click.option("--base", metavar="IMAGE", help="The device's base image; default: the table's.")
@click.option("--build", "make", is_flag=True, help="Build the images as well.")
@click.option(
    "--with",
    "program",
    type=click.Choice(["docker", "podman", "buildah"]),
    help="What builds them; default: the first that works here.",
)
@click.option(
    "--build-base",
    metavar="IMAGE",
    help="With --build: the base of the build image, if not Debian's Python.",
)
@json_option
def command(
    name: str,
    stack: str | None,
    bundle: Path | None,
    output: Path | None,
    base: str | None,
    make: bool,
    program: str | None,
    build_base: str | None,
    json_file: str | None,
) -> None:
    """Write a folder with a Dockerfile for TARGET: its compiler, and with --bundle its device.

    The build image holds edgec and TARGET's toolchain: `edgec build --in-image`. The device image
    holds Python, the backend and the bundle; it runs without root, network or a writable disk, and
    its health check is the bundle's own. All packages are pinned, with hashes. With --build, a
    CycloneDX bill of materials of each image is written beside the Dockerfile.
    """
    from edgec.image import context
    from edgec.image import program as programs
    from edgec.target import load_target

    target = load_target(name, stack)
    found = programs.find(program) if make else None
    folder = output or Path(f"{target.name}.image")
    written = context.write(target, folder, bundle, base)
    page = Page(json_file)
    page.line(f"{folder}: Dockerfile for {target.name}, stack {target.stack}")
    page.line(f"  base of the device image: {written.base}; {target.verified}")
    images = []
    if found is not None:
        arguments = {"BUILD_IMAGE": build_base} if build_base else {}
        for stage in written.stages:
            images.append(_made(found, written, stage, arguments, page))
    write_json(json_file, {**context.as_json(written), "images": images})


def _made(
    program: Program, written: Context, stage: str, arguments: dict[str, str], page: Page
) -> dict[str, Any]:
    """Build an image and its bill of materials."""
    from edgec import sbom
    from edgec.image.program import debian_packages, python_packages

    target = written.target
    tag = f"edgec-{stage}-{target.name}".lower()
    arch = target.arch if stage == "device" else "x86_64"
    program.build(written.folder, stage, tag, arch, arguments)
    facts = {"target": target.name, "stack": target.stack, "stage": stage}
    text = sbom.of_image(tag, facts, python_packages(program, tag), debian_packages(program, tag))
    path = sbom.write(written.folder / f"{stage}{sbom.SUFFIX}", text)
    page.line(f"  {tag}: built with {program.name}; {path}")
    return {"stage": stage, "tag": tag, "program": program.name, "sbom": str(path)}

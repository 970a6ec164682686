"""`edgec explain`: why a bundle is as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edgec.cli.common import FILE, Page, json_option, write_json
from edgec.errors import InputError


@click.command("explain")
@click.argument("bundle", type=FILE)
@click.argument("name", required=False)
@json_option
def command(bundle: Path, name: str | None, json_file: str | None) -> None:
    """Tell why BUNDLE's parts, one PART or one NODE are as they are, with all revisions."""
    from edgec.runtime import Bundle

    with Bundle(bundle) as opened:
        page = opened.manifest
    measured = _measured(bundle)
    parts = [part for part in page["parts"] if name in (None, part["name"])]
    groups = [
        group
        for group in page["decisions"]
        if name in (None, group["part"]) or name in group["nodes"]
    ]
    if not groups:
        known = ", ".join(part["name"] for part in page["parts"])
        raise InputError(
            f"{bundle} has no part or node {name!r}",
            hint=f"its parts are {known}; nodes have the names of the ONNX file",
        )
    involved = {group["part"] for group in groups}
    revisions = [one for one in page["revisions"] if name is None or one["part"] in involved]
    out = Page(json_file)
    for part in parts:
        _part(out, part, page, measured)
    rows = [
        [
            group["part"],
            group["op_type"],
            str(len(group["nodes"])),
            group["scheme"],
            group["reason"],
            group["evidence"],
        ]
        for group in groups
    ]
    out.table(["part", "op", "nodes", "scheme", "reason", "evidence"], rows)
    for one in revisions:
        out.line(f"revised: {one['part']}: {one['before']} -> {one['after']}: {one['reason']}")
        for node in one["nodes"]:
            out.line(f"  {node}")
    for one in page["rewrites"] if name is None else ():
        place = f" for {one['runtime']}" if "runtime" in one else ""
        out.line(f"rewrite {one['rule']}{place}: {_rewrite(one)}")
    for note in page["notes"]:
        out.line(f"note: {note}")
    write_json(
        json_file,
        {
            "parts": parts,
            "decisions": groups,
            "revisions": revisions,
            "rewrites": page["rewrites"],
        },
    )


def _rewrite(one: Mapping[str, Any]) -> str:
    """How often it was applied and what proves it, or why it was not."""
    told = [f"{one['count']} times" if one["count"] else "not applied", one.get("evidence", "")]
    if "failure" in one:
        where = f"at {', '.join(one['nodes'])}" if "nodes" in one else "for this model"
        told.append(f"switched off {where}: {one['failure']}")
    return "; ".join(text for text in told if text)


def _part(
    out: Page, part: Mapping[str, Any], page: Mapping[str, Any], measured: Mapping[str, str]
) -> None:
    out.line(f"{part['name']}: {part['kind']} ({part['reason']}), {part['scheme']}")
    out.line(
        f"  {part['source_bytes'] / 1e6:.2f} MB of weights became {part['built_bytes'] / 1e6:.2f}"
    )
    for check in page["checks"]:
        if check["part"] == part["name"]:
            sqnr = "equal" if check["max_abs"] == 0 else "broken"
            if check["sqnr_db"] is not None:
                sqnr = f"{check['sqnr_db']:.1f} dB"
            out.line(f"  {check['value']}: SQNR {sqnr}, cosine {check['cosine']}")
    if part["name"] in measured:
        out.line(f"  {measured[part['name']]}")


def _measured(bundle: Path) -> dict[str, str]:
    """The build's times, if its report still lies beside the bundle."""
    from edgec.report import report_path

    try:
        report = json.loads(report_path(bundle).read_text(encoding="utf-8"))
        return {
            one["part"]: f"isolated, where it was built: {one['gain']['median']:.2f}x of float's "
            f"speed ({one['float']['p50']:.2f} -> {one['built']['p50']:.2f} ms)"
            for one in report["checks"]["speeds"]
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}

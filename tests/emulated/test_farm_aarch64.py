"""An emulated ARM device joins a farm of this machine, and proves a bundle bit for bit.

How long anything took there means nothing, and is not looked at.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import graphs
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "farm_chaos"))

from farms import Farm, until  # noqa: E402

from edgec.build import Job, build  # noqa: E402
from edgec.farm.link import Farm as Line  # noqa: E402
from edgec.farm.link import address  # noqa: E402
from edgec.farm.submit import Request, submit  # noqa: E402
from edgec.farm.types import Verb  # noqa: E402
from edgec.target import cpu_flags  # noqa: E402
from edgec.types import Limits  # noqa: E402

CORE = "cortex-a76"
SLOW = 600.0  # seconds that emulation may take

pytestmark = [pytest.mark.xdist_group("emulated"), pytest.mark.slow]


def test_an_emulated_device_verifies_bit_for_bit(tmp_path: Path) -> None:
    if not cpu_flags() & {"avx512_vnni", "avx_vnni", "asimddp"}:
        pytest.skip("without VNNI, x86 itself saturates")
    data = graphs.write_samples("siamese", tmp_path / "samples", 6)
    job = Job(
        graphs.path("siamese"),
        target="aarch64-dotprod",
        data=data,
        output=tmp_path / "model.edgec",
        measure=False,
        threads=1,
        limits=Limits(part_sqnr_db=None, cosine=None),
    )
    bundle = build(job).bundle
    with Farm({"arm": "host"}) as farm:
        farm.emulate("arm", CORE)
        farm.up()
        farm.join("arm")
        until(lambda: farm.here() == {"arm"}, "the emulated device has joined", SLOW)

        async def work() -> str:
            async with Line(address(farm.url, None)) as line:
                return (await submit(line, [Request(Verb.VERIFY, bundle)]))[0]

        batch = asyncio.run(work())
        until(farm.outcomes, "the bundle is verified", SLOW)
        (row,) = farm.query("SELECT body FROM devices")
        assert '"aarch64"' in row["body"]
        assert '"here": true' in row["body"], "it is what it announces"
        outcome = farm.outcomes()[f"{batch}.1"]
        assert outcome["verdict"] == "ok", outcome
        checks = outcome["result"]["outputs"]
        assert {check["name"] for check in checks} == {"classes", "likeness"}
        assert [check["max_abs"] for check in checks] == [0.0, 0.0]

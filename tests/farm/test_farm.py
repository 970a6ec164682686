"""A farm with two devices, as users meet it: every way in which a job can end, with its message."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import bundles
import pytest
from farmed import Acting, good
from farms import Farm, until

from edgec.cli import main
from edgec.cli.farm_options import verdict_code
from edgec.farm import submit as module
from edgec.farm.history import opened
from edgec.farm.link import Farm as Line
from edgec.farm.link import address
from edgec.farm.submit import Request
from edgec.farm.types import Blob, Verb
from edgec.target import host

OWN = 65534  # nobody


class Said(NamedTuple):
    """What a command wrote."""

    stdout: str
    stderr: str


README = Path(__file__).parents[2] / "README.md"


def edgec(*words: str | Path, code: int = 0) -> Said:
    """A command; in this process, because Dask takes its time to import."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        main([*map(str, words)])
    said = Said(out.getvalue(), err.getvalue())
    assert end.value.code == code, said
    return said


def from_another_shell(*words: str | Path) -> str:
    line = [sys.executable, "-m", "edgec", *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def submit(farm: Farm, verb: str, bundle: Path, on: str = "", **wanted: Any) -> str:
    """The id of a job that goes on without us."""

    async def work() -> str:
        async with Line(address(farm.url, None)) as line:
            targets = (on,) if on else ()
            return (await module.submit(line, [Request(Verb(verb), bundle, targets, **wanted)]))[0]

    return asyncio.run(work())


def result(farm: Farm, job: str, code: int = 0) -> dict[str, Any]:
    """The outcome of a job's only row, when it has one, and that it means this exit code."""
    rows = asyncio.run(module.wait(address(farm.url, None), job, lambda _: None))
    assert verdict_code(rows) == code
    (row,) = rows
    outcome: dict[str, Any] = row["outcome"]
    return outcome


def state(farm: Farm, job: str) -> str:
    rows = farm.query("SELECT device FROM attempts WHERE job = ? AND ended IS NULL", f"{job}.1")
    return "running" if rows else "waiting"


def test_devices_say_what_they_are(farm: Farm) -> None:
    rows = json.loads(edgec("farm", "devices", "--farm", farm.url, "--json", "-").stdout)
    assert [row["device"]["name"] for row in rows] == ["pi", "rock"]
    for row in rows:
        device = row["device"]
        assert device["target"] in device["runs"]
        assert "generic" in device["runs"]
        assert device["stack"]
        assert not device["here"], "it is announced, and this machine is something else"
        assert {"arch", "cpu", "memory_gb", "clocks", "board", "packages"} <= set(device["facts"])
        assert {"numpy", "onnxruntime"} <= set(device["facts"]["packages"])
    shown = edgec("farm", "devices", "--farm", farm.url).stdout
    assert "raspberry-pi-5 (announced)" in shown
    assert "idle" in shown


def test_one_table_from_two_targets_and_later_by_its_id(
    farm: Farm, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--rounds", "1", "--calls", "2", "--warmup", "1")
    done = edgec("bench", bundle, "--farm", farm.url, "--on", "raspberry-pi-5,rock", *words)
    job = done.stderr.split()[1].rstrip(";")
    assert f"{job}.1" in done.stdout
    assert f"{job}.2" in done.stdout
    again = from_another_shell("farm", "result", job, "--farm", farm.url, "--json", "-")
    first, second = json.loads(again)
    assert (first["job"]["on"], first["device"]) == ("raspberry-pi-5", "pi")
    assert (second["job"]["on"], second["device"]) == ("rock", "rock")
    for row in (first, second):
        assert row["outcome"]["verdict"] == "ok"
        (case,) = row["outcome"]["result"]["cases"]
        assert case["rounds"] == 1, "arguments reached the bundle"
        assert f"{case['p50']:.3f}" in done.stdout
        assert row["outcome"]["ended"] > row["outcome"]["began"] > 0
    assert job in edgec("farm", "jobs", "--farm", farm.url).stdout
    monkeypatch.setenv("XDG_STATE_HOME", str(farm.folder / "state"))
    with opened(None) as history:
        kept = {one.job: one.device for one in history.results()}
    assert (kept[f"{job}.1"], kept[f"{job}.2"]) == ("pi", "rock")


def test_verify_without_waiting(farm: Farm, bundle: Path) -> None:
    words = ("--farm", farm.url, "--on", "pi", "--no-wait")
    (job,) = from_another_shell("verify", bundle, *words).splitlines()
    assert result(farm, job)["result"]["passed"]


def test_finish_where_nothing_has_to_be_built(farm: Farm, bundle: Path) -> None:
    outcome = result(farm, submit(farm, "finish", bundle, "rock"))
    assert not outcome["result"]["built"]
    assert outcome["result"]["passed"]


def test_finish_keeps_what_it_made_for_the_next_job(farm: Farm, tmp_path: Path) -> None:
    bundle = bundles.write_for_device(tmp_path / "built.edgec")
    bundles.edit(bundle, lambda described, _: described["target"].update(name="rk3588"))
    before = result(farm, submit(farm, "verify", bundle), code=5)
    assert "has to be built on this device first" in before["reason"]
    made = result(farm, submit(farm, "finish", bundle, arguments=("--onnxruntime",)))["result"]
    assert list(made["built"]) == ["vision"]
    place = Path(made["place"])
    assert place.parents[1].parent == farm.folder / "rock" / "cache"
    assert (place.parents[1] / "model.spares").exists(), "it travelled too"
    assert result(farm, submit(farm, "verify", bundle))["result"]["passed"]


def test_what_a_job_may_and_may_not(farm: Farm, acting: Acting) -> None:
    code = """
from pathlib import Path
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
here = Path(sys.argv[0]).parent
def may(path):
    try:
        Path(path).write_text("x")
        return True
    except OSError:
        return False
answer(uid=os.geteuid(), cwd=os.getcwd(), home=os.environ["HOME"], new=status["NoNewPrivs"].strip(),
    own=may("own"), built=may(here / "built" / "x"), beside=may(here / "x"),
    bundle=may(sys.argv[0]), outbox=may(here.parent.parent / "outbox" / "x"),
    secret="EDGEC_SECRET" in os.environ, groups=os.getgroups())
"""
    found = result(farm, submit(farm, "verify", acting(code), "pi"))["result"]
    assert found["cwd"] == found["home"]
    assert Path(found["cwd"]).parent == farm.folder / "pi" / "jobs"
    assert not Path(found["cwd"]).exists(), "it is gone when the job has ended"
    assert found["new"] == "1"
    assert not found["secret"]
    assert (found["own"], found["built"]) == (True, True)
    if os.geteuid() == 0:
        assert found["uid"] == OWN
        assert set(found["groups"]) <= {OWN}
        assert not any(found[what] for what in ("beside", "bundle", "outbox"))


def test_a_result_that_is_a_link_is_none(farm: Farm, acting: Acting) -> None:
    code = 'os.symlink("/proc/self/environ", sys.argv[sys.argv.index("--json") + 1])'
    outcome = result(farm, submit(farm, "verify", acting(code), "pi"), code=6)
    assert (outcome["verdict"], outcome["reason"]) == ("failed", "it wrote no result")


def test_a_job_that_fails_tells_its_last_words(farm: Farm, acting: Acting) -> None:
    bundle = acting('print("error: the moon is full"); sys.exit(4)')
    job = submit(farm, "verify", bundle, "pi")
    outcome = result(farm, job, code=4)
    assert (outcome["verdict"], outcome["exit_code"]) == ("failed", 4)
    assert outcome["reason"] == "the moon is full"
    shown = edgec("farm", "result", job, "--farm", farm.url, code=4)
    assert "the moon is full" in shown.stdout


def test_a_job_that_crashes_is_no_dead_device(farm: Farm, acting: Acting) -> None:
    bundle = acting("os.kill(os.getpid(), 11)")
    outcome = result(farm, submit(farm, "verify", bundle, "pi"), code=6)
    assert outcome["verdict"] == "failed"
    assert "signal 11" in outcome["reason"]
    assert "pi" in farm.here()


def test_a_job_that_holds_its_interpreter_ends_at_its_limit(farm: Farm, acting: Acting) -> None:
    bundle = acting("import signal; signal.signal(15, signal.SIG_IGN)\nwhile True: pass")
    job = submit(farm, "verify", bundle, "pi", seconds=1.0)
    outcome = result(farm, job, code=6)
    assert outcome["verdict"] == "timeout"
    assert "within 1 s" in outcome["reason"]
    assert "pi" in farm.here()


def test_what_a_job_leaves_running_ends_with_it(farm: Farm, acting: Acting) -> None:
    code = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
here, mine = os.path.realpath("/proc/self/cwd"), []
while len(mine) < 2:
    mine = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            mine += [int(pid)] if os.readlink("/proc/" + pid + "/cwd") == here else []
        except OSError:
            pass
answer(pids=mine)
"""
    found = result(farm, submit(farm, "verify", acting(code), "pi"))["result"]
    assert len(found["pids"]) >= 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in found["pids"])


def test_files_that_arguments_name_travel(farm: Farm, acting: Acting, tmp_path: Path) -> None:
    (tmp_path / "with space.npz").write_bytes(b"content")
    code = 'place = sys.argv.index("--inputs")\nanswer(read=open(sys.argv[place + 1]).read())'
    words = ("--inputs", str(tmp_path / "with space.npz"))
    outcome = result(farm, submit(farm, "bench", acting(code), "rock", arguments=words))
    assert outcome["result"] == {"read": "content"}


def test_two_bundles_side_by_side_on_a_device(farm: Farm, bundle: Path, tmp_path: Path) -> None:
    other = good(tmp_path / "other.edgec", "rk3588")
    words = ("--farm", farm.url, "--on", "rock", "--rounds", "1", "--calls", "2", "--json", "-")
    (row,) = json.loads(edgec("bench", "--against", other, bundle, *words).stdout)
    labels = [case["label"] for case in row["outcome"]["result"]["cases"]]
    assert labels == ["bundle", "other.edgec"]
    assert row["job"]["bundle"]["name"] == bundle.name


def test_priorities_and_cancelling(farm: Farm, acting: Acting, bundle: Path) -> None:
    place = farm.folder / "oracle" / "pi"  # where a job may look
    code = f"while not os.path.exists({str(place / 'go')!r}): time.sleep(0.05)\nanswer(went=True)"
    first = submit(farm, "verify", acting(code, "first"), "pi")
    until(lambda: state(farm, first) == "running", "the first job runs")
    low = submit(farm, "verify", bundle, "pi")
    high = submit(farm, "verify", bundle, "pi", priority=5)
    waiting = submit(farm, "verify", bundle, "pi")
    said = edgec("farm", "cancel", waiting, "--farm", farm.url).stdout
    assert f"{waiting}.1" in said
    (place / "go").touch()
    assert result(farm, first)["result"]["went"]
    began = [result(farm, job)["began"] for job in (high, low)]
    assert began == sorted(began)
    assert result(farm, waiting, code=6)["verdict"] == "cancelled"
    assert farm.query("SELECT * FROM attempts WHERE job = ?", f"{waiting}.1") == []
    (place / "go").unlink()
    running = submit(farm, "verify", acting(code, "running"), "pi")
    until(lambda: state(farm, running) == "running", "the job to be cancelled runs")
    edgec("farm", "cancel", running, "--farm", farm.url)
    assert result(farm, running, code=6)["verdict"] == "cancelled"
    until(lambda: state(farm, running) == "waiting", "the device has ended it")
    assert result(farm, submit(farm, "verify", bundle, "pi"))["verdict"] == "ok"
    again = edgec("farm", "cancel", running, "--farm", farm.url).stdout
    assert "nothing" in again


def test_a_target_that_no_device_offers(farm: Farm, bundle: Path) -> None:
    done = edgec("bench", bundle, "--farm", farm.url, "--on", "jetson-orin", code=3)
    assert "no device of this farm is or offers 'jetson-orin'" in done.stderr
    assert "targets that it has: raspberry-pi-5, rk3588; devices: pi, rock" in done.stderr


def test_a_bundle_for_another_device(farm: Farm, tmp_path: Path) -> None:
    bundle = good(tmp_path / "orin.edgec", "jetson-orin")
    done = edgec("bench", bundle, "--farm", farm.url, "--on", "rk3588", code=3)
    assert "orin.edgec is for jetson-orin, which rk3588 does not run" in done.stderr


def test_the_device_itself_refuses_a_bundle_for_another(
    farm: Farm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that lies of the bundle's target."""
    bundle = good(tmp_path / "orin.edgec", "jetson-orin")

    def lying(path: Path) -> tuple[Blob, Blob | None, str]:
        return module.blob(path), None, "generic"

    monkeypatch.setattr(module, "_read", lying)
    outcome = result(farm, submit(farm, "verify", bundle, "rk3588"), code=3)
    assert outcome["verdict"] == "refused"
    assert outcome["reason"] == "orin.edgec is for jetson-orin; rock is rk3588"


def test_a_bundle_that_was_changed_before(farm: Farm, bundle: Path, tmp_path: Path) -> None:
    def change(_: dict[str, Any], files: bundles.Files) -> None:
        files["engines/one.onnx"] += b"x"

    shutil.copy(bundle, tmp_path / "changed.edgec")
    changed = bundles.edit(tmp_path / "changed.edgec", change)
    done = edgec("bench", changed, "--farm", farm.url, "--on", "rock", code=3)
    assert "engines/one.onnx has" in done.stderr
    assert "the manifest says" in done.stderr


def test_a_bundle_that_was_changed_in_the_store(farm: Farm, tmp_path: Path) -> None:
    bundle = good(tmp_path / "a.edgec", "rk3588")
    assert result(farm, submit(farm, "verify", bundle))["device"] == "rock", "its own target"
    (what,) = farm.query("SELECT body FROM jobs ORDER BY rowid DESC LIMIT 1")
    digest = json.loads(what["body"])["bundle"]["sha256"]
    stored = farm.folder / "up/store" / digest
    data = bytearray(stored.read_bytes())
    data[len(data) // 2] ^= 1
    stored.write_bytes(data)
    shutil.rmtree(farm.folder / "rock" / "cache" / digest)
    outcome = result(farm, submit(farm, "verify", bundle), code=3)
    assert outcome["verdict"] == "refused"
    assert "a.edgec was changed on its way or in the store" in outcome["reason"]
    assert digest in outcome["reason"]


def test_a_bundle_that_was_changed_on_the_device(farm: Farm, bundle: Path) -> None:
    for cached in (farm.folder / "rock" / "cache").glob("*/model.edgec"):
        cached.write_bytes(b"changed")
    outcome = result(farm, submit(farm, "verify", bundle, "rock"))
    assert outcome["result"]["passed"], "it was fetched again"


def test_a_gate_is_judged_on_the_device(farm: Farm, bundle: Path) -> None:
    words = ("--farm", farm.url, "--on", "rock", "--rounds", "1", "--calls", "2")
    done = edgec("bench", bundle, *words, "--fail-if", "p50>0.000001ms", code=7)
    assert "p50" in done.stdout


def test_an_unknown_job(farm: Farm) -> None:
    done = edgec("farm", "result", "nonsense", "--farm", farm.url, code=3)
    assert "knows no job 'nonsense'" in done.stderr


@pytest.mark.parametrize(
    ("words", "told", "code"),
    [
        (["bench", "--farm", "URL"], "give the bundle", 2),
        (["bench", "x.edgec", "--farm", "URL"], "No such file", 3),
        (["finish", "BUNDLE", "--farm", "URL", "--calibrate", "x"], "does not travel", 3),
        (["verify", "BUNDLE", "--farm", "URL", "--against", "m", "--data", "d"], "golden data", 3),
        (["bench", "BUNDLE", "--on", "pi"], "--farm", 2),
    ],
)
def test_what_cannot_be_sent(
    farm: Farm, bundle: Path, words: list[str], told: str, code: int
) -> None:
    given = [{"URL": farm.url, "BUNDLE": str(bundle)}.get(word, word) for word in words]
    assert told in edgec(*given, code=code).stderr


def test_the_readmes_commands_run(farm: Farm, bundle: Path) -> None:
    text = README.read_text(encoding="utf-8")
    block = text.split("<!-- farm:begin -->")[1].split("<!-- farm:end -->")[0]
    lines = re.findall(r"^\$ edgec (.+)$", block, flags=re.M)
    assert len(lines) == 4
    for line in lines:
        line = line.replace("tls://shelf:8786", farm.url).replace("--certs certs/laptop", "")
        assert edgec(*line.replace("model.edgec", str(bundle)).split()).stdout.strip()


def test_this_machine_with_one_command(bundle: Path) -> None:
    """`farm up` alone, and what it started ends with it."""
    with Farm({"here": "host"}) as alone:
        alone.up_with_device("here")
        until(alone.here, "the device has joined")
        (row,) = alone.query("SELECT body FROM devices")
        device = json.loads(row["body"])
        assert device["here"], "nothing is announced that this machine is not"
        assert device["target"] == host()
        assert result(alone, submit(alone, "verify", bundle, host()))["result"]["passed"]
        alone.kill("scheduler", signal.SIGTERM)
        until(lambda: not alone.agents(), "the device has ended too")


def test_help_knows_the_farm() -> None:
    for verb in ("bench", "verify", "finish"):
        shown = edgec(verb, "--help").stdout
        for option in ("--farm", "--priority", "--limit", "--wait", "--certs", "--threads"):
            assert option in shown, (verb, option)

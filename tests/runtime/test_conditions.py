"""A run on a device that held itself back, or that others used, is marked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import machines
import pytest

from edgec.runtime.conditions import OTHER_WORK, Watch, cpus


def watch(root: Path, changes: dict[str, str]) -> dict[str, Any]:
    """The page of a run in which files change."""
    with Watch(root, interval=0.01) as watching:
        while watching._samples < 2:
            time.sleep(0.005)
        machines.plant(root, changes)
        seen = watching._samples
        while watching._samples < seen + 2:
            time.sleep(0.005)
    return watching.page


def test_a_quiet_machine_is_not_marked(tmp_path: Path) -> None:
    page = watch(machines.plant(tmp_path, machines.NUC), {})
    assert page["marks"] == []
    assert page["unseen"] == {}
    assert page["settings"]["scaling_governor"] == "powersave"
    gauge = page["gauges"]["temperature_c/x86_pkg_temp"]
    assert gauge == {"first": 61.0, "min": 61.0, "max": 61.0, "mean": 61.0}
    assert page["readings"] >= 4
    assert page["load"]["cores"] == 2


@pytest.mark.parametrize(
    ("machine", "changes", "mark"),
    [
        (
            machines.NUC,
            {f"{machines.CPU}/cpu0/thermal_throttle/package_throttle_count": "43"},
            "throttled: 3 events of package cpu0",
        ),
        (
            machines.PI,
            {"sys/class/thermal/cooling_device1/cur_state": "2"},
            "throttled: cooling by cpufreq-cpu0 cooling_device1 reached state 2",
        ),
        (
            machines.PI,
            {f"{machines.CPU}/cpufreq/policy2/scaling_max_freq": "1500000"},
            "throttled: the highest clock of policy2 changed, 1500 to 2400 MHz",
        ),
        (
            machines.ORIN,
            {"sys/class/hwmon/hwmon3/oc3_event_cnt": "181"},
            "throttled: 179 events of soctherm_oc oc3",
        ),
        (machines.PI, {"proc/vmstat": "pswpin 3\npswpout 20\n"}, "busy: 16 pages were swapped"),
    ],
    ids=["counter", "cooling", "clock", "over-current", "swap"],
)
def test_what_slows_a_device_marks_the_run(
    tmp_path: Path, machine: dict[str, str], changes: dict[str, str], mark: str
) -> None:
    assert watch(machines.plant(tmp_path, machine), changes)["marks"] == [mark]


def test_a_fan_that_turns_faster_is_no_reason(tmp_path: Path) -> None:
    changes = {"sys/class/thermal/cooling_device0/cur_state": "4"}
    assert watch(machines.plant(tmp_path, machines.PI), changes)["marks"] == []


def test_steal_and_other_work(tmp_path: Path) -> None:
    later = (
        machines.LOAD["proc/stat"].replace("cpu  100", "cpu  100000").replace(" 7 0 0", " 9999 0 0")
    )
    page = watch(machines.plant(tmp_path, machines.PI), {"proc/stat": later})
    assert [mark.partition(" took")[0].partition(" kept")[0] for mark in page["marks"]] == [
        "busy: other work",
        "busy: the hypervisor",
    ]


def test_energy_is_power_and_its_counter_wraps(tmp_path: Path) -> None:
    root = machines.plant(tmp_path, machines.NUC)
    limit = 262143328850
    machines.plant(root, {"sys/class/powercap/intel-rapl:0/energy_uj": str(limit - 1_000_000)})
    page = watch(root, {"sys/class/powercap/intel-rapl:0/energy_uj": "1000000"})
    watts = page["gauges"]["power_w/package-0 intel-rapl:0"]["mean"]
    assert watts == pytest.approx(2.0 / page["seconds"], rel=0.05)


def test_what_cannot_be_seen_is_told(tmp_path: Path) -> None:
    page = watch(machines.plant(tmp_path, machines.LOAD), {})
    assert set(page["unseen"]) == {"clocks", "temperature", "power", "throttling"}
    assert "no cpufreq" in page["unseen"]["clocks"]


def test_boards_own_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins that print what the programs of a Raspberry Pi and of a Jetson print."""
    programs = {
        "vcgencmd": f"echo throttled=$(cat {tmp_path}/bits || echo 0x0); "
        f"echo 0x50005 > {tmp_path}/bits",
        "nvpmodel": "printf 'NV Power Mode: MAXN\\n0\\n'",
        "tegrastats": f'while true; do echo "{machines.NANO_36}"; sleep 0.02; done',
    }
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("edgec.runtime.conditions.PROGRAM_INTERVAL", 0.01)
    with Watch(machines.plant(tmp_path / "root", machines.LOAD), interval=0.02) as watching:
        end = time.monotonic() + 20
        while time.monotonic() < end and not (
            watching._pi and "power_w/VDD_IN" in watching._gauges
        ):
            time.sleep(0.01)
    page = watching.page
    assert page["settings"]["power_mode"] == "MAXN"
    assert page["gauges"]["power_w/VDD_IN"]["mean"] == pytest.approx(8.942)
    assert page["marks"] == ["throttled: the firmware says under-voltage, throttled"]
    assert page["unseen"] == {}
    assert watching._tegrastats._process is not None
    assert watching._tegrastats._process.returncode is not None


def test_another_process_on_this_machine_is_noticed() -> None:
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        with Watch() as watching:
            time.sleep(1.0)
    finally:
        other.kill()
        other.wait()
    assert watching.page["load"]["other_cpus"] > OTHER_WORK * cpus()
    assert any(mark.startswith("busy: other work") for mark in watching.page["marks"])


def test_own_work_is_not_other_work() -> None:
    """Children count as own when they have ended, which those of a benchmark have."""
    script = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    with Watch() as watching:
        subprocess.run([sys.executable, "-c", script], check=True)
    load = watching.page["load"]
    assert load["own_cpus"] * watching.page["seconds"] > 0.45

"""What is read of machines that are not here, and that nothing is read where nothing is."""

from __future__ import annotations

from pathlib import Path

import machines
import pytest

from edgec.runtime import boards, sensors


def readings(found: list[sensors.Sensor]) -> dict[str, float | None]:
    return {one.key: one.read() for one in found}


def test_a_nuc(tmp_path: Path) -> None:
    root = machines.plant(tmp_path, machines.NUC)
    assert readings(sensors.gauges(root)) == {
        "clock_mhz/policy0": pytest.approx(3400.123),
        "limit_mhz/policy0": 4700.0,
        "clock_mhz/policy1": 1200.0,
        "limit_mhz/policy1": 4700.0,
        "temperature_c/x86_pkg_temp": 61.0,
        "cooling/Processor cooling_device0": 0.0,
    }
    assert readings(sensors.counters(root)) == {
        "throttle/core cpu0": 12.0,
        "throttle/package cpu0": 40.0,
        "throttle/core cpu1": 11.0,
        "throttle/package cpu1": 40.0,
        "energy_j/package-0 intel-rapl:0": 5.0,
        "energy_j/core intel-rapl:0:0": 2.0,
    }
    assert sensors.wraps(root) == {"energy_j/package-0 intel-rapl:0": pytest.approx(262143.32885)}
    assert sensors.settings(root) == {
        "scaling_governor": "powersave",
        "scaling_driver": "intel_pstate",
        "cpuinfo_max_freq": "4700000",
        "no_turbo": "0",
    }


def test_a_fan_does_not_slow_a_raspberry_pi(tmp_path: Path) -> None:
    found = readings(sensors.gauges(machines.plant(tmp_path, machines.PI)))
    assert found["cooling/cpufreq-cpu0 cooling_device1"] == 0.0
    assert not any("fan" in key for key in found)
    assert found["temperature_c/cpu-thermal"] == pytest.approx(55.45)


def test_the_rails_of_a_jetson_are_volts_times_amperes(tmp_path: Path) -> None:
    root = machines.plant(tmp_path, machines.ORIN)
    found = readings(sensors.gauges(root))
    assert found["power_w/ina3221 VDD_IN"] == pytest.approx(4.984 * 1.856)
    assert found["power_w/ina3221 VDD_CPU_GPU_CV"] == pytest.approx(1.0)
    assert found["temperature_c/cv0-thermal"] is None
    assert readings(sensors.counters(root)) == {
        "throttle/soctherm_oc oc1": 1.0,
        "throttle/soctherm_oc oc3": 2.0,
    }


def test_load_and_memory(tmp_path: Path) -> None:
    root = machines.plant(tmp_path, machines.LOAD)
    assert sensors.load(root) == {"busy_s": pytest.approx(1.65), "steal_s": 0.07, "running": 3.0}
    assert sensors.memory(root) == {"total_mb": 8192.0, "available_mb": 4096.0, "swapped": 7.0}


def test_a_machine_without_sensors(tmp_path: Path) -> None:
    assert sensors.gauges(tmp_path) == sensors.counters(tmp_path) == []
    assert sensors.load(tmp_path) == sensors.memory(tmp_path) == sensors.settings(tmp_path) == {}


def test_many_cores_are_not_all_asked(tmp_path: Path) -> None:
    for number in range(128):
        machines.plant(tmp_path, {f"{machines.CPU}/cpufreq/policy{number}/scaling_cur_freq": "1"})
    clocks = [one for one in sensors.gauges(tmp_path) if one.key.startswith("clock_mhz/")]
    assert 8 <= len(clocks) <= sensors.MOST_POLICIES


def test_this_machine() -> None:
    root = Path("/")
    load = sensors.load(root)
    assert load["busy_s"] > 0
    assert load["running"] >= 1
    assert 0 < sensors.memory(root)["available_mb"] <= sensors.memory(root)["total_mb"]
    for one in (*sensors.gauges(root), *sensors.counters(root)):
        one.read()  # whatever is there can be read, or is not


def test_tegrastats_of_three_generations() -> None:
    nano = boards.tegrastats(machines.NANO_32)
    assert nano["power_w/POM_5V_IN"] == 1.75
    assert nano["temperature_c/CPU"] == 40.0
    assert (nano["clock_mhz/cpu0"], nano["clock_mhz/cpu3"]) == (1224.0, 1224.0)
    assert "clock_mhz/cpu2" not in nano
    assert (nano["load_percent/GR3D"], nano["clock_mhz/GR3D"]) == (12.0, 76.0)
    assert nano["memory_used_mb"] == pytest.approx(1923 * 1.048576)
    agx = boards.tegrastats(machines.AGX_35)
    assert agx["power_w/VIN_SYS_5V0"] == pytest.approx(4.032)
    assert agx["clock_mhz/VIC"] == 729.0
    assert "temperature_c/CV0" not in agx
    assert not any("NC" in key or "SWAP" in key or "RAM" in key for key in agx)
    orin = boards.tegrastats(machines.NANO_36)
    assert orin["power_w/VDD_IN"] == pytest.approx(8.942)
    assert orin["temperature_c/tj"] == 58.5
    assert (orin["load_percent/GR3D"], orin["clock_mhz/GR3D"]) == (99.0, 612.0)
    assert orin["clock_mhz/EMC"] == 2133.0
    assert "clock_mhz/VIC" not in orin


@pytest.mark.parametrize("line", ["", "RAM", "CPU [", "CPU [off,off]", "x@yC @C 1/2 A 1/", "\x00é"])
def test_a_line_that_is_none(line: str) -> None:
    assert boards.tegrastats(line) == {}


def test_the_power_mode() -> None:
    assert boards.power_mode("NV Power Mode: MAXN\n0\n") == "MAXN"
    assert boards.power_mode("NVPM WARN: power mode is not set!\nNV Power Mode: MODE_15W\n2") == (
        "MODE_15W"
    )
    assert boards.power_mode("sudo: nvpmodel") == ""


def test_the_bits_of_a_raspberry_pi() -> None:
    assert boards.throttled("throttled=0x50005\n") == 0x50005
    for wrong in ("", "throttled=0x", "throttled=0xfffffffff", "Error", "throttled=5 0x1"):
        assert boards.throttled(wrong) is None
    assert boards.held_back(0, [0, 0]) == []
    assert boards.held_back(0, [0, 0x50005, 0x50000]) == ["under-voltage", "throttled"]
    # what happened before is not this run's; what happened between two readings is
    assert boards.held_back(0x50000, [0x50000]) == []
    assert boards.held_back(0x10000, [0x90000]) == ["soft temperature limit"]


def test_programs_that_are_not_there_say_nothing() -> None:
    assert boards.ask("edgec-no-such-program") == ""
    assert boards.ask("false") == ""

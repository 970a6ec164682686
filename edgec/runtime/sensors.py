"""Clocks, temperatures, throttling, power and load, as Linux tells them in /proc and /sys.

Sources, of the kernel's documentation: admin-guide/pm/cpufreq, ABI/testing/sysfs-devices-system-cpu
(thermal_throttle), driver-api/thermal/sysfs-api, power/powercap/powercap, hwmon/sysfs-interface,
hwmon/ina3221, filesystems/proc. Over-current events of a Jetson (soctherm_oc): Jetson Linux
Developer Guide, Platform Power and Performance, "Electrical Management".
"""

import re
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional

MOST_POLICIES = 16  # of cpufreq: reading a clock interrupts the core
SLOWS = re.compile("cpu|devfreq|processor|powerclamp|gpu", re.I)  # cooling devices that are no fan
TICK = 100.0  # USER_HZ, which /proc/stat counts in


class Sensor(NamedTuple):
    """A number in a file. `key`: what/where; `also`: a second file, whose number is multiplied."""

    key: str
    path: Path
    scale: float = 1.0
    also: Optional[Path] = None

    def read(self) -> Optional[float]:
        """The number in the key's unit; None: it cannot be read, now or ever."""
        first = _number(self.path)
        second = 1.0 if self.also is None else _number(self.also)
        return None if first is None or second is None else first * second * self.scale


def gauges(root: Path) -> List[Sensor]:
    """What is at a moment: clock_mhz, limit_mhz, temperature_c, cooling (a state), power_w."""
    return [*_clocks(root), *_temperatures(root), *_cooling(root), *_power(root)]


def counters(root: Path) -> List[Sensor]:
    """What only grows: throttle (events), and energy_j."""
    return [*_throttles(root), *_energy(root)]


def settings(root: Path) -> Dict[str, str]:
    """What somebody chose: the clocks' governor and driver, and whether they may turbo."""
    cpu = root / "sys/devices/system/cpu"
    found: Dict[str, str] = {}
    for name in ("scaling_governor", "scaling_driver", "cpuinfo_max_freq"):
        texts = {_text(path / name) for path in _sorted(cpu / "cpufreq", "policy*")} - {""}
        if texts:
            found[name] = ", ".join(sorted(texts))
    for path in ("intel_pstate/no_turbo", "cpufreq/boost"):
        if _text(cpu / path):
            found[path.rpartition("/")[2]] = _text(cpu / path)
    return found


def load(root: Path) -> Dict[str, float]:
    """CPU seconds that all cores were busy and that were stolen, and processes that want to run."""
    found: Dict[str, float] = {}
    for line in _text(root / "proc/stat").splitlines():
        words = line.split()
        if words[:1] == ["cpu"] and len(words) > 8:
            user, nice, system, _, _, irq, softirq, steal = map(float, words[1:9])
            found["busy_s"] = (user + nice + system + irq + softirq) / TICK
            found["steal_s"] = steal / TICK
        elif words[:1] == ["procs_running"]:
            found["running"] = float(words[1])
    return found


def memory(root: Path) -> Dict[str, float]:
    """Memory in MB (10**6 bytes), and pages that were swapped so far."""
    found: Dict[str, float] = {}
    names = {"MemTotal:": "total_mb", "MemAvailable:": "available_mb"}
    for line in _text(root / "proc/meminfo").splitlines():
        words = line.split()
        if len(words) > 1 and words[0] in names:
            found[names[words[0]]] = float(words[1]) * 1024 / 1e6
    for line in _text(root / "proc/vmstat").splitlines():
        name, _, value = line.partition(" ")
        if name in ("pswpin", "pswpout"):
            found["swapped"] = found.get("swapped", 0.0) + float(value)
    return found


def _clocks(root: Path) -> Iterator[Sensor]:
    policies = _sorted(root / "sys/devices/system/cpu/cpufreq", "policy*")
    for path in policies[:: len(policies) // MOST_POLICIES + 1]:
        yield Sensor("clock_mhz/" + path.name, path / "scaling_cur_freq", 1e-3)
        yield Sensor("limit_mhz/" + path.name, path / "scaling_max_freq", 1e-3)


def _temperatures(root: Path) -> Iterator[Sensor]:
    for path in _sorted(root / "sys/class/thermal", "thermal_zone*"):
        yield Sensor("temperature_c/" + _name(path, "type"), path / "temp", 1e-3)


def _cooling(root: Path) -> Iterator[Sensor]:
    for path in _sorted(root / "sys/class/thermal", "cooling_device*"):
        kind = _text(path / "type")
        if SLOWS.search(kind) and "fan" not in kind.lower():
            key = "cooling/{} {}".format(kind, path.name)
            yield Sensor(key, path / "cur_state")


def _power(root: Path) -> Iterator[Sensor]:
    for path in _sorted(root / "sys/class/hwmon", "hwmon*"):
        chip = _name(path, "name")
        for power in _sorted(path, "power*_input"):
            name = _text(path / power.name.replace("_input", "_label")) or power.name[:-6]
            yield Sensor("power_w/{} {}".format(chip, name), power, 1e-6)
        for current in _sorted(path, "curr*_input"):
            number = current.name[4:-6]
            volts, label = (
                path / ("in" + number + "_input"),
                _text(path / ("in" + number + "_label")),
            )
            if label and volts.exists():  # an INA3221, as Jetsons have: mA times mV
                yield Sensor("power_w/{} {}".format(chip, label), current, 1e-6, volts)


def _throttles(root: Path) -> Iterator[Sensor]:
    for cpu in _sorted(root / "sys/devices/system/cpu", "cpu[0-9]*"):
        for kind in ("core", "package"):
            path = cpu / "thermal_throttle" / (kind + "_throttle_count")
            if path.exists():
                yield Sensor("throttle/{} {}".format(kind, cpu.name), path)
    for path in _sorted(root / "sys/class/hwmon", "hwmon*"):
        for event in _sorted(path, "oc*_event_cnt"):
            yield Sensor("throttle/{} {}".format(_name(path, "name"), event.name[:-10]), event)


def _energy(root: Path) -> Iterator[Sensor]:
    for path in _sorted(root / "sys/class/powercap", "*:*"):
        if (path / "energy_uj").exists():
            key = "energy_j/{} {}".format(_name(path, "name"), path.name)
            yield Sensor(key, path / "energy_uj", 1e-6)


def wraps(root: Path) -> Dict[str, float]:
    """Where counters of energy begin again, in J, by key."""
    found = {}
    for sensor in _energy(root):
        limit = _number(sensor.path.with_name("max_energy_range_uj"))
        if limit:
            found[sensor.key] = limit * sensor.scale
    return found


def _sorted(folder: Path, pattern: str) -> List[Path]:
    return sorted(folder.glob(pattern), key=lambda path: (len(path.name), path.name))


def _name(folder: Path, file: str) -> str:
    return _text(folder / file) or folder.name


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> Optional[float]:
    try:
        return float(_text(path))
    except ValueError:
        return None

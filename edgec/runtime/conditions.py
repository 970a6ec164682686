"""The state of the machine during a measurement, and whether that can be believed.

A thread reads what `sensors` finds and what `boards` tell, a few times a second. Afterwards other
work is what all cores did less what this process and its children did. A run is marked where the
device held itself back, where other work or the hypervisor took its cores, or where it swapped.
"""

import resource
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Dict, List, Optional, Type

from edgec.runtime import boards, sensors

INTERVAL = 0.25  # seconds between readings
PROGRAM_INTERVAL = 1.0  # between calls of a program
OTHER_WORK = 0.05  # share of all cores that others may take
STEAL = 0.02  # share of all cores that a hypervisor may take
LIMIT = 0.99  # of the highest clock that was allowed: below it, somebody lowered it
SEEN_AS = {
    "clocks": ("clock_mhz/", "no cpufreq: a virtual machine, a container, or no driver"),
    "temperature": ("temperature_c/", "no thermal zone"),
    "power": ("power_w/", "no power rails in hwmon, no readable energy_uj in powercap"),
    "throttling": (
        "throttle/ cooling/ limit_mhz/",
        "no counters, no cooling device and no clocks to tell it by",
    ),
}


class Gauge:
    """Readings of one number."""

    def __init__(self, value: float) -> None:
        self.first = self.low = self.high = self._sum = value
        self._count = 1

    def add(self, value: float) -> None:
        """One more."""
        self.low, self.high = min(self.low, value), max(self.high, value)
        self._sum, self._count = self._sum + value, self._count + 1

    def as_json(self) -> Dict[str, float]:
        """Rounded to what sensors know."""
        values = {"first": self.first, "min": self.low, "max": self.high}
        values["mean"] = self._sum / self._count
        return {key: round(value, 3) for key, value in values.items()}


class Watch:
    """Samples this machine from `with` to its end; then `page` has it as JSON values.

    `root`: where /proc and /sys are.
    """

    def __init__(self, root: Path = Path("/"), interval: float = INTERVAL) -> None:
        self._root, self._interval = root, interval
        self._gauges: Dict[str, Gauge] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._pi: List[int] = []
        self._samples = 0
        self.page: Dict[str, Any] = {}

    def __enter__(self) -> "Watch":
        self._sensors = sensors.gauges(self._root)
        self._counters = sensors.counters(self._root)
        self._settings = sensors.settings(self._root)
        mode = boards.power_mode(boards.ask("nvpmodel", "-q"))
        if mode:
            self._settings["power_mode"] = mode
        self._pi_before = boards.throttled(boards.ask("vcgencmd", "get_throttled"))
        self._tegrastats = boards.Tegrastats(2 * self._interval, self._hear)
        self._before, self._begin, self._own = self._count(), time.monotonic(), _own_seconds()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._over.set()
        self._thread.join()
        self._tegrastats.close()
        seconds = max(time.monotonic() - self._begin, 1e-6)
        self.page = self._judge(seconds, _own_seconds() - self._own, self._count())

    def _hear(self, values: Dict[str, float]) -> None:
        with self._lock:
            for key, value in values.items():
                if key in self._gauges:
                    self._gauges[key].add(value)
                else:
                    self._gauges[key] = Gauge(value)

    def _sample(self) -> None:
        told = time.monotonic()
        while True:
            values = {one.key: one.read() for one in self._sensors}
            values["run_queue"] = sensors.load(self._root).get("running")
            values["memory_available_mb"] = sensors.memory(self._root).get("available_mb")
            self._hear({key: value for key, value in values.items() if value is not None})
            self._samples += 1
            if self._pi_before is not None and time.monotonic() - told > PROGRAM_INTERVAL:
                told = time.monotonic()
                bits = boards.throttled(boards.ask("vcgencmd", "get_throttled"))
                self._pi += [] if bits is None else [bits]
            if self._over.wait(self._interval):
                return

    def _count(self) -> Dict[str, float]:
        found = {
            one.key: value for one in self._counters for value in [one.read()] if value is not None
        }
        found.update((key, value) for key, value in sensors.load(self._root).items())
        found["swapped"] = sensors.memory(self._root).get("swapped", 0.0)
        return found

    def _judge(self, seconds: float, own: float, after: Dict[str, float]) -> Dict[str, Any]:
        grown = {key: after[key] - value for key, value in self._before.items() if key in after}
        energies = sensors.wraps(self._root)
        for key in [key for key in grown if key.startswith("energy_j/")]:
            joules = grown.pop(key)
            joules += energies.get(key, 0.0) if joules < 0 else 0.0
            self._hear({"power_w/" + key.partition("/")[2]: joules / seconds})
        cores = cpus(self._root)
        load: Dict[str, float] = {"cores": cores}
        if "busy_s" in grown:
            load["other_cpus"] = round(max(0.0, grown["busy_s"] - own) / seconds, 3)
            load["own_cpus"] = round(own / seconds, 3)
            load["stolen_cpus"] = round(grown["steal_s"] / seconds, 3)
        gauges = {key: one.as_json() for key, one in sorted(self._gauges.items())}
        throttles = {key: n for key, n in grown.items() if key.startswith("throttle/")}
        page = {
            "seconds": round(seconds, 3),
            "readings": self._samples,
            "settings": self._settings,
            "load": load,
            "gauges": gauges,
            "throttle_events": throttles,
            "swapped_pages": grown.get("swapped", 0.0),
            "firmware": boards.held_back(self._pi_before, self._pi),
            "unseen": self._unseen([*gauges, *throttles]),
        }
        return dict(page, marks=marks(page))

    def _unseen(self, keys: List[str]) -> Dict[str, str]:
        found = {}
        for what, (prefixes, why) in SEEN_AS.items():
            if not any(key.startswith(tuple(prefixes.split())) for key in keys):
                found[what] = why
        if self._pi_before is not None:
            found.pop("throttling", None)
        return found


def marks(page: Dict[str, Any]) -> List[str]:
    """Why a run under these conditions is not to be believed; nothing: it is."""
    found = (
        ["throttled: the firmware says " + ", ".join(page["firmware"])] if page["firmware"] else []
    )
    events = {key: n for key, n in page["throttle_events"].items() if n > 0}
    if events:
        worst = max(events, key=lambda key: events[key])
        text = "throttled: {:.0f} events of {}"
        found.append(text.format(events[worst], worst.partition("/")[2]))
    for key, gauge in page["gauges"].items():
        kind, _, name = key.partition("/")
        if kind == "cooling" and gauge["max"] > 0:
            found.append("throttled: cooling by {} reached state {:g}".format(name, gauge["max"]))
        if kind == "limit_mhz" and gauge["min"] < LIMIT * gauge["max"]:
            text = "throttled: the highest clock of {} changed, {:.0f} to {:.0f} MHz"
            found.append(text.format(name, gauge["min"], gauge["max"]))
    load, cores = page["load"], page["load"]["cores"]
    if load.get("other_cpus", 0.0) > OTHER_WORK * cores:
        text = "busy: other work took {:.2f} of {} CPUs"
        found.append(text.format(load["other_cpus"], cores))
    if load.get("stolen_cpus", 0.0) > STEAL * cores:
        text = "busy: the hypervisor kept {:.2f} of {} CPUs for others"
        found.append(text.format(load["stolen_cpus"], cores))
    if page["swapped_pages"] > 0:
        found.append("busy: {:.0f} pages were swapped".format(page["swapped_pages"]))
    return found


def cpus(root: Path = Path("/")) -> int:
    """The cores that /proc/stat counts."""
    try:
        lines = (root / "proc/stat").read_text().splitlines()
    except OSError:
        lines = []
    return max(1, sum(line[:3] == "cpu" and line[3:4].isdigit() for line in lines))


def _own_seconds() -> float:
    """CPU seconds of this process, and of those of its children that have ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(one.ru_utime + one.ru_stime for one in map(resource.getrusage, kinds))

"""What boards tell by programs: Raspberry Pi's vcgencmd, Jetson's nvpmodel and tegrastats.

Sources: raspberrypi.com/documentation, "vcgencmd", get_throttled; Jetson Linux Developer Guide,
"Tegrastats Utility" and "Power Mode" (nvpmodel). Tested on recorded output alone: not verified on
hardware.
"""

import re
import shutil
import subprocess
import threading
from typing import Callable, Dict, List, Optional

Heard = Callable[[Dict[str, float]], None]
PI_NOW = {0: "under-voltage", 1: "capped clock", 2: "throttled", 3: "soft temperature limit"}
PI_SINCE_BOOT = 16  # the same, as bits that stay until the next start
PATIENCE = 5.0  # seconds that a program may take
NO_SENSOR = -200.0  # a switched-off sensor says -256 C
_TEMPERATURE = re.compile(r"(\w+)@(-?[0-9.]+)C\b")
_POWER = re.compile(r"(?<!\S)([A-Z]\w*) ([0-9]+)(?:mW)?/[0-9]+(?:mW)?(?= |$)")
_CLOCK = re.compile(r"\b(EMC|GR3D\d*|VIC)(?:_FREQ)? (?:([0-9]+)%)?@?\[?([0-9]+)?")
_CORE = re.compile(r"([0-9]+)%@([0-9]+)")


def throttled(text: str) -> Optional[int]:
    """The bits of `vcgencmd get_throttled`, which says `throttled=0x50005`."""
    found = re.match(r"throttled=0x([0-9a-fA-F]{1,8})\s*$", text)
    return None if found is None else int(found.group(1), 16)


def held_back(before: Optional[int], during: List[int]) -> List[str]:
    """What a Raspberry Pi's firmware did in a run, by the bits that were seen before and in it."""
    now = since = 0
    for bits in during:
        now |= bits
        since |= bits & ~(before or 0)
    return [
        name
        for bit, name in PI_NOW.items()
        if now & 1 << bit or (before is not None and since & 1 << bit + PI_SINCE_BOOT)
    ]


def power_mode(text: str) -> str:
    """The mode of `nvpmodel -q`: `NV Power Mode: MAXN` -> MAXN."""
    found = re.search(r"^NV Power Mode: *(\S+)", text, re.M)
    return found.group(1) if found else ""


def tegrastats(line: str) -> Dict[str, float]:
    """A line of tegrastats as gauges; what it does not say is left out."""
    found = {
        "temperature_c/" + name: float(value)
        for name, value in _TEMPERATURE.findall(line)
        if float(value) > NO_SENSOR
    }
    ram = re.search(r"\bRAM ([0-9]+)/[0-9]+MB", line)
    if ram:
        found["memory_used_mb"] = float(ram.group(1)) * (1 << 20) / 1e6
    cores = re.search(r"\bCPU \[([^\]]*)\]", line)
    for index, core in enumerate(cores.group(1).split(",") if cores else ()):
        values = _CORE.match(core)
        if values:
            found["clock_mhz/cpu{}".format(index)] = float(values.group(2))
    rest = re.sub(r"\bCPU \[[^\]]*\]|\b(?:RAM|SWAP|IRAM) \S+ ?(?:\([^)]*\))?", "", line)
    for name, share, clock in _CLOCK.findall(rest):
        if share:
            found["load_percent/" + name] = float(share)
        if clock:
            found["clock_mhz/" + name] = float(clock)
    for name, milliwatts in _POWER.findall(rest):
        if name != "NC":
            found["power_w/" + name] = float(milliwatts) / 1e3
    return found


def ask(*command: str) -> str:
    """What a program prints; empty: it is not there, fails, or takes too long."""
    program = shutil.which(command[0])
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


class Tegrastats:
    """tegrastats, running; every line goes to `heard`. Where there is none, nothing happens."""

    def __init__(self, interval: float, heard: Heard) -> None:
        self._process: "Optional[subprocess.Popen[bytes]]" = None
        program = shutil.which("tegrastats")
        if program is None:
            return
        try:
            self._process = subprocess.Popen(
                [program, "--interval", str(int(1e3 * interval))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError:
            return
        self._thread = threading.Thread(target=self._listen, args=(heard,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the program and wait for it."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._thread.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _listen(self, heard: Heard) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            heard(tegrastats(line.decode("utf-8", "replace")))

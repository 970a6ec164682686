"""File trees and outputs of machines that are not here, in the formats that their documents give.

NUC: kernel documentation, ABI/testing/sysfs-devices-system-cpu (thermal_throttle),
admin-guide/pm/cpufreq and intel_pstate, power/powercap/powercap ("intel-rapl:0", energy_uj).
Raspberry Pi 5: driver-api/thermal/sysfs-api (cooling_device: type, cur_state; a fan is one too).
Jetson Orin: hwmon/ina3221 (in and curr channels, labels), Jetson Linux Developer Guide r36,
Platform Power and Performance (soctherm_oc: oc1_event_cnt, oc1_throt_en). tegrastats: Developer
Guide, "Tegrastats Utility"; the lines are those that boards with L4T 32.7, 35 and 36.4 print.
"""

from __future__ import annotations

from pathlib import Path

CPU = "sys/devices/system/cpu"
LOAD = {
    "proc/stat": (
        "cpu  100 10 50 1000 5 2 3 7 0 0\ncpu0 60 5 20 500 3 1 2 4 0 0\n"
        "cpu1 40 5 30 500 2 1 1 3 0 0\nintr 0\nctxt 1\nprocs_running 3\nprocs_blocked 0\n"
    ),
    "proc/meminfo": "MemTotal:        8000000 kB\nMemFree: 1 kB\nMemAvailable:    4000000 kB\n",
    "proc/vmstat": "nr_free_pages 5\npswpin 3\npswpout 4\n",
}


def _policy(number: int, current: int, limit: int, highest: int, governor: str) -> dict[str, str]:
    folder = f"{CPU}/cpufreq/policy{number}"
    return {
        f"{folder}/scaling_cur_freq": f"{current}\n",
        f"{folder}/scaling_max_freq": f"{limit}\n",
        f"{folder}/cpuinfo_max_freq": f"{highest}\n",
        f"{folder}/scaling_governor": f"{governor}\n",
        f"{folder}/scaling_driver": "intel_pstate\n" if number < 2 else "cpufreq-dt\n",
    }


NUC = {
    **LOAD,
    **_policy(0, 3400123, 4700000, 4700000, "powersave"),
    **_policy(1, 1200000, 4700000, 4700000, "powersave"),
    f"{CPU}/intel_pstate/no_turbo": "0\n",
    f"{CPU}/cpu0/thermal_throttle/core_throttle_count": "12\n",
    f"{CPU}/cpu0/thermal_throttle/package_throttle_count": "40\n",
    f"{CPU}/cpu1/thermal_throttle/core_throttle_count": "11\n",
    f"{CPU}/cpu1/thermal_throttle/package_throttle_count": "40\n",
    "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp\n",
    "sys/class/thermal/thermal_zone0/temp": "61000\n",
    "sys/class/thermal/cooling_device0/type": "Processor\n",
    "sys/class/thermal/cooling_device0/cur_state": "0\n",
    "sys/class/powercap/intel-rapl:0/name": "package-0\n",
    "sys/class/powercap/intel-rapl:0/energy_uj": "5000000\n",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850\n",
    "sys/class/powercap/intel-rapl:0:0/name": "core\n",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "2000000\n",
    "sys/class/powercap/intel-rapl/enabled": "1\n",
}
PI = {
    **LOAD,
    **_policy(2, 2400000, 2400000, 2400000, "ondemand"),
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "55450\n",
    "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device0/cur_state": "3\n",
    "sys/class/thermal/cooling_device1/type": "cpufreq-cpu0\n",
    "sys/class/thermal/cooling_device1/cur_state": "0\n",
}
ORIN = {
    **LOAD,
    **_policy(4, 1510400, 1510400, 1510400, "schedutil"),
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48500\n",
    "sys/class/thermal/thermal_zone2/type": "cv0-thermal\n",  # off: cannot be read
    "sys/class/hwmon/hwmon1/name": "ina3221\n",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN\n",
    "sys/class/hwmon/hwmon1/in1_input": "4984\n",
    "sys/class/hwmon/hwmon1/curr1_input": "1856\n",
    "sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV\n",
    "sys/class/hwmon/hwmon1/in2_input": "5000\n",
    "sys/class/hwmon/hwmon1/curr2_input": "200\n",
    "sys/class/hwmon/hwmon3/name": "soctherm_oc\n",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": "1\n",
    "sys/class/hwmon/hwmon3/oc1_throt_en": "1\n",
    "sys/class/hwmon/hwmon3/oc3_event_cnt": "2\n",
}
NANO_32 = (
    "RAM 1923/3964MB (lfb 2x2MB) SWAP 191/1982MB (cached 6MB) IRAM 0/252kB(lfb 252kB) "
    "CPU [5%@1224,4%@1224,off,6%@1224] EMC_FREQ 0%@1600 GR3D_FREQ 12%@76 APE 25 PLL@37C CPU@40C "
    "PMIC@50C GPU@40C AO@45C thermal@40C POM_5V_IN 1750/1628 POM_5V_GPU 0/0 POM_5V_CPU 366/406"
)
AGX_35 = (
    "04-24-2023 00:01:24 RAM 1282/62795MB (lfb 15152x4MB) SWAP 0/31398MB (cached 0MB) "
    "CPU [0%@729,1%@729] EMC_FREQ 0%@2133 GR3D_FREQ 0%@0 GR3D2_FREQ 0%@0 VIC_FREQ 729 APE 174 "
    "CV0@-256C CPU@42.593C Tboard@32C SOC2@39.343C GPU@-256C tj@42.593C "
    "VDD_GPU_SOC 2399mW/2399mW VDD_CPU_CV 400mW/400mW VIN_SYS_5V0 4032mW/4032mW NC 0mW/0mW"
)
NANO_36 = (
    "10-08-2026 04:35:02 RAM 6712/7620MB (lfb 12x4MB) SWAP 369/3810MB (cached 8MB) "
    "CPU [38%@1497,2%@729,1%@729,0%@729,off,off] EMC_FREQ 61%@2133 GR3D_FREQ 99%@[612] NVDEC off "
    "VIC off OFA off APE 200 cpu@57.125C soc2@55.093C gpu@58.5C tj@58.5C "
    "VDD_IN 8942mW/8130mW VDD_CPU_GPU_CV 3120mW/2944mW VDD_SOC 2720mW/2659mW"
)


def plant(root: Path, tree: dict[str, str]) -> Path:
    """The tree below `root`."""
    for name, text in tree.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root

"""A build backend (PEP 517) for a package without dependencies: it needs no network."""

import tomllib
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
WHEEL = (
    "Wheel-Version: 1.0\nGenerator: build_wheel_here\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    name, version = project["name"].replace("-", "_"), project["version"]
    info = f"{name}-{version}.dist-info"
    points = "".join(
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in rows.items())
        for group, rows in project["entry-points"].items()
    )
    files = {
        str(path.relative_to(HERE)): path.read_bytes()
        for path in sorted((HERE / name).rglob("*"))
        if path.suffix in (".py", ".toml")
    }
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {version}\n".encode()
    )
    files[f"{info}/WHEEL"] = WHEEL.encode()
    files[f"{info}/entry_points.txt"] = points.encode()
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"]).encode()
    target = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory) / target, "w") as wheel:
        for file, content in files.items():
            wheel.writestr(file, content)
    return target

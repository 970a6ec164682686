"""The lines that the code must not cross: what imports what, how long, how documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgec
import edgec.runtime
from edgec import errors
from edgec.target import names

PACKAGE = Path(edgec.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
DEVICE = sorted([*(PACKAGE / "runtime").rglob("*.py"), PACKAGE / "errors.py"])
MODULES = [p.relative_to(PACKAGE.parent).as_posix() for p in SOURCES]
BACKENDS = {
    "onnxruntime_session.py": {"onnxruntime"},
    "openvino_session.py": {"openvino"},
    "device_memory.py": {"pycuda"},
    "loadgen.py": {"mlperf_loadgen"},
}
MOST_LINES = 400
LONGER = {"types.py"}  # the nouns up to a plan stand in one file


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside functions; absolute names."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "edgec":
                yield from (f"edgec.{alias.name}" for alias in node.names)
            else:
                yield str(node.module)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module":
            for constant in node.args:
                if isinstance(constant, ast.Constant):
                    yield str(constant.value).rstrip(".")


def test_the_files_are_found() -> None:
    assert len(SOURCES) > 60
    assert len(DEVICE) > 10


@pytest.mark.parametrize("path", DEVICE, ids=lambda p: p.name)
def test_the_device_side_needs_numpy_and_one_backend(path: Path) -> None:
    allowed = {*sys.stdlib_module_names, "numpy", *BACKENDS.get(path.name, set())}
    for name in imported(path):
        if name.partition(".")[0] == "edgec":
            assert name in ("edgec.errors", "edgec.__version__") or name.startswith("edgec.runtime")
        else:
            assert name.partition(".")[0] in allowed, name


def test_errors_need_the_standard_library_alone() -> None:
    assert {n.partition(".")[0] for n in imported(PACKAGE / "errors.py")} <= sys.stdlib_module_names


@pytest.mark.parametrize(
    "folder", ["rules", "quantize", "calibrators", "backends", "runtime", "metrics"]
)
def test_no_stage_knows_the_command_line(folder: str) -> None:
    for path in (PACKAGE / folder).rglob("*.py"):
        assert not any(n.startswith("edgec.cli") for n in imported(path) if path.name != "cli.py")


def test_nothing_unpickles_but_the_subprocess() -> None:
    users = {p.name for p in SOURCES if {"pickle", "marshal", "shelve", "dill"} & set(imported(p))}
    # the demonstration's checkpoints are pickled by torch; their reader knows few classes
    assert users == {"isolate.py", "checkpoints.py"}
    (reader,) = [
        node
        for node in ast.walk(parse(PACKAGE / "demo" / "checkpoints.py"))
        if isinstance(node, ast.ClassDef)
        and any("Unpickler" in ast.unparse(base) for base in node.bases)
    ]
    assert any(isinstance(n, ast.FunctionDef) and n.name == "find_class" for n in reader.body)


def test_no_code_asks_for_a_device_by_its_name() -> None:
    for path in SOURCES:
        if path.name == "bench.py" or "demo" in path.parts or "cli" in path.parts:
            continue
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Compare):
                words = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant)}
                assert not words & set(names()), f"{path}:{node.lineno}"


def test_public_names() -> None:
    assert sorted(edgec.__all__) == ["Job", "__version__", "build"]
    assert sorted(edgec.runtime.__all__) == ["Bundle", "Model", "load"]
    for module in (edgec, edgec.runtime):
        for name in module.__all__:
            assert getattr(module, name) is not None
        with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
            module.nonsense  # noqa: B018


@pytest.mark.parametrize(
    "before", ["", "edgec.build", "import edgec.cli.build", "from edgec.build import Job"]
)
def test_build_is_a_function_whatever_was_imported_before(before: str) -> None:
    code = f"import edgec\n{before}\nassert callable(edgec.build), edgec.build\n"
    code += "assert callable(edgec.build), edgec.build\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_public_signatures() -> None:
    names = list(inspect.signature(edgec.runtime.load).parameters)
    assert names == ["path", "threads", "settings", "native_code"]
    for name in ("run", "close", "self_test", "inputs", "outputs"):
        assert hasattr(edgec.runtime.Model, name) or name in ("inputs", "outputs")


def test_exit_codes() -> None:
    codes = {kind.__name__: kind.exit_code for kind in errors.EdgecError.__subclasses__()}
    assert codes == {
        "InputError": 3,
        "UnsupportedError": 4,
        "ToolchainError": 5,
        "EmitError": 6,
        "GoalMissed": 7,
    }
    assert errors.InternalError.exit_code == 70
    assert not issubclass(errors.InternalError, errors.EdgecError)
    for name, code in codes.items():
        assert any(
            name in line and f"exit code {code}" in line
            for line in (errors.__doc__ or "").splitlines()
        )


@pytest.mark.parametrize("path", SOURCES, ids=MODULES)
def test_files_stay_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= (680 if path.name in LONGER and path.parent == PACKAGE else MOST_LINES)


def _public(tree: ast.Module) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in tree.body:
        kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, kinds) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (
                    inner
                    for inner in node.body
                    if isinstance(inner, kinds) and not inner.name.startswith("_")
                )


@pytest.mark.parametrize("path", SOURCES, ids=MODULES)
def test_what_is_public_is_documented(path: Path) -> None:
    tree = parse(path)
    assert ast.get_docstring(tree), "module"
    for node in _public(tree):
        assert ast.get_docstring(node), node.name


@pytest.mark.parametrize("path", SOURCES, ids=MODULES)
def test_every_module_imports_by_itself(path: Path) -> None:
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    if name.endswith("__main__"):
        return
    importlib.import_module(name.removesuffix(".__init__"))

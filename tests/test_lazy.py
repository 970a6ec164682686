"""What `edgec.lazy` defers is not loaded by a program that does not use it, and works when used."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from edgec.lazy import defer
defer()
defer()
import edgec.build
import onnx_ir as ir
print("sympy.core" in sys.modules)
print(ir.SymbolicDim("n") + 1, ir.SymbolicDim("max(n, 2)").evaluate({"n": 1}))
print("sympy.core" in sys.modules)
print(sum(type(one).__name__ == "_Finder" for one in sys.meta_path))
"""


def test_symbolic_dimensions_bring_their_library() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["False", "n + 1 2", "True", "1"], done.stderr

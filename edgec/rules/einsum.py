"""Einsum("b..i j, b j k -> b i k", A, B) -> MatMul of A and B, transposed and reshaped.

A sum of products over letters that both have, which is what attention and projections are written
as; letters in both and in the result are a batch, the others rows and columns. A matrix product
can be quantized and is fused, an Einsum neither; TensorRT takes few equations. Several letters in
one place are reshaped into one where their sizes are known. Source: ONNX operator Einsum 12.
"""

from __future__ import annotations

import math
import re
import string
from dataclasses import dataclass

import onnx_ir as ir

from edgec.graphs import constant
from edgec.rules.steps import Steps

NAME = "einsum-to-matmul"
TERM = r"([A-Za-z]*(?:\.\.\.)?[A-Za-z]*)"
EQUATION = re.compile(rf"{TERM},{TERM}(->{TERM})?")


@dataclass(frozen=True)
class Letters:
    """What the letters of an equation are."""

    batch: str
    rows: str
    columns: str
    summed: str


def apply(model: ir.Model) -> int:
    """Replace such nodes; returns how many."""
    nodes = [node for node in model.graph if node.op_type == "Einsum"]
    return sum(_replace(model, node) for node in nodes if node.domain in ("", "ai.onnx"))


def _replace(model: ir.Model, node: ir.Node) -> bool:
    if len(node.inputs) != 2 or None in node.inputs:
        return False
    a, b = node.inputs
    terms = _terms(node.attributes["equation"].as_string(), a, b)
    if a is None or b is None or terms is None:
        return False
    left, right, result = terms
    found = _letters(left, right, result)
    if found is None:
        return False
    if a.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
        return False
    sizes, others = _sizes(left, a), _sizes(right, b)
    if any(sizes.get(one) not in (None, size) for one, size in others.items() if size):
        return False  # one of them is repeated
    sizes |= {one: size for one, size in others.items() if size is not None or one not in sizes}
    if not _reshapable(found, sizes):
        return False
    steps = Steps(model, node, NAME)
    first = _arranged(
        steps, a, left, (found.batch, found.rows, found.summed), sizes, bool(found.batch)
    )
    second = _arranged(steps, b, right, (found.batch, found.summed, found.columns), sizes, True)
    value = steps.add("MatMul", [first, second])
    steps.nodes[-1].name = node.name
    grouped = (len(found.rows) != 1 and bool(found.batch)) or len(found.columns) != 1
    made = found.batch + found.rows + found.columns
    if grouped or not found.rows:
        value = steps.add("Reshape", [value, steps.constant("sizes", _target(made, found, sizes))])
    if made != result:
        value = steps.add("Transpose", [value], {"perm": [made.index(one) for one in result]})
    steps.put(node, [value])
    return True


def _terms(equation: str, a: ir.Value | None, b: ir.Value | None) -> tuple[str, str, str] | None:
    """The letters of both operands and of the result, with letters for what `...` stands for."""
    match = EQUATION.fullmatch(equation.replace(" ", ""))
    if match is None:
        return None
    left, right, stated, result = match.groups()
    if stated is None:
        once = sorted(one for one in left + right if (left + right).count(one) == 1 and one != ".")
        result = ("..." if "..." in left + right else "") + "".join(once)
    spare = [one for one in string.ascii_letters if one not in equation]
    counts = []
    for term, value in ((left, a), (right, b)):
        if "..." not in term:
            counts.append(0)
        elif value is None or value.shape is None:
            return None
        else:
            counts.append(len(value.shape) - len(term) + len("..."))
    most = max(counts)
    if min(counts) < 0 or most > len(spare) or ("..." not in result and most):
        return None
    batch = "".join(spare[:most])
    return (
        left.replace("...", batch[most - counts[0] :]),
        right.replace("...", batch[most - counts[1] :]),
        result.replace("...", batch),
    )


def _letters(left: str, right: str, result: str) -> Letters | None:
    """None where a letter stands twice in one operand, or is summed over in one alone."""
    if any(len(set(text)) != len(text) for text in (left, right, result)):
        return None
    both = [one for one in left if one in right]
    summed = "".join(one for one in both if one not in result)
    batch = "".join(one for one in result if one in both)
    rows = "".join(one for one in result if one in left and one not in right)
    columns = "".join(one for one in result if one in right and one not in left)
    used = set(batch + rows + columns + summed)
    if not summed or used != set(left) | set(right) or set(result) - used:
        return None
    return Letters(batch, rows, columns, summed)


def _sizes(letters: str, value: ir.Value) -> dict[str, int | None]:
    if value.shape is None or len(value.shape) != len(letters):
        return dict.fromkeys(letters)
    return {
        one: dim if isinstance(dim, int) else None
        for one, dim in zip(letters, value.shape, strict=True)
    }


def _reshapable(found: Letters, sizes: dict[str, int | None]) -> bool:
    """Whether what has to be reshaped has known sizes, but for the front dimensions, or one."""
    groups = [found.columns, found.summed, *([found.rows] if found.batch else [])]
    if any(len(one) > 1 and None in map(sizes.get, one) for one in groups):
        return False
    return all(sizes.get(one) != 0 for one in sizes)


def _arranged(
    steps: Steps,
    value: ir.Value,
    letters: str,
    groups: tuple[str, str, str],
    sizes: dict[str, int | None],
    merge: bool,
) -> ir.Value:
    """An operand as [batch…, first group, second group]; `merge`: the first group as one."""
    order, array = "".join(groups), constant(value)
    if order != letters and array is None:
        value = steps.add("Transpose", [value], {"perm": [letters.index(one) for one in order]})
    if array is not None:
        array = array.transpose([letters.index(one) for one in order])
    batch, first, second = groups
    name = f"{len(steps.nodes)}_{letters}"
    if len(second) == 1 and (len(first) == 1 or (first and not merge)):
        return value if array is None else steps.constant(name, array)
    front = len(batch) + (0 if merge or not first else len(first))
    target = [0] * front
    if merge or not first:
        target.append(_product(first, sizes))
    target.append(_product(second, sizes))
    if array is not None:
        known = [array.shape[i] if size == 0 else size for i, size in enumerate(target)]
        return steps.constant(name, array.reshape(known))
    return steps.add("Reshape", [value, steps.constant(name, target)])


def _product(group: str, sizes: dict[str, int | None]) -> int:
    """The size of a group as one dimension; -1 where it is one letter of an unknown size."""
    known = [sizes[one] for one in group]
    return -1 if None in known else math.prod(one for one in known if one is not None)


def _target(made: str, found: Letters, sizes: dict[str, int | None]) -> list[int]:
    """The sizes of the result before it is turned; what is not known is as it is in the product."""
    target: list[int] = []
    for index, one in enumerate(made):
        size = sizes[one]
        same = index < len(found.batch) + (len(found.rows) if not found.batch else 0)
        target.append(0 if same and size is None else -1 if size is None else size)
    return target

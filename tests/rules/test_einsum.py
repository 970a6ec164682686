"""Einsum as a matrix product: against numpy's own in float64."""

from __future__ import annotations

import equal
import numpy as np
import pytest
import small

from edgec.rules import einsum

SIZES = {"a": 2, "b": 3, "h": 4, "i": 5, "j": 6, "k": 7, "d": 8, "e": 2}


def shape(letters: str) -> tuple[int, ...]:
    return tuple(SIZES[one] for one in letters)


def dims(letters: str, free: str = "") -> str:
    return ",".join(f"d_{one}" if one in free else str(SIZES[one]) for one in letters)


@pytest.mark.parametrize("weight", [False, True], ids=["computed", "weight"])
@pytest.mark.parametrize(
    ("equation", "free"),
    [
        ("ij,jk->ik", "ik"),
        ("bij,bjk->bik", "bijk"),
        ("ij,kj->ki", "ijk"),
        ("bihd,bjhd->bhij", "bij"),  # attention scores
        ("bhij,bjhd->bihd", "bij"),  # attention values
        ("bid,dhe->bihe", "bi"),  # a projection to heads
        ("bihe,hed->bid", "bi"),  # and back
        ("bid,dhe->bhie", "bi"),
        ("abij,abkj->abik", "abik"),
        ("bijd,bkd->bijk", "bk"),
        ("bj,bj->b", "bj"),
        ("j,jk->k", "k"),
        ("ij,j->i", "ij"),
        ("i,i->", ""),
        ("bd,bkd->bk", "b"),
    ],
)
def test_a_product(equation: str, free: str, weight: bool) -> None:
    left, rest = equation.split(",")
    right, result = rest.split("->")
    if weight:
        free = "".join(one for one in free if one not in right)
    a, b = small.normal(0, *shape(left)), small.normal(1, *shape(right))
    fed = "" if weight else f", float[{dims(right, free)}] b"
    made = small.model(
        f"""g (float[{dims(left, free)}] a{fed}) => (float[{dims(result, free)}] y) {{
              y = Einsum <equation = "{equation}"> (a, b)
            }}""",
        **({"b": b} if weight else {}),
    )
    expected = np.einsum(equation, a.astype(np.float64), b.astype(np.float64))
    feeds = {"a": a} if weight else {"a": a, "b": b}
    found = equal.prove(made, einsum, feeds, {"y": expected})
    assert found["MatMul"] == 1
    assert not found["Einsum"]
    if weight:
        product = next(node for node in made.graph if node.op_type == "MatMul")
        assert product.inputs[1].const_value is not None


@pytest.mark.parametrize(
    ("equation", "whole"),
    [
        ("...ij,...jk->...ik", "abij,abjk->abik"),
        ("...ij,jk->...ik", "abij,jk->abik"),
        ("...ij,...jk", "abij,abjk->abik"),
        ("ij,jk", "ij,jk->ik"),
        ("jb,bi", "jb,bi->ij"),
    ],
)
def test_letters_that_are_left_out(equation: str, whole: str) -> None:
    operands, result = whole.split("->")
    left, right = operands.split(",")
    made = small.model(
        f"""g (float[{dims(left)}] a, float[{dims(right)}] b) => (float[{dims(result)}] y) {{
              y = Einsum <equation = "{equation}"> (a, b)
            }}"""
    )
    a, b = small.normal(0, *shape(left)), small.normal(1, *shape(right))
    expected = np.einsum(whole, a.astype(np.float64), b.astype(np.float64))
    found = equal.prove(made, einsum, {"a": a, "b": b}, {"y": expected})
    assert found["MatMul"] == 1


@pytest.mark.parametrize(
    ("equation", "inputs"),
    [
        ("ij->ji", 1),
        ("ii->i", 1),
        ("ij,ik->ijk", 2),  # an outer product
        ("ij,jk->k", 2),  # i is summed over in one alone
        ("i...,i...->i", 2),
        ("ij,jk,ke->ie", 3),
        ("ij,ij->ij", 2),
    ],
)
def test_what_stays(equation: str, inputs: int) -> None:
    operands, result = equation.split("->")
    names = "abc"[:inputs]
    plain = {n: t.replace("...", "b") for n, t in zip(names, operands.split(","), strict=True)}
    if equation == "ii->i":
        plain["a"] = "ii"
    takes = ", ".join(f"float[{dims(text)}] {name}" for name, text in plain.items())
    made = small.model(
        f"""g ({takes}) => (float[{dims(result.replace("...", "b"))}] y) {{
              y = Einsum <equation = "{equation}"> ({", ".join(names)})
            }}"""
    )
    assert einsum.apply(equal.named(made)) == 0


def test_heads_of_an_unknown_number_stay() -> None:
    made = small.model(
        """g (float[b,i,8] a, float[8,h,e] w) => (float[b,i,h,e] y) {
             y = Einsum <equation = "bid,dhe->bihe"> (a, w)
           }"""
    )
    assert einsum.apply(equal.named(made)) == 0


def test_a_repeated_operand_stays() -> None:
    made = small.model(
        """g (float[1,4,8] a, float[3,8,5] w) => (float[3,4,5] y) {
             y = Einsum <equation = "bij,bjk->bik"> (a, w)
           }"""
    )
    assert einsum.apply(equal.named(made)) == 0

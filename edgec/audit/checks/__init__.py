"""The checks, in the order in which they are told. Each gives findings for a context."""

from collections.abc import Callable, Iterable

from edgec.audit.checks import (
    constant,
    duplicates,
    enough,
    finite,
    lengths,
    normalisation,
    padding,
    pairs,
    scale,
)
from edgec.audit.context import Context
from edgec.audit.finding import Finding

CHECKS: tuple[Callable[[Context], Iterable[Finding]], ...] = (
    constant.check,
    duplicates.exact,
    duplicates.near,
    pairs.check,
    padding.check,
    lengths.check,
    scale.check,
    normalisation.check,
    finite.check,
    enough.check,
)
